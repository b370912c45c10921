//! A model over the rounds: its loss, its coverage, its drift.

use crate::change::Change;
use crate::coverage::{BLOCK_ROUNDS, Coverage};
use crate::reference::Reference;
use crate::round::Sums;
use crate::stage::Reading;
use crate::sustained::Sustained;

/// By so many standard deviations blocks of rounds may be above what is usual by chance, or wander.
const CHANCE: f64 = 4.0;
/// As long as few blocks are known: by so many of single rounds.
const CHANCE_OF_ROUNDS: f64 = 3.0;
/// Rounds over which the loss that is shown to people is averaged.
const SHOWN_ROUNDS: f64 = 30.0;

/// What is watched of a model.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// What has matured while nothing was used: that the loss of claims on silent customers is not left out.
    open: Sums,
    reference: Reference,
    sustained: Sustained,
    block: Block,
    coverage: Coverage,
    change: Change,
    /// The mean of what losses are above what is usual, in logarithms.
    lately: f64,
}

/// Rounds that make a block.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    rounds: u32,
    sums: Sums,
    values: u32,
    above: f64,
}

/// What is read of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Readings {
    pub loss: Reading,
    pub coverage: Reading,
    pub drift: Reading,
    /// Loss lately, as a multiple of what is usual.
    pub times_usual: f64,
    /// Share of the window's forecasts that held.
    pub covered: f64,
}

// === impl Series ===

impl Series {
    pub(crate) fn new(learned_rounds: u32) -> Self {
        Self {
            open: Sums::default(),
            reference: Reference::new(learned_rounds),
            sustained: Sustained::default(),
            block: Block::default(),
            coverage: Coverage::default(),
            change: Change::new(),
            lately: 0.0,
        }
    }

    /// Takes what has matured in a round.
    pub(crate) fn observe(&mut self, sums: &Sums, unix_ms: u64) {
        if !sums.can_be() {
            return;
        }
        self.open = self.open.plus(sums);
        if let Some(value) = self.open.log_loss() {
            self.open = Sums::default();
            if let Some(usual) = self.reference.at(unix_ms) {
                let above = value - usual.mean;
                let chance = self
                    .change
                    .spread()
                    .map_or(CHANCE_OF_ROUNDS * usual.deviation, |spread| CHANCE * spread);
                self.sustained.observe(above, chance);
                self.lately += (above - self.lately) / SHOWN_ROUNDS;
                self.block.values = self.block.values.saturating_add(1);
                self.block.above += above;
            }
            self.reference.learn(value, unix_ms);
        }
        self.block.sums = self.block.sums.plus(sums);
        self.block.rounds = self.block.rounds.saturating_add(1);
        if self.block.rounds < BLOCK_ROUNDS {
            return;
        }
        let block = std::mem::take(&mut self.block);
        self.coverage.observe(&block.sums);
        if block.values > 0 {
            self.change.observe(block.above / f64::from(block.values));
        }
    }

    pub(crate) fn readings(&self) -> Readings {
        Readings {
            loss: self.sustained.reading(),
            coverage: self.coverage.reading(),
            drift: self.change.reading(),
            times_usual: self.lately.exp(),
            covered: self.coverage.share().unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_claims_on_silent_customers_counts_with_the_next_usage() {
        let mut series = Series::new(100);
        let sums = |loss: f64, usage: f64| Sums {
            matured: 10.0,
            covered: 9.0,
            loss,
            usage,
        };
        let noise = |minute: u64| 1.0 + 0.1 * (minute as f64 * 1.7).sin();
        for minute in 0..500 {
            series.observe(&sums(5.0 * noise(minute), 100.0), minute * 60_000);
        }
        // In every other minute nobody asks for anything, and four times as much is claimed for them.
        for minute in 500..600 {
            let silent = minute % 2 == 0;
            let (loss, usage) = if silent { (20.0, 0.0) } else { (5.0, 100.0) };
            series.observe(&sums(loss * noise(minute), usage), minute * 60_000);
        }
        assert_eq!(series.readings().loss, Reading::Bad);
    }
}
