//! From a forecast to a claim on the pool: the refill and the depth of a customer's shadow bucket.

mod allot;
mod claim;
mod writer;

pub use claim::Claim;
pub use writer::{ShadowWriter, Terms};
