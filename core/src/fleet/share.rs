//! What one gateway holds of a bucket, as far as can be known from here.

use super::ShareReport;
use crate::amount::{Micro, Rate};
use crate::grant::{Grant, GrantTerms};

/// The sequence of a reply that has not been sent, or has been lost.
const UNSENT: u64 = u64::MAX;

/// Whether the gateway's lease is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may refill at the granted rate.
    Live,
    /// Its lease has ended for sure: it refills at the fallback rate.
    Lapsed,
}

/// What may be in use, by one gateway or by several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Refill.
    pub rate: Rate,
    /// Tokens held.
    pub cap: Micro,
}

/// The share of one gateway, since its incarnation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What was offered last.
    terms: GrantTerms,
    /// The most of each that the gateway may be working with until what was offered last arrives.
    earlier: GrantTerms,
    /// The reply that carried the last change.
    offered_in: u64,
    /// Tokens moved to the gateway, less those that it returned. Wraps.
    granted_cum: u64,
    /// Sum of the operator's adjustments. Wraps.
    adjust_cum: i64,
    /// What of both went to earlier lives of the customer's entry. Wraps.
    base_cum: u64,
    /// Tokens that the gateway held at its last report; negative in debt.
    balance: Micro,
    /// Tokens moved that it had seen by then. Wraps.
    seen_cum: u64,
}

/// A share as it is kept on disk. Whether the last change has arrived is not kept: it is told again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShareRecord {
    /// What was offered last.
    pub terms: GrantTerms,
    /// The most that the gateway may be working with until that arrives.
    pub earlier: GrantTerms,
    /// Tokens moved to the gateway, less those that it returned.
    pub granted_cum: u64,
    /// Sum of the operator's adjustments.
    pub adjust_cum: i64,
    /// What of both went to earlier lives of the customer's entry.
    pub base_cum: u64,
    /// Tokens that the gateway held at its last report.
    pub balance: Micro,
    /// Tokens moved that it had seen by then.
    pub seen_cum: u64,
}

// === impl Reserved ===

impl Reserved {
    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Reserved) -> Reserved {
        Reserved {
            rate: self.rate.plus(other.rate),
            cap: self.cap.plus(other.cap),
        }
    }
}

// === impl Share ===

impl Share {
    /// What may be in use under this share.
    #[must_use]
    pub fn reserved(&self, presence: Presence) -> Reserved {
        let working = self.working();
        Reserved {
            rate: match presence {
                Presence::Live => working.rate,
                Presence::Lapsed => working.fallback_rate,
            },
            // Either everything has arrived, or what is on its way comes on top of what the gateway has by then.
            cap: self
                .terms
                .cap
                .max(self.held_most(self.earlier.cap).plus(self.on_its_way())),
        }
    }

    /// The most of each that the gateway may be working with until what was offered last arrives.
    #[must_use]
    pub const fn earlier(&self) -> GrantTerms {
        self.earlier
    }

    /// The most of each that the gateway may be working with.
    fn working(&self) -> GrantTerms {
        GrantTerms {
            rate: self.terms.rate.max(self.earlier.rate),
            cap: self.terms.cap.max(self.earlier.cap),
            fallback_rate: self.terms.fallback_rate.max(self.earlier.fallback_rate),
        }
    }

    /// The most that it can hold under a depth of `cap`: tokens above a lowered depth stay in chunks until those are spent or returned.
    fn held_most(&self, cap: Micro) -> Micro {
        cap.max(self.balance)
    }

    fn on_its_way(&self) -> Micro {
        self.unseen().at_least_zero()
    }

    /// The most tokens that may be sent on their way, if the gateway can be left `free` of the whole depth.
    pub(super) fn room_on_the_way(&self, free: Micro) -> Micro {
        free.minus(self.held_most(self.working().cap))
            .minus(self.on_its_way())
    }

    /// The share of a gateway that was away for longer than its lease and fallback, or that was forgotten here: it goes on from the sums
    /// that the gateway knows, and what it holds is void.
    #[must_use]
    pub fn adopt(report: &ShareReport) -> Share {
        Share {
            granted_cum: report.seen_cum,
            seen_cum: report.seen_cum,
            balance: report.balance,
            ..Share::default()
        }
    }

    /// Notes what the gateway holds beside anything that was granted: a bucket of its own, from before the customer was listed.
    pub fn hold(&mut self, balance: Micro) {
        self.balance = balance;
    }

    /// The customer is listed. The gateway may have dropped its entry since the last time and make a new one, or it may have heard
    /// of neither change: what was moved up to here does not come a second time. Returns whether anything was.
    pub fn begin_life(&mut self) -> bool {
        let moved_cum = self.moved_cum();
        moved_cum != std::mem::replace(&mut self.base_cum, moved_cum)
    }

