//! A challenger: a model that gateways run beside the one in force, to be compared with it, without effect.
//!
//! Unlike a canary it runs at all gateways that can, so there are no sides to be remembered, and each gateway's report is a comparison by
//! itself: the same customers, the same steps, the same knowledge. Its epoch lets a gateway refuse an old offer and is used up by nothing:
//! the release that follows has an epoch of its own. Whatever is released ends it, because it was compared with what ran before.

mod view;

pub use view::{ChallengerView, DuelEvidence, RefusalView};

use super::audit::{Deed, Done};
use super::canary::Promotion;
use super::models::{ModelBook, unwritable};
use super::releases::{ReleaseRequest, Signer, signature_of};
use super::score::{Open, WARM_UP_ROUNDS};
use super::session::Session;
use super::{Now, Plane};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::models::{Finding, Trial, from_hex, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use forebay_wire::sync::{ModelRelease, ModelState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keys of single values in the store. The evidence has its own, because it is written with each pair.
const META_CHALLENGER: &[u8] = b"challenger";
const META_TRIAL: &[u8] = b"challenger_trial";

/// What the comparison lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// No gateway reports on both models.
    Gateways,
    /// Nothing is used where they report.
    Usage,
}

/// A wish to compare a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeRequest {
    /// SHA-256 of the file.
    pub digest: ModelDigest,
    /// Who ends it.
    pub promotion: Promotion,
    /// A statement signed elsewhere: its epoch and signature. `None`: the server signs.
    pub signed: Option<(u64, [u8; 64])>,
}

/// A challenger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Challenger {
    /// Its epoch.
    pub epoch: u64,
    /// SHA-256 of its file.
    pub digest: String,
    /// Ed25519 signature, 128 hexadecimal digits.
    signature: String,
    /// Epoch of the release that it is compared with.
    champion: u64,
    /// Who ends it.
    pub promotion: Promotion,
    /// When it began.
    since_unix_ms: u64,
    /// Time that the compared steps must span before it is promoted.
    span_ms: u64,
    /// The evidence.
    #[serde(skip)]
    pub trial: Trial,
    /// The round of the last look.
    #[serde(skip)]
    pub round: u64,
    /// The rounds in which the comparisons that are open began. One stays open while nothing is used.
    #[serde(skip)]
    pub open: Open,
    /// Rounds that have to pass before a gateway is warm.
    #[serde(skip)]
    pub warm_up_left: u64,
    /// What the comparison has lacked, and for how many rounds.
    #[serde(skip)]
    pub lacks: Option<(Missing, u64)>,
    /// Why the server could not end it, or not save it.
    #[serde(skip)]
    pub stuck: Option<String>,
}

// === impl Challenger ===

impl Challenger {
    /// The one in the store, if there is one.
    pub(super) fn load(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            what: "challenger",
            reason: error.to_string(),
        };
        let Some(row) = store.get(Table::Meta, META_CHALLENGER)? else {
            return Ok(None);
        };
        let mut challenger: Self = serde_json::from_slice(&row).map_err(damaged)?;
        if let Some(trial) = store.get(Table::Meta, META_TRIAL)? {
            challenger.trial = serde_json::from_slice(&trial).map_err(damaged)?;
        }
        challenger.warm_up_left = WARM_UP_ROUNDS;
        Ok(Some(challenger))
    }

    /// Adds its evidence to a batch.
    pub(super) fn save_trial(&self, batch: &mut Batch) -> Result<(), StoreError> {
        let row = serde_json::to_vec(&self.trial).map_err(|error| StoreError::Damaged {
            what: "challenger",
            reason: error.to_string(),
        })?;
        batch.put(Table::Meta, META_TRIAL, row);
        Ok(())
    }

    /// It has ended.
    pub(super) fn delete(batch: &mut Batch) {
        batch.delete(Table::Meta, META_CHALLENGER);
        batch.delete(Table::Meta, META_TRIAL);
    }

    /// What the test has found, as far as the compared steps span the time that it takes.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.trial.finding(self.span_ms)
    }

    /// As it goes to gateways.
    fn offer(&self, bytes: u64) -> Option<ModelRelease> {
        Some(ModelRelease {
            epoch: self.epoch,
            digest: from_hex::<32>(&self.digest)?.to_vec(),
            kind: u32::from(ReleaseKind::Challenger.code()),
            signature: from_hex::<64>(&self.signature)?.to_vec(),
            path: format!("/v1/models/{}", self.digest),
            bytes,
        })
    }

    /// Why this gateway does not run it, if it has said so.
    pub(super) fn refusal(&self, session: &Session) -> Option<String> {
        let said = session.model_status.challenger.as_ref()?;
        let is_refused = said.state() == ModelState::Refused && said.offered_epoch == self.epoch;
        is_refused.then(|| said.message.chars().take(200).collect())
    }
}

// === impl ModelBook ===

