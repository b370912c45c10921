//! Who gets how much.
//!
//! Five questions, each answered by pure functions of their arguments, without a clock or I/O, and with chance from a given seed only:
//! - [`division`]: how much of one rate, a customer's contract or a pool, goes to which gateway. Many times a second;
//! - [`allocation`]: how much of the pools each customer is allocated, and who lends to whom. Every few minutes;
//! - [`priority`]: whose guarantee was not kept, and goes before others of its tier for a while. Step by step;
//! - [`risk`]: whose spike would leave whom short under that allocation. Before it;
//! - [`tuning`]: whether other values of the allocation's knobs would do better than the policy's, at a bounded price. Cycle by cycle.
//!
//! It is the one place with floating point that decides over tokens, and it cannot create any: what is granted is bounded in
//! integers, behind it. All amounts are tokens per second.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod division;
mod numbers;
pub mod priority;
pub mod risk;
pub mod tuning;
mod water;

pub use allocation::{
    Allocation, Customer, Group, Held, Lend, Outlook, Part, Settings, Terms, allocate,
    credits_after, credits_of_newcomer,
};
pub use division::{
    Claim, EvenSplit, FairShare, Forecast, Law, ProportionalShare, Reactive, Round, to_amounts,
    to_per_s, to_rates,
};
pub use water::{Vessel, fill};
