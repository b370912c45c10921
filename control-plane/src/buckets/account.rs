//! One account: the central bucket of each resource, and what gateways hold of it.

use super::counters::Counters;
use super::division::{Division, reserved, whole};
use super::part::{Part, PartHolding, SessionNumber, StepDemand};
use super::roster::Roster;
use forebay_core::amount::Micro;
use forebay_core::fleet::{self, Central, Reserved, ShareReport, Target, Whole};
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_sharing::Law;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{CustomerReport, FLAG_NOT_GRANTED};

/// One resource of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Holding {
    /// The central bucket.
    pub central: Central,
    /// Counters of sessions that have ended.
    pub past: Counters,
    /// What was asked for in the running step of usage history, at all gateways.
    pub usage: StepDemand,
}

/// A customer's account (or that of the pools).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// By resource, in the order of the policy.
    pub holdings: Vec<Holding>,
    /// By gateway that holds or has counted anything, in the order of their sessions.
    pub parts: Vec<Part>,
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

/// What a report brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Demand that is new in it, in micro-tokens.
    pub demand: u64,
    /// Whether anything has changed that must survive.
    pub is_changed: bool,
    /// Whether the gateway has not applied all that was moved to it.
    pub is_behind: bool,
}

/// What a grant has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The gateway's own part: it must be told.
    pub is_changed: bool,
    /// The gateway should have more and cannot yet: others must give it back first.
    pub is_waiting: bool,
    /// The gateway gives something up, which others can have when it has confirmed that.
    pub is_giving_up: bool,
    /// Other sessions whose parts should change.
    pub others: Vec<SessionNumber>,
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
            parts: Vec::new(),
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

    /// Ends the parts of sessions that have ended: what they held counts as spent, and refills here from the end on. Returns whether
    /// there was one.
    pub fn settle(&mut self, contract: &Contract<'_>) -> bool {
        let roster = contract.roster;
        let mut ended_at = None;
        let mut is_changed = false;
        for part in &mut self.parts {
            if roster.presence(part.session).is_some() {
                continue;
            }
            if part.forget() {
                ended_at = ended_at.max(Some(roster.ended_at(part.session)));
            }
            if !roster.may_return(part.session) {
                is_changed = true;
                for (holding, ended) in self.holdings.iter_mut().zip(&part.holdings) {
                    holding.past = holding.past.plus(ended.totals());
                }
            }
        }
        self.parts.retain(|part| roster.may_return(part.session));
        if let Some(ended_at) = ended_at {
            self.release(contract, ended_at);
        }
        is_changed || ended_at.is_some()
    }

    /// Ends the part of a session that has ended at `ended_at` and is back. Returns whether there was one.
    pub fn forget(
        &mut self,
        contract: &Contract<'_>,
        session: SessionNumber,
        ended_at: TimeUs,
    ) -> bool {
        let part = self.parts.iter_mut().find(|part| part.session == session);
        let was_any = part.is_some_and(Part::forget);
        if was_any {
            self.release(contract, ended_at);
        }
        was_any
    }

    /// What no part reserves any more refills here from `at` on.
    fn release(&mut self, contract: &Contract<'_>, at: TimeUs) {
        for (resource, limits) in contract.limits.iter().enumerate() {
            let shares = self.reserved(resource, contract.roster);
            if let Some(holding) = self.holdings.get_mut(resource) {
                holding.central.advance(at);
                holding.central.keep(whole(limits), shares);
            }
        }
    }

    /// Takes in a report of a gateway about a resource, which has synced last at `since`. A customer outside the policy
    /// (`is_listed` is false) has a bucket of the gateway's own, of which nothing is here.
    pub fn report(
        &mut self,
        contract: &Contract<'_>,
        session: SessionNumber,
        report: &CustomerReport,
        since: TimeUs,
        is_listed: bool,
    ) -> News {
        let resource = report.resource as usize;
        let Some(limits) = contract.limits.get(resource) else {
            return News::default();
        };
        let now = contract.roster.now();
        let mut is_changed = self.settle(contract);
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
        let Some(part) = self
            .parts
            .get_mut(index)
            .and_then(|part| part.holdings.get_mut(resource))
        else {
            return News::default();
        };
        let before = *part;
        let demand = part.count(report, since, now);
        if std::mem::take(&mut part.is_unknown) && is_granted {
            part.share = fleet::Share::adopt(&share_report);
        } else if is_listed && !is_granted {
            part.share.hold(share_report.balance);
        }
        let mut share = part.share;
        if is_listed && let Some(holding) = self.holdings.get(resource) {
            let others = self.reserved_but(resource, index, contract.roster);
            let mut central = holding.central;
            if is_granted {
                fleet::report(
                    &mut central,
                    whole(limits),
                    others,
                    &mut share,
                    &share_report,
                    now,
                );
            } else {
                central.advance(now);
                let own = share.reserved(fleet::Presence::Live);
                central.keep(whole(limits), others.plus(own));
            }
            if let Some(holding) = self.holdings.get_mut(resource) {
                holding.central = central;
            }
        }
        let mut is_behind = false;
        if let Some(part) = self
            .parts
            .get_mut(index)
            .and_then(|part| part.holdings.get_mut(resource))
        {
            part.share = share;
            is_changed |= before != *part;
            is_behind = is_granted && share.moved_cum() != arrived_cum;
        }
        News {
            demand,
            is_changed,
            is_behind,
        }
    }

    /// Notes that a session's customers have asked for `micro` of a resource since `since`, if that is more than what it drew.
    pub fn asked(
        &mut self,
        session: SessionNumber,
        resource: usize,
        micro: u64,
        since: TimeUs,
        now: TimeUs,
    ) {
        let part = self.parts.iter_mut().find(|part| part.session == session);
        if let Some(holding) = part.and_then(|part| part.holdings.get_mut(resource)) {
            holding.pace.asked_at_least(micro, since, now);
        }
    }

    /// Counts demand at a gateway into the running step of usage history.
    pub fn count(&mut self, session: SessionNumber, resource: usize, step: u64, demand: u64) {
        if let Some(holding) = self.holdings.get_mut(resource) {
            holding.usage.count(step, demand);
        }
        let part = self.parts.iter_mut().find(|part| part.session == session);
        if let Some(holding) = part.and_then(|part| part.holdings.get_mut(resource)) {
            holding.usage.count(step, demand);
        }
    }

    /// Brings the part of a session as near to its target by `law` as the others allow, for the reply of this `sequence`.
    pub fn grant(
        &mut self,
        contract: &Contract<'_>,
        law: &dyn Law,
        session: SessionNumber,
        sequence: u64,
    ) -> Granted {
        self.settle(contract);
        let roster = contract.roster;
        let own = self.part_of(session, false);
        let mut granted = Granted::default();
        for (resource, limits) in contract.limits.iter().enumerate() {
            let division = Division::new(contract, law, resource, &self.parts);
            let others = division.others(own);
            let target = division.targets.get(own).copied().flatten();
            let (Some(target), Some(holding), Some(part)) = (
                target,
                self.holdings.get_mut(resource),
                self.parts
                    .get_mut(own)
                    .and_then(|part| part.holdings.get_mut(resource)),
            ) else {
                continue;
            };
            let before = part.share.terms();
            granted.is_changed |= fleet::grant(
                &mut holding.central,
                whole(limits),
                others,
                &mut part.share,
                &target,
                sequence,
                roster.now(),
            );
            let after = part.share.terms();
            granted.is_giving_up |= after.rate < before.rate || after.cap < before.cap;
            granted.is_waiting |= is_short(&part.share, &target);
            let free = Free::of(limits, &holding.central, others, part);
            for (other, target) in self.parts.iter().zip(&division.targets) {
                if other.session != session
                    && let (Some(target), Some(holding)) = (target, other.holdings.get(resource))
                    && free.is_for(&holding.share, target)
                    && !granted.others.contains(&other.session)
                {
                    granted.others.push(other.session);
                }
            }
        }
        granted
    }

    /// Notes that the part of a session is told with the reply of this `sequence`.
    pub fn told(&mut self, session: SessionNumber, sequence: u64) {
        self.change(session, |share| share.told(sequence));
    }

    /// Notes that a reply that told a session of its part was lost.
    pub fn lost(&mut self, session: SessionNumber) {
        self.change(session, fleet::Share::lost);
    }

    /// The gateway of a session is back after its lease had ended. Returns whether it has a part.
    pub fn lapse(&mut self, session: SessionNumber) -> bool {
        self.change(session, fleet::Share::lapse)
    }

    /// The policy begins to list the customer. Where a gateway makes a new entry for it, what was moved to the old one does not come
    /// a second time. If it was never listed before it may have had buckets of the gateways' own (`had_buckets`): then there is nothing
    /// here yet. Returns whether anything changed.
    pub fn begin_life(&mut self, had_buckets: bool, now: TimeUs) -> bool {
        let is_new = had_buckets && !self.parts.iter().any(Part::was_moved);
        let mut has_begun = is_new;
        for holding in self.parts.iter_mut().flat_map(|part| &mut part.holdings) {
            has_begun |= holding.share.begin_life();
        }
        if is_new {
            for holding in &mut self.holdings {
                holding.central.advance(now);
                holding.central.empty();
            }
        }
        has_begun
    }

    /// A gateway says that it has dropped the customer: what it held is lost, and refills here from when it can hold nothing of it any
    /// more. Returns whether it held anything.
    pub fn take_back(&mut self, session: SessionNumber, roster: &Roster) -> bool {
        let now = roster.now();
        let of = |account: &Self| -> Vec<Reserved> {
            let resources = 0..account.holdings.len();
            resources
                .map(|resource| account.reserved(resource, roster))
                .collect()
        };
        let before = of(self);
        let Some(part) = self.parts.iter_mut().find(|part| part.session == session) else {
            return false;
        };
        if !part.was_moved() {
            return false;
        }
        for holding in &mut part.holdings {
            holding.share.clear();
            holding.balance = 0;
        }
        let after = of(self);
        for (holding, (before, after)) in self.holdings.iter_mut().zip(before.iter().zip(&after)) {
            holding.central.advance(now);
            // The policy may say no limits of it any more: the bucket goes on under those that it has had.
            let central = holding.central.to_record();
            let whole = Whole {
                rate: central.rate.plus(before.rate),
                depth: central.depth.plus(before.cap),
            };
            holding.central.keep(whole, *after);
            // Chunks that workers drew before may still be spent for so long.
            holding.central.pause_until(now.plus_us(CHUNK_LIFE_US));
        }
        true
    }

    /// An operator gives (or takes) tokens of one resource: they go to the gateway that has most of the bucket, or stay here where that is
    /// more.
    pub fn credit(&mut self, contract: &Contract<'_>, resource: usize, amount: Micro) {
        self.settle(contract);
        let roster = contract.roster;
        let cap = |part: &Part| {
            let holding = part.holdings.get(resource)?;
            Some(holding.share.terms().cap)
        };
        let largest = self
            .parts
            .iter_mut()
            .filter(|part| roster.presence(part.session) == Some(fleet::Presence::Live))
            .max_by_key(|part| cap(part));
        let Some(holding) = self.holdings.get_mut(resource) else {
            return;
        };
        let room = holding.central.to_record().depth;
        match largest.and_then(|part| part.holdings.get_mut(resource)) {
            Some(own) if own.share.terms().cap >= room.max(Micro::new(1)) => {
                own.share.adjust(amount);
            }
            _ => {
                holding.central.advance(roster.now());
                holding.central.put(amount);
            }
        }
    }

    /// An operator fills all buckets of a resource and forgives debts.
    pub fn refill(&mut self, contract: &Contract<'_>, resource: usize) {
        self.settle(contract);
        let (Some(limits), Some(holding)) = (
            contract.limits.get(resource),
            self.holdings.get_mut(resource),
        ) else {
            return;
        };
        holding.central.advance(contract.roster.now());
        holding.central.put(limits.burst);
        for part in &mut self.parts {
            let Some(own) = part.holdings.get_mut(resource) else {
                continue;
            };
            let cap = own.share.terms().cap;
            if cap > Micro::ZERO {
                // More than is missing: the bucket stops at its depth, wherever it stands by then.
                let debt = Micro::ZERO.minus(own.held()).at_least_zero();
                own.share.adjust(cap.plus(debt).plus(limits.debt_limit));
            }
        }
    }

    /// Level of a central bucket, for the operator's eyes.
    #[must_use]
    pub fn central_level(&self, contract: &Contract<'_>, resource: usize) -> Micro {
        let mut copy = self.clone();
        copy.settle(contract);
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
        self.parts.iter().find(|part| part.session == session)
    }

    /// Where the part of a session is, made if need be.
    fn part_of(&mut self, session: SessionNumber, is_unknown: bool) -> usize {
        match self
            .parts
            .binary_search_by_key(&session, |part| part.session)
        {
            Ok(index) => index,
            Err(index) => {
                let part = Part::new(session, self.holdings.len(), is_unknown);
                self.parts.insert(index, part);
                index
            }
        }
    }

    fn change(&mut self, session: SessionNumber, change: impl Fn(&mut fleet::Share)) -> bool {
        let part = self.parts.iter_mut().find(|part| part.session == session);
        let is_there = part.is_some();
        for holding in part.into_iter().flat_map(|part| &mut part.holdings) {
            change(&mut holding.share);
        }
        is_there
    }

    fn reserved(&self, resource: usize, roster: &Roster) -> Reserved {
        self.reserved_but(resource, usize::MAX, roster)
    }

    fn reserved_but(&self, resource: usize, but: usize, roster: &Roster) -> Reserved {
        let others = self.parts.iter().enumerate();
        others
            .filter(|(index, _)| *index != but)
            .fold(Reserved::default(), |sum, (_, part)| {
                sum.plus(reserved(part, resource, roster))
            })
    }
}

