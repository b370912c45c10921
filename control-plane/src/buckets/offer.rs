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

/// What lies idle is given to whoever should have more once it is so large a part of the whole.
const IDLE_PART: u64 = 16;

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
            must_give_up: holding.is_wanted || taken.rate > limits.rate || taken.cap > limits.burst,
        }
    }

    /// What a part is offered that should be `target`.
    pub(super) fn to(&self, own: &PartHolding, target: &GrantTerms) -> Target {
        let has = own.share.terms();
        let is_wanting = own.is_wanting(target);
        let is_idle = |free: u64, whole: u64| free > 0 && free >= whole / IDLE_PART;
        let rate_is_idle = is_idle(self.free.rate.get(), self.whole.rate.get());
        let cap_is_idle = is_idle(micro(self.free.cap), micro(self.whole.cap));
        let moves = |has: u64, should: u64, is_idle: bool| {
            if should > has {
                is_wanting || is_idle
            } else {
                self.must_give_up && is_noticeable(should, has)
            }
        };
        let rate = if moves(has.rate.get(), target.rate.get(), rate_is_idle) {
            target.rate
        } else {
            has.rate
        };
        let cap = if moves(micro(has.cap), micro(target.cap), cap_is_idle) {
            target.cap
        } else {
            has.cap
        };
        let terms = GrantTerms {
            rate,
            cap,
            fallback_rate: target.fallback_rate,
        };
        let is_low = own.is_pressed || own.share.content() < cap.share(1, 2);
        Target {
            terms,
            tokens: if is_low || terms.cap > has.cap {
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