impl ModelBook {
    /// What gateways should run beside the model in force, as it goes there.
    #[must_use]
    pub fn challenge(&self) -> Option<ModelRelease> {
        let challenger = self.challenger.as_ref()?;
        let digest = from_hex::<32>(&challenger.digest)?;
        challenger.offer(self.models.get(&digest)?.bytes)
    }
}

impl Plane {
    /// Lets gateways run a model beside the one in force, and compares them.
    ///
    /// # Errors
    /// When there is no such model, nothing to compare it with, or nobody has signed it.
    pub async fn challenge_model(
        &self,
        by: &Caller,
        request: ChallengeRequest,
        signer: Signer<'_>,
    ) -> Result<ChallengerView, ApiError> {
        let deed = Deed::new(by, "model.challenge", hex(&request.digest))
            .with("signed_epoch", request.signed.map(|(epoch, _)| epoch))
            .with("promote", Some(request.promotion.name()));
        let terms = self.settings.terms();
        self.change(deed, |state, batch, now| {
            let challenger = begin(&state.models, &request, signer, now)?;
            let row = serde_json::to_vec(&challenger).map_err(|error| unwritable(&error))?;
            Challenger::delete(batch);
            batch.put(Table::Meta, META_CHALLENGER, row);
            let view = challenger.view(&state.fleet, terms, now);
            let outcome = format!(
                "model {} is compared with the one of epoch {}",
                challenger.digest, challenger.champion
            );
            state.models.challenger = Some(challenger);
            Ok(Done::new(view, outcome))
        })
        .await
    }

    /// Ends the comparison.
    ///
    /// # Errors
    /// When there is none.
    pub async fn withdraw_challenger(&self, by: &Caller) -> Result<ChallengerView, ApiError> {
        let deed = Deed::new(by, "model.withdraw", "the challenger");
        let terms = self.settings.terms();
        self.change(deed, |state, batch, now| {
            let challenger = state.models.challenger.as_ref().ok_or_else(none_runs)?;
            let view = challenger.view(&state.fleet, terms, now);
            let outcome = withdraw(&mut state.models, batch);
            Ok(Done::new(view, outcome))
        })
        .await
    }

    /// The challenger, and how it fares.
    ///
    /// # Errors
    /// When there is none.
    pub fn challenger(&self) -> Result<ChallengerView, ApiError> {
        let now = self.now();
        let state = self.lock();
        let challenger = state.models.challenger.as_ref().ok_or_else(none_runs)?;
        Ok(challenger.view(&state.fleet, self.settings.terms(), now))
    }
}

/// Ends the comparison, if there is one. Returns what has come of it, in words. Nothing can fail.
pub(super) fn withdraw(book: &mut ModelBook, batch: &mut Batch) -> String {
    Challenger::delete(batch);
    book.challenger
        .take()
        .map_or_else(String::new, |challenger| {
            let words = challenger.trial.evidence().words();
            format!(
                "model {} is not compared any more; {words}",
                challenger.digest
            )
        })
}

/// The challenger that such a request begins. Nothing is changed.
fn begin(
    book: &ModelBook,
    request: &ChallengeRequest,
    signer: Signer<'_>,
    now: Now,
) -> Result<Challenger, ApiError> {
    if let Some(challenger) = &book.challenger {
        let message = format!(
            "model {} is being compared, and there is one at a time",
            challenger.digest
        );
        let hint =
            "`forebay model challenger` shows how it fares, `forebay model withdraw` ends it";
        return Err(ApiError::conflict("challenger_runs", message, hint));
    }
    let statement = book.statement(&ReleaseRequest {
        digest: Some(request.digest),
        kind: ReleaseKind::Challenger,
        signed: request.signed,
        share: None,
    })?;
    let Some(champion) = book.active() else {
        let message = "no model runs yet, so there is none to be compared with";
        let hint = "activate one first: `forebay model activate DIGEST`";
        return Err(ApiError::conflict("no_champion", message, hint).at("digest"));
    };
    if champion.digest == hex(&request.digest) {
        let message = "this model runs already";
        let hint = "`forebay model list` shows the others";
        return Err(ApiError::conflict("same_model", message, hint).at("digest"));
    }
    if request.promotion == Promotion::Auto && signer.key.is_none() {
        let message = "this server has no signing key, so it could not release the challenger";
        let hint = "start it with --model-signing-key FILE, or decide yourself: promote manual";
        return Err(ApiError::conflict("not_signed", message, hint).at("promote"));
    }
    let signature = signature_of(&statement, request.signed, signer)?;
    Ok(Challenger {
        epoch: statement.epoch,
        digest: hex(&statement.digest),
        signature: hex(&signature),
        champion: champion.epoch,
        promotion: request.promotion,
        since_unix_ms: now.unix_ms,
        span_ms: book.promotion_span_ms(&statement.digest),
        trial: Trial::default(),
        round: 0,
        open: Open::default(),
        warm_up_left: WARM_UP_ROUNDS,
        lacks: None,
        stuck: None,
    })
}

fn none_runs() -> ApiError {
    let hint = "`forebay model challenge DIGEST` begins with one";
    ApiError::not_found("no_challenger", "no model is being compared", hint)
}
