//! What happens to an account beside reports and grants: a gateway that comes back, a policy that changes, an operator's word.

use super::account::{Account, Contract};
use super::part::{Part, SessionNumber, Unsaved};
use super::roster::Roster;
use forebay_core::amount::Micro;
use forebay_core::fleet::{Presence, Share, Whole};
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::time::TimeUs;

// === impl Account ===

impl Account {
    /// The gateway of a session is back after its lease had ended. Returns whether it has a part.
    pub fn lapse(&mut self, session: SessionNumber) -> bool {
        let has_part = self.change(session, Share::lapse);
        if let Ok(index) = self.parts.index_of(session) {
            self.parts.mark(index, Unsaved::Grants);
        }
        // What it reserves has changed.
        self.reckoned_for = None;
        has_part
    }

    /// Ends the part of a session that has ended at `ended_at` and is back. Returns whether there was one.
    pub fn forget(
        &mut self,
        contract: &Contract<'_>,
        session: SessionNumber,
        ended_at: TimeUs,
    ) -> bool {
        let Ok(index) = self.parts.index_of(session) else {
            return false;
        };
        // It may have been forgotten before, and not have been saved since.
        let is_unsaved = self.parts.unsaved(index) == Unsaved::Grants;
        let held = self.parts.get(index).map_or(Micro::ZERO, Part::content);
        let was_any = self.parts.get_mut(index).is_some_and(Part::forget);
        if was_any {
            self.stranded = self.stranded.plus(held);
            self.parts.mark(index, Unsaved::Grants);
            self.reckon(contract.roster);
            self.release(contract, ended_at);
        }
        was_any || is_unsaved
    }

