//! The forecaster: one per gateway, beside the workers and never in a request's way.
//!
//! Where the plugin can have only one VM it is the forecaster; where it has one per thread, each is a [`Candidate`] and one leads.
//!
//! It keeps the usage series, forecasts them, turns forecasts into refills of shadow buckets, and talks to the control plane: reports go
//! up, policy, grants, windows and models come down. Everything it decides reaches the workers through the ledger in shared data, under
//! compare-and-swap, so a forecaster that traps, lags or lies about the future costs foresight and never tokens.
//!
//! Both are plain state machines over a [`host::Host`]; the adapter to proxy-wasm exists in WebAssembly only, because its host
//! calls cannot be linked anywhere else.
#![deny(clippy::arithmetic_side_effects)]
// Tests compute expected values with plain operators; an overflow there is a failed test.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod accuracy;
#[cfg(target_family = "wasm")]
mod adapter;
mod books;
pub mod budget;
pub mod calendar;
#[cfg(target_family = "wasm")]
mod callbacks;
mod candidate;
pub mod challenger;
#[cfg(target_family = "wasm")]
mod check;
#[cfg(target_family = "wasm")]
mod clock;
mod control_plane;
mod forecaster;
mod fresh;
pub mod host;
pub mod identity;
pub mod inference;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod model;
mod run_cost;
pub mod scan;
pub mod series;
mod settings;
pub mod shadow;
pub mod sync;

pub use candidate::Candidate;
pub use forecaster::Forecaster;
pub use settings::{ConfigureError, Environment};

#[cfg(target_family = "wasm")]
proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::<adapter::Root>::default());
}}
