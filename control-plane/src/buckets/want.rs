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
