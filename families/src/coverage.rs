//! Whether a quantile keeps its promise, for each hour of the day: a 0.9 quantile that covers 90 % in the mean may cover 60 % every morning.
//!
//! Counts are discounted, so a promise that was broken and is kept again is forgotten. Only outcomes that have come are counted, so whoever
//! feeds it late learns late, and nothing is ever counted twice.

const HOURS: usize = 24;
/// Part of the counts that is kept per outcome of an hour.
const DISCOUNT: f64 = 0.995;
/// With fewer outcomes in an hour nothing is said.
const OUTCOMES_MIN: f64 = 30.0;
/// Standard deviations from the promise beyond which it is broken: one hour of a thousand by chance.
const DEVIATIONS: f64 = 3.3;

/// Counts of one quantile of one customer.
#[derive(Clone, Debug, PartialEq)]
pub struct CoverageMonitor {
    level: f64,
    hours: [Hour; HOURS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Hour {
    covered: f64,
    outcomes: f64,
    /// Sum of squared weights.
    squares: f64,
}

/// An hour at which the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Broken {
    /// Hour of the day, from 0.
    pub hour: usize,
    /// The part of outcomes that was at or below the quantile.
    pub covered: f64,
}

// === impl CoverageMonitor ===

impl CoverageMonitor {
    /// Of the quantile of this level.
    #[must_use]
    pub fn new(level: f64) -> Self {
        Self {
            level,
            hours: [Hour::default(); HOURS],
        }
    }

    /// Takes in an outcome of an hour of the day (larger ones count from midnight again).
    pub fn observe(&mut self, hour: usize, is_covered: bool) {
        let hour = &mut self.hours[hour % HOURS];
        hour.covered = DISCOUNT * hour.covered + f64::from(u8::from(is_covered));
        hour.outcomes = DISCOUNT * hour.outcomes + 1.0;
        hour.squares = DISCOUNT * DISCOUNT * hour.squares + 1.0;
    }

    /// The part of an hour's outcomes that was covered; `None` before there were enough.
    #[must_use]
    pub fn covered(&self, hour: usize) -> Option<f64> {
        let hour = self.hours[hour % HOURS];
        (hour.effective() >= OUTCOMES_MIN).then(|| hour.covered / hour.outcomes)
    }

    /// Hours at which too few outcomes are covered: at which it is surely not chance.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let of_hour = |hour: usize| {
            let covered = self.covered(hour)?;
            let deviation = (self.level * (1.0 - self.level) / self.hours[hour].effective()).sqrt();
            (covered < self.level - DEVIATIONS * deviation).then_some(Broken { hour, covered })
        };
        (0..HOURS).filter_map(of_hour).collect()
    }
}

// === impl Hour ===

impl Hour {
    /// As many outcomes without a discount would say as much.
    fn effective(&self) -> f64 {
        match self.squares > 0.0 {
            true => self.outcomes * self.outcomes / self.squares,
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// So many days; at nine o'clock coverage is another one.
    fn monitor(days: u64, at_nine: f64) -> CoverageMonitor {
        let mut monitor = CoverageMonitor::new(0.9);
        for i in 0..days * 24 {
            let hour = (i % 24) as usize;
            let level = if hour == 9 { at_nine } else { 0.9 };
            monitor.observe(hour, noise(i) < level);
        }
        monitor
    }

    #[test]
    fn one_bad_hour_is_found_and_the_others_are_not_accused() {
        let broken = monitor(120, 0.6).broken();
        assert_eq!(
            broken.iter().map(|one| one.hour).collect::<Vec<_>>(),
            [9],
            "{broken:?}"
        );
        assert_eq!(monitor(120, 0.9).broken(), []);
    }

    #[test]
    fn nothing_is_said_of_a_few_days_and_an_old_break_is_forgotten() {
        assert_eq!(monitor(20, 0.0).broken(), []);
        let mut monitor = monitor(120, 0.6);
        for i in 0..2_000 {
            monitor.observe(9, noise(i) < 0.9);
        }
        assert_eq!(monitor.broken(), []);
    }
}
