//! A gateway without an Envoy: shared data, clocks and an outbox in memory, and time that only moves when a test says so.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by the test binaries, each of which uses its part"
)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

pub mod models;
pub mod plane;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use forebay_forecaster::host::{CallId, Cas, DispatchRefused, Host, HttpCall, Metric, StoreError};

/// A handle on the gateway: clones see the same gateway, so a test can look while the forecaster holds one.
#[derive(Clone, Debug, Default)]
pub struct World(Rc<RefCell<State>>);

/// An HTTP call that the forecaster has started.
#[derive(Clone, Debug)]
pub struct Sent {
    pub call: CallId,
    pub cluster: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    now_us: u64,
    wall_ms: u64,
    tick_of_clock_us: u64,
    next_cas: Cas,
    next_call: CallId,
    data: BTreeMap<String, (Vec<u8>, Cas)>,
    outbox: Vec<Sent>,
    metrics: BTreeMap<usize, u64>,
    log: Vec<String>,
    refuse_calls: bool,
    conflicts_to_come: (&'static str, u32),
}

impl World {
    pub fn new() -> Self {
        let world = Self::default();
        {
            let mut state = world.0.borrow_mut();
            state.now_us = 1_000_000_000;
            state.wall_ms = 1_760_000_000_000;
        }
        world
    }

    /// Moves both clocks.
    pub fn advance_ms(&self, ms: u64) {
        let mut state = self.0.borrow_mut();
        state.now_us += ms * 1_000;
        state.wall_ms += ms;
    }

    /// Moves only the wall clock, as an administrator or NTP would.
    pub fn jump_wall_ms(&self, ms: i64) {
        let mut state = self.0.borrow_mut();
        state.wall_ms = state.wall_ms.saturating_add_signed(ms);
    }

    /// Every reading of the monotonic clock costs this much: work then has a price and a tick can run out of budget.
    pub fn price_of_a_look_at_the_clock_us(&self, us: u64) {
        self.0.borrow_mut().tick_of_clock_us = us;
    }

    pub fn now_us(&self) -> u64 {
        self.0.borrow().now_us
    }

    pub fn wall_now_ms(&self) -> u64 {
        self.0.borrow().wall_ms
    }

    /// The next writes to keys that begin so fail as if another VM had written in between.
    pub fn conflicts_to_come(&self, keys: &'static str, conflicts: u32) {
        self.0.borrow_mut().conflicts_to_come = (keys, conflicts);
    }

    /// Calls are refused at once, as when the cluster does not exist.
    pub fn refuse_calls(&self, refuse: bool) {
        self.0.borrow_mut().refuse_calls = refuse;
    }

    pub fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.0.borrow_mut().outbox)
    }

    pub fn metric(&self, metric: Metric) -> u64 {
        self.0
            .borrow()
            .metrics
            .get(&(metric as usize))
            .copied()
            .unwrap_or(0)
    }

    pub fn log(&self) -> Vec<String> {
        self.0.borrow().log.clone()
    }

    pub fn forget_shared_data(&self) {
        self.0.borrow_mut().data.clear();
    }
}

impl Host for World {
    fn monotonic_us(&self) -> u64 {
        let mut state = self.0.borrow_mut();
        state.now_us += state.tick_of_clock_us;
        state.now_us
    }

    fn wall_ms(&self) -> u64 {
        self.0.borrow().wall_ms
    }

    fn shared_data(&self, key: &str) -> Option<(Vec<u8>, Cas)> {
        self.0.borrow().data.get(key).cloned()
    }

    fn set_shared_data(&self, key: &str, value: &[u8], cas: Option<Cas>) -> Result<(), StoreError> {
        let mut state = self.0.borrow_mut();
        if let (Some(expected), Some((_, found))) = (cas, state.data.get(key)) {
            let found = *found;
            let (keys, conflicts) = &mut state.conflicts_to_come;
            if *conflicts > 0 && key.starts_with(*keys) {
                *conflicts -= 1;
                return Err(StoreError::Conflict);
            }
            if expected != found {
                return Err(StoreError::Conflict);
            }
        }
        state.next_cas += 1;
        let cas = state.next_cas;
        state.data.insert(key.to_owned(), (value.to_vec(), cas));
        Ok(())
    }

    fn dispatch(&self, call: &HttpCall<'_>) -> Result<CallId, DispatchRefused> {
        let mut state = self.0.borrow_mut();
        if state.refuse_calls {
            return Err(DispatchRefused);
        }
        state.next_call += 1;
        let sent = Sent {
            call: state.next_call,
            cluster: call.cluster.to_owned(),
            headers: call
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: call.body.to_vec(),
        };
        let id = sent.call;
        state.outbox.push(sent);
        Ok(id)
    }

    fn record(&self, metric: Metric, value: u64) {
        self.0.borrow_mut().metrics.insert(metric as usize, value);
    }

    fn increment(&self, metric: Metric, by: u64) {
        *self
            .0
            .borrow_mut()
            .metrics
            .entry(metric as usize)
            .or_default() += by;
    }

    fn log(&self, _level: log::Level, line: &str) {
        self.0.borrow_mut().log.push(line.to_owned());
    }
}
