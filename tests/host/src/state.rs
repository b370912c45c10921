//! What the host knows about one worker while its code runs.

use std::collections::BTreeMap;

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use crate::clock::VirtualClock;
use crate::exchange::{Headers, HttpCall, LocalReply, Request};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::shared_data::SharedData;

/// Envoy's own limit is 1 GiB; a plugin that needs a quarter of it has a leak.
const MEMORY_BYTES: usize = 256 << 20;

/// The data of a worker's store.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) worker: usize,
    pub(crate) shared: SharedData,
    pub(crate) metrics: Metrics,
    pub(crate) clock: VirtualClock,
    pub(crate) gate: Gate,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) logs: Vec<(u32, String)>,
    pub(crate) tick_period_ms: u32,
    pub(crate) vm_configuration: Vec<u8>,
    pub(crate) plugin_configuration: Vec<u8>,
    /// Streams by context id.
    pub(crate) streams: BTreeMap<u32, Stream>,
    /// The context whose callback runs.
    pub(crate) current: u32,
    pub(crate) http_calls: Vec<HttpCall>,
    pub(crate) last_token: u32,
    /// The answer that `proxy_on_http_call_response` is about.
    pub(crate) call_answer: Option<(Headers, Vec<u8>)>,
    /// Results of `proxy_call_foreign_function`, by name.
    pub(crate) foreign: BTreeMap<String, Vec<u8>>,
    pub(crate) limits: StoreLimits,
    random: u64,
}

/// One HTTP exchange.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) request: Headers,
    pub(crate) response: Headers,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    pub(crate) set_properties: BTreeMap<String, Vec<u8>>,
    pub(crate) local_reply: Option<LocalReply>,
}

// === impl State ===

impl State {
    pub(crate) fn new(
        worker: usize,
        shared: SharedData,
        metrics: Metrics,
        clock: VirtualClock,
        gate: Gate,
    ) -> Self {
        Self {
            worker,
            shared,
            metrics,
            clock,
            gate,
            environment: Vec::new(),
            logs: Vec::new(),
            tick_period_ms: 0,
            vm_configuration: Vec::new(),
            plugin_configuration: Vec::new(),
            streams: BTreeMap::new(),
            current: 0,
            http_calls: Vec::new(),
            last_token: 0,
            call_answer: None,
            foreign: BTreeMap::new(),
            limits: StoreLimitsBuilder::new().memory_size(MEMORY_BYTES).build(),
            random: 0x9e37_79b9_7f4a_7c15 ^ worker as u64,
        }
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.limits
    }

    /// Random bytes that are the same in every run.
    pub(crate) fn random_byte(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.to_le_bytes()[0]
    }

    /// One of the SDK's header maps, by number.
    pub(crate) fn headers(&mut self, map: u32) -> Option<&mut Headers> {
        let stream = self.streams.get_mut(&self.current);
        match map {
            0 => stream.map(|stream| &mut stream.request),
            2 => stream.map(|stream| &mut stream.response),
            6 => self.call_answer.as_mut().map(|(headers, _)| headers),
            _ => None,
        }
    }

    /// One of the SDK's buffers, by number.
    pub(crate) fn buffer(&self, buffer: u32) -> Option<&[u8]> {
        match buffer {
            4 => self.call_answer.as_ref().map(|(_, body)| body.as_slice()),
            6 => Some(&self.vm_configuration),
            7 => Some(&self.plugin_configuration),
            _ => None,
        }
    }
}

// === impl Stream ===

impl Stream {
    pub(crate) fn of(request: Request) -> Self {
        Self {
            request: request.headers,
            properties: request.properties,
            ..Self::default()
        }
    }

    /// A property, with those that Envoy derives from the request itself.
    pub(crate) fn property(&self, path: &str) -> Option<Vec<u8>> {
        let derived = match path {
            "request.path" => self.request.get(":path"),
            "request.method" => self.request.get(":method"),
            "request.host" => self.request.get(":authority"),
            _ => None,
        };
        derived
            .map(<[u8]>::to_vec)
            .or_else(|| self.set_properties.get(path).cloned())
            .or_else(|| self.properties.get(path).cloned())
    }
}
