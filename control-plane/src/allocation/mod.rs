//! Cycles of the allocation: who has a claim on how much of the pools, every few minutes and whenever something changes.
//!
//! The arithmetic is `forebay_sharing::allocate`; here is what it needs and what becomes of it. A cycle gathers contracts and measured demand under
//! the state's lock, in small pieces, computes beside it, and is put in force under the lock by exchanging one pointer ([`crate::plane`] has those
//! parts). What it read and what it gave is in the store with the next batch (`journal`), so that a server that is killed goes on where it was,
//! and anybody can see that the same inputs still give the same allocation.
//!
//! What was lent is settled when its time is over: a cycle that is replaced after a second is a loan of a second. To settle a whole interval with each
//! cycle was the worse alternative: gateways that come and go would pay out minutes of lending for seconds of it.

mod book;
mod cycle;
mod digest;
mod gathered;
mod journal;
mod leaver_rows;
mod leavers;
mod months;
mod outlook;
mod priorities;
mod rule;
mod trails;
mod tuning;
mod tuning_rows;
mod tuning_views;
mod views;
mod worker;

pub(crate) use book::NEVER;
pub use book::{Book, Cause};
pub(crate) use cycle::{Made, Seen, make};
pub(crate) use gathered::{Candidate, Gathered, Lately};
pub use journal::replays;
pub(crate) use journal::{
    MONTHS_KEPT, RECENT_KEPT, drop_old_statements, load, statement_of, write, write_closed,
};
pub(crate) use months::Month;
pub(crate) use outlook::expected;
pub(crate) use priorities::{Asked, Priorities};
pub(crate) use rule::{Occasion, Rule};
pub(crate) use trails::Trails;
pub(crate) use tuning::Told;
pub use tuning_views::{ArmView, ChoiceView, EffectView, FallbackView, HoldView, TuningView};
pub use views::{
    AllocationsQuery, AllocationsView, CustomerAllocation, CycleView, Loan, LoanReason, LoanSums,
    LoansQuery, LoansView, PartView, PoolView, RaiseView, StatementLine, StatementView,
};
pub(crate) use views::{Wanted, month_of};
pub(crate) use worker::begin;
