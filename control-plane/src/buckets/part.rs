//! What one gateway has of an account: its share of each bucket, and what it said last.

use super::counters::Counters;
use super::pace::Pace;
use super::sum::Sum;
use forebay_core::amount::Micro;
use forebay_core::fleet::{Presence, Reserved, Share};
use forebay_core::grant::GrantTerms;
use forebay_core::time::TimeUs;
use forebay_sharing::to_per_s;
use forebay_wire::sync::CustomerReport;
use smallvec::{SmallVec, smallvec};
use std::sync::Once;

static ABSURD: Once = Once::new();

/// A bucket with less than this part of its depth in it is dry.
const DRY: u64 = 8;

/// Changes by less than this part are not worth a message.
const NOTICEABLE: u64 = 128;

/// Number of a session: of one incarnation of one gateway, from its first sync here to its end. Never used again.
pub type SessionNumber = u64;

/// What the store does not know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsaved {
    /// Nothing.
    #[default]
    Nothing,
    /// What a gateway has reported, and would report again.
    Reports,
    /// What a gateway may be working with, which must not be forgotten.
    Grants,
}

/// One gateway's part of an account.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Whose it is, for ever: `Parts` goes by it.
    session: SessionNumber,
    /// By resource, in the order of the policy. In place where there is one resource: a division looks at all parts of an account.
    pub holdings: SmallVec<[PartHolding; 1]>,
    /// Whether the gateway has been noted as one to be granted another part. Not kept over a restart.
    pub is_due: bool,
}

/// One resource of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartHolding {
    /// What the gateway holds of the bucket.
    pub share: Share,
    /// What was moved to the gateway is not known here any more: its next report of it says so.
    pub is_unknown: bool,
    /// Its counters at the last report, of the present life of the customer's entry there.
    pub reported: Counters,
    /// When that life began, by the gateway's clock in microseconds; 0: not known.
    pub counted_since_us: u64,
    /// Counters of earlier lives.
    pub past: Counters,
    /// How fast tokens are asked for there. Not kept over a restart.
    pub pace: Pace,
    /// What was asked for there in the running step of usage history. Not kept over a restart.
    pub usage: StepDemand,
    /// Tokens that it held at its last report, granted or its own.
    pub balance: i64,
    /// Refill of the shadow bucket at the last report. Not kept over a restart: the next report brings it.
    pub shadow_rate: u64,
    /// Claims in the shadow bucket and its depth at the last report. Not kept over a restart.
    pub shadow: (i64, u64),
    /// `FLAG_*` of the last report. Not kept over a restart.
    pub flags: u32,
    /// Whether more was asked for lately than its tokens cover for long. Not kept over a restart.
    pub is_pressed: bool,
    /// What of it is counted in the sum of all parts. Not kept over a restart.
    pub(super) counted: Reserved,
    /// What it should be by the last division; `None` where nobody has said: the gateway is cut off, or new. Not kept over a restart.
    pub(super) target: Option<GrantTerms>,
}

/// Demand of a step of usage history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepDemand {
    /// The step.
    pub step: u64,
    /// Demand of it so far, in micro-tokens.
    pub demand: u64,
    /// What of that was denied.
    pub denied: u64,
    /// The step before it with demand, its demand, and what was denied: it may not be in the usage history yet. Not kept over a restart.
    pub before: (u64, u64, u64),
}

// === impl StepDemand ===

impl StepDemand {
    /// Counts demand into the running step.
    pub fn count(&mut self, step: u64, demand: u64, denied: u64) {
        if self.step != step {
            self.before = (self.step, self.demand, self.denied);
            self.step = step;
            (self.demand, self.denied) = (0, 0);
        }
        self.demand = self.demand.saturating_add(demand);
        self.denied = self.denied.saturating_add(denied);
    }

    /// Demand of a step, in micro-tokens.
    #[must_use]
    pub const fn of(&self, step: u64) -> u64 {
        self.with_denied(step).0
    }

    /// The same, and what of it was denied.
    #[must_use]
    pub const fn with_denied(&self, step: u64) -> (u64, u64) {
        if self.step == step {
            (self.demand, self.denied)
        } else if self.before.0 == step {
            (self.before.1, self.before.2)
        } else {
            (0, 0)
        }
    }
}

// === impl Part ===

impl Part {
    /// A part of nothing, or one of which a report must say first what was moved.
    #[must_use]
    pub fn new(session: SessionNumber, resources: usize, is_unknown: bool) -> Self {
        let holding = PartHolding {
            is_unknown,
            ..PartHolding::default()
        };
        Self {
            session,
            holdings: smallvec![holding; resources],
            is_due: false,
        }
    }

