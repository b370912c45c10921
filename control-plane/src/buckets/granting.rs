//! Granting: a gateway's part is brought as near to what it should be as the others allow.

use super::account::{Account, Contract, Holding};
use super::division::{divide, has_starter, whole};
use super::offer::Offer;
use super::part::{PartHolding, SessionNumber, Unsaved};
use super::want::Want;
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::{self, Presence, Share};
use forebay_core::grant::GrantTerms;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_sharing::Law;

/// Up to so many parts an account is divided whenever it is touched.
const FEW_PARTS: usize = 8;

/// With more of them, it is divided anew no sooner than after this time for each, where somebody lacks something.
const DIVISION_US_PER_PART: u64 = 20_000;

/// And in any case after this time.
const DIVISION_US_MOST: u64 = 2_000_000;

const ONE_TOKEN: Micro = Micro::from_tokens(1);

/// A gateway that gives up less than this part of the whole need not hurry.
const LARGE_PART: u64 = 16;

const FEW_TOKENS: Micro = Micro::from_tokens(4);
const FEW_PER_S: Rate = Rate::from_tokens_per_s(4);

/// What a grant has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The gateway's own part: it must be told.
    pub is_changed: bool,
    /// Sessions have ended: what is left of their parts must be saved.
    pub must_save: bool,
    /// The gateway gives up a large part, which others wait for: they can have it when it has confirmed that.
    pub is_giving_up: bool,
    /// Other sessions whose parts should change.
    pub others: Vec<SessionNumber>,
    /// What the gateway has to deny requests for now, and others give up.
    pub awaited: Option<Awaited>,
}

/// Gateways that give up large parts of what another one lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// When the last of those that have been told of it synced: they have still to confirm it.
    pub told_at: Option<TimeUs>,
    /// When the last of those that are to be told with their next sync has synced.
    pub heard_at: Option<TimeUs>,
}

/// Whether `after` is less than `before` by a large part of the whole.
fn is_large(limits: &Limits, before: &GrantTerms, after: &GrantTerms) -> bool {
    after.rate.plus(limits.rate.share(1, LARGE_PART)) < before.rate
        || after.cap.plus(limits.burst.share(1, LARGE_PART)) < before.cap
}

/// Whether what is given up is more than a few tokens as well. Those of a small contract are on the move all the time, and it does better
/// with a sync for each denial.
fn is_worth_waiting_for(limits: &Limits, before: &GrantTerms, after: &GrantTerms) -> bool {
    is_large(limits, before, after)
        && (before.rate.minus(after.rate) >= FEW_PER_S || before.cap.minus(after.cap) >= FEW_TOKENS)
}

// === impl Holding ===

impl Holding {
    /// Whether a part that was reported about may be granted something else than it has.
    pub(super) fn is_due(
        &self,
        limits: &Limits,
        own: &PartHolding,
        parts: usize,
        now: TimeUs,
    ) -> bool {
        Offer::of(limits, self).must_give_up()
            || own.has_room_for_half()
            || self.must_divide(limits, own, parts, now)
    }

    /// Whether the division is out of date for a part: always where there are few parts; where there are more, when there is none, or somebody
    /// lacks something and it was not made just now.
    fn must_divide(&self, limits: &Limits, own: &PartHolding, parts: usize, now: TimeUs) -> bool {
        let Some((at, of)) = self.divided else {
            return true;
        };
        let age_us = now.since(at);
        // One that has no token denies everything meanwhile.
        let has_token = own.share.terms().cap >= ONE_TOKEN;
        let is_lacking = || own.is_low() || own.is_short(now) || self.want.is_any;
        let of_parts_us = u64::try_from(parts)
            .unwrap_or(u64::MAX)
            .saturating_mul(if has_token {
                DIVISION_US_PER_PART
            } else {
                DIVISION_US_PER_PART / 8
            });
        parts <= FEW_PARTS
            || own.target.is_none()
            || of != *limits
            || age_us >= DIVISION_US_MOST
            || age_us >= of_parts_us && is_lacking()
    }
}

// === impl Account ===

