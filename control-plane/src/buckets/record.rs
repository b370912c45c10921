//! An account as it lies in the store: protobuf, so that later versions can add fields.
//!
//! Parts have rows of their own. A customer that is busy everywhere has hundreds of them, and a grant changes one.

use super::account::{Account, Holding, StoredRow};
use super::counters::Counters;
use super::part::{Part, PartHolding, SessionNumber, StepDemand};
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::{Central, CentralRecord, Share, ShareRecord};
use forebay_core::grant::GrantTerms;
use forebay_core::time::TimeUs;

/// Everything about an account that must survive.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AccountRecord {
    /// By resource, in the order of the policy.
    #[prost(message, repeated, tag = "1")]
    pub holdings: Vec<HoldingRecord>,
}

/// One resource of an account.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HoldingRecord {
    /// Tokens in the central bucket.
    #[prost(sint64, tag = "1")]
    pub level_micro: i64,
    /// Its refill.
    #[prost(uint64, tag = "2")]
    pub rate_micro_per_s: u64,
    /// Its depth.
    #[prost(sint64, tag = "3")]
    pub depth_micro: i64,
    /// Counters of sessions that have ended.
    #[prost(message, required, tag = "4")]
    pub past: CountersRecord,
    /// Step of usage history that was open at the last report.
    #[prost(uint64, tag = "5")]
    pub step: u64,
    /// Demand of that step so far.
    #[prost(uint64, tag = "6")]
    pub step_demand_micro: u64,
    /// What of that was denied.
    #[prost(uint64, tag = "7")]
    pub step_denied_micro: u64,
}

/// Cumulative counters.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CountersRecord {
    /// Tokens asked for.
    #[prost(uint64, tag = "1")]
    pub demand_micro: u64,
    /// Tokens admitted.
    #[prost(uint64, tag = "2")]
    pub admitted_micro: u64,
    /// Tokens denied.
    #[prost(uint64, tag = "3")]
    pub denied_micro: u64,
    /// Demand that the shadow bucket did not foresee.
    #[prost(uint64, tag = "4")]
    pub deviation_micro: u64,
}

/// One gateway's part.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartRecord {
    /// By resource.
    #[prost(message, repeated, tag = "2")]
    pub holdings: Vec<PartHoldingRecord>,
}

/// One resource of a part.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PartHoldingRecord {
    /// What was offered last.
    #[prost(message, required, tag = "1")]
    pub terms: TermsRecord,
    /// The most that the gateway may be working with until that arrives.
    #[prost(message, required, tag = "2")]
    pub earlier: TermsRecord,
    /// Tokens moved to the gateway, less those that it returned.
    #[prost(uint64, tag = "3")]
    pub granted_cum_micro: u64,
    /// Sum of the operator's adjustments.
    #[prost(sint64, tag = "4")]
    pub adjust_cum_micro: i64,
    /// What of both went to earlier lives of the customer's entry.
    #[prost(uint64, tag = "5")]
    pub base_cum_micro: u64,
    /// Tokens that the share held at the last report.
    #[prost(sint64, tag = "6")]
    pub share_balance_micro: i64,
    /// Tokens moved that had arrived by then.
    #[prost(uint64, tag = "7")]
    pub seen_cum_micro: u64,
    /// Counters at the last report.
    #[prost(message, required, tag = "8")]
    pub reported: CountersRecord,
    /// Tokens that the gateway held at its last report, granted or its own.
    #[prost(sint64, tag = "9")]
    pub balance_micro: i64,
    /// Whether what was moved is not known any more.
    #[prost(bool, tag = "10")]
    pub is_unknown: bool,
    /// When the life of the entry began that the counters are of.
    #[prost(uint64, tag = "11")]
    pub counted_since_us: u64,
    /// Counters of earlier lives.
    #[prost(message, required, tag = "12")]
    pub past: CountersRecord,
}

/// Terms of a grant.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TermsRecord {
    /// Refill.
    #[prost(uint64, tag = "1")]
    pub rate_micro_per_s: u64,
    /// Depth.
    #[prost(sint64, tag = "2")]
    pub cap_micro: i64,
    /// Refill after the lease.
    #[prost(uint64, tag = "3")]
    pub fallback_rate_micro_per_s: u64,
}

// === impl Account ===

impl Account {
    /// The form for the store, without the parts.
    #[must_use]
    pub fn to_record(&self) -> AccountRecord {
        AccountRecord {
            holdings: self.holdings.iter().map(HoldingRecord::from).collect(),
        }
    }

