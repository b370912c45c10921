//! How fast tokens are asked for at one gateway: what a division goes by.
//!
//! Two figures, because one cannot serve both ends. The rate between the last two syncs shows at once that traffic has moved; but
//! a customer with a few requests a second shows 0 in most of such windows, and its tokens would travel for nothing. So a division
//! serves the former as far as the average over some ten seconds bears it out, and the rest of the average after that, as what may be
//! asked for again. The average follows at once what chance does not explain. An average that did not took four syncs to follow a
//! customer that had moved to another gateway; the rate between two syncs alone moved the tokens of small customers with each request.

use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::time::TimeUs;

/// The average forgets by this time constant.
const AVERAGE_S: f64 = 10.0;

/// An average of no more than this, in tokens per second, forgets by the second constant: with a request now and then, the first one would
/// know of the last three only.
const SLOW_PER_S: f64 = 4.0;
const SLOW_AVERAGE_S: f64 = 60.0;

/// Where more is asked for than before, by this one: a gateway that traffic comes back to is not kept short by what it had.
const RISING_S: f64 = 1.0;

/// A gateway has enough when it can go on for so many windows between reports, and for this time: as long as it takes until others
/// have given up something for it.
const COVERED_WINDOWS: f64 = 2.0;
const COVER_S_LEAST: f64 = 0.5;

/// Tokens that come by chance vary by the root of their number; so many times that is not chance.
const SURGE_DEVIATIONS: f64 = 3.0;

/// So few tokens in a window say nothing of a rate.
const FEW_TOKENS: f64 = 3.0;

/// The last rate is of no less time than this.
const SPAN_S_LEAST: f64 = 0.2;

/// Shorter windows than this say little, and a repeated request has none.
const WINDOW_US_LEAST: u64 = 40_000;

/// Averages below this, in tokens per second, are over.
const PER_S_LEAST: f64 = 1e-3;

/// What was asked for lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Between the last two syncs that brought a report, in tokens per second.
    last_per_s: f64,
    /// The same, in tokens.
    last: f64,
    /// How long that was.
    window_s: f64,
    /// The average, at `at`.
    average_per_s: f64,
    at: TimeUs,
}

// === impl Pace ===

impl Pace {
    /// Notes that `micro` micro-tokens were asked for since `since`.
    pub fn asked(&mut self, micro: u64, since: TimeUs, now: TimeUs) {
        let window_us = now.since(since.max(self.at)).max(WINDOW_US_LEAST);
        // Before that nothing was asked for.
        let began_at = TimeUs(now.0.saturating_sub(window_us));
        let before_per_s = self.average_per_s(began_at);
        if began_at > self.at {
            self.last_per_s = 0.0;
        }
        self.at = now;
        self.take_in(tokens(micro), seconds(window_us), before_per_s);
    }

    /// Notes that at least `micro` were asked for since `since`, where that is more than what was noted before at the same moment.
    pub fn asked_at_least(&mut self, micro: u64, since: TimeUs, now: TimeUs) {
        if self.at < now {
            self.asked(micro, since, now);
            return;
        }
        let window_s = seconds(now.since(since).max(WINDOW_US_LEAST));
        if tokens(micro) / window_s > self.last_per_s {
            self.take_in(tokens(micro), window_s, self.average_per_s);
        }
    }

    /// Averages a window in. One that chance does not explain is the new average: whoever has moved here has not asked before.
    fn take_in(&mut self, asked: f64, window_s: f64, before_per_s: f64) {
        let per_s = asked / window_s;
        // One request in a short window is not a high rate: what came before counts for the rest of the time.
        let span_s = window_s.max(SPAN_S_LEAST);
        self.last = asked + self.last_per_s * (span_s - window_s);
        self.last_per_s = self.last / span_s;
        self.window_s = window_s;
        let usual = before_per_s * window_s;
        if asked > usual + SURGE_DEVIATIONS * (usual + 1.0).sqrt() {
            self.average_per_s = per_s;
            return;
        }
        let is_rising = self.last > FEW_TOKENS && self.last_per_s > before_per_s;
        let average_s = if is_rising {
            RISING_S
        } else {
            average_s(before_per_s)
        };
        let weight = 1.0 - (-window_s / average_s).exp();
        self.average_per_s = before_per_s + weight * (per_s - before_per_s);
    }

    /// Whether so little is asked for that a sync can bring every token that is used.
    #[must_use]
    pub fn is_slow(&self, now: TimeUs) -> bool {
        self.last <= FEW_TOKENS && self.average_per_s(now) <= SLOW_PER_S
    }

    /// What would cover the demand of the next two windows if it goes on like that, in micro-tokens.
    #[must_use]
    pub fn cover(&self) -> i64 {
        let cover_s = (COVERED_WINDOWS * self.window_s).max(COVER_S_LEAST);
        let micro = self.last_per_s * cover_s * MICRO_PER_TOKEN as f64;
        #[allow(clippy::cast_possible_truncation)] // a float becomes the nearest integer there is
        {
            micro as i64
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

    /// What a division should serve first, in tokens per second: what was asked for between the last two syncs (see
    /// [`Self::last_per_s`]). Where that is few tokens, or nobody is pressed for them, no more of it than `average_per_s` bears out.
    #[must_use]
    pub fn demand_per_s(&self, synced_at: TimeUs, average_per_s: f64, is_pressed: bool) -> f64 {
        let last_per_s = self.last_per_s(synced_at);
        if is_pressed && self.last > FEW_TOKENS {
            last_per_s
        } else {
            last_per_s.min(average_per_s)
        }
    }

    /// The average at `now`, in tokens per second.
    #[must_use]
    pub fn average_per_s(&self, now: TimeUs) -> f64 {
        let idle_s = seconds(now.since(self.at));
        let average_per_s = self.average_per_s * (-idle_s / average_s(self.average_per_s)).exp();
        if average_per_s < PER_S_LEAST {
            0.0
        } else {
            average_per_s
        }
    }
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
