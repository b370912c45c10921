//! Alerts leave for Prometheus' Alertmanager, by its API (version 2).
//!
//! What is sent is a state and no event: each Alertmanager is told what fires, again and again, and once what does not any more. So nothing piles up
//! while one is away, and one that has forgotten everything knows it a minute later. A queue of events was the worse alternative: it is
//! lost with the process that was to take them, and has to be cut when it is full.
//!
//! All Alertmanagers of a cluster are told, each by a task of its own, as Prometheus does: they agree among themselves who notifies.

mod book;
mod message;
mod notifier;
#[cfg(test)]
mod notifier_tests;

pub use book::Notice;
pub use notifier::{Notified, Notifier, Pace};
