//! Whether something is so in most of the last rounds.
//!
//! A single round decides nothing, and a run without a gap was the worse alternative: it ends with one lucky round.

use crate::stage::Reading;
use serde::{Deserialize, Serialize};

/// The last rounds that count.
const LAST: u32 = 30;
/// As many of them above the upper level are bad.
const BAD_OF_LAST: u32 = 20;
/// As few of them above the lower level are good.
const GOOD_OF_LAST: u32 = 8;

/// The upper level: twice of what is usual.
const HIGH: f64 = core::f64::consts::LN_2;
/// The lower one: half as much again.
const LOW: f64 = 0.405;

/// The last rounds, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sustained {
    high: u32,
    low: u32,
    rounds: u32,
}

// === impl Sustained ===

impl Sustained {
    /// Takes a logarithm of loss, what is usual, and by how much more than that may be chance.
    pub(crate) fn observe(&mut self, excess: f64, chance: f64) {
        let push = |bits: u32, is_above: bool| {
            let all = (1_u32 << LAST).wrapping_sub(1);
            ((bits << 1) | u32::from(is_above)) & all
        };
        self.high = push(self.high, excess >= HIGH.max(chance));
        self.low = push(self.low, excess >= LOW);
        self.rounds = self.rounds.saturating_add(1).min(LAST);
    }

    /// Whether there was a round.
    pub(crate) fn has_any(&self) -> bool {
        self.rounds > 0
    }

    pub(crate) fn reading(&self) -> Reading {
        if self.high.count_ones() >= BAD_OF_LAST {
            Reading::Bad
        } else if self.rounds == LAST && self.low.count_ones() <= GOOD_OF_LAST {
            Reading::Good
        } else {
            Reading::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain count over the last rounds.
        #[test]
        fn a_reading_is_a_count_over_the_last_rounds(
            values in prop::collection::vec(prop::sample::select(vec![0.0, 0.5, 1.0]), 1..120),
        ) {
            let mut sustained = Sustained::default();
            for (number, value) in values.iter().enumerate() {
                sustained.observe(*value, 0.0);
                let last = &values[(number + 1).saturating_sub(30)..=number];
                let above = |limit: f64| last.iter().filter(|value| **value > limit).count();
                let expected = match (above(0.6), above(0.4)) {
                    (20.., _) => Reading::Bad,
                    (_, ..=8) if last.len() == 30 => Reading::Good,
                    _ => Reading::Unclear,
                };
                prop_assert_eq!(sustained.reading(), expected);
            }
        }
    }

    #[test]
    fn what_may_be_chance_is_not_bad() {
        let mut sustained = Sustained::default();
        (0..60).for_each(|_| sustained.observe(1.0, 1.5));
        assert_eq!(sustained.reading(), Reading::Unclear);
    }
}
