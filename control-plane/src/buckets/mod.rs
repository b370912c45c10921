//! The central truth about tokens: what each customer (and each pool) has, and what gateways hold of it.
//!
//! A token is in exactly one place: in the central bucket of its account, or in the part of the gateway that it was granted to. The
//! accounting is `forebay_core::fleet`'s; how much should go where is a law's ([`forebay_sharing`]). When a gateway's session
//! ends, whatever it held counts as spent, and refills here from the moment at which it could no longer spend. Nothing here
//! creates a token, whatever is lost, repeated or restarted.

mod account;
mod cause;
mod counters;
mod division;
mod events;
mod granting;
mod meter;
mod offer;
mod pace;
mod part;
mod parts;
mod record;
mod roster;
mod sum;
mod want;

pub use account::{Account, Contract, Holding, News, StoredRow, Told};
pub use cause::Cause;
pub use counters::Counters;
pub use granting::Granted;
pub use part::{Part, PartHolding, SessionNumber, StepDemand, Unsaved};
pub use record::{AccountRecord, PartRecord};
pub use roster::{Gone, Roster, Seat, Standing};

use forebay_wire::key::CustomerHash;

/// The key of the pools: they are granted to gateways as if they were one more customer. No customer hashes to it but by a
/// chance of one in 2^128.
pub const POOL_ACCOUNT: CustomerHash = CustomerHash([0; 16]);

#[cfg(test)]
mod saving_tests;
