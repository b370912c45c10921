//! One account: the central bucket of each resource, and what gateways hold of it.
//!
//! A report or a grant touches one part. What depends on all parts is kept: their sum, and the division among them, which is made anew
//! when gateways come or go, when limits change, and otherwise the more seldom the more parts there are. To divide with each
//! report was worse: with two hundred gateways nearly all of the server's time went into divisions that changed nothing.

use super::cause::Cause;
use super::counters::Counters;
use super::division::whole;
use super::meter::Meter;
use super::pace::Pace;
use super::part::{Part, PartHolding, SessionNumber, StepDemand, Unsaved};
use super::parts::Parts;
use super::roster::Roster;
use super::sum::Sum;
use super::want::Want;
use forebay_core::amount::Micro;
use forebay_core::fleet::{self, Central, Presence, Reserved, ShareReport};
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_sharing::to_per_s;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{CustomerReport, FLAG_NOT_GRANTED};
use smallvec::SmallVec;

/// What goes wrong in this time from the start of the server on may be the start's fault.
const STARTED_LATELY_US: u64 = 60_000_000;

/// One resource of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Holding {
    /// The central bucket.
    pub central: Central,
    /// Counters of sessions that have ended.
    pub past: Counters,
    /// What was asked for in the running step of usage history, at all gateways.
    pub usage: StepDemand,
    /// What all parts reserve. Not kept over a restart.
    pub(super) reserved: Sum,
    /// When it was divided, and what. Not kept over a restart.
    pub(super) divided: Option<(TimeUs, Limits)>,
    /// What gateways lacked then. Not kept over a restart.
    pub(super) want: Want,
    /// Whether gateways admit more of it than the contract allows. Not kept over a restart.
    pub(super) meter: Meter,
}

/// The row of an account in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredRow {
    /// There is none.
    #[default]
    Missing,
    /// Grants have changed the centre since.
    Stale,
    /// It is as good as what is in memory.
    Fresh,
}

/// A customer's account (or that of the pools).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// By resource, in the order of the policy.
    pub holdings: SmallVec<[Holding; 1]>,
    /// By gateway that holds or has counted anything, in the order of their sessions.
    pub parts: Parts,
    /// The roster for which sums were reckoned; `None`: they have to be.
    pub(super) reckoned_for: Option<u64>,
    /// Parts that have gone since the account was last saved.
    pub(super) gone: Vec<SessionNumber>,
    /// What the store has of it beside its parts.
    pub row: StoredRow,
    /// Whether it is in the queue of those to be saved.
    pub is_queued: bool,
    /// Tokens that lay at gateways whose sessions have ended since that was last asked for. Not kept over a restart.
    pub(super) stranded: Micro,
}

/// Whose account it is and what it may be: what every change of it needs.
#[derive(Clone, Copy, Debug)]
pub struct Contract<'a> {
    /// The customer, or the pools.
    pub customer: CustomerHash,
    /// By resource.
    pub limits: &'a [Limits],
    /// What is expected of it in the whole fleet by resource, in tokens per second: the forecast's upper quantile. Shorter where
    /// nothing is.
    pub expected_per_s: &'a [f64],
    /// Who is there.
    pub roster: &'a Roster,
}

/// What a gateway says of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The report.
    pub report: &'a CustomerReport,
    /// When the gateway synced before.
    pub since: TimeUs,
    /// At least so much was asked for, in micro-tokens, where more was than the report counts.
    pub asked: u64,
    /// The counters may bring the demand of a longer time than that: it says nothing of a pace.
    pub is_lump: bool,
    /// And nobody knows of how long a time.
    pub is_of_unknown_age: bool,
    /// A customer outside the policy has a bucket of the gateway's own, of which nothing is here.
    pub is_listed: bool,
    /// The contract limits what is admitted: not where the customer is exempt, or in a dry run.
    pub is_limited: bool,
}

/// What a report brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Demand that is new in it, in micro-tokens.
    pub demand: u64,
    /// What of that was denied.
    pub denied: u64,
    /// Whether anything has changed that must survive.
    pub is_changed: bool,
    /// Whether the gateway has not applied all that was moved to it.
    pub is_behind: bool,
    /// Whether a grant may change the gateway's part.
    pub is_due: bool,
    /// What was admitted beyond the contract, and probably why.
    pub over_admitted: Option<(Cause, Micro)>,
    /// Tokens for which there was no room here when they came back.
    pub unfit: Micro,
}

// === impl Account ===

impl Account {
    /// An account that was never seen. It starts full, or with what has flowed since `start` where an earlier life may have
    /// been forgotten.
    #[must_use]
    pub fn new(limits: &[Limits], now: TimeUs, start: Option<TimeUs>) -> Self {
        let central = |limits: &Limits| {
            let Some(start) = start else {
                return Central::new(whole(limits), limits.burst, now);
            };
            let mut central = Central::new(whole(limits), Micro::ZERO, start);
            central.advance(now);
            central
        };
        Self {
            holdings: limits
                .iter()
                .map(|limits| Holding {
                    central: central(limits),
                    ..Holding::default()
                })
                .collect(),
            ..Self::default()
        }
    }

