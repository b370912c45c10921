//! Whether the 0.9 quantile is exceeded too often.
//!
//! Of `n` independent forecasts a binomial interval says how few may hold. But forecasts of one step share its weather, and steps that
//! follow one another are alike: an interval for independent ones sounded an alarm in most weeks. So blocks of rounds are taken for the
//! independent ones, as cluster-robust standard errors do (Liang and Zeger, Biometrika 73, 1986), and the wider of both intervals counts.
//!
//! Low over the whole window says that it is no chance, low in its last part that it goes on, and five points below that it matters: of a
//! million forecasts, 89.9 % would be significant.

use crate::stage::Reading;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Rounds in a block.
pub(crate) const BLOCK_ROUNDS: u32 = 10;
/// Blocks in the window: six hours of minutes.
const BLOCKS: usize = 36;
/// Blocks in its last part, which must be low as well.
const LATE_BLOCKS: usize = 3;
/// Blocks that must be well for it to be over.
const GOOD_BLOCKS: usize = 6;
/// Forecasts in the window below which nothing is judged.
const MATURED_MIN: f64 = 200.0;
/// What the quantile promises.
const PROMISED: f64 = 0.9;
/// What is bad if it is no chance, and what is good again.
const BAD_BELOW: f64 = 0.85;
const GOOD_FROM: f64 = 0.87;
/// How far below in standard deviations: one chance in 1 700 of Student's t with 35 degrees of freedom.
const SIGNIFICANT: f64 = 3.5;

/// The window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coverage {
    /// Oldest first.
    blocks: VecDeque<Block>,
}

/// Forecasts in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Block {
    matured: f64,
    covered: f64,
}

// === impl Coverage ===

impl Coverage {
    /// Takes a block that is full.
    pub(crate) fn observe(&mut self, matured: f64, covered: f64) {
        if self.blocks.len() >= BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back(Block { matured, covered });
    }

    /// Whether it can have come out of blocks.
    pub(crate) fn can_be(&self) -> bool {
        self.blocks.len() <= BLOCKS
    }

    pub(crate) fn reading(&self) -> Reading {
        let late = self.share_of_last(LATE_BLOCKS);
        let is_low = |share: Option<f64>| share.is_some_and(|share| share < BAD_BELOW);
        if self.is_significant() && is_low(self.share()) && is_low(late) {
            return Reading::Bad;
        }
        let is_well = |share: f64| share >= GOOD_FROM;
        match self.share_of_last(GOOD_BLOCKS).is_some_and(is_well) {
            true => Reading::Good,
            false => Reading::Unclear,
        }
    }

    /// Share of the window's forecasts that held.
    pub(crate) fn share(&self) -> Option<f64> {
        self.share_of_last(BLOCKS)
    }

    fn share_of_last(&self, blocks: usize) -> Option<f64> {
        let last = self.blocks.iter().rev().take(blocks);
        let sum = last.fold(Block::default(), |sum, block| Block {
            matured: sum.matured + block.matured,
            covered: sum.covered + block.covered,
        });
        (sum.matured > 0.0).then(|| sum.covered / sum.matured)
    }

    fn is_significant(&self) -> bool {
        let matured: f64 = self.blocks.iter().map(|block| block.matured).sum();
        if matured < MATURED_MIN {
            return false;
        }
        let missing = |block: &Block| PROMISED * block.matured - block.covered;
        let sum: f64 = self.blocks.iter().map(missing).sum();
        let of_blocks: f64 = self.blocks.iter().map(|block| missing(block).powi(2)).sum();
        let of_binomial = matured * PROMISED * (1.0 - PROMISED);
        sum > SIGNIFICANT * of_blocks.max(of_binomial).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(matured: f64, shares: &[f64]) -> Coverage {
        let mut coverage = Coverage::default();
        for share in shares {
            coverage.observe(matured, matured * share);
        }
        coverage
    }

    fn varied(mean: f64, by: f64, count: usize) -> Vec<f64> {
        let wave = |number: usize| mean + by * (number as f64 * 2.4).sin();
        (0..count).map(wave).collect()
    }

    #[test]
    fn too_few_held_in_most_blocks_is_bad_and_above_or_by_chance_is_not() {
        for (matured, shares, expected) in [
            (100.0, varied(0.8, 0.02, 36), Reading::Bad),
            (100.0, varied(0.9, 0.05, 36), Reading::Good),
            (100.0, varied(0.99, 0.01, 36), Reading::Good),
            // Significant, and nothing that matters.
            (1e6, varied(0.86, 0.001, 36), Reading::Unclear),
            // Two hours ago it was bad, and it is over.
            (
                100.0,
                [varied(0.6, 0.02, 24), varied(0.9, 0.02, 12)].concat(),
                Reading::Good,
            ),
            // Some blocks of an outage are no promise that is broken all the time.
            (
                100.0,
                [varied(0.9, 0.02, 33), varied(0.3, 0.02, 3)].concat(),
                Reading::Unclear,
            ),
            // Forecasts that follow one another say less than their number.
            (1e6, varied(0.84, 0.16, 8), Reading::Unclear),
            // Too few to judge.
            (5.0, varied(0.7, 0.02, 36), Reading::Unclear),
        ] {
            assert_eq!(
                blocks(matured, &shares).reading(),
                expected,
                "{matured} {shares:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_a_window() {
        assert_eq!(blocks(1.0, &[0.5; 100]).blocks.len(), BLOCKS);
        assert_eq!(Coverage::default().reading(), Reading::Unclear);
    }
}
