//! One account: central buckets, grants of the present tenure, and the last report.

use super::record::{AccountRecord, HoldingRecord};
use forebay_core::amount::Micro;
use forebay_core::bucket::Bucket;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_wire::sync::CustomerReport;
use std::sync::Once;

/// What a counter may grow by in one report: a million million tokens.
const GROWTH_MOST_MICRO: u64 = 1_000_000_000_000_000_000;

static ABSURD: Once = Once::new();

/// Who holds the tokens that were granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Number of the newest tenure; grows with each incarnation that is let in. 0: none yet.
    pub generation: u64,
    /// Set when it has ended: from then on nobody can spend what was granted.
    pub ended_at: Option<TimeUs>,
    /// When the tenure before it ended. What that one held refills from here.
    pub previous_ended_at: TimeUs,
    /// The first tenure of the incarnation that has this one. One that was away for longer than its lease and fallback begins
    /// another, but its sums go on.
    pub incarnation_from: u64,
}

/// Cumulative counters in micro-tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens asked for.
    pub demand: u64,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens denied.
    pub denied: u64,
    /// Demand that the shadow bucket did not foresee.
    pub deviation: u64,
}

/// One resource of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Holding {
    /// The central bucket.
    pub bucket: Bucket,
    /// When the central bucket was last brought up to date.
    pub at: TimeUs,
    /// Tokens granted in this tenure.
    pub granted_cum: u64,
    /// Operator's adjustments in this tenure.
    pub adjust_cum: i64,
    /// What of both was moved before the policy last began to list the customer: the gateway may have dropped it since.
    pub base_cum: u64,
    /// Last report of this tenure.
    pub reported: Counters,
    /// Sum over the tenures before.
    pub past: Counters,
    /// Tokens that the gateway held at its last report.
    pub balance: i64,
    /// Refill of the shadow bucket at the last report. Not kept over a restart: the next report brings it.
    pub shadow_rate: u64,
    /// Claims in the shadow bucket and its depth at the last report. Not kept over a restart.
    pub shadow: (i64, u64),
    /// `FLAG_*` of the last report. Not kept over a restart.
    pub flags: u32,
    /// Step of usage history that the demand below belongs to.
    pub step: u64,
    /// Demand of that step so far.
    pub step_demand: u64,
}

/// A customer's account (or that of the pools).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// The tenure in which tokens were last granted or counters reported; 0: never.
    pub generation: u64,
    /// True while that tenure's gateway holds the tokens and the rate.
    pub granted: bool,
    /// By resource, in the order of the policy.
    pub holdings: Vec<Holding>,
}

// === impl Counters ===

impl Counters {
    /// Field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            demand: self.demand.saturating_add(other.demand),
            admitted: self.admitted.saturating_add(other.admitted),
            denied: self.denied.saturating_add(other.denied),
            deviation: self.deviation.saturating_add(other.deviation),
        }
    }

    /// Whether a field has grown by more than traffic can. Taken as they are, such counters would stand still for ever.
    fn grow_absurdly(self, before: Self) -> bool {
        [
            (self.demand, before.demand),
            (self.admitted, before.admitted),
            (self.denied, before.denied),
            (self.deviation, before.deviation),
        ]
        .iter()
        .any(|(now, before)| now.saturating_sub(*before) > GROWTH_MOST_MICRO)
    }

    /// Field by field the larger one: counters are cumulative, so the larger one is the later one.
    fn latest(self, other: Self) -> Self {
        Self {
            demand: self.demand.max(other.demand),
            admitted: self.admitted.max(other.admitted),
            denied: self.denied.max(other.denied),
            deviation: self.deviation.max(other.deviation),
        }
    }
}

// === impl Holding ===

impl Holding {
    fn new(limits: &Limits, now: TimeUs, start: Option<TimeUs>) -> Self {
        let mut holding = Self {
            bucket: Bucket::full(limits.burst),
            at: now,
            ..Self::default()
        };
        if let Some(start) = start {
            holding.bucket = Bucket::default();
            holding
                .bucket
                .refill(limits.rate, limits.burst, now.since(start));
        }
        holding
    }

