//! The audit log: who has changed what through the admin API, as a chain that shows when something was taken out of it.
//!
//! A log on standard error was the worse alternative: it can be full, rotated or switched off while changes go on, and nobody can
//! tell afterwards that a line is missing. Here a change and its record become durable together or not at all.

mod chain;
mod record;

pub use chain::{ChainError, verify};
pub(crate) use record::hash_of;
pub use record::{AuditRecord, Link};