    /// The policy begins to list the customer. Where a gateway makes a new entry for it, what was moved to the old one does not come
    /// a second time. If it was never listed before it may have had buckets of the gateways' own (`had_buckets`): then there is nothing
    /// here yet. Returns whether anything changed.
    pub fn begin_life(&mut self, had_buckets: bool, now: TimeUs) -> bool {
        let is_new = had_buckets && !self.parts.iter().any(Part::was_moved);
        let mut has_begun = is_new;
        for index in 0..self.parts.len() {
            let mut is_changed = false;
            let part = self.parts.get_mut(index);
            for own in part.into_iter().flat_map(|part| &mut part.holdings) {
                is_changed |= own.share.begin_life();
            }
            if is_changed {
                self.parts.mark(index, Unsaved::Grants);
            }
            has_begun |= is_changed;
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
    /// more. Returns how much that is, if anything was ever moved there.
    pub fn take_back(&mut self, session: SessionNumber, roster: &Roster) -> Option<Micro> {
        let now = roster.now();
        self.reckon(roster);
        let index = self.parts.index_of(session).ok()?;
        let part = self.parts.of_mut(session).filter(|part| part.was_moved())?;
        let mut lost = Micro::ZERO;
        let presence = roster.presence(session);
        for (holding, own) in self.holdings.iter_mut().zip(&mut part.holdings) {
            let before = holding.reserved.all();
            lost = lost.plus(own.share.content().at_least_zero());
            own.share.clear();
            own.balance = 0;
            own.reckon(&mut holding.reserved, presence);
            holding.central.advance(now);
            // The policy may say no limits of it any more: the bucket goes on under those that it has had.
            let central = holding.central.to_record();
            let whole = Whole {
                rate: central.rate.plus(before.rate),
                depth: central.depth.plus(before.cap),
            };
            holding.central.keep(whole, holding.reserved.all());
            // Chunks that workers drew before may still be spent for so long.
            holding.central.pause_until(now.plus_us(CHUNK_LIFE_US));
        }
        self.parts.mark(index, Unsaved::Grants);
        Some(lost)
    }

    /// An operator gives (or takes) tokens of one resource. They stay here if there is room for all of them, and go on to whoever runs low.
    /// Otherwise they go to gateways as far as those have room, and what nobody has room for to the one that has most of the bucket. Not
    /// both: room is kept here for what is on its way, so a part that stayed here would be lost.
    pub fn credit(&mut self, contract: &Contract<'_>, resource: usize, amount: Micro) {
        self.refresh(contract);
        let roster = contract.roster;
        let Some(holding) = self.holdings.get_mut(resource) else {
            return;
        };
        holding.central.advance(roster.now());
        holding.meter.give(amount);
        let mut live: Vec<&mut Part> = self
            .parts
            .iter_mut()
            .filter(|part| roster.presence(part.session()) == Some(Presence::Live))
            .filter(|part| cap_of(part, resource) > Micro::ZERO)
            .collect();
        live.sort_by_key(|part| std::cmp::Reverse(cap_of(part, resource)));
        let central = holding.central.to_record();
        let most = live
            .first()
            .map_or(Micro::ZERO, |part| cap_of(part, resource));
        let is_for_centre = if amount < Micro::ZERO {
            // Tokens are taken where most of them are.
            most < central.depth
        } else {
            amount <= central.depth.minus(central.level)
        };
        if is_for_centre || live.is_empty() {
            holding.central.put(amount);
            return;
        }
        let mut left = amount;
        let mut given: Vec<Micro> = live
            .iter()
            .map(|part| {
                let one = left.at_least_zero().min(room_of(part, resource));
                left = left.minus(one);
                one
            })
            .collect();
        if let Some(first) = given.first_mut() {
            *first = first.plus(left);
        }
        let mut changed: Vec<SessionNumber> = Vec::new();
        for (part, given) in live.into_iter().zip(given) {
            if given == Micro::ZERO {
                continue;
            }
            changed.push(part.session());
            if let Some(own) = part.holdings.get_mut(resource) {
                own.share.adjust(given);
                own.reckon(&mut holding.reserved, Some(Presence::Live));
            }
        }
        for session in changed {
            if let Ok(index) = self.parts.index_of(session) {
                self.parts.mark(index, Unsaved::Grants);
            }
        }
    }

    /// An operator fills all buckets of a resource and forgives debts.
    pub fn refill(&mut self, contract: &Contract<'_>, resource: usize) {
        self.refresh(contract);
        let (Some(limits), Some(holding)) = (
            contract.limits.get(resource),
            self.holdings.get_mut(resource),
        ) else {
            return;
        };
        holding.central.advance(contract.roster.now());
        let debt = Micro::ZERO.minus(holding.central.level()).at_least_zero();
        holding.central.put(limits.burst.plus(debt));
        holding.meter.give(limits.burst.plus(debt));
        for index in 0..self.parts.len() {
            self.parts.mark(index, Unsaved::Grants);
        }
        for part in self.parts.iter_mut() {
            let presence = contract.roster.presence(part.session());
            let Some(own) = part.holdings.get_mut(resource) else {
                continue;
            };
            let cap = own.share.terms().cap;
            if cap > Micro::ZERO {
                // More than is missing: the bucket stops at its depth, wherever it stands by then.
                let debt = Micro::ZERO.minus(own.held()).at_least_zero();
                let filled = cap.plus(debt).plus(limits.debt_limit);
                holding.meter.give(filled);
                own.share.adjust(filled);
                own.reckon(&mut holding.reserved, presence);
            }
        }
    }
}

fn cap_of(part: &Part, resource: usize) -> Micro {
    let own = part.holdings.get(resource);
    own.map_or(Micro::ZERO, |own| own.share.terms().cap)
}

/// What would fit into the gateway's bucket, as far as is known.
fn room_of(part: &Part, resource: usize) -> Micro {
    let own = part.holdings.get(resource);
    own.map_or(Micro::ZERO, |own| {
        own.share
            .terms()
            .cap
            .minus(own.share.content())
            .at_least_zero()
    })
}
