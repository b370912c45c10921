//! A model's loss in one resource over the rounds, held against its own past.
//!
//! Each resource has a level of its own. Of one for all of them the one with the largest numbers would be all that is seen, and of a mean the
//! one whose usage hardly anybody can foresee.

use crate::change::Change;
use crate::reference::Reference;
use crate::round::Losses;
use crate::stage::Reading;
use crate::sustained::Sustained;
use serde::{Deserialize, Serialize};

/// By so many standard deviations blocks of rounds may be above what is usual by chance, or wander.
const CHANCE: f64 = 4.0;
/// As long as few blocks are known: by so many of single rounds.
const CHANCE_OF_ROUNDS: f64 = 3.0;
/// Rounds over which the loss that is shown to people is averaged.
const SHOWN_ROUNDS: f64 = 30.0;

/// What is watched of a model in a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    /// What has matured while nothing was used: that the loss of claims on silent customers is not left out.
    open: Losses,
    reference: Reference,
    sustained: Sustained,
    change: Change,
    /// Of the block that is not full.
    values: u32,
    above: f64,
    /// The mean of what losses are above what is usual, in logarithms.
    lately: f64,
    /// Rounds since anything was said of it.
    silent: u32,
}

// === impl Level ===

impl Level {
    pub(crate) fn new(learned_rounds: u32) -> Self {
        Self {
            open: Losses::default(),
            reference: Reference::new(learned_rounds),
            sustained: Sustained::default(),
            change: Change::new(),
            values: 0,
            above: 0.0,
            lately: 0.0,
            silent: 0,
        }
    }

    /// Takes what has matured in a round.
    pub(crate) fn observe(&mut self, losses: &Losses, unix_ms: u64) {
        self.silent = match losses.is_some() {
            true => 0,
            false => self.silent.saturating_add(1),
        };
        self.open = self.open.plus(losses);
        let Some(value) = self.open.log_loss() else {
            return;
        };
        self.open = Losses::default();
        if let Some(usual) = self.reference.at(unix_ms) {
            let above = value - usual.mean;
            let chance = self
                .change
                .spread()
                .map_or(CHANCE_OF_ROUNDS * usual.deviation, |spread| CHANCE * spread);
            self.sustained.observe(above, chance);
            self.lately += (above - self.lately) / SHOWN_ROUNDS;
            self.values = self.values.saturating_add(1);
            self.above += above;
        }
        self.reference.learn(value, unix_ms);
    }

    /// The block is full.
    pub(crate) fn end_block(&mut self) {
        let (values, above) = (
            std::mem::take(&mut self.values),
            std::mem::take(&mut self.above),
        );
        if values > 0 {
            self.change.observe(above / f64::from(values));
        }
    }

    /// For how many rounds nothing was said of it.
    pub(crate) fn silent(&self) -> u32 {
        self.silent
    }

    /// Whether the loss is far above what is usual; `None` while that is being learned.
    pub(crate) fn loss(&self) -> Option<Reading> {
        self.sustained.has_any().then(|| self.sustained.reading())
    }

    pub(crate) fn drift(&self) -> Reading {
        self.change.reading()
    }

    /// Loss lately, as a multiple of what is usual.
    pub(crate) fn times_usual(&self) -> f64 {
        self.lately.exp()
    }

    /// Whether it can have come out of rounds: a store may say anything.
    pub(crate) fn can_be(&self) -> bool {
        self.change.can_be()
    }
}
