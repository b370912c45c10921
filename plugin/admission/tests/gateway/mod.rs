//! A gateway without a proxy: several workers over one shared-data map, with a clock that the test holds.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use std::collections::BTreeMap;

use forebay_admission::host::{Host, LogLevel, MetricId, MetricKind, Reply};
use forebay_admission::{Action, ConfigureError, Filter, configure, header_map};
use forebay_core::error::CoreError;
use forebay_core::ledger::{Ledger, MemoryData, SetError, SharedData};
use forebay_core::time::TimeUs;

pub const SECOND_US: u64 = 1_000_000;

/// Everything outside the workers.
#[derive(Default)]
pub struct World {
    pub data: MemoryData,
    pub now_us: u64,
    pub logs: Vec<String>,
    pub metrics: BTreeMap<String, u64>,
    names: Vec<String>,
    /// Shared data refuses every call while this is set.
    pub data_fails: bool,
    /// Host calls of any kind, and those that change shared data.
    pub calls: u64,
    pub sets: u64,
    /// The next compare-and-swaps that lose although nobody else wrote.
    pub lost_races: u32,
}

/// A request, as a test writes it.
#[derive(Clone, Default)]
pub struct Request {
    pub headers: Vec<(String, Vec<u8>)>,
    pub properties: BTreeMap<String, Vec<u8>>,
    /// Headers of the upstream's response.
    pub response: Vec<(String, Vec<u8>)>,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub grpc_status: Option<u32>,
    pub details: String,
    pub body: Vec<u8>,
    pub headers: BTreeMap<String, String>,
    pub state: BTreeMap<String, String>,
}

/// A gateway with its workers.
pub struct Gateway {
    pub world: World,
    pub workers: Vec<Filter>,
    next_stream: u32,
}

struct TestHost<'a> {
    world: &'a mut World,
    request: &'a Request,
    answer: Answer,
}

// === impl Request ===

