//! How fast tokens are asked for at one gateway: what a division goes by.
//!
//! An average over a few seconds, which follows at once what chance does not explain. An average that does not takes four syncs to follow a
//! customer that has moved to another gateway. The rate between the last two syncs, tried as well, moved tokens with each request of
//! a small customer, and of a large one to wherever its last burst was, away from gateways that were about to be asked.

use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::time::TimeUs;

/// The average forgets by this time constant.
const AVERAGE_S: f64 = 2.0;

/// An average of no more than this, in tokens per second, forgets by the second constant: with a request now and then, the first one would
/// know of the last one only.
const SLOW_PER_S: f64 = 4.0;
const SLOW_AVERAGE_S: f64 = 60.0;

/// A gateway has enough when it can go on for so many windows between reports, and for this time: as long as it takes until others
/// have given up something for it.
const COVERED_WINDOWS: f64 = 2.0;
const COVER_S_LEAST: f64 = 0.5;

/// A slow average cannot follow by itself: it is given up when the last so many seconds contradict it.
const RECENT_S: f64 = 4.0;

/// Tokens that come by chance vary by the root of their number; so many times that is not chance.
const CHANCE_DEVIATIONS: f64 = 3.0;

/// A report counts what a gateway found when it last looked at the customer: this long before the sync, in seconds. So a sync without a
/// report is not yet a gateway without requests.
const LAG_S: f64 = 0.2;

/// Reports are gathered for this time, since those of early syncs say little. More than chance explains counts at once.
const SPAN_US_LEAST: u64 = 200_000;

/// What was gathered before a pause of this length is left alone.
const PAUSE_US: u64 = 1_000_000;

/// Averages below this, in tokens per second, are over.
const PER_S_LEAST: f64 = 1e-3;

/// What was asked for lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// The average, at `at`.
    average_per_s: f64,
    at: TimeUs,
    /// Tokens that were asked for since, not yet in the average.
    gathered: f64,
    /// Tokens of the last few seconds, fading, at `at`.
    recent: f64,
}

// === impl Pace ===

impl Pace {
    /// Of a gateway about which no more is known than that it was thought to need this rate. The first reports confirm that or not.
    pub(super) fn presumed(average_per_s: f64, now: TimeUs) -> Self {
        Self {
            average_per_s,
            at: now,
            gathered: 0.0,
            recent: average_per_s * RECENT_S,
        }
    }

    /// Goes on from `now` with what was known: a gateway is heard of again, and says nothing of a pace.
    pub(super) fn goes_on(&mut self, now: TimeUs) {
        self.at = now;
    }

    /// Notes that `micro` micro-tokens were asked for since `since`, of a gateway that had enough or not (`is_pressed`). Returns what would
    /// cover the demand until more can come, in micro-tokens.
    pub fn asked(&mut self, micro: u64, since: TimeUs, now: TimeUs, is_pressed: bool) -> i64 {
        if micro > 0 {
            // Syncs without a report in between have brought nothing.
            let is_over = self.gathered == 0.0 || since.since(self.at) > PAUSE_US;
            if is_over && since > self.at {
                self.average_per_s = self.average_per_s(since);
                // What is over does not come back with the next request.
                self.recent = if self.average_per_s > 0.0 {
                    self.recent * fading(since.since(self.at))
                } else {
                    0.0
                };
                self.at = since;
                self.gathered = 0.0;
            }
            self.gathered += tokens(micro);
            self.take_in(now, is_pressed);
        }
        let cover_s = (COVERED_WINDOWS * seconds(now.since(since))).max(COVER_S_LEAST);
        let micro = self.average_per_s(now) * cover_s * MICRO_PER_TOKEN as f64;
        #[allow(clippy::cast_possible_truncation)] // a float becomes the nearest integer there is
        {
            micro as i64
        }
    }