impl Account {
    /// Brings the part of a session as near to its target by `law` as the others allow, for the reply of this `sequence`. A gateway that has no
    /// part is given one where it should have a starter.
    pub fn grant(
        &mut self,
        contract: &Contract<'_>,
        law: &dyn Law,
        session: SessionNumber,
        sequence: u64,
    ) -> Granted {
        let must_save = self.refresh(contract);
        let roster = contract.roster;
        let mut granted = Granted {
            must_save,
            ..Granted::default()
        };
        let index = match self.parts.index_of(session) {
            Ok(index) => index,
            Err(_) if has_starter(contract, session) => self.part_of(session, false),
            Err(_) => return granted,
        };
        for (resource, limits) in contract.limits.iter().enumerate() {
            let is_divided = self.divide_if_due(contract, law, resource, index);
            let (Some(part), Some(holding)) =
                (self.parts.get_mut(index), self.holdings.get_mut(resource))
            else {
                continue;
            };
            let Some(own) = part.holdings.get_mut(resource) else {
                continue;
            };
            let Some(should) = own.target else {
                continue;
            };
            let target = Offer::of(limits, holding).to(own, &should);
            let others = holding.reserved.but(own.counted);
            let before = own.share.terms();
            let is_changed = fleet::grant(
                &mut holding.central,
                whole(limits),
                others,
                &mut own.share,
                &target,
                sequence,
                roster.now(),
            );
            own.reckon(&mut holding.reserved, Some(Presence::Live));
            let after = own.share.terms();
            granted.is_giving_up |= is_large(limits, &before, &after) && holding.want.is_urgent;
            granted.is_changed |= is_changed;
            let is_denying = own.is_pressed && own.is_wanting(&should);
            part.is_due = false;
            if is_changed {
                self.parts.mark(index, Unsaved::Grants);
            }
            if is_divided {
                self.tell_others(limits, resource, session, &mut granted.others);
            }
            if is_divided && is_denying {
                self.await_others(contract, resource, session, &mut granted.awaited);
            }
        }
        granted
    }

    /// Says anew what each part should have, if that was not done lately. Returns whether it was done.
    fn divide_if_due(
        &mut self,
        contract: &Contract<'_>,
        law: &dyn Law,
        resource: usize,
        own: usize,
    ) -> bool {
        let now = contract.roster.now();
        let Some(holding) = self.holdings.get_mut(resource) else {
            return false;
        };
        let limits = contract.limits.get(resource).copied().unwrap_or_default();
        let is_due = self
            .parts
            .get(own)
            .and_then(|part| part.holdings.get(resource))
            .is_some_and(|own| holding.must_divide(&limits, own, self.parts.len(), now));
        if is_due {
            divide(contract, law, resource, &mut self.parts);
            holding.divided = Some((now, limits));
            holding.want = Want::of(resource, &limits, &holding.reserved.all(), &self.parts);
        }
        is_due
    }

    /// Notes whose parts should change now that a gateway has been granted its own.
    fn tell_others(
        &mut self,
        limits: &Limits,
        resource: usize,
        but: SessionNumber,
        others: &mut Vec<SessionNumber>,
    ) {
        let Some(holding) = self.holdings.get(resource) else {
            return;
        };
        let offer = Offer::of(limits, holding);
        for part in self.parts.iter_mut() {
            if part.session() == but || part.is_due {
                continue;
            }
            let own = part.holdings.get(resource);
            part.is_due = own.is_some_and(|own| {
                let target = own.target;
                target.is_some_and(|target| offer.is_for(own, &target))
            });
            if part.is_due {
                others.push(part.session());
            }
        }
    }

    /// Notes for whom a gateway waits that lacks some of a resource.
    fn await_others(
        &self,
        contract: &Contract<'_>,
        resource: usize,
        but: SessionNumber,
        awaited: &mut Option<Awaited>,
    ) {
        let (Some(holding), Some(limits)) =
            (self.holdings.get(resource), contract.limits.get(resource))
        else {
            return;
        };
        let offer = Offer::of(limits, holding);
        for part in self.parts.iter().filter(|part| part.session() != but) {
            let Some(own) = part.holdings.get(resource) else {
                continue;
            };
            let told = is_worth_waiting_for(limits, &own.share.earlier(), &own.share.terms());
            let is_to_be_told = || {
                let target = own.target;
                target.is_some_and(|target| {
                    let should = offer.to(own, &target).terms;
                    is_worth_waiting_for(limits, &own.share.terms(), &should)
                })
            };
            if !told && !is_to_be_told() {
                continue;
            }
            let Some(seat) = contract
                .roster
                .seat(part.session())
                .filter(|seat| seat.is_live())
            else {
                continue;
            };
            let awaited = awaited.get_or_insert_default();
            let at = if told {
                &mut awaited.told_at
            } else {
                &mut awaited.heard_at
            };
            *at = (*at).max(Some(seat.synced_at));
        }
    }

    /// Notes that the part of a session is told with the reply of this `sequence`.
    pub fn told(&mut self, session: SessionNumber, sequence: u64) {
        self.change(session, |share| share.told(sequence));
    }

    /// Notes that a reply that told a session of its part was lost.
    pub fn lost(&mut self, session: SessionNumber) {
        self.change(session, Share::lost);
    }
}
