//! One list of cases with their answers, run natively, in wasmtime and in Envoy.
//!
//! Three test suites would drift apart, and the fast one would be the one that is kept up to date. Here a case is
//! data: a configuration, requests at instants, and what the client must see; a runner only knows how to send.
//! Instants are wide apart or together, so that a busy machine that sends a second late still gets the same answers.

// Cases are written by indexing into JSON that this crate built itself; a wrong index must stop the run.
#![allow(clippy::indexing_slicing)]

mod case;
pub mod cases;
mod seen;

pub use case::{Case, Expected, Sent, Step, Want, minimal};
pub use cases::all;
pub use seen::Seen;
