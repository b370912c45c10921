//! The admission plugin: decides in each Envoy worker, without asking anybody, whether a request may go on.
//!
//! One [`Filter`] is one worker's configured plugin. It is generic over [`host::Host`], so the same code runs natively in tests, in a
//! wasmtime host and in Envoy; all that knows the proxy-wasm ABI is in one module that exists on wasm only.
//!
//! The way of a request: `request` and `matcher` find the rules that apply, `key` and `cost` say whom and how much, `filter` decides with
//! `forebay_core`, `denial` answers a denied request, `response` sets headers and settles estimates afterwards, `tick` does in the
//! background what requests need not wait for.
#![deny(clippy::arithmetic_side_effects)]
// Tests compute expected values with plain operators; an overflow there is a failed test.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod account;
mod amount;
mod cold_start;
mod configure;
mod cost;
mod denial;
#[cfg(target_os = "wasi")]
mod envoy;
mod filter;
pub mod header_map;
pub mod host;
mod key;
mod matcher;
mod metrics;
mod pending;
mod rate_headers;
mod request;
mod response;
mod rule;
mod settings;
mod source_address;
mod tick;

pub use configure::{ConfigureError, configure};
pub use filter::{Action, Filter};
pub use tick::TICK_MS;
