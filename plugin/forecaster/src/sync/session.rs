//! When to synchronise: one call in flight, an interval, early calls, back-off with jitter.
//!
//! The session knows times and nothing of messages. One call in flight keeps the order of replies trivial and bounds what a slow
//! control plane can cost. A fleet that lost its control plane must not come back in one wave: so the wait doubles with each failure
//! and half of it is random.

use crate::host::CallId;
use forebay_core::TimeUs;
use forebay_core::early_syncs::{EARLY_GAP_US, EarlySyncs};

/// Longest wait between two tries, unless the interval is longer.
const BACK_OFF_MOST_US: u64 = 2_000_000;

/// An early sync must save this part of the interval.
const WORTH_PART: u64 = 5;

/// The host reports every call's end; should it not, a call is forgotten this long after its timeout.
const LOST_CALL_GRACE_US: u64 = 1_000_000;

/// Times of the synchronisation with the control plane.
#[derive(Clone, Debug)]
pub struct Session {
    interval_us: u64,
    /// The same, or what the control plane expects if that is shorter.
    usual_us: u64,
    timeout_us: u64,
    next_at_us: u64,
    last_sent_us: Option<u64>,
    early: EarlySyncs,
    /// The next sync fetches the rest of an answer.
    is_rest: bool,
    /// When the control plane has said that a sync brings what is missing.
    asked_at_us: Option<u64>,
    in_flight: Option<InFlight>,
    failures: u32,
    random: u64,
}

/// A sync that was sent and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The host's number of the call.
    pub call: CallId,
    /// Number of the request; the answer must echo it.
    pub sequence: u64,
    /// Monotonic time of sending. Every time to live in the answer counts from here, never from its arrival.
    pub sent_at_us: u64,
}

// === impl Session ===

impl Session {
    /// A session whose first sync is due at once. `seed` differs between gateways.
    #[must_use]
    pub fn new(interval_ms: u32, timeout_ms: u32, seed: u64, now_us: u64) -> Self {
        let interval_us = u64::from(interval_ms).saturating_mul(1_000);
        Self {
            interval_us,
            usual_us: interval_us,
            timeout_us: u64::from(timeout_ms).saturating_mul(1_000),
            next_at_us: now_us,
            last_sent_us: None,
            early: EarlySyncs::new(interval_us),
            is_rest: false,
            asked_at_us: None,
            in_flight: None,
            failures: 0,
            // Xorshift stays at zero once it is there.
            random: seed | 1,
        }
    }

    /// Whether a sync should be sent now.
    #[must_use]
    pub fn is_due(&self, now_us: u64) -> bool {
        self.in_flight.is_none() && now_us >= self.next_at_us
    }

    /// Asks for a sync before the interval is over, as far as early ones are left. Does nothing while the control plane fails: back-off
    /// outranks eagerness. Nor when the control plane has said when to come: a sync before that would find nothing and be missing later.
    pub fn hurry(&mut self) {
        if self.failures == 0 && self.asked_at_us.is_none() {
            self.next_at_us = self.next_at_us.min(self.early_at_us());
        }
    }

    fn early_at_us(&self) -> u64 {
        self.last_sent_us
            .map_or(0, |sent_us| self.early.next_at(TimeUs(sent_us)).0)
    }

    /// Notes that a sync was sent.
    pub fn sent(&mut self, call: CallId, sequence: u64, now_us: u64) {
        self.in_flight = Some(InFlight {
            call,
            sequence,
            sent_at_us: now_us,
        });
        let is_early = self
            .last_sent_us
            .is_some_and(|sent_us| now_us < sent_us.saturating_add(self.usual_us));
        if is_early && !self.is_rest {
            self.early.sent(TimeUs(now_us));
        }
        self.is_rest = false;
        self.last_sent_us = Some(now_us);
        self.next_at_us = now_us.saturating_add(self.usual_us);
        // One that was sent for something else in the meantime changes nothing about it.
        self.asked_at_us = self.asked_at_us.filter(|asked_us| *asked_us > now_us);
        self.keep_to_what_was_asked(now_us);
    }

    /// Takes the call out of flight if it is the one that `call` names; a late answer to a forgotten call gives `None`.
    pub fn answered(&mut self, call: CallId) -> Option<InFlight> {
        let in_flight = self.in_flight.filter(|in_flight| in_flight.call == call)?;
        self.in_flight = None;
        Some(in_flight)
    }

