//! How fast tokens are asked for at one gateway: what a division goes by.
//!
//! An average over a few seconds, which follows at once what chance does not explain. An average that does not takes four syncs to follow a
//! customer that has moved to another gateway. The rate between the last two syncs, tried as well, moved tokens with each request of
//! a small customer, and of a large one to wherever its last burst was, away from gateways that were about to be asked.

use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::time::TimeUs;

/// The average forgets by this time constant.
const AVERAGE_S: f64 = 3.0;

/// An average of no more than this, in tokens per second, forgets by the second constant: with a request now and then, the first one would
/// know of the last one only.
const SLOW_PER_S: f64 = 4.0;
const SLOW_AVERAGE_S: f64 = 60.0;

/// A gateway has enough when it can go on for so many windows between reports, and for this time: as long as it takes until others
/// have given up something for it.
const COVERED_WINDOWS: f64 = 2.0;
const COVER_S_LEAST: f64 = 0.5;

/// Tokens that come by chance vary by the root of their number; so many times that is not chance.
const CHANCE_DEVIATIONS: f64 = 3.0;

/// Shorter windows than this say little, and a repeated request has none.
const WINDOW_US_LEAST: u64 = 40_000;

/// Averages below this, in tokens per second, are over.
const PER_S_LEAST: f64 = 1e-3;

/// What was asked for lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// The average, at `at`.
    average_per_s: f64,
    at: TimeUs,
}

// === impl Pace ===

impl Pace {
    /// Notes that `micro` micro-tokens were asked for since `since`. Returns what would cover the demand until more can come, in
    /// micro-tokens.
    pub fn asked(&mut self, micro: u64, since: TimeUs, now: TimeUs) -> i64 {
        let window_us = now.since(since.max(self.at)).max(WINDOW_US_LEAST);
        let window_s = seconds(window_us);
        // Nothing twice says more than nothing once: such windows are one.
        if micro > 0 {
            let before_per_s = self.average_per_s(TimeUs(now.0.saturating_sub(window_us)));
            self.average_per_s = average_with(before_per_s, tokens(micro), window_s);
            self.at = now;
        }
        let cover_s = (COVERED_WINDOWS * window_s).max(COVER_S_LEAST);
        let micro = self.average_per_s(now) * cover_s * MICRO_PER_TOKEN as f64;
        #[allow(clippy::cast_possible_truncation)] // a float becomes the nearest integer there is
        {
            micro as i64
        }
    }

    /// The average, in tokens per second, if nothing was asked for until `now` since the last report that counted something: over
    /// when chance does not explain that.
    #[must_use]
    pub fn average_per_s(&self, now: TimeUs) -> f64 {
        let idle_s = seconds(now.since(self.at));
        let usual = self.average_per_s * idle_s;
        let average_per_s = self.average_per_s * (-idle_s / average_s(self.average_per_s)).exp();
        if average_per_s < PER_S_LEAST || usual > by_chance(usual) {
            0.0
        } else {
            average_per_s
        }
    }
}

/// The average after a window in which so many tokens were asked for.
fn average_with(before_per_s: f64, asked: f64, window_s: f64) -> f64 {
    let (per_s, usual) = (asked / window_s, before_per_s * window_s);
    if (asked - usual).abs() > by_chance(usual) {
        return per_s;
    }
    let weight = 1.0 - (-window_s / average_s(before_per_s)).exp();
    before_per_s + weight * (per_s - before_per_s)
}

/// How far from the `usual` tokens as many may be by chance.
fn by_chance(usual: f64) -> f64 {
    CHANCE_DEVIATIONS * (usual + 1.0).sqrt()
}

const fn average_s(average_per_s: f64) -> f64 {
    if average_per_s <= SLOW_PER_S {
        SLOW_AVERAGE_S
    } else {
        AVERAGE_S
    }
}

#[allow(clippy::cast_precision_loss)] // a pace needs no more than a float has
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[allow(clippy::cast_precision_loss)] // a pace needs no more than a float has
fn tokens(micro: u64) -> f64 {
    micro as f64 / MICRO_PER_TOKEN as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC_US: u64 = 250_000;

    /// The average after each sync in which so many tokens were asked for.
    fn averages_per_s(tokens: &[u64]) -> Vec<f64> {
        let mut pace = Pace::default();
        let mut now = TimeUs(1_000_000);
        let ask = |tokens: &u64| {
            let since = now;
            now = now.plus_us(SYNC_US);
            pace.asked(tokens * 1_000_000, since, now);
            pace.average_per_s(now)
        };
        tokens.iter().map(ask).collect()
    }

    #[test]
    fn traffic_that_comes_or_goes_is_followed_at_once() {
        let averages = averages_per_s(&[25, 25, 0, 0]);
        assert!((averages[0] - 100.0).abs() < 0.1, "{averages:?}");
        assert!((averages[1] - 100.0).abs() < 0.1, "{averages:?}");
        assert!(averages[2] < 0.1, "{averages:?}");
    }

    #[test]
    fn without_a_report_an_average_lasts_for_as_long_as_chance_explains_it() {
        let mut pace = Pace::default();
        let now = TimeUs(5_000_000);
        pace.asked(10_000_000, TimeUs(4_000_000), now);
        assert!((pace.average_per_s(now) - 10.0).abs() < 0.1);
        assert!(pace.average_per_s(now.plus_us(900_000)) > 5.0);
        assert!(pace.average_per_s(now.plus_us(1_100_000)) < 0.1);
    }

    #[test]
    fn what_may_be_chance_moves_the_average_little() {
        let steady = vec![25; 20];
        let by_chance = averages_per_s(&[steady.clone(), vec![40]].concat());
        assert!(by_chance[20] < 106.0, "{by_chance:?}");
        let surge = averages_per_s(&[steady, vec![42]].concat());
        assert!(surge[20] > 160.0, "{surge:?}");
    }

    #[test]
    fn a_gateway_is_covered_for_two_windows_and_half_a_second_at_least() {
        for (window_us, covered) in [(250_000, 50), (1_000_000, 200)] {
            let mut pace = Pace::default();
            let now = TimeUs(5_000_000);
            let micro = 100 * window_us;
            let since = TimeUs(now.0 - window_us);
            assert_eq!(pace.asked(micro, since, now), covered * 1_000_000);
        }
    }

    #[test]
    fn an_average_of_few_requests_is_their_rate() {
        let mut pace = Pace::default();
        let mut now = TimeUs(1_000_000);
        for sync in 0..800 {
            let since = now;
            now = now.plus_us(SYNC_US);
            // One request in each eighth sync: a request every two seconds.
            pace.asked(if sync % 8 == 0 { 1_000_000 } else { 0 }, since, now);
        }
        let average_per_s = pace.average_per_s(now);
        assert!((0.4..0.6).contains(&average_per_s), "{average_per_s}");
    }
}
