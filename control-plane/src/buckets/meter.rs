//! Whether more was admitted of a contract than it allows: an audit of what gateways report, beside the accounting that prevents it.
//!
//! It is a second bucket of the whole contract, from which everything is taken that any gateway reports as admitted. What it has not
//! got was admitted beyond `burst + rate x t`. Reports come late, so the bucket is deeper by what flows in the time for which the most
//! silent gateway may owe one: then it never blames anybody wrongly, and of what was admitted too much it misses as much at
//! most, once. To compare sums per second, as dashboards do, was worse: bursts and late reports look like faults there.

use forebay_core::amount::{Micro, Rate};
use forebay_core::bucket::Bucket;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;

/// What was admitted before a sync is in the report of it but for what lies in chunks, and for what the forecaster has not come to: its walk
/// over a large ledger takes seconds, its batches may be full, and another forecaster may take over.
const REPORTED_WITHIN_US: u64 = CHUNK_LIFE_US + 13_000_000;

/// For so long after a change of the contract gateways may work under the one before.
const CHANGED_WITHIN_US: u64 = 10_000_000;

/// The audit of one resource of one customer. Not kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Meter {
    bucket: Bucket,
    /// Up to when it is filled; nothing counts before.
    at: TimeUs,
    allowed: Allowed,
    /// What an operator has given on top.
    given: Micro,
}

/// What a contract admits at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Allowed {
    rate: Rate,
    depth: Micro,
}

// === impl Meter ===

impl Meter {
    /// Takes what was reported as admitted, in micro-tokens, while the most silent gateway was last heard at `heard_at`. Returns what was too
    /// much.
    pub(super) fn count(
        &mut self,
        limits: &Limits,
        admitted: u64,
        heard_at: TimeUs,
        now: TimeUs,
    ) -> Micro {
        let allowed = Allowed::by(limits);
        if self.allowed != allowed {
            self.allowed = allowed;
            self.pause(now);
        }
        if now < self.at {
            return Micro::ZERO;
        }
        let owed_us = now.since(heard_at).saturating_add(REPORTED_WITHIN_US);
        let depth = allowed.depth.plus(allowed.rate.amount_in(owed_us));
        self.bucket.refill(allowed.rate, depth, now.since(self.at));
        self.at = now;
        self.bucket
            .take(Micro::new(i64::try_from(admitted).unwrap_or(i64::MAX)));
        let too_much = Micro::ZERO.minus(self.bucket.level).at_least_zero();
        self.bucket.level = self.bucket.level.at_least_zero();
        let paid = too_much.min(self.given);
        self.given = self.given.minus(paid);
        too_much.minus(paid)
    }

    /// Allows so much more, once.
    pub(super) fn give(&mut self, amount: Micro) {
        self.given = self.given.plus(amount.at_least_zero());
    }

    /// Begins anew a little later: nobody knows of what time the next reports are, or by what they were admitted.
    pub(super) fn pause(&mut self, now: TimeUs) {
        // The first refill lowers it to what the contract allows.
        self.bucket = Bucket::full(Micro::MAX);
        self.at = now.plus_us(CHANGED_WITHIN_US);
    }
}

// === impl Allowed ===

impl Allowed {
    fn by(limits: &Limits) -> Self {
        Self {
            rate: limits.rate.max(limits.ceiling),
            depth: limits
                .burst
                .plus(limits.debt_limit)
                .plus(limits.borrow_limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE_PER_S: u64 = 40;
    const BURST: u64 = 20;

    fn limits() -> Limits {
        Limits::plain(
            Rate::from_tokens_per_s(RATE_PER_S),
            Micro::from_tokens(BURST),
        )
    }

    /// A meter that counts from `now` on.
    fn running(now: TimeUs) -> Meter {
        let mut meter = Meter::default();
        let before = TimeUs(now.0 - CHANGED_WITHIN_US);
        assert_eq!(meter.count(&limits(), 0, before, before), Micro::ZERO);
        meter
    }

    proptest! {
        /// Gateways admit from one ideal bucket, and each reports at times of its own, some after long silence.
        #[test]
        fn whoever_keeps_the_contract_is_never_blamed_however_late_it_is_reported(
            turns in prop::collection::vec((1_u64..2_000_000, 0_u64..60, 0_usize..3, any::<bool>()), 1..300),
        ) {
            let mut now = TimeUs(100_000_000);
            let mut meter = running(now);
            let mut bucket = Bucket::full(limits().burst);
            let mut unreported = [0_u64; 3];
            let mut heard_at = [now; 3];
            for (wait_us, asked, gateway, reports) in turns {
                now = now.plus_us(wait_us);
                bucket.refill(limits().rate, limits().burst, wait_us);
                let admitted = asked.min(bucket.level.whole_tokens());
                bucket.take(Micro::from_tokens(admitted));
                unreported[gateway] += admitted * 1_000_000;
                if reports {
                    let oldest = heard_at.iter().min().copied().unwrap();
                    let too_much = meter.count(&limits(), std::mem::take(&mut unreported[gateway]), oldest, now);
                    prop_assert_eq!(too_much, Micro::ZERO);
                    heard_at[gateway] = now;
                }
            }
        }

        /// What flows in the time for which a report may be owed, and the burst, are missed at most.
        #[test]
        fn what_is_admitted_beyond_the_contract_is_counted_but_for_what_may_be_owed(
            seconds in 10_u64..100, extra_per_s in 1_u64..200,
        ) {
            let mut now = TimeUs(100_000_000);
            let mut meter = running(now);
            let mut counted = 0;
            for _ in 0..seconds * 4 {
                let heard_at = now;
                now = now.plus_us(250_000);
                let micro = (RATE_PER_S + extra_per_s) * 250_000;
                counted += meter.count(&limits(), micro, heard_at, now).get();
            }
            let beyond = i64::try_from(extra_per_s * seconds * 1_000_000).unwrap();
            let missed = i64::try_from((BURST + RATE_PER_S * 16) * 1_000_000).unwrap();
            prop_assert!(counted <= beyond, "{counted} of {beyond}");
            prop_assert!(counted >= beyond - missed, "{counted} of {beyond}");
        }
    }

    #[test]
    fn what_an_operator_gives_is_allowed_once() {
        let now = TimeUs(100_000_000);
        let mut meter = running(now);
        meter.give(Micro::from_tokens(1_000));
        let all = (1_000 + BURST + RATE_PER_S * 15) * 1_000_000;
        assert_eq!(meter.count(&limits(), all, now, now), Micro::ZERO);
        assert_eq!(meter.count(&limits(), 5, now, now), Micro::new(5));
    }

    #[test]
    fn nothing_counts_right_after_a_change_of_the_contract() {
        let mut now = TimeUs(100_000_000);
        let mut meter = running(now);
        let smaller = Limits::plain(Rate::from_tokens_per_s(1), Micro::from_tokens(1));
        let much = 1_000_000_000;
        assert_eq!(meter.count(&smaller, much, now, now), Micro::ZERO);
        now = now.plus_us(CHANGED_WITHIN_US);
        assert!(meter.count(&smaller, much, now, now) > Micro::ZERO);
    }
}
