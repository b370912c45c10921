//! How often a gateway may sync before its time.
//!
//! An early sync brings tokens to where they are asked for within a round trip, and costs the control plane as much as any other. Customers
//! that want more than their contracts are denied all the time, so without a bound each gateway would sync as fast as it can, for
//! tokens that do not exist. So early syncs are saved up: a few at once when traffic moves, and one for each second of the default
//! interval in the long run, which keeps a gateway's messages within a fifth of those that it sends anyway.
//!
//! In the long run, and not by the clock: gateways that lack tokens spend each one as soon as they have it, and a fleet that began to lack
//! them at one time would send its early syncs in one wave, second after second.

use crate::time::TimeUs;

/// An early sync comes no sooner than this after the sync before, so that a storm of deviations is one sync.
pub(crate) const EARLY_GAP_US: u64 = 50_000;

/// One early sync is saved up in so many intervals.
const INTERVALS_EACH: u64 = 4;

/// Or in so many more or less.
const SPREAD_INTERVALS: u64 = 1;

/// So many are saved up at most.
const SAVED_MOST: u64 = 4;

/// The early syncs that a gateway has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EarlySyncs {
    interval_us: u64,
    /// When all of them would be saved up.
    full_at: TimeUs,
}

// === impl EarlySyncs ===

impl EarlySyncs {
    /// All that can be saved up, for a gateway that syncs every `interval_us` at least.
    pub(crate) const fn new(interval_us: u64) -> Self {
        Self {
            interval_us,
            full_at: TimeUs(0),
        }
    }

    /// When the next one may be sent, if the last sync was sent at `sent_at`.
    pub(crate) fn next_at(&self, sent_at: TimeUs) -> TimeUs {
        let most_us = self.each_us().saturating_mul(SAVED_MOST.saturating_sub(1));
        let saved_at = TimeUs(self.full_at.0.saturating_sub(most_us));
        sent_at.plus_us(EARLY_GAP_US).max(saved_at)
    }

    /// Notes that one was sent. `random` is any number.
    pub(crate) fn sent(&mut self, now: TimeUs, random: u64) {
        let spread_us = self.interval_us.saturating_mul(SPREAD_INTERVALS);
        let width_us = spread_us.saturating_mul(2).saturating_add(1);
        let each_us = self
            .each_us()
            .saturating_sub(spread_us)
            .saturating_add(random.checked_rem(width_us).unwrap_or(0));
        self.full_at = self.full_at.max(now).plus_us(each_us);
    }

    fn each_us(&self) -> u64 {
        self.interval_us.saturating_mul(INTERVALS_EACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_US: u64 = 250_000;
    /// Neither more nor less.
    const USUAL: u64 = INTERVAL_US * SPREAD_INTERVALS;

    /// Sends early whenever that is allowed, for as long as this; returns when.
    fn sent_within(us: u64) -> Vec<u64> {
        let mut early = EarlySyncs::new(INTERVAL_US);
        let start = TimeUs(60_000_000);
        let mut sent_at = start;
        let mut all = Vec::new();
        loop {
            sent_at = early.next_at(sent_at);
            if sent_at > start.plus_us(us) {
                return all;
            }
            early.sent(sent_at, USUAL);
            all.push(sent_at.since(start));
        }
    }

    #[test]
    fn some_may_come_at_once_and_then_one_in_four_intervals() {
        assert_eq!(
            sent_within(3_100_000),
            [
                50_000, 100_000, 150_000, 200_000, 1_050_000, 2_050_000, 3_050_000
            ]
        );
    }

    #[test]
    fn one_is_saved_up_in_three_to_five_intervals() {
        for (random, intervals) in [(0, 3), (USUAL, 4), (2 * USUAL, 5), (2 * USUAL + 1, 3)] {
            let mut early = EarlySyncs::new(INTERVAL_US);
            early.sent(TimeUs(0), random);
            assert_eq!(early.full_at, TimeUs(intervals * INTERVAL_US), "{random}");
        }
    }

    #[test]
    fn what_was_not_used_for_a_year_is_no_more_than_what_can_be_saved_up() {
        let mut early = EarlySyncs::new(INTERVAL_US);
        early.sent(TimeUs(0), USUAL);
        let mut now = TimeUs(31_536_000_000_000);
        let mut at_once = 0;
        while early.next_at(now) == now.plus_us(EARLY_GAP_US) {
            now = now.plus_us(EARLY_GAP_US);
            early.sent(now, USUAL);
            at_once += 1;
        }
        assert_eq!(at_once, SAVED_MOST);
    }
}