    /// The gateway has dropped the customer, and all that it held with it. Only the sums go on.
    pub fn clear(&mut self) {
        let moved_cum = self.moved_cum();
        *self = Share {
            granted_cum: self.granted_cum,
            adjust_cum: self.adjust_cum,
            base_cum: moved_cum,
            seen_cum: moved_cum,
            ..Share::default()
        };
    }

    /// The form to be kept on disk.
    #[must_use]
    pub const fn to_record(&self) -> ShareRecord {
        ShareRecord {
            terms: self.terms,
            earlier: self.earlier,
            granted_cum: self.granted_cum,
            adjust_cum: self.adjust_cum,
            base_cum: self.base_cum,
            balance: self.balance,
            seen_cum: self.seen_cum,
        }
    }

    /// The share of a record; it must be told again.
    #[must_use]
    pub const fn from_record(record: &ShareRecord) -> Share {
        Share {
            terms: record.terms,
            earlier: record.earlier,
            offered_in: UNSENT,
            granted_cum: record.granted_cum,
            adjust_cum: record.adjust_cum,
            base_cum: record.base_cum,
            balance: record.balance,
            seen_cum: record.seen_cum,
        }
    }

    /// What was offered last.
    #[must_use]
    pub const fn terms(&self) -> GrantTerms {
        self.terms
    }

    /// Takes in a report. Returns the tokens that the gateway gave back.
    pub(super) fn report(&mut self, report: &ShareReport) -> Micro {
        self.balance = report.balance;
        self.seen_cum = report.seen_cum;
        // Until everything has arrived, what is missing may be on its way instead of given back.
        if !self.confirm(report.applied) {
            return Micro::ZERO;
        }
        let returned = self.unseen();
        if returned <= Micro::ZERO {
            return Micro::ZERO;
        }
        self.granted_cum = self.granted_cum.wrapping_sub_signed(returned.get());
        returned
    }

    /// Notes that the reply `applied` has been applied in full. Returns whether that confirms everything offered.
    pub fn confirm(&mut self, applied: u64) -> bool {
        let is_confirmed = self.offered_in <= applied;
        if is_confirmed {
            self.earlier = self.terms;
        }
        is_confirmed
    }

    /// Notes that the reply with the last change did not arrive.
    pub fn lost(&mut self) {
        self.offered_in = UNSENT;
    }

    /// The gateway is back after its lease had ended, and its rate may have been given away meanwhile: it goes on from the fallback rate.
    /// Its lease must not be renewed before it has been told.
    pub fn lapse(&mut self) {
        self.terms.rate = self.terms.fallback_rate;
        self.earlier.rate = self.earlier.fallback_rate;
        self.lost();
    }

    /// Notes that the share is told with the reply of this `sequence`.
    pub fn told(&mut self, sequence: u64) {
        self.offered_in = sequence;
    }

    /// An operator gives tokens to the gateway, or takes them.
    pub fn adjust(&mut self, amount: Micro) {
        self.adjust_cum = self.adjust_cum.wrapping_add(amount.get());
        self.lost();
    }

    /// Everything that was moved, as the gateway sums it up. Wraps.
    #[must_use]
    pub const fn moved_cum(&self) -> u64 {
        self.granted_cum.wrapping_add_signed(self.adjust_cum)
    }

    /// The grant to be sent.
    #[must_use]
    pub const fn to_grant(&self) -> Grant {
        Grant {
            terms: self.terms,
            granted_cum: self.granted_cum,
            adjust_cum: self.adjust_cum,
            base_cum: self.base_cum,
        }
    }

    /// Tokens that the gateway holds, with what is on its way, as far as is known.
    #[must_use]
    pub fn content(&self) -> Micro {
        self.balance.plus(self.unseen())
    }

    pub(super) fn offer(&mut self, terms: GrantTerms, sequence: u64) -> bool {
        if terms == self.terms {
            return false;
        }
        self.earlier = self.working();
        self.terms = terms;
        self.offered_in = sequence;
        true
    }

    pub(super) fn take_in(&mut self, tokens: Micro, sequence: u64) {
        self.earlier = self.working();
        self.granted_cum = self.granted_cum.wrapping_add_signed(tokens.get());
        self.offered_in = sequence;
    }

    /// Moved, but not seen at the last report.
    const fn unseen(&self) -> Micro {
        Micro::new(self.moved_cum().wrapping_sub(self.seen_cum).cast_signed())
    }
}
