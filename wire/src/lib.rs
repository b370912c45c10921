//! All that crosses a process boundary, and nothing else.
//!
//! Plugins, control plane and tools know each other only through these types. The crate has no rules of its own about tokens
//! (`forebay-core` has) and knows no transport.

#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects)]

pub mod config;
pub mod forecaster_config;
mod json;
pub mod key;
pub mod model;
pub mod policy;
pub mod structured;
pub mod sync;
