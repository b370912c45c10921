//! What gateways lack of an account, and whether others must give something up for it.
//!
//! Half of the spare rate and some of the depth stay in the centre, and whoever lacks something gets it from there first. Only when
//! that runs out the others give back what they have beyond their targets, all of it, so that the centre has some again. To
//! take it back for every want was worse: each request of a small customer changed what all of its gateways held.

use super::part::Part;
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::Reserved;
use forebay_core::policy::Limits;

/// The centre may shrink to this part of what the division leaves it.
const LEFT_OF_CENTRE: u64 = 2;

/// The wants of all gateways, as of the last division.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// Somebody lacks something that the division says is its.
    pub is_any: bool,
    /// And would deny something for it before the next two syncs.
    pub is_urgent: bool,
    /// The centre cannot give all of it.
    pub exceeds_centre: bool,
}

// === impl Want ===

impl Want {
    /// What the parts lack of a resource, of which `taken` is reserved by all of them.
    pub(super) fn of(resource: usize, limits: &Limits, taken: &Reserved, parts: &[Part]) -> Self {
        let mut want = Self::default();
        let mut lacking = Reserved::default();
        let mut should = Reserved::default();
        for part in parts {
            let Some(own) = part.holdings.get(resource) else {
                continue;
            };
            let Some(target) = own.target else {
                should = should.plus(own.counted);
                continue;
            };
            should.rate = should.rate.plus(target.rate);
            should.cap = should.cap.plus(target.cap);
            if own.is_wanting(&target) {
                let has = own.share.terms();
                want.is_any = true;
                want.is_urgent |= own.is_pressed;
                lacking.rate = lacking.rate.plus(target.rate.minus(has.rate));
                lacking.cap = lacking.cap.plus(target.cap.minus(has.cap).at_least_zero());
            }
        }
        let left = |whole: Rate, should: Rate| whole.minus(should).share(1, LEFT_OF_CENTRE);
        let rate = lacking.rate.plus(left(limits.rate, should.rate));
        let depth_left = limits.burst.minus(should.cap).at_least_zero();
        let cap = lacking.cap.plus(depth_left.share(1, LEFT_OF_CENTRE));
        let free_cap: Micro = limits.burst.minus(taken.cap);
        want.exceeds_centre =
            want.is_any && (rate > limits.rate.minus(taken.rate) || cap > free_cap);
        want
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::grant::GrantTerms;

    fn terms(rate: u64, cap: u64) -> GrantTerms {
        GrantTerms {
            rate: Rate::from_tokens_per_s(rate),
            cap: Micro::from_tokens(cap),
            ..GrantTerms::default()
        }
    }

    /// A part that should have `target` and has nothing.
    fn lacking(session: u64, target: GrantTerms, is_pressed: bool) -> Part {
        let mut part = Part::new(session, 1, false);
        part.holdings[0].target = Some(target);
        part.holdings[0].is_pressed = is_pressed;
        part
    }

    #[test]
    fn what_the_centre_can_give_and_keep_half_of_its_own_asks_nobody_to_give_up() {
        let limits = Limits::plain(Rate::from_tokens_per_s(100), Micro::from_tokens(100));
        // By the division 60/s and 80 tokens lie at gateways: of the centre's 40/s and 20 tokens half must stay.
        let parts = [lacking(1, terms(60, 80), false)];
        let want = |taken_per_s, taken_tokens| {
            let taken = Reserved {
                rate: Rate::from_tokens_per_s(taken_per_s),
                cap: Micro::from_tokens(taken_tokens),
            };
            Want::of(0, &limits, &taken, &parts)
        };
        let met = Want {
            is_any: true,
            ..Want::default()
        };
        let not_met = Want {
            exceeds_centre: true,
            ..met
        };
        assert_eq!(want(0, 0), met);
        assert_eq!(want(20, 10), met);
        assert_eq!(want(21, 0), not_met);
        assert_eq!(want(0, 11), not_met);
    }

    #[test]
    fn only_those_who_are_about_to_deny_something_are_urgent_and_nobody_lacks_nothing() {
        let limits = Limits::plain(Rate::from_tokens_per_s(100), Micro::from_tokens(100));
        let of = |parts: &[Part]| Want::of(0, &limits, &Reserved::default(), parts);
        assert!(!of(&[lacking(1, terms(1, 1), false)]).is_urgent);
        assert!(of(&[lacking(1, terms(1, 1), true)]).is_urgent);
        assert_eq!(
            of(&[lacking(1, terms(0, 0), true), Part::new(2, 1, false)]),
            Want::default()
        );
    }
}
