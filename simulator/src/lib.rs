//! Models of what stands around the control plane, on a clock that the caller moves.
//!
//! A model is made of production code wherever there is any: a [`Gateway`] keeps the ledger entries of `forebay-core` and speaks the
//! sync protocol of `forebay-wire`. What it leaves out is what Envoy adds: threads, host calls, a forecast. So thousands of
//! gateways fit into one process, for benches of the control plane and for simulations of fleets.
#![forbid(unsafe_code)]

mod gateway;
mod pace;

pub use gateway::{Counters, Gateway};
pub use pace::Pace;
