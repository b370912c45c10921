//! Customers that behave as they never did: who, since when, what speaks for it, and what follows.
//!
//! The judgement is `forebay_anomaly`'s; here is what it is given and what becomes of it. Once in each closed step of the usage history every customer
//! of it is read under the state's lock, in small pieces, and judged beside it (`watcher`); [`crate::plane`] has those parts. Each customer and
//! resource is a series of its own: a leaked key shows in one of them, and the sum of requests and bytes says nothing.
//!
//! A flag changes nothing but what the policy says: people are told, or the next cycle of the allocation takes the contract's rate for the ceiling.

mod book;
mod reading;
mod row;
mod rule;
mod view;
mod watcher;
mod worker;

pub(crate) use book::{Book, Flag};
pub(crate) use reading::{Reading, Round, Used};
pub(crate) use rule::Rule;
pub(crate) use view::Wanted;
pub use view::{AnomaliesQuery, AnomaliesView, AnomalyKind, AnomalyView, EvidenceView, FlagAction};
pub(crate) use watcher::Watcher;
pub(crate) use worker::begin;
