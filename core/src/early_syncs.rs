//! How often a gateway may sync before its time.
//!
//! An early sync brings tokens to where they are asked for within a round trip, and costs the control plane as much as any other. Customers
//! that want more than their contracts are denied all the time, so without a bound each gateway would sync as fast as it can, for
//! tokens that do not exist. So early syncs are saved up: a few at once when traffic moves, and one for each second of the default
//! interval in the long run, which keeps a gateway's messages within a fifth of those that it sends anyway.

use crate::time::TimeUs;

/// An early sync comes no sooner than this after the sync before, so that a storm of deviations is one sync.
pub(crate) const EARLY_GAP_US: u64 = 50_000;

/// One early sync is saved up in so many intervals.
const INTERVALS_EACH: u64 = 4;

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

    /// Notes that one was sent.
    pub(crate) fn sent(&mut self, now: TimeUs) {
        self.full_at = self.full_at.max(now).plus_us(self.each_us());
    }

    fn each_us(&self) -> u64 {
        self.interval_us.saturating_mul(INTERVALS_EACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_US: u64 = 250_000;

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
            early.sent(sent_at);
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
    fn what_was_not_used_for_a_year_is_no_more_than_what_can_be_saved_up() {
        let mut early = EarlySyncs::new(INTERVAL_US);
        early.sent(TimeUs(0));
        let mut now = TimeUs(31_536_000_000_000);
        let mut at_once = 0;
        while early.next_at(now) == now.plus_us(EARLY_GAP_US) {
            now = now.plus_us(EARLY_GAP_US);
            early.sent(now);
            at_once += 1;
        }
        assert_eq!(at_once, SAVED_MOST);
    }
}
