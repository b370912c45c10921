//! Drift: the loss has moved to another level, by the detectors of `forebay_forecast::drift`.
//!
//! Their thresholds hold for values that do not depend on one another (docs/internals/drift.md), and losses of successive minutes do. So
//! what goes in is the mean of ten rounds, what is usual at the hour taken away, and of that what the block before did not foretell: the residual
//! one step ahead. CUSUM watches it in standard deviations that are learned over a week and does not forget what it expects; Page-Hinkley
//! learns anew after each alarm.
//!
//! An alarm alone says that something moved. Drift is what has moved by a fifth as well, over hours, and by more than such hours are apart where nothing is
//! wrong: demand that is restless for half a day each week is not new demand.

use crate::moments::Moments;
use crate::stage::Reading;
use forebay_forecast::drift::{Cusum, Detector, Direction, Drift, PageHinkley};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Mean blocks between two false alarms of a detector, by theory: two years of ten minutes.
const FALSE_ALARM_BLOCKS: f64 = 100_000.0;
/// Blocks that the detectors' values are learned from before they begin: two days of ten minutes.
const LEARNED_BLOCKS: u32 = 288;
/// Blocks over which values fade: a week.
const MEMORY_BLOCKS: u32 = 1_008;
/// Values beyond count as this, in standard deviations: no single block is a change.
const RESIDUAL_MOST: f64 = 4.0;
/// And as this in the mean that shows the change: seven times what is usual.
const VALUE_MOST: f64 = 2.0;
/// The most that is taken away of what the block before foretold: with more, a change would be a change for one block only.
const CARRIED_MOST: f64 = 0.8;
/// Blocks after an alarm in which the change must show.
const SUSPECT_BLOCKS: u32 = 72;
/// Blocks whose mean shows it, or that it is over: six hours of minutes.
const SHOWN_BLOCKS: usize = 36;
/// A fifth more loss: a logarithm.
const MATTERS: f64 = 0.182;
/// And so many standard deviations of such means.
const UNUSUAL: f64 = 3.0;
/// Or of single blocks: there are few means of hours in the first days.
const UNUSUAL_BLOCKS: f64 = 1.5;

/// The watch for drift of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    usual: Moments,
    /// What a value and the one before have in common.
    carried: f64,
    residuals: Moments,
    before: Option<f64>,
    learned: u32,
    cusum: Cusum,
    page_hinkley: PageHinkley,
    last: VecDeque<f64>,
    shown: Moments,
    suspect: u32,
    has_drifted: bool,
}

// === impl Change ===

impl Change {
    pub(crate) fn new() -> Self {
        Self {
            usual: Moments::default(),
            carried: 0.0,
            residuals: Moments::default(),
            before: None,
            learned: 0,
            cusum: Cusum::new(FALSE_ALARM_BLOCKS),
            page_hinkley: PageHinkley::new(FALSE_ALARM_BLOCKS),
            last: VecDeque::new(),
            shown: Moments::default(),
            suspect: 0,
            has_drifted: false,
        }
    }

    /// Takes the mean of a block: logarithms of loss, above what is usual at the hour.
    pub(crate) fn observe(&mut self, value: f64) {
        let value = value.clamp(-VALUE_MOST, VALUE_MOST);
        if self.last.len() >= SHOWN_BLOCKS {
            self.last.pop_front();
        }
        self.last.push_back(value);
        self.suspect = self.suspect.saturating_sub(1);
        if self.is_alarm(value) {
            self.suspect = SUSPECT_BLOCKS;
        }
        if self.last.len() < SHOWN_BLOCKS {
            return;
        }
        let shown = self.last.iter().sum::<f64>() / SHOWN_BLOCKS as f64;
        let matters = MATTERS
            .max(UNUSUAL * self.shown.deviation())
            .max(UNUSUAL_BLOCKS * self.usual.deviation());
        self.shown.learn(shown, MEMORY_BLOCKS);
        if self.suspect > 0 && shown >= matters {
            self.has_drifted = true;
        } else if shown <= matters / 2.0 {
            self.has_drifted = false;
        }
    }

