//! A challenger: a model that gateways run beside the one in force, to be compared with it, without effect.
//!
//! Unlike a canary it runs at all gateways that can, so there are no sides to be remembered, and each gateway's report is a comparison by
//! itself: the same customers, the same steps, the same knowledge. Its epoch lets a gateway refuse an old offer and is used up by nothing:
//! the release that follows has an epoch of its own. Whatever is released ends it, because it was compared with what ran before.

use super::audit::{Deed, Done};
use super::canary::Promotion;
use super::fleet::Fleet;
use super::models::{ModelBook, unwritable};
use super::releases::{ReleaseRequest, Signer, signature_of};
use super::score::WARM_UP_ROUNDS;
use super::session::{Session, Terms};
use super::{Now, Plane};
use crate::auth::Caller;
use crate::buckets::Standing;
use crate::error::ApiError;
use crate::models::{Evidence, Finding, Trial, from_hex, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use forebay_wire::sync::{ModelRelease, ModelState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keys of single values in the store. The evidence has its own, because it is written with each pair.
const META_CHALLENGER: &[u8] = b"challenger";
const META_TRIAL: &[u8] = b"challenger_trial";

/// Rounds without a pair that are nothing to speak of: gateways fetch it, and warm up.
const LACKING_ROUNDS_SHOWN: u64 = 2 * WARM_UP_ROUNDS;

/// Gateways whose refusal is shown.
const REFUSALS_SHOWN: usize = 16;

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
    /// The round in which the comparison that is open began. It stays open while nothing is used.
    #[serde(skip)]
    pub open: u64,
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

/// A challenger as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChallengerView {
    /// Its epoch.
    pub epoch: u64,
    /// SHA-256 of its file.
    pub digest: String,
    /// Epoch of the release that it is compared with.
    pub champion_epoch: u64,
    /// Who ends it.
    pub promote: Promotion,
    /// When it began.
    pub since_unix_ms: u64,
    /// Gateways that run it beside the model in force.
    pub gateways: u64,
    /// Gateways that refuse it, 16 at most, and why.
    #[serde(default)]
    pub refused: Vec<RefusalView>,
    /// What the comparison has shown so far; absent while it has not shown anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// What it is based on.
    pub evidence: DuelEvidence,
    /// Steps that have to pass before a gateway has warmed up.
    pub warm_up_left: u64,
    /// What has kept the models from being compared for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Missing>,
    /// Why the server could not end it when it last tried, or not save it. It tries again in each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

/// A gateway that refuses a challenger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RefusalView {
    /// Its name.
    pub gateway: String,
    /// Why.
    pub message: String,
}

/// What a comparison of two models on the same customers and steps is based on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DuelEvidence {
    /// Steps that were compared and count.
    pub pairs: u64,
    /// Time that they span.
    pub span_ms: u64,
    /// Hours of the day that have one.
    pub hours: u32,
    /// Mean pinball loss of the challenger's 0.9 quantile over usage.
    pub challenger_loss: f64,
    /// The same of the model in force, for the same customers.
    pub champion_loss: f64,
    /// Share of the challenger's forecasts whose 0.9 quantile covered the usage.
    pub challenger_coverage: f64,
    /// The same of the model in force.
    pub champion_coverage: f64,
    /// Evidence that the challenger is better, as an e-value.
    pub better: f64,
    /// That it is not worse by the margin.
    pub not_worse: f64,
    /// That it is worse.
    pub worse: f64,
    /// That its upper quantile covers less, by more than the margin.
    pub uncovered: f64,
    /// The e-value that decides.
    pub needed: f64,
}

// === impl DuelEvidence ===

impl From<Evidence> for DuelEvidence {
    fn from(evidence: Evidence) -> Self {
        Self {
            pairs: evidence.pairs,
            span_ms: evidence.span_ms,
            hours: evidence.hours,
            challenger_loss: evidence.canary_loss,
            champion_loss: evidence.others_loss,
            challenger_coverage: evidence.canary_coverage,
            champion_coverage: evidence.others_coverage,
            better: evidence.better,
            not_worse: evidence.not_worse,
            worse: evidence.worse,
            uncovered: evidence.uncovered,
            needed: evidence.needed,
        }
    }
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

    /// As people see it.
    pub(super) fn view(&self, fleet: &Fleet, terms: Terms, now: Now) -> ChallengerView {
        let file = from_hex::<32>(&self.digest);
        let present = || {
            fleet.sessions().filter(|(_, session)| {
                matches!(session.standing(terms, now.mono), Standing::Present(_))
            })
        };
        let runs = |session: &Session| {
            let said = session.model_status.challenger.as_ref();
            said.is_some_and(|said| file.is_some_and(|file| said.digest == file))
        };
        let refused = present().filter_map(|(id, session)| {
            Some(RefusalView {
                gateway: id.to_owned(),
                message: self.refusal(session)?,
            })
        });
        ChallengerView {
            epoch: self.epoch,
            digest: self.digest.clone(),
            champion_epoch: self.champion,
            promote: self.promotion,
            since_unix_ms: self.since_unix_ms,
            gateways: present().filter(|(_, session)| runs(session)).count() as u64,
            refused: refused.take(REFUSALS_SHOWN).collect(),
            finding: self.finding(),
            evidence: self.trial.evidence().into(),
            warm_up_left: self.warm_up_left,
            lacks: self
                .lacks
                .filter(|(_, rounds)| *rounds > LACKING_ROUNDS_SHOWN)
                .map(|(missing, _)| missing),
            stuck: self.stuck.clone(),
        }
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
        open: 0,
        warm_up_left: WARM_UP_ROUNDS,
        lacks: None,
        stuck: None,
    })
}

fn none_runs() -> ApiError {
    let hint = "`forebay model challenge DIGEST` begins with one";
    ApiError::not_found("no_challenger", "no model is being compared", hint)
}