    /// All that was ever reported.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.past.plus(self.reported)
    }

    /// Takes a report in; returns the demand that is new in it. A repeated or older report brings nothing, an absurd one neither.
    pub fn report(&mut self, report: &CustomerReport) -> u64 {
        let counters = Counters {
            demand: report.demand_micro,
            admitted: report.admitted_micro,
            denied: report.denied_micro,
            deviation: report.deviation_micro,
        };
        let new_demand = if counters.grow_absurdly(self.reported) {
            // One line per process: a gateway may send thousands of these, several times a second.
            ABSURD.call_once(|| {
                tracing::warn!(?counters, before = ?self.reported, "a gateway reports counters that no traffic explains: such ones are ignored");
            });
            0
        } else {
            let new_demand = counters.demand.saturating_sub(self.reported.demand);
            self.reported = self.reported.latest(counters);
            new_demand
        };
        self.balance = report.balance_micro;
        self.shadow_rate = report.shadow_rate_micro_per_s;
        self.shadow = (report.shadow_balance_micro, report.shadow_depth_micro);
        self.flags = report.flags;
        new_demand
    }

    /// Everything that was moved to the gateway in this tenure, as the gateway sums it up.
    #[must_use]
    pub fn moved_cum(&self) -> u64 {
        self.granted_cum.wrapping_add_signed(self.adjust_cum)
    }

    fn refill(&mut self, limits: &Limits, now: TimeUs) {
        self.bucket
            .refill(limits.rate, limits.burst, now.since(self.at));
        self.at = self.at.max(now);
    }
}

// === impl Account ===

impl Account {
    /// An account that was never seen. It starts full, or with what has flowed since `start` where an earlier life may have
    /// been forgotten.
    #[must_use]
    pub fn new(limits: &[Limits], now: TimeUs, start: Option<TimeUs>) -> Self {
        Self {
            holdings: limits
                .iter()
                .map(|limits| Holding::new(limits, now, start))
                .collect(),
            ..Self::default()
        }
    }

    /// Takes back what a tenure that has ended held: it counts as spent, and has refilled since the end.
    pub fn settle(&mut self, tenure: Tenure) {
        let ended_at = if self.generation == tenure.generation {
            tenure.ended_at
        } else {
            Some(tenure.previous_ended_at)
        };
        let Some(ended_at) = ended_at else { return };
        if self.granted {
            self.granted = false;
            for holding in &mut self.holdings {
                holding.bucket = Bucket::default();
                holding.at = holding.at.max(ended_at);
            }
        }
    }

    /// Puts the account into the present tenure.
    pub fn enter(&mut self, tenure: Tenure) {
        self.settle(tenure);
        if self.generation == tenure.generation {
            return;
        }
        let goes_on = self.generation != 0 && self.generation >= tenure.incarnation_from;
        self.generation = tenure.generation;
        if goes_on {
            return;
        }
        for holding in &mut self.holdings {
            *holding = Holding {
                bucket: holding.bucket,
                at: holding.at,
                past: holding.totals(),
                step: holding.step,
                step_demand: holding.step_demand,
                ..Holding::default()
            };
        }
    }

    /// The policy begins to list the customer. The gateway makes a new entry for it, unless it has not heard yet that the
    /// customer was gone; in either case what was moved up to here does not come a second time. Returns whether anything was.
    pub fn begin_life(&mut self) -> bool {
        let mut has_begun = false;
        for holding in &mut self.holdings {
            let moved_cum = holding.moved_cum();
            has_begun |= moved_cum != std::mem::replace(&mut holding.base_cum, moved_cum);
        }
        has_begun
    }

    /// The gateway says that it has dropped the customer: what it held is lost, and the central buckets refill from when it
    /// can hold nothing of it any more. Returns false if it held nothing that was granted.
    pub fn take_back(&mut self, now: TimeUs) -> bool {
        // A stranger's bucket is the gateway's own and goes on there.
        let was_moved = self.holdings.iter().any(|holding| holding.moved_cum() != 0);
        if !self.granted || !was_moved {
            return false;
        }
        self.granted = false;
        for holding in &mut self.holdings {
            holding.bucket = Bucket::default();
            // Chunks that workers drew before may still be spent for so long.
            holding.at = now.plus_us(CHUNK_LIFE_US);
        }
        true
    }

