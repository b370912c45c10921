//! A canary: a release that runs at a share of the gateways, until it is given to all or taken back.
//!
//! The store has the canary, so that neither a restart nor another leader changes who runs what. Each gateway keeps the side that it was
//! given first: an epoch cannot be taken back without a new statement, so a choice that is made anew from who is present would leave
//! gateways on a release that they should not run. Who they are is a matter of a hash of their names, not of chance, so that an operator
//! meets the same ones each time.

use super::Now;
use super::models::ModelBook;
use super::releases::{Release, ReleaseRequest, Signer};
use crate::error::ApiError;
use crate::models::{Evidence, Finding, Trial, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::{ModelStatement, ReleaseKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys of single values in the store. The evidence has its own, because it is written with each pair.
const META_CANARY: &[u8] = b"canary";
const META_TRIAL: &[u8] = b"canary_trial";

/// Names of gateways whose side is remembered. Those beyond them do not run the canary.
const MAX_ASSIGNED: usize = 2_048;

/// Who ends a canary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// The server, when the evidence is there.
    Auto,
    /// Somebody, by `promote` or `rollback`.
    #[default]
    Manual,
}

/// At how many gateways a release runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Percent of the gateways, 1 to 99.
    pub percent: u8,
    /// Who decides.
    pub promotion: Promotion,
}

/// A canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Canary {
    /// Its epoch.
    pub epoch: u64,
    /// Epoch of the release that the other gateways keep.
    pub champion: u64,
    /// Percent of the gateways.
    pub share_percent: u8,
    /// Who ends it.
    pub promotion: Promotion,
    /// When it began.
    pub since_unix_ms: u64,
    /// Whether it runs at a gateway, by name.
    assigned: BTreeMap<String, bool>,
    /// The evidence.
    #[serde(skip)]
    pub trial: Trial,
    /// The period of comparison that is running.
    #[serde(skip)]
    pub round: u64,
    /// Why the server could not end it.
    #[serde(skip)]
    pub stuck: Option<String>,
}

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
    /// Why the server cannot end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

// === impl Promotion ===

impl Promotion {
    /// As in requests.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

// === impl Canary ===

impl Canary {
    /// Begins one at a share of the gateways that are present: at least one of them, and not all of them if there are two.
    fn begin(
        share: Share,
        epoch: u64,
        champion: u64,
        present: Vec<(u64, String)>,
        now: Now,
    ) -> Self {
        let mut present = present;
        present.sort_unstable();
        let all = present.len();
        let most = all.saturating_sub(1).max(1);
        let wanted = all
            .saturating_mul(usize::from(share.percent))
            .div_ceil(100)
            .clamp(1, most);
        let assigned = present.into_iter().take(MAX_ASSIGNED).enumerate();
        Self {
            epoch,
            champion,
            share_percent: share.percent,
            promotion: share.promotion,
            since_unix_ms: now.unix_ms,
            assigned: assigned
                .map(|(rank, (_, id))| (id, rank < wanted))
                .collect(),
            trial: Trial::default(),
            round: 0,
            stuck: None,
        }
    }

    /// The one in the store, if there is one.
    pub(super) fn load(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            what: "canary",
            reason: error.to_string(),
        };
        let Some(row) = store.get(Table::Meta, META_CANARY)? else {
            return Ok(None);
        };
        let mut canary: Self = serde_json::from_slice(&row).map_err(damaged)?;
        if let Some(trial) = store.get(Table::Meta, META_TRIAL)? {
            canary.trial = serde_json::from_slice(&trial).map_err(damaged)?;
        }
        Ok(Some(canary))
    }

    /// Adds it to a batch, without its evidence.
    pub(super) fn save(&self, batch: &mut Batch) -> Result<(), StoreError> {
        put(batch, META_CANARY, self)
    }

    /// Adds its evidence to a batch.
    pub(super) fn save_trial(&self, batch: &mut Batch) -> Result<(), StoreError> {
        put(batch, META_TRIAL, &self.trial)
    }

    /// It has ended.
    pub(super) fn delete(batch: &mut Batch) {
        batch.delete(Table::Meta, META_CANARY);
        batch.delete(Table::Meta, META_TRIAL);
    }

