//! From a forecast or an allocation to a claim on the pool: the refill and the depth of a customer's shadow bucket.

pub(crate) mod allocations;
mod allot;
mod claim;
mod writer;

pub use allocations::Allocations;
pub use claim::Claim;
pub use writer::{ShadowWriter, Terms};
