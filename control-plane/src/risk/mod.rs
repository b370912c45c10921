//! Spillover: whose spike would leave whom short, and room before it comes.
//!
//! The arithmetic is `forebay_sharing::risk`; here is what it is asked, and what becomes of the answer. Once an hour a study (`study`) of the usage
//! history says who rises with whom: of the largest customers, on steps of five minutes or longer, so that its memory has a bound
//! whatever the store has. After cycles of the allocation, at most once a minute, pairs are scored (`scores`) with exactly what
//! the cycle went by, and large risks become headroom (`headroom`), which is an input of the next cycle. So whatever came of it can be
//! made again from the journal of cycles, and headroom ends with its time or with the policy, whatever becomes of this thread.
//!
//! Nothing is stored: a study is a function of the history, scores are one of a study and a cycle, and both are in the store. To score within a cycle was
//! the worse alternative: a cycle that a lost gateway calls for would wait for 2 000 scenarios.

mod announced;
mod cast;
mod desk;
mod headroom;
mod past;
mod scores;
mod study;
mod thread;
mod view;
mod week;
mod words;
mod worker;

pub(crate) use desk::{Board, Counts, Desk, PoolCounts};
pub(crate) use headroom::Headroom;
pub(crate) use thread::begin;
pub(crate) use view::Wanted;
pub use view::{
    AccountPair, By, HeadroomView, IntervalView, LinkView, LinksQuery, LinksView, MatricesView,
    SharesView, SpilloverQuery, SpilloverView, StudyView,
};
pub use worker::{Limits, Worker};
