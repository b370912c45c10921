//! Whether a canary may begin, and what must be true of it.

use super::{Canary, PROMOTION_SPAN_MS, Promotion, Share};
use crate::error::ApiError;
use crate::models::{Verdict, hex};
use crate::plane::Now;
use crate::plane::models::ModelBook;
use crate::plane::releases::{ReleaseRequest, Signer};
use forebay_wire::model::{ModelDigest, ModelStatement, ReleaseKind};

// === impl ModelBook ===

impl ModelBook {
    /// Whether this may be asked for while a canary runs: only the champion's return.
    pub(in crate::plane) fn fits_canary(
        &self,
        canary: &Canary,
        request: &ReleaseRequest,
    ) -> Result<(), ApiError> {
        let champion = self.active().map(|release| release.digest.as_str());
        let is_return = request.kind == ReleaseKind::RollBack
            && request
                .digest
                .is_none_or(|digest| champion == Some(hex(&digest).as_str()));
        if is_return {
            return Ok(());
        }
        let message = format!(
            "a canary runs under epoch {}, and there is one at a time",
            canary.epoch
        );
        let hint = "end it first: `forebay model promote` gives it to all gateways, `forebay model rollback` puts the model before back";
        Err(ApiError::conflict("canary_runs", message, hint))
    }

    /// The canary that such a statement begins. Nothing is changed.
    pub(in crate::plane) fn begin_canary(
        &self,
        share: Share,
        statement: &ModelStatement,
        signer: Signer<'_>,
        present: Vec<(u64, String)>,
        now: Now,
    ) -> Result<Canary, ApiError> {
        let Some(champion) = self.active() else {
            let message = "no model runs yet, so there is none that the other gateways could keep";
            let hint = "leave the share out: the first model runs everywhere";
            return Err(ApiError::conflict("no_champion", message, hint).at("share"));
        };
        if champion.digest == hex(&statement.digest) {
            let message = "this model runs everywhere already";
            let hint = "`forebay model list` shows the others";
            return Err(ApiError::conflict("same_model", message, hint).at("digest"));
        }
        if share.promotion == Promotion::Auto && signer.key.is_none() {
            let message =
                "this server has no signing key, so it could not take the canary back by itself";
            let hint = "start it with --model-signing-key FILE, or decide yourself: promote manual";
            return Err(ApiError::conflict("not_signed", message, hint).at("promote"));
        }
        if share.promotion == Promotion::Auto && present.len() < 2 {
            let message = format!(
                "{} gateway(s) are present, and a canary is compared with another gateway",
                present.len()
            );
            let hint =
                "wait until two are present (`forebay status`), or decide yourself: promote manual";
            return Err(ApiError::conflict("too_few_gateways", message, hint).at("promote"));
        }
        let canary = Canary::begin(share, statement.epoch, champion.epoch, present, now);
        Ok(Canary {
            span_ms: self.promotion_span_ms(&statement.digest),
            ..canary
        })
    }

    /// Time that compared steps must span before this model is promoted.
    pub(in crate::plane) fn promotion_span_ms(&self, digest: &ModelDigest) -> u64 {
        let model = self.models.get(digest);
        model.map_or(PROMOTION_SPAN_MS, |model| span_of(&model.verdict))
    }
}

/// A season of the model, as far as the sandbox has said one, and a day at most.
pub(super) fn span_of(verdict: &Verdict) -> u64 {
    let fact = |name: &str| verdict.facts.get(name)?.as_u64();
    let season_ms = fact("season_steps")
        .zip(fact("step_s"))
        .map(|(steps, step_s)| steps.saturating_mul(step_s).saturating_mul(1_000));
    season_ms
        .unwrap_or(PROMOTION_SPAN_MS)
        .min(PROMOTION_SPAN_MS)
}