impl Request {
    pub fn of(key: &str) -> Self {
        Self::default().header("x-key", key)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// The parts of the path are joined by points.
    pub fn property(mut self, path: &str, value: impl AsRef<[u8]>) -> Self {
        self.properties
            .insert(path.replace('.', "\0"), value.as_ref().to_vec());
        self
    }

    pub fn response(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.response
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
}

// === impl Answer ===

impl Answer {
    pub fn admitted(&self) -> bool {
        self.status == 200
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

// === impl Gateway ===

impl Gateway {
    pub fn new(config: &str, workers: usize) -> Self {
        Self::try_new(config, workers).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_new(config: &str, workers: usize) -> Result<Self, ConfigureError> {
        let mut gateway = Self {
            world: World::default(),
            workers: Vec::new(),
            next_stream: 1,
        };
        gateway.world.now_us = 1_000 * SECOND_US;
        for _ in 0..workers {
            let filter = gateway.configure(config)?;
            gateway.workers.push(filter);
        }
        // So that each worker knows of all the others.
        for worker in 0..workers {
            gateway.tick(worker);
        }
        Ok(gateway)
    }

    /// Configures one more worker's filter against this gateway's ledger.
    pub fn configure(&mut self, config: &str) -> Result<Filter, ConfigureError> {
        let request = Request::default();
        configure(
            &mut TestHost::new(&mut self.world, &request),
            config.as_bytes(),
            None,
        )
    }

    /// The same with the secret for hashing keys.
    pub fn configure_with_secret(
        &mut self,
        config: &str,
        secret: &str,
    ) -> Result<Filter, ConfigureError> {
        let request = Request::default();
        configure(
            &mut TestHost::new(&mut self.world, &request),
            config.as_bytes(),
            Some(secret),
        )
    }

    /// Puts a policy of epoch 7 in force, as the forecaster does.
    pub fn receive_policy(&mut self, document: &str) {
        let document = serde_json::from_str(document).unwrap();
        let mut policy = forebay_policy::compile(&document).unwrap().policy;
        policy.epoch = 7;
        let mut ledger = Ledger::open(&mut self.world.data).unwrap();
        ledger.write_policy(&mut self.world.data, &policy).unwrap();
        ledger
            .edit_state(&mut self.world.data, |state| state.policy_epoch = 7)
            .unwrap();
    }

    pub fn advance_ms(&mut self, ms: u64) {
        self.world.now_us += ms * 1_000;
    }

    pub fn tick(&mut self, worker: usize) {
        let request = Request::default();
        self.workers[worker].on_tick(&mut TestHost::new(&mut self.world, &request));
    }

    /// The end of a configuration that Envoy has dropped.
    pub fn retire(&mut self, filter: &mut Filter) {
        let request = Request::default();
        filter.retire(&mut TestHost::new(&mut self.world, &request));
    }

    /// A tick of every worker.
    pub fn tick_all(&mut self) {
        for worker in 0..self.workers.len() {
            self.tick(worker);
        }
    }

    /// The request's way through, and the response's way back.
    pub fn send(&mut self, worker: usize, request: &Request) -> Answer {
        let (stream, mut answer) = self.open(worker, request);
        if answer.status == 0 {
            self.close(worker, stream, request, &mut answer);
        }
        answer
    }

    /// The request's way only. The status is 0 while the upstream has not answered.
    pub fn open(&mut self, worker: usize, request: &Request) -> (u32, Answer) {
        let stream = self.next_stream;
        self.next_stream += 1;
        let mut host = TestHost::new(&mut self.world, request);
        let action = self.workers[worker].on_request_headers(&mut host, stream);
        let answer = host.answer;
        assert_eq!(
            action == Action::Stop,
            answer.status != 0,
            "a stopped request is answered, and no other"
        );
        (stream, answer)
    }

    /// The response's way back.
    pub fn close(&mut self, worker: usize, stream: u32, request: &Request, answer: &mut Answer) {
        let mut host = TestHost::new(&mut self.world, request);
        host.answer = answer.clone();
        host.answer.status = 200;
        for (name, value) in &request.response {
            host.answer
                .headers
                .insert(name.clone(), String::from_utf8_lossy(value).into_owned());
        }
        self.workers[worker].on_response_headers(&mut host, stream);
        *answer = host.answer;
    }

    pub fn metric(&mut self, name: &str) -> u64 {
        for _ in 0..4 {
            self.tick_all();
        }
        self.world.metrics.get(name).copied().unwrap_or(0)
    }
}

// === impl TestHost ===

impl<'a> TestHost<'a> {
    fn new(world: &'a mut World, request: &'a Request) -> Self {
        Self {
            world,
            request,
            answer: Answer::default(),
        }
    }

    fn refused(key: &str) -> CoreError {
        CoreError::Host {
            key: key.to_owned(),
            status: 10,
        }
    }
}

fn find(headers: &[(String, Vec<u8>)], name: &str, into: &mut Vec<u8>) -> bool {
    match headers.iter().find(|(header, _)| header == name) {
        Some((_, value)) => {
            into.clone_from(value);
            true
        }
        None => false,
    }
}

impl SharedData for TestHost<'_> {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        self.world.calls += 1;
        if self.world.data_fails {
            return Err(Self::refused(key));
        }
        self.world.data.get(key, into)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        self.world.calls += 1;
        if self.world.data_fails {
            return Err(SetError::Host(Self::refused(key)));
        }
        if cas.is_some() && self.world.lost_races > 0 {
            self.world.lost_races -= 1;
            return Err(SetError::CasMismatch);
        }
        self.world.sets += 1;
        self.world.data.set(key, value, cas)
    }
}

impl Host for TestHost<'_> {
    fn now(&mut self) -> TimeUs {
        self.world.calls += 1;
        TimeUs(self.world.now_us)
    }

    fn unix_ms(&mut self) -> u64 {
        1_700_000_000_000 + self.world.now_us / 1_000
    }

    fn request_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        self.world.calls += 1;
        find(&self.request.headers, name, into)
    }

    fn request_headers(&mut self, into: &mut Vec<u8>) -> bool {
        self.world.calls += 1;
        let headers: Vec<(&str, &[u8])> = self
            .request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        header_map::write(&headers, into);
        true
    }

    fn response_header(&mut self, name: &str, into: &mut Vec<u8>) -> bool {
        self.world.calls += 1;
        find(&self.request.response, name, into)
    }

    fn set_response_header(&mut self, name: &str, value: &[u8]) {
        self.world.calls += 1;
        self.answer
            .headers
            .insert(name.to_owned(), String::from_utf8(value.to_vec()).unwrap());
    }

    fn remove_response_header(&mut self, name: &str) {
        self.world.calls += 1;
        self.answer.headers.remove(name);
    }

    fn property(&mut self, path: &[u8], into: &mut Vec<u8>) -> bool {
        self.world.calls += 1;
        match self
            .request
            .properties
            .get(std::str::from_utf8(path).unwrap())
        {
            Some(value) => {
                into.clone_from(value);
                true
            }
            None => false,
        }
    }

    fn set_filter_state(&mut self, name: &str, value: &[u8]) {
        self.world.calls += 1;
        self.answer
            .state
            .insert(name.to_owned(), String::from_utf8(value.to_vec()).unwrap());
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        self.answer.status = reply.status;
        self.answer.grpc_status = Some(reply.grpc_status);
        self.answer.details = reply.details.to_owned();
        self.answer.body = reply.body.to_vec();
        for name in [
            "content-type",
            "retry-after",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "ratelimit-policy",
            "ratelimit",
        ] {
            if let Some(value) = header_map::find(reply.headers, name) {
                self.answer
                    .headers
                    .insert(name.to_owned(), String::from_utf8(value.to_vec()).unwrap());
            }
        }
    }

    fn define_metric(&mut self, _kind: MetricKind, name: &str) -> Option<MetricId> {
        self.world.names.push(name.to_owned());
        Some(MetricId(self.world.names.len() as u32 - 1))
    }

    fn add_metric(&mut self, metric: MetricId, by: i64) {
        assert!(by > 0, "Envoy refuses to add {by}");
        let name = self.world.names[metric.0 as usize].clone();
        *self.world.metrics.entry(name).or_default() += by as u64;
    }

    fn record_metric(&mut self, metric: MetricId, value: u64) {
        let name = self.world.names[metric.0 as usize].clone();
        self.world.metrics.insert(name, value);
    }

    fn log(&mut self, _level: LogLevel, line: &str) {
        self.world.logs.push(line.to_owned());
    }
}

/// A configuration: rules, then further fields, then the policy's fields.
pub fn config(rules: &str, more: &str, policy: &str) -> String {
    format!(r#"{{"version": 1, "rules": [{rules}], {more} "policy": {{"version": 1, {policy}}}}}"#)
}

/// A rule that charges `requests` by the header `x-key`.
pub const BY_KEY: &str = r#"{"name": "api", "key": {"header": {"name": "x-key", "trusted": true}}, "charges": [{"resource": "requests"}]}"#;

/// One resource, one contract of 10/s with burst 5 that everybody has.
pub const TEN_PER_S: &str = r#""unknown": {"action": "default_contract", "contract": "basic"}, "resources": {"requests": {}},
    "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 10, "burst": 5}}}}"#;
