//! A model over the rounds: its loss, its coverage, its drift.

use crate::coverage::{BLOCK_ROUNDS, Coverage};
use crate::level::Level;
use crate::round::{RESOURCES_MOST, Sums};
use crate::stage::Reading;
use serde::{Deserialize, Serialize};

/// What is watched of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// By resource; `None` for one that nobody uses.
    levels: [Option<Level>; RESOURCES_MOST],
    block: Block,
    coverage: Coverage,
    learned_rounds: u32,
}

/// Rounds that make a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Block {
    rounds: u32,
    matured: f64,
    covered: f64,
}

/// What is read of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Readings {
    pub loss: Reading,
    pub coverage: Reading,
    pub drift: Reading,
    /// Loss lately, as a multiple of what is usual, of the resource in which that is largest.
    pub times_usual: f64,
    /// Share of the window's forecasts that held.
    pub covered: f64,
}

// === impl Series ===

impl Series {
    pub(crate) fn new(learned_rounds: u32) -> Self {
        Self {
            levels: [const { None }; RESOURCES_MOST],
            block: Block::default(),
            coverage: Coverage::default(),
            learned_rounds,
        }
    }

    /// Takes what has matured in a round.
    pub(crate) fn observe(&mut self, sums: &Sums, unix_ms: u64) {
        if !sums.can_be() {
            return;
        }
        let is_full = self.block.rounds.saturating_add(1) >= BLOCK_ROUNDS;
        for (level, losses) in self.levels.iter_mut().zip(&sums.losses) {
            if level.is_none() && losses.is_some() {
                *level = Some(Level::new(self.learned_rounds));
            }
            if let Some(known) = level {
                known.observe(losses, unix_ms);
                if is_full {
                    known.end_block();
                }
                // A resource that is gone must not hold an alert for ever.
                if known.silent() >= self.learned_rounds {
                    *level = None;
                }
            }
        }
        self.block.rounds = self.block.rounds.saturating_add(1);
        self.block.matured += sums.matured;
        self.block.covered += sums.covered;
        if is_full {
            let Block {
                matured, covered, ..
            } = std::mem::take(&mut self.block);
            self.coverage.observe(matured, covered);
        }
    }

    pub(crate) fn readings(&self) -> Readings {
        let levels = || self.levels.iter().flatten();
        let times_usual = levels().map(Level::times_usual);
        Readings {
            loss: Reading::worst(levels().filter_map(Level::loss)),
            coverage: self.coverage.reading(),
            drift: Reading::worst(levels().map(Level::drift)),
            times_usual: times_usual.reduce(f64::max).unwrap_or(1.0),
            covered: self.coverage.share().unwrap_or(0.0),
        }
    }

    /// Whether it can have come out of rounds: a store may say anything.
    pub(crate) fn can_be(&self) -> bool {
        self.coverage.can_be() && self.levels.iter().flatten().all(Level::can_be)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::Losses;

    #[test]
    fn the_loss_of_claims_on_silent_customers_counts_with_the_next_usage() {
        let mut series = Series::new(100);
        let sums = |loss: f64, usage: f64| Sums::of_one(10.0, 9.0, loss, usage);
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

    /// What a resource loses in each round: requests, bytes and llm_tokens.
    fn of_three(factors: [f64; 3], minute: u64) -> Sums {
        let noise = 1.0 + 0.1 * (minute as f64 * 1.7).sin();
        let mut sums = Sums::of_one(30.0, 27.0, 0.0, 0.0);
        let usages = [100.0, 1e9, 1e5];
        for (place, (factor, usage)) in factors.iter().zip(usages).enumerate() {
            sums.losses[place] = Losses {
                loss: 0.05 * factor * noise * usage,
                usage,
            };
        }
        sums
    }

    #[test]
    fn a_resource_in_bytes_hides_nothing_of_one_in_requests() {
        for worse in 0..3 {
            let mut series = Series::new(100);
            for minute in 0..500 {
                series.observe(&of_three([1.0; 3], minute), minute * 60_000);
            }
            assert_eq!(series.readings().loss, Reading::Good);
            let mut factors = [1.0; 3];
            factors[worse] = 8.0;
            for minute in 500..540 {
                series.observe(&of_three(factors, minute), minute * 60_000);
            }
            assert_eq!(series.readings().loss, Reading::Bad, "resource {worse}");
            assert!(series.readings().times_usual > 1.5);
            // It is not used any more: what it lost is forgotten.
            for minute in 540..700 {
                let mut sums = of_three([1.0; 3], minute);
                sums.losses[worse] = Losses::default();
                series.observe(&sums, minute * 60_000);
            }
            assert_eq!(series.readings().loss, Reading::Good, "resource {worse}");
        }
    }
}