    /// Takes what was gathered into the average, if that is enough to go by.
    fn take_in(&mut self, now: TimeUs, is_pressed: bool) {
        let span_us = now.since(self.at);
        let span_s = seconds(span_us.max(SPAN_US_LEAST));
        let before_per_s = self.average_per_s;
        let (per_s, usual) = (self.gathered / span_s, before_per_s * span_s);
        let by_chance = by_chance(usual) + before_per_s * LAG_S;
        // Whoever lacks tokens is followed upwards at the slightest sign.
        let is_more = self.gathered > usual + if is_pressed { usual.sqrt() } else { by_chance };
        if span_us < SPAN_US_LEAST && !is_more {
            return;
        }
        let fading = fading(span_us.max(SPAN_US_LEAST));
        self.recent = self.recent * fading + per_s * RECENT_S * (1.0 - fading);
        let usual_lately = before_per_s * RECENT_S;
        self.average_per_s = if is_more || self.gathered + by_chance < usual {
            self.recent = per_s * RECENT_S;
            per_s
        } else if before_per_s <= SLOW_PER_S
            && self.recent > usual_lately + self::by_chance(usual_lately)
        {
            self.recent / RECENT_S
        } else {
            let weight = 1.0 - (-span_s / average_s(before_per_s)).exp();
            before_per_s + weight * (per_s - before_per_s)
        };
        self.at = now;
        self.gathered = 0.0;
    }

    /// The average, in tokens per second, if nothing was asked for until `now` since the last report that counted something: over
    /// when chance does not explain that.
    #[must_use]
    pub fn average_per_s(&self, now: TimeUs) -> f64 {
        let idle_s = (seconds(now.since(self.at)) - LAG_S).max(0.0);
        let usual = self.average_per_s * idle_s;
        let average_per_s = self.average_per_s * (-idle_s / average_s(self.average_per_s)).exp();
        if average_per_s < PER_S_LEAST || usual > self.gathered + by_chance(usual) {
            0.0
        } else {
            average_per_s
        }
    }
}

/// How far from the `usual` tokens as many may be by chance.
fn by_chance(usual: f64) -> f64 {
    CHANCE_DEVIATIONS * (usual + 1.0).sqrt()
}

