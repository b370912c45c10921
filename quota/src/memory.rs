//! What a proxy gives its plugins, in memory: shared data with compare-and-swap, clocks, and an outbox for calls.
//!
//! The forecaster and the desk hold clones of one [`Memory`], as a forecaster and workers share an Envoy.

use crate::gateway::Call;
use forebay_core::error::CoreError;
use forebay_core::ledger::{MemoryData, SetError, SharedData};
use forebay_core::time::TimeUs;
use forebay_forecaster::host::{CallId, Cas, DispatchRefused, Host, HttpCall, Metric, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Calls that may wait to be made. The forecaster has one sync and one model under way at a time.
const MAX_CALLS: usize = 8;

/// A handle on the gateway's memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data: Mutex<MemoryData>,
    outbox: Mutex<Outbox>,
    /// Monotonic time begins a while before the start: 0 is never in core.
    began: Instant,
}

#[derive(Debug, Default)]
struct Outbox {
    last_call: CallId,
    calls: Vec<(CallId, Call)>,
}

/// Where monotonic time begins.
const START_US: u64 = 1_000_000;

// === impl Memory ===

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            data: Mutex::default(),
            outbox: Mutex::default(),
            began: Instant::now(),
        }))
    }

    /// The calls that were started since the last time.
    pub(crate) fn take_calls(&self) -> Vec<(CallId, Call)> {
        std::mem::take(&mut lock(&self.0.outbox).calls)
    }

    pub(crate) fn now(&self) -> TimeUs {
        TimeUs(self.monotonic_us())
    }
}

/// Nothing under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedData for Memory {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        lock(&self.0.data).get(key, into)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        lock(&self.0.data).set(key, value, cas)
    }
}

impl Host for Memory {
    fn monotonic_us(&self) -> u64 {
        let us = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        us.saturating_add(START_US)
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
    }

    fn shared_data(&self, key: &str) -> Option<(Vec<u8>, Cas)> {
        let mut value = Vec::new();
        let cas = lock(&self.0.data).get(key, &mut value).ok().flatten()?;
        Some((value, cas))
    }

    fn set_shared_data(&self, key: &str, value: &[u8], cas: Option<Cas>) -> Result<(), StoreError> {
        lock(&self.0.data)
            .set(key, value, cas)
            .map_err(|error| match error {
                SetError::CasMismatch => StoreError::Conflict,
                SetError::Host(_) => StoreError::Refused,
            })
    }

    fn dispatch(&self, call: &HttpCall<'_>) -> Result<CallId, DispatchRefused> {
        let mut outbox = lock(&self.0.outbox);
        if outbox.calls.len() >= MAX_CALLS {
            return Err(DispatchRefused);
        }
        outbox.last_call = outbox.last_call.wrapping_add(1);
        let id = outbox.last_call;
        let headers = call.headers.iter();
        let owned = Call {
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: call.body.to_vec(),
            timeout: Duration::from_millis(call.timeout_ms.into()),
        };
        outbox.calls.push((id, owned));
        Ok(id)
    }

    // The control plane counts its syncs, grants and errors itself.
    fn record(&self, _metric: Metric, _value: u64) {}

    fn increment(&self, _metric: Metric, _by: u64) {}

    fn log(&self, level: log::Level, line: &str) {
        match level {
            log::Level::Error => tracing::error!("quota gateway: {line}"),
            log::Level::Warn => tracing::warn!("quota gateway: {line}"),
            _ => tracing::debug!("quota gateway: {line}"),
        }
    }
}
