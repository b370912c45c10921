//! How long what the control plane granted is valid, and what refills afterwards.
//!
//! A refill covers a span of past time, and the lease may have ended within it. Splitting the span here keeps the buckets
//! ignorant of leases, and makes the rule testable on its own: the granted rate until the lease expires, the
//! fallback rate until the fallback ends, then nothing.
//!
//! Entries are refilled when they are used, which may be long after. A lease that was renewed late has such a time at the fallback
//! rate *behind* it, so it remembers the last of them: a customer that was idle meanwhile gets what it would have got if it had
//! been looked at all the time. Beginning afresh with each late renewal was worse: it took from every idle customer
//! all that had flowed to it since its last request.

use crate::limits::LEASE_GAPS;
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
        /// Where in between only the fallback rate refilled; those that there were none of are empty. Before a gap that is no
        /// longer among them nothing refills.
        gaps: [Gap; LEASE_GAPS],
        /// Until here the granted rate refills.
        until: TimeUs,
        /// Until here the fallback rate refills, and what was granted may be spent.
        fallback_until: TimeUs,
        /// What was in the buckets before this was granted under a lease whose fallback has ended: the control plane
        /// counts it as spent and has granted it again since.
        void_before: TimeUs,
    },
}

/// The time from the end of a lease to its renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Where the lease ended.
    pub from: TimeUs,
    /// When it was renewed.
    pub until: TimeUs,
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
    pub fn spans(&self, at: TimeUs, now: TimeUs) -> Spans {
        match self {
            Lease::StandAlone => Spans {
                granted_us: now.since(at),
                fallback_us: 0,
            },
            Lease::Waiting => Spans::default(),
            Lease::Granted {
                from,
                gaps,
                until,
                fallback_until,
                ..
            } => {
                let start = at.max(*from);
                let in_gaps_us = gaps.iter().fold(0_u64, |sum, gap| {
                    sum.saturating_add(now.min(gap.until).since(start.max(gap.from)))
                });
                Spans {
                    granted_us: now.min(*until).since(start).saturating_sub(in_gaps_us),
                    fallback_us: now
                        .min(*fallback_until)
                        .since(start.max(*until))
                        .saturating_add(in_gaps_us),
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

    /// The lease after the control plane answered at `now` with new ends. It continues a lease whose fallback has not ended, and
    /// starts afresh after that. What has flowed by now stays as it was, even where the new ends lie before `now`.
    #[must_use]
    pub fn renewed(&self, now: TimeUs, until: TimeUs, fallback_until: TimeUs) -> Lease {
        let afresh = |void_before| Lease::Granted {
            from: now,
            gaps: [Gap::default(); LEASE_GAPS],
            until,
            fallback_until,
            void_before,
        };
        let Lease::Granted {
            mut from,
            mut gaps,
            until: ended_at,
            fallback_until: over_at,
            void_before,
        } = *self
        else {
            return afresh(TimeUs(0));
        };
        if now > ended_at && now >= over_at {
            return afresh(now);
        }
        let until = until.max(now.min(ended_at));
        let mut gap = Gap {
            from: ended_at,
            until: now.min(until),
        };
        if gap.until > gap.from {
            // The newest is the last; the oldest makes room, and what flowed before it is known no longer.
            for slot in gaps.iter_mut().rev() {
                core::mem::swap(slot, &mut gap);
            }
            from = from.max(gap.until);
        }
        Lease::Granted {
            from,
            gaps,
            until,
            fallback_until,
            void_before,
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test: a failed step must stop it"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEASE: Lease = Lease::Granted {
        from: TimeUs(100),
        gaps: [Gap {
            from: TimeUs(0),
            until: TimeUs(0),
        }; LEASE_GAPS],
        until: TimeUs(200),
        fallback_until: TimeUs(300),
        void_before: TimeUs(0),
    };

    /// What the control plane does in time: it renews after so long, and its answer may have been sent long before.
    #[derive(Clone, Copy, Debug)]
    struct Renewal {
        after_us: u64,
        age_us: u64,
        lease_us: u64,
        fallback_us: u64,
    }

    fn renewal() -> impl Strategy<Value = Renewal> {
        (1..400_u64, 0..100_u64, 1..300_u64, 0..500_u64).prop_map(
            |(after_us, age_us, lease_us, fallback_us)| Renewal {
                after_us,
                age_us,
                lease_us,
                fallback_us,
            },
        )
    }

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
    fn a_renewal_during_the_fallback_keeps_what_has_flowed_by_then() {
        let renewed = LEASE.renewed(TimeUs(250), TimeUs(350), TimeUs(450));
        for (at, now, granted_us, fallback_us) in [
            (120, 300, 130, 50),
            (220, 300, 50, 30),
            (120, 230, 80, 30),
            (260, 400, 90, 50),
        ] {
            assert_eq!(
                renewed.spans(TimeUs(at), TimeUs(now)),
                Spans {
                    granted_us,
                    fallback_us
                },
                "{at}..{now}"
            );
        }
    }

    #[test]
    fn an_answer_that_comes_when_its_lease_is_over_changes_nothing_that_has_flowed() {
        let renewed = LEASE.renewed(TimeUs(250), TimeUs(220), TimeUs(400));
        assert_eq!(
            renewed.spans(TimeUs(150), TimeUs(300)),
            Spans {
                granted_us: 50,
                fallback_us: 100
            }
        );
    }

    proptest! {
        #[test]
        fn an_idle_customer_gets_what_one_gets_that_is_looked_at_all_the_time(
            renewals in prop::collection::vec(renewal(), 1..12),
            idle_from in prop::collection::vec(any::<prop::sample::Index>(), 3),
            tail_us in 0..600_u64,
        ) {
            let begin = TimeUs(1_000);
            let mut now = begin;
            let mut lease = Lease::Waiting.renewed(now, now.plus_us(200), now.plus_us(300));
            // What flowed in each microsecond, and how many late renewals there had been by then.
            let mut flowed = vec![(Spans::default(), 0)];
            let mut late = 0;
            let ends = renewals.iter().map(|renewal| (renewal.after_us, Some(renewal)));
            for (after_us, renewal) in ends.chain([(tail_us, None)]) {
                for _ in 0..after_us {
                    now = now.plus_us(1);
                    flowed.push((lease.spans(TimeUs(now.0 - 1), now), late));
                }
                let Some(renewal) = renewal.filter(|_| !lease.is_over(now)) else {
                    break;
                };
                late += usize::from(!lease.is_live(now));
                let until = TimeUs(now.0 - renewal.age_us).plus_us(renewal.lease_us);
                lease = lease.renewed(now, until, now.max(until.plus_us(renewal.fallback_us)));
            }
            for index in idle_from {
                let from = index.index(flowed.len());
                let late_before = flowed[from].1;
                let eager = flowed.iter().skip(from + 1).fold(Spans::default(), |sum, (spans, _)| Spans {
                    granted_us: sum.granted_us + spans.granted_us,
                    fallback_us: sum.fallback_us + spans.fallback_us,
                });
                let lazy = lease.spans(begin.plus_us(from as u64), now);
                prop_assert!(lazy.granted_us <= eager.granted_us && lazy.fallback_us <= eager.fallback_us, "{:?} of {:?}", lazy, eager);
                if late - late_before <= LEASE_GAPS {
                    prop_assert_eq!(lazy, eager);
                }
            }
        }
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
