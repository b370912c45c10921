//! The central truth about tokens: what each customer (and each pool) has, and what a gateway holds of it.
//!
//! A token is in exactly one place: in the central bucket, or with the gateway that it was granted to. While a gateway holds
//! the whole contract, the central bucket is empty and refills nothing, because the rate is granted as well. When the gateway's
//! tenure ends, whatever it held counts as spent, and the central bucket refills from the moment at which it could no longer
//! spend. Nothing here creates a token, whatever is lost, repeated or restarted.

mod account;
mod record;

pub use account::{Account, Counters, Holding, Tenure};
pub use record::AccountRecord;

use forebay_wire::key::CustomerHash;

/// The key of the pools: they are granted to gateways as if they were one more customer. No customer hashes to it but by a
/// chance of one in 2^128.
pub const POOL_ACCOUNT: CustomerHash = CustomerHash([0; 16]);