/// What of an account is free for other gateways after a grant.
struct Free {
    reserved: Reserved,
    level: Micro,
}

// === impl Free ===

impl Free {
    fn of(limits: &Limits, central: &Central, others: Reserved, own: &PartHolding) -> Self {
        let taken = others.plus(own.share.reserved(fleet::Presence::Live));
        Self {
            reserved: Reserved {
                rate: limits.rate.minus(taken.rate),
                cap: limits.burst.minus(taken.cap).at_least_zero(),
            },
            level: central.level(),
        }
    }

    /// Whether a share should be told something: to give up a part of it, or that there is more for it.
    fn is_for(&self, share: &fleet::Share, target: &Target) -> bool {
        let (has, should) = (share.terms(), target.terms);
        let gives_up = should.rate < has.rate || should.cap < has.cap;
        let is_rate = should.rate > has.rate && self.reserved.rate > forebay_core::Rate::ZERO;
        let is_room = should.cap > has.cap && self.reserved.cap > Micro::ZERO;
        let is_tokens = self.level > Micro::ZERO && share.content() < has.cap.min(should.cap);
        gives_up || is_rate || is_room || is_tokens
    }
}

/// Whether a share lacks a noticeable part of what it should have.
fn is_short(share: &fleet::Share, target: &Target) -> bool {
    let (has, should) = (share.terms(), target.terms);
    has.rate < should.rate.share(9, 10) || has.cap < should.cap.share(9, 10)
}