    /// Takes a call out of flight that the host will not answer any more.
    pub fn give_up_lost(&mut self, now_us: u64) -> Option<InFlight> {
        let lost_after_us = self.lost_after_us();
        let in_flight = self
            .in_flight
            .filter(|in_flight| now_us.saturating_sub(in_flight.sent_at_us) > lost_after_us)?;
        self.in_flight = None;
        Some(in_flight)
    }

    /// How long after it was sent a call, of whatever kind, is lost.
    #[must_use]
    pub fn lost_after_us(&self) -> u64 {
        self.timeout_us.saturating_add(LOST_CALL_GRACE_US)
    }

    /// Notes that the last sync was answered and applied. `more` asks for the next one at once: the answer was one part of several. The
    /// control plane expects one every `interval_ms`; our own interval stays the longest, and 0 says nothing. When tokens are on the
    /// move it asks for the next one after `early_ms`.
    pub fn succeeded(&mut self, more: bool, interval_ms: u32, early_ms: u32) {
        self.failures = 0;
        let us = |ms: u32| u64::from(ms).saturating_mul(1_000);
        let sent_us = self.last_sent_us.unwrap_or(0);
        if interval_ms > 0 {
            self.usual_us = us(interval_ms).clamp(EARLY_GAP_US, self.interval_us.max(EARLY_GAP_US));
            self.next_at_us = self.next_at_us.min(sent_us.saturating_add(self.usual_us));
        }
        if early_ms > 0 {
            // A deviation that was found while the answer was on its way is answered by it.
            self.next_at_us = sent_us.saturating_add(self.usual_us);
            let most_us = self.usual_us.saturating_mul(2);
            self.asked_at_us = Some(sent_us.saturating_add(us(early_ms).min(most_us)));
            self.keep_to_what_was_asked(sent_us);
        }
        if more {
            self.is_rest = true;
            self.next_at_us = self.next_at_us.min(sent_us.saturating_add(EARLY_GAP_US));
        }
    }

    /// Comes when it was asked to, if that is sooner than usual by more than it is worth.
    fn keep_to_what_was_asked(&mut self, sent_us: u64) {
        let Some(asked_us) = self.asked_at_us else {
            return;
        };
        let usual_at_us = sent_us.saturating_add(self.usual_us);
        if asked_us.saturating_add(self.usual_us / WORTH_PART) <= usual_at_us {
            self.next_at_us = self.next_at_us.min(asked_us.max(self.early_at_us()));
        }
    }

    /// Notes a failure and backs off.
    pub fn failed(&mut self, now_us: u64) {
        self.failures = self.failures.saturating_add(1);
        let doubled = self
            .interval_us
            .saturating_mul(1_u64 << self.failures.min(16));
        let wait_us = doubled.min(BACK_OFF_MOST_US).max(self.interval_us);
        let half_us = wait_us / 2;
        let random_us = self
            .next_random()
            .checked_rem(half_us.saturating_add(1))
            .unwrap_or(0);
        self.next_at_us = now_us.saturating_add(half_us).saturating_add(random_us);
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(250, 2_000, 7, 1_000_000)
    }

    #[test]
    fn the_first_sync_is_due_at_once_and_the_next_after_the_interval() {
        let mut session = session();
        assert!(session.is_due(1_000_000));
        session.sent(1, 1, 1_000_000);
        assert!(session.answered(1).is_some());
        session.succeeded(false, 0, 0);
        assert!(!session.is_due(1_249_999));
        assert!(session.is_due(1_250_000));
    }

    #[test]
    fn the_control_plane_may_ask_for_a_sooner_sync_but_not_for_a_storm_nor_a_later_one() {
        for (asked_ms, wait_us) in [
            (100, 100_000),
            (1, EARLY_GAP_US),
            (0, 250_000),
            (60_000, 250_000),
        ] {
            let mut session = session();
            session.sent(1, 1, 1_000_000);
            session.answered(1);
            session.succeeded(false, 0, asked_ms);
            assert!(
                !session.is_due(1_000_000 + wait_us - 1),
                "{asked_ms} ms asked for"
            );
            assert!(
                session.is_due(1_000_000 + wait_us),
                "{asked_ms} ms asked for"
            );
            session.sent(2, 2, 2_000_000);
            assert!(!session.is_due(2_249_999), "it was asked for once");
        }
    }

