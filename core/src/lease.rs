//! How long what the control plane granted is valid, and what refills afterwards.
//!
//! A refill covers a span of past time, and the lease may have ended within it. Splitting the span here keeps the buckets
//! ignorant of leases, and makes the rule testable on its own: the granted rate until the lease expires, the
//! fallback rate until the fallback ends, then nothing.

use crate::time::TimeUs;

/// What the gateway may refill with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// No control plane: the contracts themselves, for ever.
    StandAlone,
    /// Waiting for the first answer of the control plane: nothing refills.
    Waiting,
    /// Granted by the control plane.
    Granted {
        /// Time before this belongs to an earlier lease that had lapsed. It refills nothing: the control plane has
        /// withheld those tokens and grants them itself.
        from: TimeUs,
        /// Until here the granted rate refills.
        until: TimeUs,
        /// Until here the fallback rate refills, and what was granted may be spent.
        fallback_until: TimeUs,
        /// What was in the buckets before this was granted under a lease whose fallback has ended: the control plane
        /// counts it as spent and has granted it again since.
        void_before: TimeUs,
    },
}

/// The parts of a span of time by the rate that refills in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Microseconds at the granted rate (or the contract's own).
    pub granted_us: u64,
    /// Microseconds at the fallback rate.
    pub fallback_us: u64,
}

// === impl Lease ===

impl Lease {
    /// Splits the time from `at` to `now`.
    #[must_use]
    pub const fn spans(&self, at: TimeUs, now: TimeUs) -> Spans {
        match self {
            Lease::StandAlone => Spans {
                granted_us: now.since(at),
                fallback_us: 0,
            },
            Lease::Waiting => Spans {
                granted_us: 0,
                fallback_us: 0,
            },
            Lease::Granted {
                from,
                until,
                fallback_until,
                ..
            } => {
                let start = if at.0 > from.0 { at } else { *from };
                let granted_end = if now.0 < until.0 { now } else { *until };
                let fallback_start = if start.0 > until.0 { start } else { *until };
                let fallback_end = if now.0 < fallback_until.0 {
                    now
                } else {
                    *fallback_until
                };
                Spans {
                    granted_us: granted_end.since(start),
                    fallback_us: fallback_end.since(fallback_start),
                }
            }
        }
    }

    /// Whether the granted rate (or the contract's own) refills at `now`.
    #[must_use]
    pub const fn is_live(&self, now: TimeUs) -> bool {
        match self {
            Lease::StandAlone => true,
            Lease::Waiting => false,
            Lease::Granted { until, .. } => now.0 < until.0,
        }
    }

    /// Whether tokens that lie in a bucket since `at` belong to a lease that is over.
    #[must_use]
    pub const fn voids(&self, at: TimeUs) -> bool {
        match self {
            Lease::StandAlone | Lease::Waiting => false,
            Lease::Granted { void_before, .. } => at.0 < void_before.0,
        }
    }

    /// Whether lease and fallback have ended: nothing that was granted may be spent any more.
    #[must_use]
    pub const fn is_over(&self, now: TimeUs) -> bool {
        match self {
            Lease::StandAlone | Lease::Waiting => false,
            Lease::Granted { fallback_until, .. } => now.0 >= fallback_until.0,
        }
    }

    /// The lease after the control plane answered at `now` with new ends. It continues an unbroken lease, and starts afresh
    /// after a lapse.
    #[must_use]
    pub const fn renewed(&self, now: TimeUs, until: TimeUs, fallback_until: TimeUs) -> Lease {
        let (from, void_before) = match self {
            Lease::Granted {
                from,
                until,
                void_before,
                ..
            } if now.0 <= until.0 => (*from, *void_before),
            Lease::Granted {
                fallback_until,
                void_before,
                ..
            } if now.0 < fallback_until.0 => (now, *void_before),
            Lease::Granted { .. } => (now, now),
            Lease::StandAlone | Lease::Waiting => (now, TimeUs(0)),
        };
        Lease::Granted {
            from,
            until,
            fallback_until,
            void_before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease::Granted {
        from: TimeUs(100),
        until: TimeUs(200),
        fallback_until: TimeUs(300),
        void_before: TimeUs(0),
    };

    #[test]
    fn a_span_is_split_at_the_ends_of_lease_and_fallback() {
        for (at, now, granted_us, fallback_us) in [
            (120, 150, 30, 0),
            (150, 250, 50, 50),
            (150, 400, 50, 100),
            (220, 240, 0, 20),
            (310, 400, 0, 0),
            (0, 400, 100, 100),
            (150, 120, 0, 0),
        ] {
            assert_eq!(
                LEASE.spans(TimeUs(at), TimeUs(now)),
                Spans {
                    granted_us,
                    fallback_us
                },
                "{at}..{now}"
            );
        }
    }

    #[test]
    fn a_renewal_in_time_continues_the_lease_and_a_late_one_refills_nothing_for_the_lapse() {
        let renewed = LEASE.renewed(TimeUs(180), TimeUs(280), TimeUs(380));
        assert_eq!(
            renewed.spans(TimeUs(150), TimeUs(250)),
            Spans {
                granted_us: 100,
                fallback_us: 0
            }
        );
        let late = LEASE.renewed(TimeUs(350), TimeUs(450), TimeUs(550));
        assert_eq!(
            late.spans(TimeUs(150), TimeUs(400)),
            Spans {
                granted_us: 50,
                fallback_us: 0
            }
        );
    }

    #[test]
    fn tokens_end_with_the_fallback_and_do_not_come_back_with_a_new_lease() {
        assert!(!LEASE.is_over(TimeUs(299)));
        assert!(LEASE.is_over(TimeUs(300)));
        let in_fallback = LEASE.renewed(TimeUs(250), TimeUs(350), TimeUs(450));
        assert!(!in_fallback.voids(TimeUs(150)));
        let afresh = LEASE.renewed(TimeUs(320), TimeUs(420), TimeUs(520));
        assert!(afresh.voids(TimeUs(319)));
        assert!(!afresh.voids(TimeUs(320)));
    }

    #[test]
    fn a_gateway_that_waits_for_its_first_answer_refills_nothing() {
        assert_eq!(
            Lease::Waiting.spans(TimeUs(0), TimeUs(1_000)),
            Spans::default()
        );
    }
}
