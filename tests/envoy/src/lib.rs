//! Starts real Envoy processes for tests and benches and talks to them.
//!
//! A container image with a fixed bootstrap would be closer to production, but needs a container runtime, fixed
//! ports and a YAML file for each case. Here the bootstrap is built by the test that needs it, every port is
//! free, and the process dies with the test.

// A failed step must stop the run: the reader of a test log needs the first cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admission;
mod bootstrap;
mod client;
mod control_plane;
mod envoy;
mod gateway;
mod place;
mod traffic;
mod wait;
mod wrapped;

pub use admission::{Admission, minimal_config};
pub use bootstrap::{Bootstrap, Listener, Upstream, Wasm};
pub use client::{Client, Protocol, Reply};
pub use control_plane::{ControlPlane, Place};
pub use envoy::{Envoy, Options};
pub use gateway::gateway;
pub use place::{artefact, binary, tool};
pub use traffic::Traffic;
pub use wait::until;
pub use wrapped::wrapped;
