//! All that the forecaster needs from the machine it runs in, as one small trait.
//!
//! The forecaster is written against this trait and not against the proxy-wasm SDK, so that the same code runs in Envoy, in
//! wasmtime and natively in tests with virtual time and a hostile control plane. Mocking the SDK's host calls instead was worse:
//! they are free functions, so a test could not hold two gateways, and a failing call cannot be injected.

/// Compare-and-swap number of a shared-data value, as the host hands it out.
pub type Cas = u32;

/// Identifies an HTTP call until it is answered.
pub type CallId = u32;

/// Shared data, clocks, HTTP calls, metrics and log of one gateway.
pub trait Host {
    /// The host's monotonic clock in microseconds, common to all VMs of the gateway.
    fn monotonic_us(&self) -> u64;

    /// The wall clock in milliseconds since 1970. Only the calendar may depend on it: it jumps.
    fn wall_ms(&self) -> u64;

    /// Reads a shared-data value. `None`: never written, or empty.
    fn shared_data(&self, key: &str) -> Option<(Vec<u8>, Cas)>;

    /// Writes a shared-data value. With `cas` it fails when another VM wrote in between; without, it overwrites.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the number is outdated, [`StoreError::Refused`] when the host does not take the value.
    fn set_shared_data(&self, key: &str, value: &[u8], cas: Option<Cas>) -> Result<(), StoreError>;

    /// Starts an HTTP call. Its answer arrives at [`crate::Forecaster::on_http_response`].
    ///
    /// # Errors
    /// The host refused at once, for instance because the cluster does not exist.
    fn dispatch(&self, call: &HttpCall<'_>) -> Result<CallId, DispatchRefused>;

    /// Sets the gauge or counter.
    fn record(&self, metric: Metric, value: u64);

    /// Adds to the counter.
    fn increment(&self, metric: Metric, by: u64);

    /// Logs one line. Never carries a customer key: only hashes reach this plugin.
    fn log(&self, level: log::Level, line: &str);
}

/// Why a shared-data value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another VM wrote since the value was read.
    Conflict,
    /// The host refused.
    Refused,
}

/// The host did not start an HTTP call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchRefused;

/// An HTTP call to a cluster of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct HttpCall<'a> {
    /// Envoy cluster.
    pub cluster: &'a str,
    /// All headers, pseudo-headers first.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body, may be empty.
    pub body: &'a [u8],
    /// When the host gives up.
    pub timeout_ms: u32,
}

/// The answer to an HTTP call. A call that failed or timed out has status 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// HTTP status; 0 when there was no answer.
    pub status: u16,
    /// Body as received, not longer than the host was asked for.
    pub body: Vec<u8>,
}

pub use crate::metrics::Metric;