    /// All that was ever reported of a resource.
    #[must_use]
    pub fn totals(&self, resource: usize) -> Counters {
        let past = self.holdings.get(resource).map(|holding| holding.past);
        self.holdings_of(resource)
            .fold(past.unwrap_or_default(), |sum, holding| {
                sum.plus(holding.totals())
            })
    }

    /// One resource at each gateway.
    pub fn holdings_of(&self, resource: usize) -> impl Iterator<Item = &PartHolding> {
        self.parts
            .iter()
            .filter_map(move |part| part.holdings.get(resource))
    }

    /// Brings sums up to date with who is there. Parts of sessions that have ended go: what they held counts as spent, and refills
    /// here from the end on. Returns whether there was one.
    pub fn refresh(&mut self, contract: &Contract<'_>) -> bool {
        let roster = contract.roster;
        if self.reckoned_for == Some(roster.version()) {
            return false;
        }
        let mut ended_at = None;
        for index in 0..self.parts.len() {
            let Some(part) = self.parts.get_mut(index) else {
                continue;
            };
            let session = part.session();
            if roster.presence(session).is_some() {
                continue;
            }
            let held = part.content();
            let was_any = part.forget();
            if was_any {
                self.stranded = self.stranded.plus(held);
                ended_at = ended_at.max(Some(roster.ended_at(session)));
            }
            if !roster.may_return(session) {
                self.gone.push(session);
                for (holding, ended) in self.holdings.iter_mut().zip(&part.holdings) {
                    holding.past = holding.past.plus(ended.totals());
                }
            }
            if was_any {
                self.parts.mark(index, Unsaved::Grants);
            }
        }
        let parts = self.parts.len();
        self.parts.retain(|session| roster.may_return(session));
        self.reckon(roster);
        if let Some(ended_at) = ended_at {
            self.release(contract, ended_at);
        }
        self.reckoned_for = Some(roster.version());
        parts != self.parts.len() || ended_at.is_some()
    }

    /// What no part reserves any more refills here from `at` on.
    pub fn release(&mut self, contract: &Contract<'_>, at: TimeUs) {
        for (holding, limits) in self.holdings.iter_mut().zip(contract.limits) {
            holding.central.advance(at);
            holding.central.keep(whole(limits), holding.reserved.all());
        }
    }

    /// Adds up anew what all parts reserve.
    pub(super) fn reckon(&mut self, roster: &Roster) {
        for (resource, holding) in self.holdings.iter_mut().enumerate() {
            holding.reserved = Sum::default();
            holding.divided = None;
            for part in self.parts.iter_mut() {
                let presence = roster.presence(part.session());
                if let Some(own) = part.holdings.get_mut(resource) {
                    own.counted = Reserved::default();
                    own.reckon(&mut holding.reserved, presence);
                }
            }
        }
    }

    /// Takes in a report of a gateway.
    pub fn report(
        &mut self,
        contract: &Contract<'_>,
        session: SessionNumber,
        told: &Told<'_>,
    ) -> News {
        let (report, is_listed) = (told.report, told.is_listed);
        let resource = report.resource as usize;
        let Some(limits) = contract.limits.get(resource) else {
            return News::default();
        };
        let now = contract.roster.now();
        let is_changed = self.refresh(contract);
        let arrived_cum = report
            .granted_seen_micro
            .wrapping_add_signed(report.adjust_seen_micro);
        let is_granted = is_listed && report.flags & FLAG_NOT_GRANTED == 0;
        let share_report = ShareReport {
            applied: report.reply_applied,
            balance: Micro::new(report.balance_micro),
            seen_cum: arrived_cum,
        };
        let index = self.part_of(session, true);
        let parts = self.parts.len();
        let (Some(part), Some(holding)) =
            (self.parts.get_mut(index), self.holdings.get_mut(resource))
        else {
            return News::default();
        };
        let (mut has_returned, mut unfit) = (false, Micro::ZERO);
        let Some(own) = part.holdings.get_mut(resource) else {
            return News::default();
        };
        let (before, since_us) = (own.totals(), own.counted_since_us);
        let demand = own.count(report);
        let counted = own.totals().less(before);
        let admitted = counted.admitted;
        if told.is_lump {
            own.pace.goes_on(now);
        } else {
            own.asked(demand.max(told.asked), told.since, now);
        }
        if std::mem::take(&mut own.is_unknown) && is_granted {
            own.share = fleet::Share::adopt(&share_report);
        } else if is_listed && !is_granted {
            own.share.hold(share_report.balance);
        }
        if is_listed {
            let others = holding.reserved.but(own.counted);
            if is_granted {
                let moved_cum = own.share.moved_cum();
                holding.central.advance(now);
                let level = holding.central.level();
                fleet::report(
                    &mut holding.central,
                    whole(limits),
                    others,
                    &mut own.share,
                    &share_report,
                    now,
                );
                has_returned = own.share.moved_cum() != moved_cum;
                let returned = moved_cum.wrapping_sub(own.share.moved_cum());
                let returned = Micro::new(i64::try_from(returned).unwrap_or(0));
                let fit = holding.central.level().minus(level);
                // Where nothing came back the centre may have lost room.
                unfit = returned.minus(fit).min(returned);
            } else {
                holding.central.advance(now);
                let reserved = own.share.reserved(Presence::Live);
                holding.central.keep(whole(limits), others.plus(reserved));
            }
            own.reckon(&mut holding.reserved, Some(Presence::Live));
        }
        let mut over_admitted = None;
        if !is_listed || !told.is_limited || told.is_of_unknown_age {
            holding.meter.pause(now);
        } else {
            let heard_at = contract.roster.heard_at().min(told.since);
            let too_much = holding.meter.count(limits, admitted, heard_at, now);
            if too_much > Micro::ZERO {
                let is_new_life = since_us != 0 && own.counted_since_us != since_us;
                let reserved = holding.reserved.all();
                let cause = if told.is_lump || contract.roster.is_any_silent() {
                    Cause::Partition
                } else if reserved.rate > limits.rate || reserved.cap > limits.burst {
                    Cause::GrantOverlap
                } else if is_new_life {
                    Cause::Eviction
                } else if now < TimeUs(STARTED_LATELY_US) {
                    Cause::ColdStart
                } else {
                    Cause::Other
                };
                over_admitted = Some((cause, too_much));
            }
        }
        let news = News {
            over_admitted,
            unfit: unfit.at_least_zero(),
            demand,
            denied: counted.denied.min(demand),
            is_changed,
            is_behind: is_granted && own.share.moved_cum() != arrived_cum,
            is_due: is_listed && holding.is_due(limits, own, parts, now),
        };
        // What came back may be granted to others, and the gateway must not give it back a second time.
        let unsaved = if has_returned {
            Unsaved::Grants
        } else {
            Unsaved::Reports
        };
        self.parts.mark(index, unsaved);
        news
    }

