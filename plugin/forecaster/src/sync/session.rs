//! When to synchronise: one call in flight, a pace, back-off with jitter.
//!
//! The session knows times and nothing of messages. One call in flight keeps the order of replies trivial and bounds what a slow
//! control plane can cost. A fleet that lost its control plane must not come back in one wave: so the wait doubles with each failure
//! and half of it is random.

use crate::host::CallId;
use forebay_core::TimeUs;
use forebay_core::pace::{Asked, Pace};

/// Longest wait between two tries, unless the interval is longer.
const BACK_OFF_MOST_US: u64 = 2_000_000;

/// The host reports every call's end; should it not, a call is forgotten this long after its timeout.
const LOST_CALL_GRACE_US: u64 = 1_000_000;

/// Times of the synchronisation with the control plane.
#[derive(Clone, Debug)]
pub struct Session {
    interval_us: u64,
    timeout_us: u64,
    pace: Pace,
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
            timeout_us: u64::from(timeout_ms).saturating_mul(1_000),
            pace: Pace::new(interval_us, seed, TimeUs(now_us)),
            in_flight: None,
            failures: 0,
            // Xorshift stays at zero once it is there.
            random: seed | 1,
        }
    }

    /// Whether a sync should be sent now.
    #[must_use]
    pub fn is_due(&self, now_us: u64) -> bool {
        self.in_flight.is_none() && TimeUs(now_us) >= self.pace.due_at()
    }

    /// Asks for a sync before the interval is over. Does nothing while the control plane fails: back-off outranks eagerness.
    pub fn hurry(&mut self, now_us: u64) {
        if self.failures == 0 {
            self.pace.hurry(TimeUs(now_us));
        }
    }

    /// Notes that a sync was sent.
    pub fn sent(&mut self, call: CallId, sequence: u64, now_us: u64) {
        self.in_flight = Some(InFlight {
            call,
            sequence,
            sent_at_us: now_us,
        });
        self.pace.sent(TimeUs(now_us));
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

    /// Notes that the last sync was answered and applied, and what the answer says about the next one.
    pub fn succeeded(&mut self, asked: Asked) {
        self.failures = 0;
        self.pace.answered(asked);
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
        let until = TimeUs(now_us).plus_us(half_us).plus_us(random_us);
        self.pace.back_off(until);
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
        session.succeeded(Asked::default());
        // An interval of 250 ms, more or less.
        assert!(!session.is_due(1_224_999));
        assert!(session.is_due(1_275_000));
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
        session.succeeded(Asked::default());
        session.hurry(1_010_000);
        session.hurry(1_020_000);
        assert!(!session.is_due(1_049_999));
        assert!(session.is_due(1_050_000));
    }

    #[test]
    fn an_interval_longer_than_the_longest_back_off_is_waited_for() {
        let mut session = Session::new(10_000, 2_000, 7, 1_000_000);
        for failures in 1..20 {
            session.failed(1_000_000);
            let wait_us = session.pace.due_at().0 - 1_000_000;
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
            session.hurry(now_us);
            let wait_us = session.pace.due_at().0 - now_us;
            let full_us = (250_000_u64 << failures).min(BACK_OFF_MOST_US);
            assert!(
                wait_us >= full_us / 2 && wait_us <= full_us,
                "failure {failures}: {wait_us}"
            );
            now_us = session.pace.due_at().0;
        }
        session.sent(99, 1, now_us);
        session.answered(99);
        session.succeeded(Asked::default());
        assert!(session.is_due(now_us + 275_000));
    }

    #[test]
    fn gateways_do_not_come_back_in_one_wave() {
        let waits: std::collections::BTreeSet<u64> = (0..20)
            .map(|seed| {
                let mut session = Session::new(250, 2_000, seed * 2 + 1, 0);
                for _ in 0..3 {
                    session.failed(0);
                }
                session.pace.due_at().0
            })
            .collect();
        assert!(waits.len() > 10, "{waits:?}");
    }
}
