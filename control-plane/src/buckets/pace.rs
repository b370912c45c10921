//! How fast tokens are asked for at one gateway: what a division goes by.
//!
//! Two figures, because one cannot serve both ends. The rate between the last two syncs shows at once that traffic has moved; but
//! a customer with a few requests a second shows 0 in most of such windows, and its tokens would travel for nothing. So the division
//! serves the former first and the average over some ten seconds after it, as what may be asked for again. An average alone took four
//! syncs to follow a customer that had moved to another gateway.

use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::time::TimeUs;

/// The average forgets by this time constant.
const AVERAGE_S: f64 = 10.0;

/// Shorter windows than this say little, and a repeated request has none.
const WINDOW_US_LEAST: u64 = 40_000;

/// Averages below this, in tokens per second, are over.
const PER_S_LEAST: f64 = 1e-3;

/// What was asked for lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Between the last two syncs that brought a report, in tokens per second.
    last_per_s: f64,
    /// The average, at `at`.
    average_per_s: f64,
    at: TimeUs,
}

// === impl Pace ===

impl Pace {
    /// Notes that `micro` micro-tokens were asked for since `since`.
    pub fn asked(&mut self, micro: u64, since: TimeUs, now: TimeUs) {
        let window_us = now.since(since.max(self.at)).max(WINDOW_US_LEAST);
        let window_s = seconds(window_us);
        self.last_per_s = tokens(micro) / window_s;
        let average_per_s = self.average_per_s(now);
        let weight = 1.0 - (-window_s / AVERAGE_S).exp();
        self.average_per_s = average_per_s + weight * self.last_per_s;
        self.at = now;
    }

    /// Notes that at least `micro` were asked for since `since`, where that is more than what was noted before at the same moment.
    pub fn asked_at_least(&mut self, micro: u64, since: TimeUs, now: TimeUs) {
        if self.at < now {
            self.asked(micro, since, now);
            return;
        }
        let window_s = seconds(now.since(since).max(WINDOW_US_LEAST));
        let per_s = tokens(micro) / window_s;
        if per_s > self.last_per_s {
            let weight = 1.0 - (-window_s / AVERAGE_S).exp();
            self.average_per_s += weight * (per_s - self.last_per_s);
            self.last_per_s = per_s;
        }
    }

    /// What was asked for between the last two syncs, in tokens per second. `synced_at` is the gateway's last sync: a newer one than the
    /// last report had nothing to report.
    #[must_use]
    pub fn last_per_s(&self, synced_at: TimeUs) -> f64 {
        if synced_at > self.at {
            0.0
        } else {
            self.last_per_s
        }
    }

    /// The average at `now`, in tokens per second.
    #[must_use]
    pub fn average_per_s(&self, now: TimeUs) -> f64 {
        let average_per_s = self.average_per_s * (-seconds(now.since(self.at)) / AVERAGE_S).exp();
        if average_per_s < PER_S_LEAST {
            0.0
        } else {
            average_per_s
        }
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

    #[test]
    fn traffic_that_moves_away_shows_at_the_next_sync_and_stays_in_the_average() {
        let mut pace = Pace::default();
        let mut now = TimeUs(1_000_000);
        for _ in 0..200 {
            let since = now;
            now = now.plus_us(SYNC_US);
            pace.asked(25_000_000, since, now);
        }
        assert!((pace.last_per_s(now) - 100.0).abs() < 0.1);
        assert!((pace.average_per_s(now) - 100.0).abs() < 2.0);
        let later = now.plus_us(SYNC_US);
        assert!(pace.last_per_s(later) == 0.0);
        assert!(pace.average_per_s(later) > 90.0);
        assert!(pace.average_per_s(now.plus_us(10_000_000)) < 40.0);
        assert!(pace.average_per_s(now.plus_us(200_000_000)) == 0.0);
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