    #[test]
    fn the_control_plane_may_expect_more_syncs_than_we_would_send_and_those_are_not_early() {
        let mut session = Session::new(1_000, 2_000, 7, 1_000_000);
        let mut now_us = 1_000_000;
        for sync in 1..20 {
            session.sent(sync, u64::from(sync), now_us);
            session.answered(sync);
            session.succeeded(false, 250, 0);
            now_us += 250_000;
            assert!(!session.is_due(now_us - 1) && session.is_due(now_us));
        }
        session.hurry();
        session.sent(20, 20, now_us);
        session.answered(20);
        session.hurry();
        assert!(session.is_due(now_us + EARLY_GAP_US), "none was spent");
    }

    #[test]
    fn the_rest_of_an_answer_is_fetched_at_once_and_costs_no_early_sync() {
        let mut session = session();
        let mut now_us = 1_000_000;
        for sync in 1..100 {
            session.sent(sync, u64::from(sync), now_us);
            session.answered(sync);
            session.succeeded(true, 250, 0);
            now_us += EARLY_GAP_US;
            assert!(session.is_due(now_us));
        }
    }

    #[test]
    fn only_one_call_is_in_flight() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        assert!(!session.is_due(9_000_000));
    }

    #[test]
    fn a_late_answer_to_a_forgotten_call_is_ignored() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        assert!(session.give_up_lost(3_900_000).is_none());
        assert!(session.give_up_lost(4_000_001).is_some());
        session.sent(2, 2, 4_100_000);
        assert_eq!(session.answered(1), None);
        assert!(session.answered(2).is_some());
    }

    #[test]
    fn a_deviation_brings_the_next_sync_forward_but_a_storm_of_them_is_one_sync() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        session.answered(1);
        session.succeeded(false, 0, 0);
        session.hurry();
        session.hurry();
        assert!(!session.is_due(1_049_999));
        assert!(session.is_due(1_050_000));
    }

    #[test]
    fn a_deviation_waits_for_the_sync_that_the_control_plane_has_asked_for() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        session.answered(1);
        // One that was found before the answer came, and one after it.
        session.hurry();
        session.succeeded(false, 0, 180);
        session.hurry();
        assert!(!session.is_due(1_179_999) && session.is_due(1_180_000));
        session.sent(2, 2, 1_180_000);
        session.answered(2);
        session.succeeded(false, 0, 0);
        session.hurry();
        assert!(session.is_due(1_230_000), "it was asked for once");
    }

    #[test]
    fn a_sync_that_comes_in_between_leaves_the_one_that_was_asked_for() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        session.answered(1);
        session.succeeded(true, 0, 180);
        assert!(session.is_due(1_050_000), "the rest of the answer");
        session.sent(2, 2, 1_050_000);
        session.answered(2);
        session.succeeded(false, 0, 0);
        session.hurry();
        assert!(!session.is_due(1_179_999) && session.is_due(1_180_000));
    }

    #[test]
    fn an_early_sync_is_not_spent_on_a_moment() {
        let mut session = session();
        session.sent(1, 1, 1_000_000);
        session.answered(1);
        session.succeeded(false, 0, 220);
        session.hurry();
        assert!(!session.is_due(1_249_999) && session.is_due(1_250_000));
    }

    #[test]
    fn an_interval_longer_than_the_longest_back_off_is_waited_for() {
        let mut session = Session::new(10_000, 2_000, 7, 1_000_000);
        for failures in 1..20 {
            session.failed(1_000_000);
            let wait_us = session.next_at_us - 1_000_000;
            assert!(
                (5_000_000..=10_000_000).contains(&wait_us),
                "failure {failures}"
            );
        }
    }

    #[test]
    fn failures_double_the_wait_and_a_deviation_does_not_shorten_it() {
        let mut session = session();
        let mut now_us = 1_000_000;
        for failures in 1..12_u32 {
            session.sent(failures, 1, now_us);
            session.answered(failures);
            session.failed(now_us);
            session.hurry();
            let wait_us = session.next_at_us - now_us;
            let full_us = (250_000_u64 << failures).min(BACK_OFF_MOST_US);
            assert!(
                wait_us >= full_us / 2 && wait_us <= full_us,
                "failure {failures}: {wait_us}"
            );
            now_us = session.next_at_us;
        }
        session.sent(99, 1, now_us);
        session.answered(99);
        session.succeeded(false, 0, 0);
        assert!(session.is_due(now_us + 250_000));
    }

    #[test]
    fn gateways_do_not_come_back_in_one_wave() {
        let waits: std::collections::BTreeSet<u64> = (0..20)
            .map(|seed| {
                let mut session = Session::new(250, 2_000, seed * 2 + 1, 0);
                for _ in 0..3 {
                    session.failed(0);
                }
                session.next_at_us
            })
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