    /// Tokens that lay at gateways whose sessions have ended since this was last called.
    pub fn take_stranded(&mut self) -> Micro {
        std::mem::take(&mut self.stranded)
    }

    /// Counts demand at a gateway into the running step of usage history.
    pub fn count(&mut self, session: SessionNumber, resource: usize, step: u64, news: &News) {
        if let Some(holding) = self.holdings.get_mut(resource) {
            holding.usage.count(step, news.demand, news.denied);
        }
        let part = self.parts.of_mut(session);
        if let Some(holding) = part.and_then(|part| part.holdings.get_mut(resource)) {
            holding.usage.count(step, news.demand, news.denied);
        }
    }

    /// Takes in a part of the store.
    pub fn restore(&mut self, mut part: Part, now: TimeUs) {
        for holding in &mut part.holdings {
            // Else the first division would take from everybody who has not yet reported since the start.
            let rate_per_s = to_per_s(holding.share.terms().rate);
            holding.pace = Pace::presumed(rate_per_s, now);
        }
        self.parts.insert(part, Unsaved::Nothing);
    }

    /// Whether anything has changed since it was last saved, but for what flows by itself.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.row != StoredRow::Fresh || !self.gone.is_empty() || self.parts.are_unsaved()
    }

    /// Whether what has changed since it was last saved is in its parts alone.
    #[must_use]
    pub fn is_row_saved(&self) -> bool {
        self.row != StoredRow::Missing && self.gone.is_empty()
    }

    /// Parts of which `least` or more is unsaved, and sessions whose parts have gone. From now on they count as saved.
    pub fn take_unsaved(
        &mut self,
        least: Unsaved,
    ) -> (impl Iterator<Item = &Part>, Vec<SessionNumber>) {
        let gone = std::mem::take(&mut self.gone);
        (self.parts.take_unsaved(least), gone)
    }

    /// Level of a central bucket, for the operator's eyes.
    #[must_use]
    pub fn central_level(&self, contract: &Contract<'_>, resource: usize) -> Micro {
        let mut copy = self.clone();
        copy.refresh(contract);
        copy.holdings
            .get_mut(resource)
            .map_or(Micro::ZERO, |holding| {
                holding.central.advance(contract.roster.now());
                holding.central.level()
            })
    }

    /// The part of a session.
    #[must_use]
    pub fn part(&self, session: SessionNumber) -> Option<&Part> {
        self.parts.of(session)
    }

    /// Where the part of a session is, made if need be.
    pub(super) fn part_of(&mut self, session: SessionNumber, is_unknown: bool) -> usize {
        self.parts.index_of(session).unwrap_or_else(|_| {
            let part = Part::new(session, self.holdings.len(), is_unknown);
            self.parts.insert(part, Unsaved::Grants)
        })
    }

    pub(super) fn change(
        &mut self,
        session: SessionNumber,
        change: impl Fn(&mut fleet::Share),
    ) -> bool {
        let Some(part) = self.parts.of_mut(session) else {
            return false;
        };
        for own in &mut part.holdings {
            change(&mut own.share);
        }
        true
    }
}
