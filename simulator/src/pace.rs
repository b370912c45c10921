//! When a gateway syncs: at its interval, sooner when it is asked to or when a sync may bring tokens that are missing.

use forebay_core::TimeUs;
use forebay_core::early_syncs::{EARLY_GAP_US, EarlySyncs};

/// A gateway looks for denials at this pace.
const SCAN_US: u64 = 200_000;

/// An early sync must save this part of the interval.
const WORTH_PART: u64 = 5;

/// The times of a gateway's syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval_us: u64,
    sent_at: TimeUs,
    due_at: TimeUs,
    early: EarlySyncs,
    /// The next sync brings the rest of an answer.
    is_rest: bool,
    /// When the control plane has said that a sync brings what is missing.
    asked_at: Option<TimeUs>,
}

// === impl Pace ===

impl Pace {
    /// The first sync is due at once, the next ones every `interval_us`.
    #[must_use]
    pub const fn new(interval_us: u64, now: TimeUs) -> Self {
        Self {
            interval_us,
            sent_at: now,
            due_at: now,
            early: EarlySyncs::new(interval_us),
            is_rest: true,
            asked_at: None,
        }
    }

    /// When the next sync is due.
    #[must_use]
    pub const fn due_at(&self) -> TimeUs {
        self.due_at
    }

    /// A sync was sent.
    pub fn sent(&mut self, now: TimeUs) {
        if now < self.sent_at.plus_us(self.interval_us) && !self.is_rest {
            self.early.sent(now);
        }
        self.is_rest = false;
        self.sent_at = now;
        self.due_at = now.plus_us(self.interval_us);
        self.asked_at = self.asked_at.filter(|asked_at| *asked_at > now);
        self.keep_to_what_was_asked();
    }

    fn keep_to_what_was_asked(&mut self) {
        if let Some(asked_at) = self.asked_at
            && asked_at.plus_us(self.interval_us / WORTH_PART)
                <= self.sent_at.plus_us(self.interval_us)
        {
            self.due_at = self
                .due_at
                .min(asked_at.max(self.early.next_at(self.sent_at)));
        }
    }

    /// The last sync was answered: the next one should come `asked_us` after it; 0 says nothing.
    pub fn answered(&mut self, asked_us: u64) {
        if asked_us > 0 {
            self.due_at = self.sent_at.plus_us(self.interval_us);
            let most_us = self.interval_us.saturating_mul(2);
            self.asked_at = Some(self.sent_at.plus_us(asked_us.min(most_us)));
            self.keep_to_what_was_asked();
        }
    }

    /// The last sync was answered with a part of what there is to say.
    pub fn answered_in_part(&mut self) {
        self.is_rest = true;
        self.due_at = self.due_at.min(self.sent_at.plus_us(EARLY_GAP_US));
    }

    /// A request was denied of which other gateways or the control plane have the tokens.
    pub fn denied(&mut self, now: TimeUs) {
        if self.asked_at.is_some() {
            return;
        }
        let seen_at = TimeUs(now.0.next_multiple_of(SCAN_US));
        self.due_at = self
            .due_at
            .min(seen_at.max(self.early.next_at(self.sent_at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_what_is_denied_make_a_sync_early_but_not_a_storm() {
        let mut pace = Pace::new(250_000, TimeUs(0));
        pace.sent(TimeUs(1_000_000));
        assert_eq!(pace.due_at(), TimeUs(1_250_000));
        pace.answered(10_000);
        assert_eq!(pace.due_at(), TimeUs(1_050_000));
        pace.sent(TimeUs(1_050_000));
        pace.answered(0);
        assert_eq!(pace.due_at(), TimeUs(1_300_000));
        pace.denied(TimeUs(1_060_000));
        assert_eq!(pace.due_at(), TimeUs(1_200_000));
        pace.answered(10_000_000);
        assert_eq!(pace.due_at(), TimeUs(1_300_000));
        pace.denied(TimeUs(1_160_000));
        assert_eq!(pace.due_at(), TimeUs(1_300_000), "it was told when to come");
    }

    #[test]
    fn the_rest_of_an_answer_is_fetched_at_once_and_costs_no_early_sync() {
        let mut pace = Pace::new(250_000, TimeUs(0));
        let mut now = TimeUs(1_000_000);
        for _ in 0..100 {
            pace.sent(now);
            pace.answered_in_part();
            assert_eq!(pace.due_at(), now.plus_us(EARLY_GAP_US));
            now = pace.due_at();
        }
        pace.sent(now);
        pace.answered(10_000);
        assert_eq!(pace.due_at(), now.plus_us(EARLY_GAP_US));
    }
}
