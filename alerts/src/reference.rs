//! What is usual at an hour of the day, learned over a week.
//!
//! Loss per usage goes with the hour: by night there is little usage and much noise. One mean for the whole day was worse: each night
//! looked like a change.

use crate::moments::Moments;
use serde::{Deserialize, Serialize};

const HOURS: usize = 24;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// Rounds that are learned from before anything is judged: a day of minutes, fewer of longer steps, and never less than this.
const LEARNED_MOST: u64 = 1_440;
const LEARNED_LEAST: u64 = 100;
/// Days over which values fade.
const MEMORY_DAYS: u32 = 7;
/// Values before an hour speaks for itself. Until then the whole day does.
const HOUR_MIN: u32 = 30;

/// What is usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    hours: [Moments; HOURS],
    day: Moments,
    /// Values that are still to be learned from before anything is judged.
    to_learn: u32,
    learned_rounds: u32,
}

/// What is usual at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usual {
    pub mean: f64,
    pub deviation: f64,
}

/// Rounds that are learned from before anything is judged.
pub(crate) fn learned_rounds(step_ms: u32) -> u32 {
    let rounds = DAY_MS / u64::from(step_ms.max(1));
    u32::try_from(rounds.clamp(LEARNED_LEAST, LEARNED_MOST)).unwrap_or(u32::MAX)
}

// === impl Reference ===

impl Reference {
    pub(crate) fn new(learned_rounds: u32) -> Self {
        Self {
            hours: [Moments::default(); HOURS],
            day: Moments::default(),
            to_learn: learned_rounds,
            learned_rounds,
        }
    }

    /// What is usual at that time; `None` while too little is known.
    pub(crate) fn at(&self, unix_ms: u64) -> Option<Usual> {
        if self.to_learn > 0 {
            return None;
        }
        let hour = self.hours.get(hour_of(unix_ms));
        let hour = hour.filter(|hour| hour.count() >= HOUR_MIN);
        let moments = hour.unwrap_or(&self.day);
        Some(Usual {
            mean: moments.mean(),
            deviation: moments.deviation(),
        })
    }

    pub(crate) fn learn(&mut self, value: f64, unix_ms: u64) {
        let memory = self.learned_rounds.saturating_mul(MEMORY_DAYS);
        self.day.learn(value, memory);
        if let Some(hour) = self.hours.get_mut(hour_of(unix_ms)) {
            hour.learn(value, (memory / HOURS as u32).max(HOUR_MIN));
        }
        self.to_learn = self.to_learn.saturating_sub(1);
    }
}

fn hour_of(unix_ms: u64) -> usize {
    usize::try_from(unix_ms / HOUR_MS).map_or(0, |hours| hours % HOURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nights_are_measured_by_nights() {
        let mut reference = Reference::new(learned_rounds(60_000));
        let night = |minute: u64| minute % 1_440 < 360;
        for minute in 0..1_440 * 3 {
            assert_eq!(reference.at(minute * 60_000).is_some(), minute >= 1_440);
            let value = if night(minute) { 2.0 } else { 0.0 };
            reference.learn(value + (minute % 3) as f64 * 0.1, minute * 60_000);
        }
        let usual = |hour: u64| reference.at(hour * HOUR_MS).unwrap().mean;
        assert!((usual(2) - 2.1).abs() < 0.02 && (usual(12) - 0.1).abs() < 0.02);
    }

    #[test]
    fn an_hour_that_was_hardly_seen_is_measured_by_the_day() {
        let mut reference = Reference::new(100);
        (0..200).for_each(|_| reference.learn(1.0, 0));
        assert!((reference.at(7 * HOUR_MS).unwrap().mean - 1.0).abs() < 1e-9);
        assert_eq!(learned_rounds(1), 1_440);
        assert_eq!(learned_rounds(3_600_000), 100);
    }
}