    /// Whether it runs there.
    pub(super) fn runs_at(&self, gateway: &str) -> bool {
        self.assigned.get(gateway) == Some(&true)
    }

    /// Chooses the side of a gateway that has come since it began. Returns whether there is something to save.
    pub(super) fn enrol(&mut self, gateway: &str, name_hash: u64) -> bool {
        if self.assigned.contains_key(gateway) || self.assigned.len() >= MAX_ASSIGNED {
            return false;
        }
        let is_first = !self.assigned.values().any(|runs| *runs);
        // The upper half of the hash, so that the product fits.
        let place = (name_hash >> 32).saturating_mul(100) >> 32;
        let runs = is_first || place < u64::from(self.share_percent);
        self.assigned.insert(gateway.to_owned(), runs);
        true
    }

    /// Where it runs, in words.
    pub(super) fn extent(&self) -> String {
        let runs = self.assigned.values().filter(|runs| **runs).count();
        format!("{runs} of {} gateways", self.assigned.len())
    }

    /// As people see it.
    pub(super) fn view(&self, release: &Release) -> CanaryView {
        let runs = self.assigned.iter().filter(|(_, runs)| **runs);
        CanaryView {
            epoch: self.epoch,
            digest: release.digest.clone(),
            champion_epoch: self.champion,
            share_percent: self.share_percent,
            promote: self.promotion,
            since_unix_ms: self.since_unix_ms,
            gateways: runs.map(|(id, _)| id.clone()).collect(),
            finding: self.trial.finding(),
            evidence: self.trial.evidence(),
            stuck: self.stuck.clone(),
        }
    }
}

// === impl ModelBook ===

impl ModelBook {
    /// Whether this may be asked for while a canary runs: only the champion's return.
    pub(super) fn fits_canary(
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
    pub(super) fn begin_canary(
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
        Ok(Canary::begin(
            share,
            statement.epoch,
            champion.epoch,
            present,
            now,
        ))
    }
}

fn put(batch: &mut Batch, key: &[u8], value: &impl Serialize) -> Result<(), StoreError> {
    let value = serde_json::to_vec(value).map_err(|error| StoreError::Damaged {
        what: "canary",
        reason: error.to_string(),
    })?;
    batch.put(Table::Meta, key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::time::TimeUs;

    const NOW: Now = Now {
        mono: TimeUs(0),
        unix_ms: 7,
    };

    fn share(percent: u8) -> Share {
        Share {
            percent,
            promotion: Promotion::Manual,
        }
    }

    fn gateways(count: u64) -> Vec<(u64, String)> {
        (0..count)
            .map(|number| (number << 56, format!("g{number}")))
            .collect()
    }

    fn runs(canary: &Canary) -> Vec<&str> {
        let runs = canary.assigned.iter().filter(|(_, runs)| **runs);
        runs.map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn a_share_is_at_least_one_gateway_and_leaves_one_to_compare_with() {
        for (percent, present, expected) in [
            (1, 1, 1),
            (1, 9, 1),
            (10, 10, 1),
            (11, 10, 2),
            (50, 3, 2),
            (99, 2, 1),
            (99, 200, 198),
        ] {
            let canary = Canary::begin(share(percent), 2, 1, gateways(present), NOW);
            assert_eq!(runs(&canary).len(), expected, "{percent} % of {present}");
        }
        let mut nobody = Canary::begin(share(1), 2, 1, Vec::new(), NOW);
        assert!(nobody.enrol("late", u64::MAX));
        assert!(nobody.runs_at("late"));
        assert!(nobody.enrol("later", u64::MAX));
        assert!(!nobody.runs_at("later"));
    }

    #[test]
    fn a_gateway_keeps_its_side_and_a_new_one_gets_it_by_its_hash() {
        let mut canary = Canary::begin(share(25), 2, 1, gateways(4), NOW);
        assert_eq!(runs(&canary), ["g0"]);
        for (hash, id) in gateways(4) {
            assert!(!canary.enrol(&id, hash), "{id} has its side");
        }
        assert!(canary.enrol("low", u64::MAX / 5));
        assert!(canary.enrol("high", u64::MAX / 2));
        assert_eq!(runs(&canary), ["g0", "low"]);
    }
}
