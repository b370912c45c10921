//! When a gateway syncs: at its interval, sooner when it is asked to or when a sync may bring tokens that are missing.

use forebay_core::TimeUs;

/// An early sync comes no sooner than this after the one before.
const EARLY_GAP_US: u64 = 50_000;

/// A gateway looks for denials at this pace.
const SCAN_US: u64 = 100_000;

/// The times of a gateway's syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    interval_us: u64,
    sent_at: TimeUs,
    due_at: TimeUs,
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
        }
    }

    /// When the next sync is due.
    #[must_use]
    pub const fn due_at(&self) -> TimeUs {
        self.due_at
    }

    /// A sync was sent.
    pub const fn sent(&mut self, now: TimeUs) {
        self.sent_at = now;
        self.due_at = now.plus_us(self.interval_us);
    }

    /// The last sync was answered: the next one should come `asked_us` after it; 0 says nothing.
    pub fn answered(&mut self, asked_us: u64) {
        if asked_us > 0 {
            let asked_at = self.sent_at.plus_us(asked_us.max(EARLY_GAP_US));
            self.due_at = self.due_at.min(asked_at);
        }
    }

    /// A request was denied of which other gateways or the control plane have the tokens.
    pub fn denied(&mut self, now: TimeUs) {
        let seen_at = TimeUs(now.0.next_multiple_of(SCAN_US));
        let early_at = seen_at.max(self.sent_at.plus_us(EARLY_GAP_US));
        self.due_at = self.due_at.min(early_at);
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
        assert_eq!(pace.due_at(), TimeUs(1_100_000));
        pace.answered(10_000_000);
        assert_eq!(pace.due_at(), TimeUs(1_100_000));
    }
}
