//! The proxy around a natively compiled filter: one request at a time, a clock that passes when told.

use std::collections::BTreeMap;

use forebay_admission::header_map;
use forebay_admission::host::{Host, LogLevel, MetricId, MetricKind, Reply};
use forebay_conformance::Sent;
use forebay_core::error::CoreError;
use forebay_core::ledger::{MemoryData, SetError, SharedData};
use forebay_core::time::TimeUs;

/// 2026-01-05 00:00 UTC.
const WALL_START_MS: u64 = 1_767_571_200_000;

/// A host in memory.
pub(crate) struct MemoryHost {
    shared: MemoryData,
    now_us: u64,
    request: Vec<(String, Vec<u8>)>,
    response: Vec<(String, Vec<u8>)>,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
    reply: Option<OwnedReply>,
    metrics: u32,
}

/// A local reply, kept.
pub(crate) struct OwnedReply {
    pub(crate) status: u16,
    pub(crate) grpc_status: u32,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

// === impl MemoryHost ===

impl MemoryHost {
    pub(crate) fn new() -> Self {
        Self {
            shared: MemoryData::default(),
            now_us: 3_600_000_000,
            request: Vec::new(),
            response: Vec::new(),
            properties: BTreeMap::new(),
            reply: None,
            metrics: 0,
        }
    }

    pub(crate) fn advance_ms(&mut self, milliseconds: u64) {
        self.now_us += milliseconds * 1000;
    }

    /// The request that the next callback is about.
    pub(crate) fn begin(&mut self, sent: &Sent) {
        self.request = vec![
            (":method".to_owned(), sent.method.as_bytes().to_vec()),
            (":path".to_owned(), sent.path.as_bytes().to_vec()),
            (":authority".to_owned(), b"test".to_vec()),
        ];
        self.request.extend(
            sent.headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        self.response.clear();
        let address = format!("127.0.0.{}:4711", sent.source).into_bytes();
        self.properties = BTreeMap::from([(b"source\0address".to_vec(), address)]);
        if let Some((_, claim)) = sent.headers.iter().find(|(name, _)| *name == "x-claim-sub") {
            self.properties.insert(
                b"metadata\0filter_metadata\0claims\0sub".to_vec(),
                claim.clone(),
            );
        }
    }

    pub(crate) fn take_reply(&mut self) -> Option<OwnedReply> {
        self.reply.take()
    }

    pub(crate) fn upstream_answers(&mut self, sent: &Sent) {
        self.response = vec![(":status".to_owned(), b"200".to_vec())];
        if let Some(cost) = sent.upstream_cost {
            self.response
                .push(("x-cost".to_owned(), cost.as_bytes().to_vec()));
        }
    }

    pub(crate) fn response_headers(&self) -> Vec<(String, Vec<u8>)> {
        self.response.clone()
    }
}

impl SharedData for MemoryHost {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        self.shared.get(key, into)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        self.shared.set(key, value, cas)
    }
}

impl Host for MemoryHost {
    fn now(&mut self) -> TimeUs {
        TimeUs(self.now_us)
    }

    fn unix_ms(&mut self) -> u64 {
        WALL_START_MS + self.now_us / 1000
    }

    fn request_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        copy(&self.request, name, into)
    }

    fn request_headers(&mut self, into: &mut Vec<u8>) -> bool {
        let pairs: Vec<(&str, &[u8])> = self
            .request
            .iter()
            .map(|(name, value)| (name.as_str(), &value[..]))
            .collect();
        header_map::write(&pairs, into);
        true
    }

    fn response_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        copy(&self.response, name, into)
    }

    fn set_response_header(&mut self, name: &str, value: &[u8]) {
        self.remove_response_header(name);
        self.response.push((name.to_owned(), value.to_vec()));
    }

    fn remove_response_header(&mut self, name: &str) {
        self.response.retain(|(other, _)| other != name);
    }

    fn property(&mut self, path: &[u8], into: &mut Vec<u8>) -> bool {
        let Some(value) = self.properties.get(path) else {
            return false;
        };
        into.clone_from(value);
        true
    }

    fn set_filter_state(&mut self, _name: &str, _value: &[u8]) {}

    fn reply(&mut self, reply: &Reply<'_>) {
        self.reply = Some(OwnedReply {
            status: reply.status,
            grpc_status: reply.grpc_status,
            headers: read(reply.headers),
            body: reply.body.to_vec(),
        });
    }

    fn define_metric(&mut self, _kind: MetricKind, _name: &str) -> Option<MetricId> {
        self.metrics += 1;
        Some(MetricId(self.metrics))
    }

    fn add_metric(&mut self, _metric: MetricId, _by: i64) {}

    fn record_metric(&mut self, _metric: MetricId, _value: u64) {}

    fn log(&mut self, _level: LogLevel, _line: &str) {}
}

fn copy(headers: &[(String, Vec<u8>)], name: &str, into: &mut Vec<u8>) -> bool {
    let Some((_, value)) = headers.iter().find(|(other, _)| other == name) else {
        return false;
    };
    into.clone_from(value);
    true
}

/// All headers of the host's binary form.
fn read(map: &[u8]) -> Vec<(String, Vec<u8>)> {
    let names = [
        "content-type",
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit-policy",
        "ratelimit",
    ];
    let pair =
        |name: &str| header_map::find(map, name).map(|value| (name.to_owned(), value.to_vec()));
    names.into_iter().filter_map(pair).collect()
}
