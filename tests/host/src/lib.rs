//! A proxy-wasm 0.2.1 host on wasmtime, with virtual time: it runs the `.wasm` files that are shipped.
//!
//! Envoy cannot be told to fail its third host call, to stop one worker between two compare-and-swaps, or to let a
//! day pass. Here every host call of every worker goes through one [`Gate`], which may hold it, fail it or trap
//! it; several workers share one shared-data map, as in Envoy. Mocks of the SDK would be faster to write, but
//! then the code under test would not be the module that Envoy loads.

// A failed step must stop the run: the reader of a test log needs the first cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod clock;
mod exchange;
mod gate;
mod gateway;
mod imports;
mod metrics;
mod schedule;
mod shared_data;
mod state;
mod worker;

pub use clock::VirtualClock;
pub use exchange::{Headers, HttpCall, LocalReply, Outcome, Request, Response};
pub use gate::{Fate, Gate, HostCall, Status};
pub use gateway::{Gateway, Plugin};
pub use metrics::Metrics;
pub use schedule::{Explored, every_interleaving};
pub use shared_data::SharedData;
pub use worker::{InFlight, Worker};
