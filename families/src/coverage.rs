//! Whether a quantile keeps its promise, for each hour of the day: a 0.9 quantile that covers 90 % in the mean may cover 60 % every morning.
//!
//! What happens within an hour of one day hangs together, so a day's hour is one observation: the share of its outcomes that was covered. Days are
//! discounted, so a promise that was broken and is kept again is forgotten. Only outcomes that have come are counted, so whoever feeds it late
//! learns late, and nothing is counted twice. Counting each outcome as one more observation was the worse alternative: with steps of a minute half of
//! one bad morning would have been proof.

const HOURS: usize = 24;
/// Part of what was observed that is kept per day.
const DISCOUNT: f64 = 0.98;
/// With less than seven days, discounted, nothing is said.
const DAYS_MIN: f64 = 6.9;
/// So many standard deviations of the mean below its level a quantile's promise is broken. Shares near to 1 are askew, and a low mean of few days comes with
/// a large variance: the bound of a normal or of Student's distribution would accuse hardly anybody, and find little. This one is measured, see the tests.
const DEVIATIONS: f64 = 2.75;

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
    /// Days that are over, their shares, and the squares of those, discounted.
    days: f64,
    shares: f64,
    squares: f64,
    /// Squares of the discounts.
    discounts: f64,
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

    /// Hours at which too few outcomes are covered. Of customers whose promise is kept at most about one in twenty has such an hour by chance: about that many
    /// where an hour has a dozen outcomes that have nothing to do with each other, fewer where they hang together.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let of_hour = |nth: usize| {
            let hour = self.hours[nth].finished();
            // As many equal days as would say as much.
            let days = hour.days * hour.days / hour.discounts;
            if hour.days == 0.0 || days < DAYS_MIN {
                return None;
            }
            let covered = hour.shares / hour.days;
            // Where all days are alike, chance could still have made them so.
            let least = self.level * (1.0 - self.level) / days;
            let variance = (hour.squares / hour.days - covered * covered).max(least);
            let deviation = (variance / (days - 1.0)).sqrt();
            let is_broken = covered < self.level - DEVIATIONS * deviation;
            is_broken.then_some(Broken { hour: nth, covered })
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
            discounts: DISCOUNT * DISCOUNT * self.discounts + 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    /// What is covered at which hour, and how outcomes of an hour hang together.
    #[derive(Clone, Copy)]
    struct Customer {
        days: i64,
        outcomes: usize,
        /// How many of them in a row have the same fate.
        together: usize,
        /// What is covered at nine o'clock; all other hours keep the promise.
        at_nine: f64,
    }

    // === impl Customer ===

    impl Customer {
        fn monitor(self, seed: u64) -> CoverageMonitor {
            let mut monitor = CoverageMonitor::new(0.9);
            let mut place = 0;
            for day in 0..self.days {
                for hour in 0..HOURS {
                    let level = if hour == 9 { self.at_nine } else { 0.9 };
                    for outcome in 0..self.outcomes {
                        place += usize::from(outcome % self.together == 0);
                        monitor.observe(day, hour, noise(seed, place) < level);
                    }
                }
            }
            monitor
        }

        /// Which part of so many customers is accused at some hour, and which part at nine.
        fn accused(self, customers: u64) -> (f64, f64) {
            let (mut anywhere, mut at_nine) = (0.0, 0.0);
            for seed in 0..customers {
                let broken = self.monitor(seed).broken();
                anywhere += f64::from(u8::from(!broken.is_empty()));
                at_nine += f64::from(u8::from(broken.iter().any(|one| one.hour == 9)));
            }
            (anywhere / customers as f64, at_nine / customers as f64)
        }
    }

    const KEPT: Customer = Customer {
        days: 14,
        outcomes: 12,
        together: 1,
        at_nine: 0.9,
    };

    #[test]
    fn about_one_of_twenty_who_keep_their_promise_is_accused_and_never_many_more() {
        let (accused, _) = KEPT.accused(1_000);
        assert!((0.03..0.07).contains(&accused), "{accused}");
        for (days, outcomes, together) in [
            (7, 2, 1),
            (8, 12, 12),
            (14, 12, 4),
            (28, 60, 1),
            (60, 12, 6),
        ] {
            let customer = Customer {
                days,
                outcomes,
                together,
                ..KEPT
            };
            let (accused, _) = customer.accused(400);
            assert!(
                accused < 0.08,
                "{accused} of {days} days, {outcomes} outcomes, {together} together"
            );
        }
    }

    #[test]
    fn an_hour_that_covers_sixty_percent_is_found() {
        let broken = Customer {
            at_nine: 0.6,
            ..KEPT
        };
        for (days, together, least) in [(8, 1, 0.95), (14, 1, 0.99), (14, 4, 0.8), (28, 12, 0.5)] {
            let (_, found) = Customer {
                days,
                together,
                ..broken
            }
            .accused(200);
            assert!(
                found >= least,
                "{found} after {days} days, {together} together"
            );
        }
        let found = Customer { days: 28, ..broken }.monitor(1).broken();
        let nine = found.iter().find(|one| one.hour == 9);
        assert!(
            nine.is_some_and(|one| (one.covered - 0.6).abs() < 0.08),
            "{found:?}"
        );
    }

    #[test]
    fn one_bad_morning_is_no_broken_promise_and_nothing_is_said_of_a_few_days() {
        let mut monitor = CoverageMonitor::new(0.9);
        for day in 0..28 {
            for outcome in 0..60 {
                monitor.observe(day, 9, day != 20 && outcome % 10 != 0);
            }
        }
        assert_eq!(monitor.broken(), []);
        let never = |days: i64| {
            let mut monitor = CoverageMonitor::new(0.9);
            (0..days).for_each(|day| monitor.observe(day, 9, false));
            monitor.broken().len()
        };
        assert_eq!([6, 7].map(never), [0, 1]);
    }

    #[test]
    fn a_promise_that_is_kept_again_is_forgiven() {
        let mut monitor = Customer {
            days: 28,
            at_nine: 0.6,
            ..KEPT
        }
        .monitor(2);
        assert!(monitor.broken().iter().any(|one| one.hour == 9));
        for i in 0..12 * 150 {
            monitor.observe(28 + i / 12, 9, i % 10 != 0);
        }
        assert!(monitor.broken().iter().all(|one| one.hour != 9));
    }
}