/// What is left of what was recent, after some time.
fn fading(us: u64) -> f64 {
    (-seconds(us) / RECENT_S).exp()
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
            pace.asked(tokens * 1_000_000, since, now, false);
            pace.average_per_s(now)
        };
        tokens.iter().map(ask).collect()
    }

    #[test]
    fn traffic_that_comes_is_followed_at_once_and_traffic_that_goes_in_two_syncs() {
        let averages = averages_per_s(&[25, 25, 0, 0]);
        assert!((averages[0] - 100.0).abs() < 0.1, "{averages:?}");
        assert!((averages[1] - 100.0).abs() < 0.1, "{averages:?}");
        assert!(averages[3] < 0.1, "{averages:?}");
    }

    #[test]
    fn early_syncs_whose_reports_come_late_change_nothing() {
        let mut pace = Pace::default();
        let mut now = TimeUs(1_000_000);
        // 400 tokens a second, found every 0.2 s, by syncs of any rhythm.
        for (sync, wait_us) in [250_000, 50_000, 50_000, 200_000, 50_000, 250_000]
            .into_iter()
            .cycle()
            .take(60)
            .enumerate()
        {
            let since = now;
            now = now.plus_us(wait_us);
            let found = |at: TimeUs| at.0 / 200_000 * 80_000_000;
            pace.asked(found(now) - found(since), since, now, false);
            let average_per_s = pace.average_per_s(now);
            assert!(
                sync < 6 || (300.0..500.0).contains(&average_per_s),
                "{average_per_s} after sync {sync}"
            );
        }
    }

    #[test]
    fn without_a_report_an_average_lasts_for_as_long_as_chance_explains_it() {
        let mut pace = Pace::default();
        let now = TimeUs(5_000_000);
        pace.asked(10_000_000, TimeUs(4_000_000), now, false);
        assert!((pace.average_per_s(now) - 10.0).abs() < 0.1);
        assert!(pace.average_per_s(now.plus_us(1_000_000)) > 5.0);
        assert!(pace.average_per_s(now.plus_us(1_200_000)) < 0.1);
    }

    #[test]
    fn what_may_be_chance_moves_the_average_little() {
        let steady = vec![25; 20];
        let by_chance = averages_per_s(&[steady.clone(), vec![45]].concat());
        assert!(by_chance[20] < 112.0, "{by_chance:?}");
        let surge = averages_per_s(&[steady, vec![62]].concat());
        assert!(surge[20] > 200.0, "{surge:?}");
    }

    #[test]
    fn an_average_that_was_far_too_low_is_given_up_within_seconds() {
        let mut pace = Pace::default();
        let mut now = TimeUs(1_000_000);
        // One request, and a quiet minute.
        pace.asked(1_000_000, TimeUs(750_000), now, false);
        now = now.plus_us(60_000_000);
        // Then one with each sync, four a second.
        for _ in 0..32 {
            let since = now;
            now = now.plus_us(SYNC_US);
            pace.asked(1_000_000, since, now, false);
        }
        let average_per_s = pace.average_per_s(now);
        assert!((2.0..5.0).contains(&average_per_s), "{average_per_s}");
    }

    #[test]
    fn one_request_after_a_surge_that_is_over_is_one_request() {
        let mut pace = Pace::default();
        let now = TimeUs(5_000_000);
        pace.asked(25_000_000, TimeUs(4_750_000), now, false);
        let later = now.plus_us(3_000_000);
        pace.asked(0, now, later, false);
        assert!(pace.average_per_s(later) < 0.1);
        let last = later.plus_us(SYNC_US);
        pace.asked(1_000_000, later, last, false);
        let average_per_s = pace.average_per_s(last);
        assert!(average_per_s < 5.0, "{average_per_s}");
    }

    #[test]
    fn a_report_after_a_gap_counts_for_as_long_as_the_gap() {
        let mut pace = Pace::default();
        let mut now = TimeUs(5_000_000);
        let waits_us = [SYNC_US; 60].into_iter().chain([6_000_000, SYNC_US]);
        for (sync, wait_us) in waits_us.enumerate() {
            let since = now;
            now = now.plus_us(wait_us);
            pace.asked(wait_us * 3, since, now, false);
            let average_per_s = pace.average_per_s(now);
            assert!(
                sync < 40 || (1.0..4.0).contains(&average_per_s),
                "{average_per_s} after sync {sync}"
            );
        }
    }

    #[test]
    fn a_presumed_average_holds_until_reports_contradict_it() {
        let now = TimeUs(5_000_000);
        let mut pace = Pace::presumed(40.0, now);
        assert!((pace.average_per_s(now) - 40.0).abs() < 0.1);
        let later = now.plus_us(SYNC_US);
        pace.asked(10_000_000, now, later, false);
        assert!((pace.average_per_s(later) - 40.0).abs() < 1.0);
        assert!(
            pace.average_per_s(later.plus_us(2_000_000)) < 0.1,
            "nobody asks"
        );
    }

    #[test]
    fn a_gateway_is_covered_for_two_windows_and_half_a_second_at_least() {
        for (window_us, covered) in [(250_000, 50), (1_000_000, 200)] {
            let mut pace = Pace::default();
            let now = TimeUs(5_000_000);
            let micro = 100 * window_us;
            let since = TimeUs(now.0 - window_us);
            assert_eq!(pace.asked(micro, since, now, false), covered * 1_000_000);
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
            pace.asked(if sync % 8 == 0 { 1_000_000 } else { 0 }, since, now, false);
        }
        let average_per_s = pace.average_per_s(now);
        assert!((0.4..0.6).contains(&average_per_s), "{average_per_s}");
    }
}
