//! From the policy document that people write to the compiled policy that draws read.
//!
//! This is the door: what passes here is meaningful as a whole, and every mistake is named with its place in the document.
//! It is a crate of its own because two rooms need exactly the same door, the plugin (stand-alone) and the control plane,
//! while `wire` knows nothing of tokens and `core` nothing of documents. Checking in each of the two was the worse
//! alternative: a policy that one accepts and the other refuses is found in production.

#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects)]

mod anomaly;
mod check;
mod compile;
mod contract;
mod customers;
mod diff;
mod error;
mod merge;
mod sharing;
mod tuning;

pub use anomaly::{Anomaly, CompiledEvent, anomaly};
pub use compile::{Compiled, CompiledCustomer, compile};
pub use diff::{Change, Difference, DifferenceKind, PolicyDiff, diff};
pub use error::{Mistake, PolicyError, Problem};
pub use merge::{CustomerShare, NotForAShare, merge};
pub use sharing::{CompiledGroup, Prioritize, Sharing, Spillover, sharing};
pub use tuning::Tuning;

/// Customers that a policy can list.
pub const MAX_CUSTOMERS: usize = 4_000_000;

#[cfg(test)]
mod tests;