    /// A part as it was stored.
    pub(super) fn stored(session: SessionNumber, holdings: SmallVec<[PartHolding; 1]>) -> Self {
        Self {
            session,
            holdings,
            ..Self::default()
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn session(&self) -> SessionNumber {
        self.session
    }

    /// Tokens that lie there, as far as is known.
    pub(super) fn content(&self) -> Micro {
        self.holdings.iter().fold(Micro::ZERO, |sum, own| {
            sum.plus(own.share.content().at_least_zero())
        })
    }

    /// Whether nothing is known of what was moved to the gateway.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.holdings.iter().all(|holding| holding.is_unknown)
    }

    /// Forgets what was moved to the gateway: it can spend nothing of it any more. Returns whether there was anything.
    pub fn forget(&mut self) -> bool {
        let mut was_any = false;
        for holding in &mut self.holdings {
            was_any |= !holding.is_unknown;
            holding.is_unknown = true;
            holding.share = Share::default();
            holding.pace = Pace::default();
            holding.balance = 0;
            holding.is_pressed = false;
            holding.target = None;
        }
        was_any
    }

    /// Whether anything was ever moved to the gateway.
    #[must_use]
    pub fn was_moved(&self) -> bool {
        self.holdings.iter().any(|holding| {
            holding.share.moved_cum() != 0 || holding.share.terms() != GrantTerms::default()
        })
    }
}

// === impl PartHolding ===

impl PartHolding {
    /// Takes in what a report counts; returns the demand that is new in it. A repeated or older report brings nothing, an absurd one
    /// neither.
    pub fn count(&mut self, report: &CustomerReport) -> u64 {
        let counters = Counters::of(report);
        self.enter_life(&counters, report.counted_since_us);
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

    /// Notes that `micro` were asked for since `since`.
    pub(super) fn asked(&mut self, micro: u64, since: TimeUs, now: TimeUs) {
        let cover = self.pace.asked(micro, since, now, self.is_pressed);
        self.is_pressed = self.balance < cover;
    }

    /// Whether it is asked for more than it has, or runs dry.
    pub(super) fn is_low(&self) -> bool {
        self.is_pressed || self.share.content() < self.share.terms().cap.share(1, DRY)
    }

    /// Whether more is asked for on average than flows to it.
    pub(super) fn is_short(&self, now: TimeUs) -> bool {
        self.pace.average_per_s(now) > to_per_s(self.share.terms().rate)
    }

    /// Whether tokens are worth bringing: it is asked for more than it has, or half of its bucket is empty.
    pub(super) fn has_room_for_half(&self) -> bool {
        self.is_pressed || self.share.content() < self.share.terms().cap.share(1, 2)
    }

    /// Whether it lacks something of what it should be that somebody would notice: anything while it is asked for more than it has or
    /// runs dry, half of it otherwise.
    pub(super) fn is_wanting(&self, target: &GrantTerms) -> bool {
        let has = self.share.terms();
        if self.is_low() {
            is_noticeable(has.rate.get(), target.rate.get())
                || is_noticeable(
                    has.cap.get().unsigned_abs(),
                    target.cap.get().unsigned_abs(),
                )
        } else {
            has.rate < target.rate.share(1, 2) || has.cap < target.cap.share(1, 2)
        }
    }

    /// Counts what it reserves, as its session stands, in the sum of all parts.
    pub(super) fn reckon(&mut self, sum: &mut Sum, presence: Option<Presence>) {
        let reserved =
            presence.map_or_else(Reserved::default, |presence| self.share.reserved(presence));
        sum.replace(self.counted, reserved);
        self.counted = reserved;
    }

    /// All that was ever counted there.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.past.plus(self.reported)
    }

    /// An entry that was made anew counts from 0 again. One of before that is in use again has been counted up to where it is.
    fn enter_life(&mut self, counters: &Counters, since_us: u64) {
        let known_us = std::mem::replace(&mut self.counted_since_us, since_us);
        if known_us == 0 || since_us == 0 || since_us == known_us {
            return;
        }
        if since_us > known_us {
            self.past = self.totals();
            self.reported = Counters::default();
        } else {
            self.past = self.totals().less(*counters);
            self.reported = *counters;
        }
    }

    /// Tokens at the gateway at its last report.
    #[must_use]
    pub const fn held(&self) -> Micro {
        Micro::new(self.balance)
    }
}

/// Whether the way from one amount up to another is worth a message.
pub(super) const fn is_noticeable(from: u64, to: u64) -> bool {
    to > from && to - from > to / NOTICEABLE
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
        let mut holding = PartHolding::default();
        let mut count = |demand, denied| {
            let new_demand = holding.count(&report(demand, denied));
            (new_demand, holding.reported.demand, holding.reported.denied)
        };
        assert_eq!(count(1_000, 0), (1_000, 1_000, 0));
        assert_eq!(count(u64::MAX, 0), (0, 1_000, 0));
        assert_eq!(count(1_200, u64::MAX), (0, 1_000, 0));
        assert_eq!(count(1_500, 20), (500, 1_500, 20));
    }

    #[test]
    fn counters_of_an_entry_that_was_made_anew_begin_anew_and_those_of_an_older_one_go_on() {
        let mut holding = PartHolding::default();
        let mut count = |counted_since_us, demand_micro| {
            let report = CustomerReport {
                counted_since_us,
                demand_micro,
                ..CustomerReport::default()
            };
            let new_demand = holding.count(&report);
            (new_demand, holding.totals().demand)
        };
        assert_eq!(count(10, 1_000), (1_000, 1_000));
        assert_eq!(count(10, 1_500), (500, 1_500));
        assert_eq!(count(20, 40), (40, 1_540), "a new life");
        assert_eq!(count(20, 60), (20, 1_560));
        assert_eq!(count(10, 1_500), (0, 1_560), "the older one again");
        assert_eq!(count(10, 1_600), (100, 1_660));
    }
}
