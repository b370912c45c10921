//! Who goes first when usage exceeds the prediction: the lowest priorities of a tier give way, and whose guarantee was not kept moves up for a while.
//!
//! [`crate::allocate`] serves a tier by priority, so a pool that is short is short for the lowest ones. Which customer that should be is the policy's word
//! and no more than that: one that has been denied what it was guaranteed, minute after minute, should not be the next one again. So a priority is the
//! policy's plus a raise, which follows from how fast the customer's error budget is used up (`burn.rs`).
//!
//! A raise is bounded, and a priority has a meaning within a tier only, so no raise reaches another tier. It falls by half in each half-life, and a whole
//! step of priority goes later than it came, so that nothing flaps. Nobody is lowered: to lower who has used more than was foreseen was the worse alternative,
//! because a forecast is ours and not the customer's promise.

mod burn;
mod raise;

pub use burn::{Burn, Kept};
pub use raise::{Prioritize, Raise};