    pub(crate) fn reading(&self) -> Reading {
        match self.has_drifted {
            true => Reading::Bad,
            false => Reading::Good,
        }
    }

    /// How far blocks are from what is usual, in the mean; `None` while too few are known.
    pub(crate) fn spread(&self) -> Option<f64> {
        (self.usual.count() >= SHOWN_BLOCKS as u32).then(|| self.usual.deviation())
    }

    /// Whether it can have come out of blocks.
    pub(crate) fn can_be(&self) -> bool {
        self.last.len() <= SHOWN_BLOCKS
    }

    fn is_alarm(&mut self, value: f64) -> bool {
        let spread = self.usual.deviation();
        let edge = RESIDUAL_MOST * spread;
        let centred = (value - self.usual.mean()).clamp(-edge, edge);
        let share = (self.carried / (spread * spread)).clamp(0.0, CARRIED_MOST);
        self.usual.learn(value, MEMORY_BLOCKS);
        let Some(before) = self.before.replace(centred) else {
            return false;
        };
        let weight = 1.0 / f64::from(self.usual.count());
        self.carried += weight * (centred * before - self.carried);
        let residual = centred - share * before;
        let standard = (residual - self.residuals.mean()) / self.residuals.deviation();
        self.residuals.learn(residual, MEMORY_BLOCKS);
        if self.learned < LEARNED_BLOCKS {
            self.learned = self.learned.saturating_add(1);
            return false;
        }
        let standard = standard.clamp(-RESIDUAL_MOST, RESIDUAL_MOST);
        let detectors: [&mut dyn Detector; 2] = [&mut self.cusum, &mut self.page_hinkley];
        let mut is_alarm = false;
        for detector in detectors {
            // A loss that falls is no trouble.
            is_alarm |= matches!(
                detector.observe(standard),
                Some(Drift {
                    direction: Direction::Up,
                    ..
                })
            );
        }
        is_alarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values between -1 and 1 without a rhythm that blocks have.
    fn noise(number: u32) -> f64 {
        f64::from(number.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 23) - 1.0
    }

    fn steady(blocks: u32) -> Change {
        let mut change = Change::new();
        for number in 0..blocks {
            change.observe(0.1 * noise(number));
            assert_eq!(change.reading(), Reading::Good, "{number}");
        }
        change
    }

    fn blocks_until(change: &mut Change, level: f64, wanted: Reading) -> Option<u32> {
        (1..400).find(|number| {
            change.observe(level + 0.1 * noise(*number));
            change.reading() == wanted
        })
    }

    #[test]
    fn a_loss_that_rises_and_stays_is_drift_until_it_falls_again() {
        let mut change = steady(600);
        let found = blocks_until(&mut change, 0.4, Reading::Bad);
        assert!(found.is_some_and(|blocks| blocks <= 30), "{found:?}");
        let over = blocks_until(&mut change, 0.0, Reading::Good);
        assert!(over.is_some_and(|blocks| blocks <= 36), "{over:?}");
    }

    #[test]
    fn neither_a_fall_nor_a_spike_nor_a_trifle_is_drift() {
        for level in [-0.8, 0.08] {
            let found = blocks_until(&mut steady(600), level, Reading::Bad);
            assert_eq!(found, None, "{level}");
        }
        for level in [0.0, 0.08] {
            let mut change = steady(600);
            change.observe(50.0);
            let found = blocks_until(&mut change, level, Reading::Bad);
            assert_eq!(found, None, "a spike before {level}");
        }
    }

    #[test]
    fn nothing_is_found_while_it_learns() {
        let mut change = steady(100);
        change.observe(0.5);
        assert_eq!(change.reading(), Reading::Good);
    }
}
