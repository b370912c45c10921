//! How much of the pools each customer is allocated in a cycle, and who lends to whom.
//!
//! [`allocate`] is one cycle. In order, as far as the capacity goes:
//! 1. guarantees, scaled by tier where capacity was lost (`guarantees`); what even the upper forecast does not need of them may be lent, first to
//!    linked accounts (`groups`);
//! 2. the reserve: a part of the capacity that is nobody's until it is asked for;
//! 3. headroom for customers that a spike is expected to hit;
//! 4. tier by tier and priority by priority: what is expected, then what may be needed, up to the rate that was bought
//!    (`rise`: by weight, or by credits);
//! 5. in the same order what goes beyond that rate, up to the ceiling;
//! 6. what nobody wants stays where it was, for a while (`settle`).
//!
//! An allocation is a claim and no wall: what its owner does not use is used by others until it does. So an account that is idle costs
//! others nothing, and there is no loan from one account to another with a term to wait for: whoever needs its guarantee has it in the next
//! cycle, and from the reserve before that. Kueue has no loans between two queues for the same reason; who lends and who borrows is reckoned
//! from the sums (`lent_per_s`).

mod credits;
mod cycle;
mod groups;
mod guarantees;
mod outlook;
mod part;
mod rise;
mod settings;
mod settle;
mod terms;

pub use credits::{credits_after, credits_of_newcomer};
pub use cycle::allocate;
pub use outlook::Outlook;
pub use part::{Allocation, Part};
pub use settings::Settings;
pub use terms::{Customer, Group, Held, Lend, Terms};
