//! A canary: a release that runs at a share of the gateways, until it is given to all or taken back.
//!
//! The store has the canary, so that neither a restart nor another leader changes who runs what. Each gateway keeps the side that it was
//! given first: an epoch cannot be taken back without a new statement, so a choice that is made anew from who is present would leave
//! gateways on a release that they should not run. Who they are is a matter of a hash of their names, not of chance, so that an operator
//! meets the same ones each time.

mod begin;
mod view;

pub use view::CanaryView;

use super::Now;
use super::score::{Open, WARM_UP_ROUNDS};
use crate::models::{Finding, Trial};
use crate::store::{Batch, Store, StoreError, Table};
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
    /// The rounds in which the comparisons that are open began. One stays open while nothing is used.
    #[serde(skip)]
    pub open: Open,
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
            open: Open::default(),
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
}

fn longest_span() -> u64 {
    PROMOTION_SPAN_MS
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
mod tests;
