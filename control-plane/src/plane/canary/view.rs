//! A canary as people see it.

use super::{Canary, Lack, Promotion};
use crate::models::{Evidence, Finding};
use crate::plane::releases::Release;
use crate::plane::score::WARM_UP_ROUNDS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rounds without a pair that are nothing to speak of: gateways warm up.
const LACKING_ROUNDS_SHOWN: u64 = 2 * WARM_UP_ROUNDS;

/// A canary as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CanaryView {
    /// Its epoch.
    pub epoch: u64,
    /// SHA-256 of its file.
    pub digest: String,
    /// Epoch of the release that the other gateways run.
    pub champion_epoch: u64,
    /// Percent of the gateways that was asked for.
    pub share_percent: u8,
    /// Who ends it.
    pub promote: Promotion,
    /// When it began.
    pub since_unix_ms: u64,
    /// The gateways that run it, or are to run it.
    pub gateways: Vec<String>,
    /// What the comparison has shown so far; absent while it has not shown anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// What it is based on.
    pub evidence: Evidence,
    /// Steps that have to pass before both sides have a gateway whose model has warmed up.
    pub warm_up_left: u64,
    /// What has kept the sides from being compared for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lack>,
    /// Why the server could not end it when it last tried, or not save it. It tries again in each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

// === impl Canary ===

impl Canary {
    /// As people see it.
    pub(in crate::plane) fn view(&self, release: &Release) -> CanaryView {
        let runs = self.assigned.iter().filter(|(_, runs)| **runs);
        CanaryView {
            epoch: self.epoch,
            digest: release.digest.clone(),
            champion_epoch: self.champion,
            share_percent: self.share_percent,
            promote: self.promotion,
            since_unix_ms: self.since_unix_ms,
            gateways: runs.map(|(id, _)| id.clone()).collect(),
            finding: self.finding(),
            evidence: self.trial.evidence(),
            warm_up_left: self.warm_up_left,
            lacks: self
                .lacks
                .filter(|(_, rounds)| *rounds > LACKING_ROUNDS_SHOWN)
                .map(|(lack, _)| lack),
            stuck: self.stuck.clone(),
        }
    }
}