    /// The account of a record, at a start that was clean or not: after an unclean one, central balances count as 0.
    #[must_use]
    pub fn from_record(record: &AccountRecord, now: TimeUs, is_clean: bool) -> Self {
        Self {
            holdings: record
                .holdings
                .iter()
                .map(|record| record.to_holding(now, is_clean))
                .collect(),
            row: StoredRow::Fresh,
            ..Self::default()
        }
    }
}

// === impl Part ===

impl Part {
    /// The form for the store.
    #[must_use]
    pub fn to_record(&self) -> PartRecord {
        PartRecord {
            holdings: self.holdings.iter().map(PartHoldingRecord::from).collect(),
        }
    }

    /// The part of a record.
    #[must_use]
    pub fn from_record(session: SessionNumber, record: &PartRecord) -> Self {
        Self::stored(
            session,
            record.holdings.iter().map(PartHolding::from).collect(),
        )
    }
}

// === impl HoldingRecord ===

impl HoldingRecord {
    fn to_holding(self, now: TimeUs, is_clean: bool) -> Holding {
        let level = Micro::new(self.level_micro);
        let record = CentralRecord {
            level: if is_clean {
                level
            } else {
                level.min(Micro::ZERO)
            },
            rate: Rate::new(self.rate_micro_per_s),
            depth: Micro::new(self.depth_micro),
        };
        Holding {
            central: Central::from_record(&record, now),
            past: self.past.into(),
            usage: StepDemand {
                step: self.step,
                demand: self.step_demand_micro,
                denied: self.step_denied_micro,
                ..StepDemand::default()
            },
            ..Holding::default()
        }
    }
}

impl From<&Holding> for HoldingRecord {
    fn from(holding: &Holding) -> Self {
        let central = holding.central.to_record();
        Self {
            level_micro: central.level.get(),
            rate_micro_per_s: central.rate.get(),
            depth_micro: central.depth.get(),
            past: holding.past.into(),
            step: holding.usage.step,
            step_demand_micro: holding.usage.demand,
            step_denied_micro: holding.usage.denied,
        }
    }
}

// === impl PartHoldingRecord ===

impl From<&PartHolding> for PartHoldingRecord {
    fn from(holding: &PartHolding) -> Self {
        let share = holding.share.to_record();
        Self {
            terms: share.terms.into(),
            earlier: share.earlier.into(),
            granted_cum_micro: share.granted_cum,
            adjust_cum_micro: share.adjust_cum,
            base_cum_micro: share.base_cum,
            share_balance_micro: share.balance.get(),
            seen_cum_micro: share.seen_cum,
            reported: holding.reported.into(),
            balance_micro: holding.balance,
            is_unknown: holding.is_unknown,
            counted_since_us: holding.counted_since_us,
            past: holding.past.into(),
        }
    }
}

impl From<&PartHoldingRecord> for PartHolding {
    fn from(record: &PartHoldingRecord) -> Self {
        let share = ShareRecord {
            terms: record.terms.into(),
            earlier: record.earlier.into(),
            granted_cum: record.granted_cum_micro,
            adjust_cum: record.adjust_cum_micro,
            base_cum: record.base_cum_micro,
            balance: Micro::new(record.share_balance_micro),
            seen_cum: record.seen_cum_micro,
        };
        Self {
            share: Share::from_record(&share),
            reported: record.reported.into(),
            balance: record.balance_micro,
            is_unknown: record.is_unknown,
            counted_since_us: record.counted_since_us,
            past: record.past.into(),
            ..Self::default()
        }
    }
}

// === impl TermsRecord ===

impl From<GrantTerms> for TermsRecord {
    fn from(terms: GrantTerms) -> Self {
        Self {
            rate_micro_per_s: terms.rate.get(),
            cap_micro: terms.cap.get(),
            fallback_rate_micro_per_s: terms.fallback_rate.get(),
        }
    }
}

impl From<TermsRecord> for GrantTerms {
    fn from(record: TermsRecord) -> Self {
        Self {
            rate: Rate::new(record.rate_micro_per_s),
            cap: Micro::new(record.cap_micro),
            fallback_rate: Rate::new(record.fallback_rate_micro_per_s),
        }
    }
}

// === impl CountersRecord ===

impl From<Counters> for CountersRecord {
    fn from(counters: Counters) -> Self {
        Self {
            demand_micro: counters.demand,
            admitted_micro: counters.admitted,
            denied_micro: counters.denied,
            deviation_micro: counters.deviation,
        }
    }
}

impl From<CountersRecord> for Counters {
    fn from(record: CountersRecord) -> Self {
        Self {
            demand: record.demand_micro,
            admitted: record.admitted_micro,
            denied: record.denied_micro,
            deviation: record.deviation_micro,
        }
    }
}
