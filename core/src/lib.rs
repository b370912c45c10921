//! The rules of Forebay: who may take how many tokens, decided in integers.
//!
//! Pure functions of (policy, state, now, request). The core reads no clock, does no I/O and knows no host; what lies in
//! shared data comes in as bytes and goes out as bytes. So the same code decides in Envoy's workers, in tests that try
//! every interleaving, and in a simulator on a virtual clock.
//!
//! The way of a request: [`cache::ChunkCache`] finds the worker's [`chunk::Chunk`], which pays if it can; otherwise
//! [`ledger::Ledger::draw`] exchanges with the ledger in shared data, where [`draw::draw`] judges the request.
#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects)]
// Tests compute expected values with plain operators; an overflow there is a failed test.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod amount;
pub mod bucket;
mod bytes;
pub mod cache;
pub mod chunk;
pub mod deviation;
pub mod draw;
mod early_syncs;
pub mod error;
pub mod fleet;
pub mod grant;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod outstanding;
pub mod pace;
pub mod policy;
pub mod pool;
pub mod resource;
mod retry;
pub mod settle;
pub mod standing;
pub mod time;
pub mod verdict;

pub use amount::{Micro, Rate};
pub use chunk::{Amounts, Chunk};
pub use error::CoreError;
pub use ledger::{CustomerHash, Ledger};
pub use policy::Policy;
pub use resource::{PerResource, ResourceIndex};
pub use time::TimeUs;
pub use verdict::{Denial, Reason, Verdict};
