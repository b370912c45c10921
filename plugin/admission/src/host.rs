//! What the filter needs of the proxy around it.
//!
//! The filter is generic over this trait, so that the same code decides in Envoy, in a wasmtime host and in a native test, and a test can
//! hold the clock and let several workers share one ledger. Calling `proxy_wasm::hostcalls` where something is needed was the alternative:
//! less code, and no decision could be tested without a proxy.
//!
//! Buffers are passed in by the caller: a worker reuses the same few for all its requests.

use forebay_core::ledger::SharedData;
use forebay_core::time::TimeUs;

/// The proxy, as seen during one callback.
pub trait Host: SharedData {
    /// Microseconds of the monotonic clock that all workers of the gateway share.
    fn now(&mut self) -> TimeUs;

    /// Milliseconds since 1970. Only bans use it: they end at a date.
    fn unix_ms(&mut self) -> u64;

    /// Replaces `into` by the value of a request header (the first, if there are several); false if there is none.
    fn request_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool;

    /// Replaces `into` by all request headers, in the form that [`crate::header_map`] reads; false if the host fails.
    ///
    /// One call for all costs as much as one call for one, so whoever needs two asks for all.
    fn request_headers(&mut self, into: &mut Vec<u8>) -> bool;

    /// Replaces `into` by the value of a response header; false if there is none.
    fn response_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool;

    /// Sets a response header.
    fn set_response_header(&mut self, name: &str, value: &[u8]);

    /// Removes a response header.
    fn remove_response_header(&mut self, name: &str);

    /// Replaces `into` by the value of a property; its path has NUL between its parts. False if there is none.
    fn property(&mut self, path: &[u8], into: &mut Vec<u8>) -> bool;

    /// Leaves a value for access logs.
    fn set_filter_state(&mut self, name: &str, value: &[u8]);

    /// Answers the request in place of the upstream.
    fn reply(&mut self, reply: &Reply<'_>);

    /// Defines a metric; `None` if the host refuses it.
    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Option<MetricId>;

    /// Adds to a counter.
    fn add_metric(&mut self, metric: MetricId, by: i64);

    /// Records a value of a histogram, or sets a gauge.
    fn record_metric(&mut self, metric: MetricId, value: u64);

    /// Writes a log line.
    fn log(&mut self, level: LogLevel, line: &str);
}

/// A local reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Status of a gRPC request.
    pub grpc_status: u32,
    /// Why, for `%RESPONSE_CODE_DETAILS%`.
    pub details: &'a str,
    /// Headers, in the form that [`crate::header_map`] writes.
    pub headers: &'a [u8],
    /// Body.
    pub body: &'a [u8],
}

/// Number that the host gave to a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricId(pub u32);

/// How a metric adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Has a present value.
    Gauge,
    /// Has a distribution.
    Histogram,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Normal life.
    Info,
    /// Something to look at.
    Warn,
    /// Something that does not work.
    Error,
}
