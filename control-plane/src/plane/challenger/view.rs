//! A challenger as people see it.

use super::{Challenger, Missing};
use crate::buckets::Standing;
use crate::models::{Evidence, Finding, from_hex};
use crate::plane::Now;
use crate::plane::canary::Promotion;
use crate::plane::fleet::Fleet;
use crate::plane::score::WARM_UP_ROUNDS;
use crate::plane::session::{Session, Terms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rounds without a pair that are nothing to speak of: gateways fetch it, and warm up.
const LACKING_ROUNDS_SHOWN: u64 = 2 * WARM_UP_ROUNDS;

/// Gateways whose refusal is shown.
const REFUSALS_SHOWN: usize = 16;

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
    /// Mean pinball loss of the challenger's 0.9 quantile over usage, in the mean of the resources.
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
    /// As people see it.
    pub(in crate::plane) fn view(&self, fleet: &Fleet, terms: Terms, now: Now) -> ChallengerView {
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
