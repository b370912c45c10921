//! The plugin in a proxy-wasm host: host calls on one side, the state machine on the other, and nothing in between.
//!
//! Free host calls are used instead of the SDK's trait getters, because those unwrap and a panic traps the VM.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use forebay_wire::key::SECRET_ENV;
use log::Level;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext};
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};

use crate::candidate::Candidate;
use crate::clock::monotonic_us;
use crate::host::{CallId, Cas, DispatchRefused, Host, HttpAnswer, HttpCall, Metric, StoreError};
use crate::limits::{CONFIG_BYTES_MOST, REPLY_BYTES_MOST};
use crate::metrics::{METRICS, MetricKind};
use crate::settings::Environment;

/// The root context: of the singleton service, or of the filter on one of Envoy's threads.
#[derive(Default)]
pub(crate) struct Root {
    candidate: RefCell<Option<Candidate<Envoy>>>,
}

/// The host calls, with the numbers that the host gave to our metrics.
#[derive(Clone, Debug)]
pub(crate) struct Envoy {
    /// In the order of [`METRICS`]; `None` where the host refused.
    metrics: Rc<[Option<u32>]>,
}

// === impl Root ===

impl Root {
    fn with_candidate(&self, act: impl FnOnce(&mut Candidate<Envoy>)) {
        if let Ok(mut candidate) = self.candidate.try_borrow_mut()
            && let Some(candidate) = candidate.as_mut()
        {
            act(candidate);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        call: u32,
        headers: usize,
        body_size: usize,
        _trailers: usize,
    ) {
        let answer = http_answer(headers, body_size);
        self.with_candidate(|candidate| candidate.on_http_response(call, answer));
    }

    /// Envoy drops the configuration.
    fn on_done(&mut self) -> bool {
        self.with_candidate(Candidate::retire);
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        let envoy = Envoy::define_metrics();
        let size = configuration_size.min(CONFIG_BYTES_MOST);
        let bytes = match hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        match Candidate::configure(envoy, &bytes, &environment()) {
            Ok(candidate) => {
                let period = Duration::from_millis(u64::from(candidate.tick_period_ms()));
                self.candidate = RefCell::new(Some(candidate));
                hostcalls::set_tick_period(period).is_ok()
            }
            Err(error) => {
                // Only a configuration that can never work ends here; everything later degrades and is counted.
                let _unlogged = hostcalls::log(LogLevel::Error, &error.to_string());
                false
            }
        }
    }

    fn on_tick(&mut self) {
        self.with_candidate(Candidate::on_tick);
    }
}

// === impl Envoy ===

impl Envoy {
    fn define_metrics() -> Self {
        let metrics = METRICS
            .iter()
            .map(|(_, kind, name)| hostcalls::define_metric(metric_type(*kind), name).ok())
            .collect();
        Self { metrics }
    }

    fn id(&self, metric: Metric) -> Option<u32> {
        self.metrics.get(metric as usize).copied().flatten()
    }
}

impl Host for Envoy {
    fn monotonic_us(&self) -> u64 {
        monotonic_us()
    }

    fn wall_ms(&self) -> u64 {
        let now = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(0)
    }

    fn shared_data(&self, key: &str) -> Option<(Vec<u8>, Cas)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), Some(cas))) if !value.is_empty() => Some((value, cas)),
            _ => None,
        }
    }

    fn set_shared_data(&self, key: &str, value: &[u8], cas: Option<Cas>) -> Result<(), StoreError> {
        hostcalls::set_shared_data(key, Some(value), cas).map_err(|status| match status {
            Status::CasMismatch => StoreError::Conflict,
            _ => StoreError::Refused,
        })
    }

    fn dispatch(&self, call: &HttpCall<'_>) -> Result<CallId, DispatchRefused> {
        let body = Some(call.body).filter(|body| !body.is_empty());
        let timeout = Duration::from_millis(u64::from(call.timeout_ms));
        hostcalls::dispatch_http_call(
            call.cluster,
            call.headers.to_vec(),
            body,
            Vec::new(),
            timeout,
        )
        .map_err(|_| DispatchRefused)
    }

    fn record(&self, metric: Metric, value: u64) {
        if let Some(id) = self.id(metric) {
            let _unrecorded = hostcalls::record_metric(id, value);
        }
    }

    fn increment(&self, metric: Metric, by: u64) {
        if let Some(id) = self.id(metric) {
            let _unrecorded =
                hostcalls::increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX));
        }
    }

    fn log(&self, level: Level, line: &str) {
        let _unlogged = hostcalls::log(log_level(level), line);
    }
}

fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    }
}

fn log_level(level: Level) -> LogLevel {
    match level {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info => LogLevel::Info,
        Level::Debug => LogLevel::Debug,
        Level::Trace => LogLevel::Trace,
    }
}

fn http_answer(headers: usize, body_size: usize) -> HttpAnswer {
    // The connection broke, or the body was larger than Envoy holds: there are no headers to ask for, and the SDK panics when the
    // host says so.
    if headers == 0 {
        return HttpAnswer {
            status: 0,
            body: Vec::new(),
        };
    }
    let status = hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status")
        .ok()
        .flatten()
        .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
        .unwrap_or(0);
    // One byte more than is allowed, so that an oversized body is seen as such and not cut into something that parses.
    let size = body_size.min(REPLY_BYTES_MOST.saturating_add(1));
    let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size)
        .ok()
        .flatten()
        .unwrap_or_default();
    HttpAnswer { status, body }
}

fn environment() -> Environment {
    Environment {
        gateway_token: std::env::var("FOREBAY_GATEWAY_TOKEN").ok(),
        gateway_id: std::env::var("FOREBAY_GATEWAY_ID").ok(),
        key_hash_secret: std::env::var(SECRET_ENV).ok(),
        // The standard library seeds its hash maps from the host's random numbers.
        random: RandomState::new().hash_one(0_u8),
    }
}
