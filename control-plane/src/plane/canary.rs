//! A canary: a release that runs at a share of the gateways, until it is given to all or taken back.
//!
//! The store has the canary, so that neither a restart nor another leader changes who runs what. Each gateway keeps the side that it was
//! given first: an epoch cannot be taken back without a new statement, so a choice that is made anew from who is present would leave
//! gateways on a release that they should not run. Who they are is a matter of a hash of their names, not of chance, so that an operator
//! meets the same ones each time.

use super::Now;
use super::models::ModelBook;
use super::releases::{Release, ReleaseRequest, Signer};
use super::score::WARM_UP_ROUNDS;
use crate::error::ApiError;
use crate::models::{Evidence, Finding, Trial, Verdict, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::{ModelDigest, ModelStatement, ReleaseKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Keys of single values in the store. The evidence has its own, because it is written with each pair.
const META_CANARY: &[u8] = b"canary";
const META_TRIAL: &[u8] = b"canary_trial";

/// Names of gateways whose side is remembered, more than can be present. Those beyond them do not run the canary.
const MAX_ASSIGNED: usize = 2_048;

/// Time that the compared steps must span before a model is promoted: a day, the longest season that forecasts go by. A model can be better
/// by day and worse by night. Less for models of a shorter season.
const PROMOTION_SPAN_MS: u64 = 86_400_000;

/// Rounds without a pair that are nothing to speak of: gateways warm up.
const LACKING_ROUNDS_SHOWN: u64 = 2 * WARM_UP_ROUNDS;

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

/// What the comparison lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// No gateway reports on the canary's model.
    Canaries,
    /// No gateway reports on the model before.
    Others,
    /// Nothing is used where they report.
    Usage,
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
    /// Time that the compared steps must span before it is promoted.
    #[serde(default = "longest_span")]
    span_ms: u64,
    /// Whether it runs at a gateway, by name.
    assigned: BTreeMap<String, bool>,
    /// The evidence.
    #[serde(skip)]
    pub trial: Trial,
    /// The round of the last look.
    #[serde(skip)]
    pub round: u64,
    /// The round in which the comparison that is open began. It stays open while nothing is used.
    #[serde(skip)]
    pub open: u64,
    /// Rounds that have to pass before both sides have a gateway that is warm.
    #[serde(skip)]
    pub warm_up_left: u64,
    /// What the comparison has lacked, and for how many rounds.
    #[serde(skip)]
    pub lacks: Option<(Lack, u64)>,
    /// Why the server could not end it, or not save it.
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
    /// Steps that have to pass before both sides have a gateway whose model has warmed up.
    pub warm_up_left: u64,
    /// What has kept the sides from being compared for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lack>,
    /// Why the server could not end it when it last tried, or not save it. It tries again in each step.
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

// === impl Share ===

impl Share {
    /// Percent as on the command line, with or without the sign.
    ///
    /// # Errors
    /// When it is none from 1 to 99.
    pub fn percent_from(text: &str) -> Result<u8, String> {
        let number = text.strip_suffix('%').unwrap_or(text).parse();
        let number = number.ok().filter(|number| (1..=99).contains(number));
        number.ok_or_else(|| "not of the form 10%, from 1% to 99%".to_owned())
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
            span_ms: PROMOTION_SPAN_MS,
            assigned: assigned
                .map(|(rank, (_, id))| (id, rank < wanted))
                .collect(),
            trial: Trial::default(),
            round: 0,
            open: 0,
            warm_up_left: WARM_UP_ROUNDS,
            lacks: None,
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
        canary.warm_up_left = WARM_UP_ROUNDS;
        Ok(Some(canary))
    }

    /// Adds it to a batch, without its evidence.
    pub(super) fn save(&self, batch: &mut Batch) -> Result<(), StoreError> {
        Self::put(batch, self.row()?);
        Ok(())
    }

    /// As it lies in the store, without its evidence.
    pub(super) fn row(&self) -> Result<Vec<u8>, StoreError> {
        to_row(self)
    }

    /// Adds such a row to a batch.
    pub(super) fn put(batch: &mut Batch, row: Vec<u8>) {
        batch.put(Table::Meta, META_CANARY, row);
    }

    /// Adds its evidence to a batch.
    pub(super) fn save_trial(&self, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(Table::Meta, META_TRIAL, to_row(&self.trial)?);
        Ok(())
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

    /// Whether this gateway has its side.
    pub(super) fn knows(&self, gateway: &str) -> bool {
        self.assigned.contains_key(gateway)
    }

    /// Chooses the side of a gateway that has come since it began, among those that are present. Returns whether there is something to save.
    ///
    /// Those that have their side keep it even where no canary is left: that its only gateway is gone may be the model's doing.
    pub(super) fn enrol(
        &mut self,
        gateway: &str,
        name_hash: u64,
        has_its_epoch: bool,
        present: &BTreeSet<String>,
    ) -> bool {
        if self.knows(gateway) {
            return false;
        }
        if self.assigned.len() >= MAX_ASSIGNED {
            // Names of pods change with each of them. Not sooner: a fleet that was cut off comes back, and keeps its sides.
            self.assigned.retain(|gateway, _| present.contains(gateway));
        }
        if self.assigned.len() >= MAX_ASSIGNED {
            return false;
        }
        let is_there = |side: bool| {
            let mut of_side = self.assigned.iter().filter(|(_, runs)| **runs == side);
            of_side.any(|(id, _)| present.contains(id))
        };
        // The upper half of the hash, so that the product fits.
        let place = (name_hash >> 32).saturating_mul(100) >> 32;
        // It was one before its session ended, and could not go back.
        let runs = has_its_epoch
            || !is_there(true)
            || (is_there(false) && place < u64::from(self.share_percent));
        self.assigned.insert(gateway.to_owned(), runs);
        true
    }

    /// What the test has found, as far as the compared steps span the time that it takes.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.trial.finding(self.span_ms)
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
    pub(super) fn promotion_span_ms(&self, digest: &ModelDigest) -> u64 {
        let model = self.models.get(digest);
        model.map_or(PROMOTION_SPAN_MS, |model| span_of(&model.verdict))
    }
}

fn longest_span() -> u64 {
    PROMOTION_SPAN_MS
}

/// A season of the model, as far as the sandbox has said one, and a day at most.
fn span_of(verdict: &Verdict) -> u64 {
    let fact = |name: &str| verdict.facts.get(name)?.as_u64();
    let season_ms = fact("season_steps")
        .zip(fact("step_s"))
        .map(|(steps, step_s)| steps.saturating_mul(step_s).saturating_mul(1_000));
    season_ms
        .unwrap_or(PROMOTION_SPAN_MS)
        .min(PROMOTION_SPAN_MS)
}

fn to_row(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Damaged {
        what: "canary",
        reason: error.to_string(),
    })
}

#[cfg(test)]
impl Canary {
    /// Of epoch 2, at nobody.
    pub(super) fn sample() -> Self {
        let share = Share {
            percent: 25,
            promotion: Promotion::Auto,
        };
        let now = Now {
            mono: forebay_core::time::TimeUs(0),
            unix_ms: 7,
        };
        Self::begin(share, 2, 1, Vec::new(), now)
    }
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

    fn present(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
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
        let both = present(&["late", "later"]);
        assert!(nobody.enrol("late", u64::MAX, false, &both));
        assert!(nobody.runs_at("late"));
        assert!(nobody.enrol("later", 0, false, &both));
        assert!(!nobody.runs_at("later"), "nobody to compare with");
    }

    #[test]
    fn a_gateway_keeps_its_side_and_a_new_one_gets_it_by_its_hash() {
        let mut canary = Canary::begin(share(25), 2, 1, gateways(4), NOW);
        assert_eq!(runs(&canary), ["g0"]);
        for (hash, id) in gateways(4) {
            let all = present(&["g0", "g1", "g2", "g3"]);
            assert!(!canary.enrol(&id, hash, false, &all), "{id} has its side");
        }
        let all = present(&["g0", "g1", "low", "high"]);
        assert!(canary.enrol("low", u64::MAX / 5, false, &all));
        assert!(canary.enrol("high", u64::MAX / 2, false, &all));
        assert_eq!(runs(&canary), ["g0", "low"]);
    }

    #[test]
    fn what_is_promoted_has_seen_a_season_and_a_day_is_enough() {
        for (facts, span_ms) in [
            (serde_json::json!({}), 86_400_000),
            (
                serde_json::json!({"step_s": 60, "season_steps": 60}),
                3_600_000,
            ),
            (
                serde_json::json!({"step_s": 3_600, "season_steps": 168}),
                86_400_000,
            ),
        ] {
            let verdict = Verdict {
                ok: true,
                message: String::new(),
                facts: facts.as_object().unwrap().clone(),
            };
            assert_eq!(span_of(&verdict), span_ms, "{facts}");
        }
    }

    #[test]
    fn when_the_last_canary_has_gone_the_next_gateway_to_come_is_one() {
        let mut canary = Canary::begin(share(25), 2, 1, gateways(4), NOW);
        let left = present(&["g1", "g2", "g3", "pod-b"]);
        assert!(!canary.enrol("g1", 0, false, &left), "it keeps its side");
        assert!(canary.enrol("pod-b", u64::MAX, false, &left));
        assert_eq!(runs(&canary), ["g0", "pod-b"]);
        // One whose name is forgotten, but that has taken its epoch, cannot go back.
        assert!(canary.enrol("pod-c", u64::MAX, true, &left));
        assert_eq!(runs(&canary), ["g0", "pod-b", "pod-c"]);
    }

    #[test]
    fn however_many_gateways_have_come_and_gone_the_next_one_finds_its_side() {
        let mut canary = Canary::begin(share(25), 2, 1, gateways(2), NOW);
        for number in 0..2 * MAX_ASSIGNED {
            let name = format!("pod-{number}");
            let there = present(&["g0", "g1", &name]);
            assert!(canary.enrol(&name, 0, false, &there), "{name}");
            assert!(canary.runs_at(&name), "{name}");
        }
    }
}
