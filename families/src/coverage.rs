//! Whether a quantile keeps its promise, for each hour of the day: a 0.9 quantile that covers 90 % in the mean may cover 60 % every morning.
//!
//! What happens within an hour of one day hangs together, so a day's hour is one observation: the share of its outcomes that was covered. Days are
//! discounted, so a promise that was broken and is kept again is forgotten. Only outcomes that have come are counted, so whoever feeds it late
//! learns late, and nothing is counted twice. Counting each outcome as one more observation was the worse alternative: with steps of a minute half of
//! one bad morning would have been proof.

const HOURS: usize = 24;
/// Part of what was observed that is kept per day.
const DISCOUNT: f64 = 0.98;
/// With fewer days nothing is said.
const DAYS_MIN: f64 = 7.0;

/// Shares of one quantile of one customer.
#[derive(Clone, Debug, PartialEq)]
pub struct CoverageMonitor {
    level: f64,
    hours: [Hour; HOURS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Hour {
    /// The day that is under way, and its outcomes so far.
    day: i64,
    covered: f64,
    outcomes: f64,
    /// Days that are over, their shares, and the squares of those.
    days: f64,
    shares: f64,
    squares: f64,
}

/// An hour at which the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Broken {
    /// Hour of the day, from 0.
    pub hour: usize,
    /// The part of outcomes that was at or below the quantile, in the mean of days.
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

    /// Takes in an outcome of a day, numbered upwards, and an hour of it (larger ones count from midnight again).
    pub fn observe(&mut self, day: i64, hour: usize, is_covered: bool) {
        let hour = &mut self.hours[hour % HOURS];
        if day != hour.day {
            *hour = hour.finished();
            hour.day = day;
        }
        hour.covered += f64::from(u8::from(is_covered));
        hour.outcomes += 1.0;
    }

    /// Hours at which too few outcomes are covered. Of customers whose promise is kept about one in twenty has such an hour by chance: the bound is that of
    /// Student's t for one in 500 a side and hour, about 3 + 8 / days.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let of_hour = |nth: usize| {
            let hour = self.hours[nth].finished();
            if hour.days < DAYS_MIN {
                return None;
            }
            let covered = hour.shares / hour.days;
            // Where all days are alike, chance could still have made them so.
            let least = self.level * (1.0 - self.level) / hour.days;
            let variance = (hour.squares / hour.days - covered * covered).max(least);
            let deviation = (variance / (hour.days - 1.0)).sqrt();
            let bound = 3.0 + 8.0 / hour.days;
            (covered < self.level - bound * deviation).then_some(Broken { hour: nth, covered })
        };
        (0..HOURS).filter_map(of_hour).collect()
    }
}

// === impl Hour ===

impl Hour {
    /// With the day that was under way among those that are over.
    fn finished(&self) -> Self {
        if self.outcomes == 0.0 {
            return *self;
        }
        let share = self.covered / self.outcomes;
        Self {
            day: self.day,
            covered: 0.0,
            outcomes: 0.0,
            days: DISCOUNT * self.days + 1.0,
            shares: DISCOUNT * self.shares + share,
            squares: DISCOUNT * self.squares + share * share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// So many days of twelve outcomes an hour; at nine o'clock coverage is another one.
    fn monitor(days: u64, at_nine: impl Fn(u64) -> f64) -> CoverageMonitor {
        let mut monitor = CoverageMonitor::new(0.9);
        for i in 0..days * 24 * 12 {
            let (day, hour) = (i / 288, (i / 12 % 24) as usize);
            let level = if hour == 9 { at_nine(day) } else { 0.9 };
            monitor.observe(day as i64, hour, noise(i) < level);
        }
        monitor
    }

    #[test]
    fn one_bad_hour_is_found_and_the_others_are_not_accused() {
        let broken = monitor(28, |_| 0.6).broken();
        let hours: Vec<usize> = broken.iter().map(|one| one.hour).collect();
        assert_eq!(hours, [9], "{broken:?}");
        assert!((broken[0].covered - 0.6).abs() < 0.08, "{broken:?}");
        assert_eq!(monitor(28, |_| 0.9).broken(), []);
    }

    #[test]
    fn one_bad_morning_is_no_broken_promise_and_nothing_is_said_of_a_few_days() {
        assert_eq!(
            monitor(28, |day| if day == 20 { 0.0 } else { 0.9 }).broken(),
            []
        );
        assert_eq!(monitor(6, |_| 0.0).broken(), []);
    }

    #[test]
    fn a_promise_that_is_kept_again_is_forgiven() {
        let mut monitor = monitor(28, |_| 0.6);
        for i in 0..12 * 150 {
            monitor.observe(28 + i / 12, 9, noise(i as u64) < 0.9);
        }
        assert_eq!(monitor.broken(), []);
    }

    #[test]
    fn about_one_of_twenty_who_keep_their_promise_is_accused() {
        let accused = (0..200_u64).filter(|seed| {
            let mut monitor = CoverageMonitor::new(0.9);
            for i in 0..14 * 288 {
                let is_covered = noise(seed * 1_000_003 + i) < 0.9;
                monitor.observe((i / 288) as i64, (i / 12 % 24) as usize, is_covered);
            }
            !monitor.broken().is_empty()
        });
        let accused = accused.count();
        assert!(accused <= 20, "{accused} of 200");
    }
}
