//! What a gateway is offered: what the division says, as far as it is worth a message.
//!
//! A division follows every request, and with hundreds of customers at hundreds of gateways nearly every report would change somebody's part
//! a little. So a part stays as it is unless somebody would notice: its gateway is about to deny what it could admit, or it holds what
//! such a gateway lacks. To offer each division as it came was worse: four gateways exchanged a hundred grants a sync, twenty times a
//! second, and moved nothing that anybody needed.

use super::account::Holding;
use super::part::{PartHolding, is_noticeable};
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::{Reserved, Target};
use forebay_core::grant::GrantTerms;
use forebay_core::policy::Limits;

/// What nobody holds is given to whoever lacks so large a part of the whole, wanting or not.
const IDLE_PART: u64 = 16;

const ONE_TOKEN: Micro = Micro::from_tokens(1);

/// What an account can offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    free: Reserved,
    whole: Reserved,
    level: Micro,
    /// Somebody lacks what others have, or there is less than they hold together.
    must_give_up: bool,
}

// === impl Offer ===

impl Offer {
    pub(super) fn of(limits: &Limits, holding: &Holding) -> Self {
        let taken = holding.reserved.all();
        Self {
            free: Reserved {
                rate: limits.rate.minus(taken.rate),
                cap: limits.burst.minus(taken.cap).at_least_zero(),
            },
            whole: Reserved {
                rate: limits.rate,
                cap: limits.burst,
            },
            level: holding.central.level(),
            must_give_up: holding.want.exceeds_centre
                || taken.rate > limits.rate
                || taken.cap > limits.burst,
        }
    }

    /// Whether parts must give up what they have beyond their targets.
    pub(super) const fn must_give_up(&self) -> bool {
        self.must_give_up
    }

    /// What a part is offered that should be `target`.
    pub(super) fn to(&self, own: &PartHolding, target: &GrantTerms) -> Target {
        let has = own.share.terms();
        let is_wanting = own.is_wanting(target);
        let moves = |has: u64, should: u64, whole: u64, free: u64| {
            if should > has {
                is_wanting || (free > 0 && should - has >= whole / IDLE_PART)
            } else {
                self.must_give_up && is_noticeable(should, has)
            }
        };
        let (whole, free) = (self.whole, self.free);
        let rate = if moves(
            has.rate.get(),
            target.rate.get(),
            whole.rate.get(),
            free.rate.get(),
        ) {
            target.rate
        } else {
            has.rate
        };
        let cap = if moves(
            micro(has.cap),
            micro(target.cap),
            micro(whole.cap),
            micro(free.cap),
        ) {
            target.cap
        } else {
            has.cap
        };
        let terms = GrantTerms {
            rate,
            cap,
            fallback_rate: target.fallback_rate,
        };
        let is_low = own.has_room_for_half();
        let is_worth_it = self.level >= ONE_TOKEN.min(cap.share(1, 4));
        Target {
            terms,
            tokens: if is_low && is_worth_it || terms.cap > has.cap {
                Micro::MAX
            } else {
                Micro::ZERO
            },
        }
    }

    /// Whether a part should be told something: to give up a part of it, or that there is more for it.
    pub(super) fn is_for(&self, own: &PartHolding, target: &GrantTerms) -> bool {
        let has = own.share.terms();
        let offered = self.to(own, target);
        let should = offered.terms;
        let gives_up = should.rate < has.rate || should.cap < has.cap;
        let is_rate = should.rate > has.rate && self.free.rate > Rate::ZERO;
        let is_room = should.cap > has.cap && self.free.cap > Micro::ZERO;
        let is_tokens = offered.tokens > Micro::ZERO
            && self.level > Micro::ZERO
            && own.share.content() < has.cap.min(should.cap);
        gives_up || is_rate || is_room || is_tokens
    }
}

fn micro(amount: Micro) -> u64 {
    amount.at_least_zero().get().unsigned_abs()
}
