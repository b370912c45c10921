//! Who gets how much.
//!
//! Two questions, each answered by a pure function of its arguments, without a clock, I/O, chance or memory:
//! - [`division`]: how much of one rate, a customer's contract or a pool, goes to which gateway. Many times a second;
//! - [`allocation`]: how much of the pools each customer is allocated, and who lends to whom. Every few minutes.
//!
//! It is the one place with floating point that decides over tokens, and it cannot create any: what is granted is bounded in
//! integers, behind it. All amounts are tokens per second.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod division;
mod numbers;
mod water;

pub use allocation::{
    Allocation, Customer, Group, Held, Lend, Outlook, Part, Settings, Terms, allocate,
    credits_after, credits_of_newcomer,
};
pub use division::{
    Claim, EvenSplit, FairShare, Forecast, Law, ProportionalShare, Reactive, Round, to_amounts,
    to_per_s, to_rates,
};