    /// Moves what the central buckets hold, and their rate, to the gateway of the present tenure. Returns false if it has them
    /// already. Call [`Self::enter`] first.
    pub fn grant(&mut self, limits: &[Limits], now: TimeUs) -> bool {
        if self.granted {
            return false;
        }
        self.granted = true;
        for (holding, limits) in self.holdings.iter_mut().zip(limits) {
            holding.refill(limits, now);
            let tokens = holding.bucket.level.at_least_zero();
            holding.bucket.take(tokens);
            holding.granted_cum = holding
                .granted_cum
                .saturating_add(tokens.get().unsigned_abs());
        }
        true
    }

    /// An operator gives (or takes) tokens of one resource. Where a gateway holds the contract they go to the gateway.
    pub fn adjust(
        &mut self,
        resource: usize,
        amount: Micro,
        limits: &Limits,
        tenure: Tenure,
        now: TimeUs,
    ) {
        self.settle(tenure);
        let granted = self.granted;
        let Some(holding) = self.holdings.get_mut(resource) else {
            return;
        };
        if granted {
            holding.adjust_cum = holding.adjust_cum.saturating_add(amount.get());
        } else {
            holding.refill(limits, now);
            holding.bucket.put(amount, limits.burst);
        }
    }

    /// Level of a central bucket at `now`, for the operator's eyes.
    #[must_use]
    pub fn central_level(
        &self,
        resource: usize,
        limits: &Limits,
        tenure: Tenure,
        now: TimeUs,
    ) -> Micro {
        let mut copy = self.clone();
        copy.settle(tenure);
        match copy.holdings.get_mut(resource) {
            Some(holding) if !copy.granted => {
                holding.refill(limits, now);
                holding.bucket.level
            }
            _ => Micro::ZERO,
        }
    }

    /// The form for the store.
    #[must_use]
    pub fn to_record(&self) -> AccountRecord {
        let holdings = self.holdings.iter().map(|holding| HoldingRecord {
            level_micro: holding.bucket.level.get(),
            granted_cum_micro: holding.granted_cum,
            adjust_cum_micro: holding.adjust_cum,
            base_cum_micro: holding.base_cum,
            demand_micro: holding.reported.demand,
            admitted_micro: holding.reported.admitted,
            denied_micro: holding.reported.denied,
            deviation_micro: holding.reported.deviation,
            balance_micro: holding.balance,
            past_demand_micro: holding.past.demand,
            past_admitted_micro: holding.past.admitted,
            past_denied_micro: holding.past.denied,
            past_deviation_micro: holding.past.deviation,
            step: holding.step,
            step_demand_micro: holding.step_demand,
        });
        AccountRecord {
            generation: self.generation,
            holdings: holdings.collect(),
            granted: self.granted,
        }
    }

    /// The account of a record, at a start that was clean or not: after an unclean one, central balances count as 0.
    #[must_use]
    pub fn from_record(record: &AccountRecord, now: TimeUs, clean: bool) -> Self {
        let holdings = record.holdings.iter().map(|record| Holding {
            bucket: Bucket {
                level: Micro::new(if clean {
                    record.level_micro
                } else {
                    record.level_micro.min(0)
                }),
                carry: 0,
            },
            at: now,
            granted_cum: record.granted_cum_micro,
            adjust_cum: record.adjust_cum_micro,
            base_cum: record.base_cum_micro,
            reported: Counters {
                demand: record.demand_micro,
                admitted: record.admitted_micro,
                denied: record.denied_micro,
                deviation: record.deviation_micro,
            },
            past: Counters {
                demand: record.past_demand_micro,
                admitted: record.past_admitted_micro,
                denied: record.past_denied_micro,
                deviation: record.past_deviation_micro,
            },
            balance: record.balance_micro,
            shadow_rate: 0,
            shadow: (0, 0),
            flags: 0,
            step: record.step,
            step_demand: record.step_demand_micro,
        });
        Self {
            generation: record.generation,
            granted: record.granted,
            holdings: holdings.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_no_traffic_explains_are_ignored_and_later_ones_count() {
        let report = |demand_micro, denied_micro| CustomerReport {
            demand_micro,
            denied_micro,
            ..CustomerReport::default()
        };
        let mut holding = Holding::default();
        assert_eq!(holding.report(&report(1_000, 0)), 1_000);
        assert_eq!(holding.report(&report(u64::MAX, 0)), 0);
        assert_eq!(holding.report(&report(1_200, u64::MAX)), 0);
        assert_eq!(holding.report(&report(1_500, 20)), 500);
        assert_eq!(
            (holding.reported.demand, holding.reported.denied),
            (1_500, 20)
        );
    }
}
