//! Envoy as the filter's [`Host`].

use forebay_core::error::CoreError;
use forebay_core::ledger::{SetError, SharedData};
use forebay_core::time::TimeUs;
use proxy_wasm::hostcalls;
use proxy_wasm::types;

use super::imports;
use crate::host::{Host, LogLevel, MetricId, MetricKind, Reply};

const NS_PER_US: u64 = 1_000;
const NS_PER_MS: u64 = 1_000_000;

/// Envoy, during a callback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envoy;

// === impl Envoy ===

impl SharedData for Envoy {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        match imports::shared_data(key, into) {
            Ok(cas) => Ok(Some(cas)),
            Err(imports::NOT_FOUND) => Ok(None),
            Err(status) => Err(CoreError::Host {
                key: key.to_owned(),
                status,
            }),
        }
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        match imports::set_shared_data(key, value, cas.unwrap_or(0)) {
            imports::OK => Ok(()),
            imports::CAS_MISMATCH => Err(SetError::CasMismatch),
            status => Err(SetError::Host(CoreError::Host {
                key: key.to_owned(),
                status,
            })),
        }
    }
}

impl Host for Envoy {
    fn now(&mut self) -> TimeUs {
        TimeUs(imports::clock_ns(imports::MONOTONIC) / NS_PER_US)
    }

    fn unix_ms(&mut self) -> u64 {
        imports::clock_ns(imports::REALTIME) / NS_PER_MS
    }

    fn request_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        imports::header(imports::REQUEST_HEADERS, name, into) == imports::OK
    }

    fn request_headers(&mut self, into: &mut Vec<u8>) -> bool {
        imports::headers(imports::REQUEST_HEADERS, into) == imports::OK
    }

    fn response_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        imports::header(imports::RESPONSE_HEADERS, name, into) == imports::OK
    }

    fn set_response_header(&mut self, name: &str, value: &[u8]) {
        // A response that has gone already needs no header.
        let _ = imports::replace_header(imports::RESPONSE_HEADERS, name, value);
    }

    fn remove_response_header(&mut self, name: &str) {
        let _ = imports::remove_header(imports::RESPONSE_HEADERS, name);
    }

    fn property(&mut self, path: &[u8], into: &mut Vec<u8>) -> bool {
        imports::property(path, into) == imports::OK
    }

    fn set_filter_state(&mut self, name: &str, value: &[u8]) {
        // Only the access log misses it.
        let _ = imports::set_property(name.as_bytes(), value);
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        let grpc_status = i32::try_from(reply.grpc_status).unwrap_or(-1);
        // The request is stopped whatever comes of this call: a denied request never goes on.
        let _ = imports::reply(
            u32::from(reply.status),
            grpc_status,
            reply.details,
            reply.headers,
            reply.body,
        );
    }

    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Option<MetricId> {
        let kind = match kind {
            MetricKind::Counter => types::MetricType::Counter,
            MetricKind::Gauge => types::MetricType::Gauge,
            MetricKind::Histogram => types::MetricType::Histogram,
        };
        hostcalls::define_metric(kind, name).ok().map(MetricId)
    }

    fn add_metric(&mut self, metric: MetricId, by: i64) {
        let _ = imports::add_metric(metric.0, by);
    }

    fn record_metric(&mut self, metric: MetricId, value: u64) {
        let _ = imports::record_metric(metric.0, value);
    }

    fn log(&mut self, level: LogLevel, line: &str) {
        let level = match level {
            LogLevel::Info => types::LogLevel::Info,
            LogLevel::Warn => types::LogLevel::Warn,
            LogLevel::Error => types::LogLevel::Error,
        };
        let _ = hostcalls::log(level, line);
    }
}
