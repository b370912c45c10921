//! A gateway that keeps what it is told of allocations, a policy in which capacity is short, and what the server answers about it.

#![allow(dead_code, reason = "each test file uses its own part")]

use super::kit::{Gateway, TestServer, hash};
use forebay_control_plane::allocation::CycleView;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{FLAG_CONTENDED, PoolGrant, PoolReport, SyncReply, SyncRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const NONE: Value = Value::Null;
pub(crate) const INTERVAL_MS: u64 = 60_000;

/// A capacity of 100/s. Acme is guaranteed 60/s of it; bolt has bought 100/s and is guaranteed nothing; dune and echo are linked accounts.
pub(crate) fn policy() -> Value {
    json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 100}},
        "sharing": {"interval_ms": INTERVAL_MS, "reserve_share": 0},
        "groups": {"team": {"cap_per_s": {"requests": 20}}},
        "contracts": {
            "gold": {"limits": {"requests": {"rate_per_s": 60, "burst": 1000, "guarantee_per_s": 60}}},
            "bulk": {"tier": 2, "limits": {"requests": {"rate_per_s": 100, "burst": 1000}}},
            "free": {"tier": 3, "limits": {"requests": {"rate_per_s": 5, "burst": 5}}}
        },
        "customers": [
            {"key": "acme", "contract": "gold"},
            {"key": "bolt", "contract": "bulk"},
            {"key": "dune", "contract": "bulk", "group": "team"},
            {"key": "echo", "contract": "bulk", "group": "team"}
        ]
    })
}

/// A gateway, and what it was told of allocations.
pub(crate) struct Told {
    pub(crate) gateway: Gateway,
    /// The newest cycle of which it has everything.
    pub(crate) applied: u64,
    /// In tokens per second.
    pub(crate) rates: BTreeMap<CustomerHash, f64>,
    /// The newest grant of the pool.
    pub(crate) pool: PoolGrant,
    /// It says that all its customers' demand has left the forecast.
    pub(crate) contends: bool,
    /// Of customers' demand it denies so many hundredths.
    pub(crate) denies: BTreeMap<CustomerHash, u64>,
}

// === impl Told ===

impl Told {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            gateway: Gateway::new(id, 7),
            applied: 0,
            rates: BTreeMap::new(),
            pool: PoolGrant::default(),
            contends: false,
            denies: BTreeMap::new(),
        }
    }

    pub(crate) fn request(&mut self) -> SyncRequest {
        let drawn_micro = self.gateway.demand.values().sum();
        let granted = i64::try_from(self.pool.granted_cum_micro).unwrap();
        let pool = PoolReport {
            drawn_micro,
            balance_micro: granted - i64::try_from(drawn_micro).unwrap(),
            granted_seen_micro: self.pool.granted_cum_micro,
            reply_applied: self.gateway.reply_applied,
            ..PoolReport::default()
        };
        let mut request = self.gateway.request();
        for report in &mut request.customers {
            let customer = CustomerHash::from_parts(report.hash_high, report.hash_low);
            let hundredths = self.denies.get(&customer).copied().unwrap_or(0);
            report.denied_micro = report.demand_micro / 100 * hundredths;
            report.admitted_micro -= report.denied_micro;
            if self.contends {
                report.flags |= FLAG_CONTENDED;
            }
        }
        SyncRequest {
            allocation_cycle_applied: self.applied,
            pools: vec![pool],
            ..request
        }
    }

    pub(crate) fn apply(&mut self, reply: &SyncReply) {
        self.gateway.apply(reply);
        if let Some(pool) = reply.pools.first() {
            self.pool = *pool;
        }
        if reply.allocations_anew {
            self.rates.clear();
        }
        for told in &reply.allocations {
            let customer = CustomerHash::from_parts(told.hash_high, told.hash_low);
            self.rates
                .insert(customer, told.rate_micro_per_s as f64 / 1e6);
        }
        if reply.allocation_cycle != 0 {
            self.applied = reply.allocation_cycle;
        }
    }

    pub(crate) async fn sync(&mut self, server: &TestServer) -> SyncReply {
        let request = self.request();
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, 200, "{reply:?}");
        self.apply(&reply);
        reply
    }

    pub(crate) fn rate(&self, key: &str) -> f64 {
        self.rates.get(&hash(key)).copied().unwrap_or(-1.0)
    }

    /// For some seconds customers ask for so many tokens a second, and cycles are made when they are due.
    pub(crate) async fn asks(
        &mut self,
        server: &TestServer,
        seconds: u64,
        per_s: &[(&str, u64)],
    ) -> Vec<CycleView> {
        let mut cycles = Vec::new();
        for _ in 0..seconds * 4 {
            for (key, tokens) in per_s {
                // A quarter of a second at a time.
                *self.gateway.demand.entry(hash(key)).or_default() += tokens * 250_000;
            }
            server.advance_ms(250);
            self.sync(server).await;
            cycles.extend(look(server).await);
        }
        cycles
    }
}

pub(crate) async fn look(server: &TestServer) -> Option<CycleView> {
    server.server.plane.allocate_when_due().await.unwrap()
}

/// A server with the policy in force, and a gateway that has it.
pub(crate) async fn begun(policy: Value) -> (TestServer, Told) {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy).await;
    let mut gateway = Told::new("g1");
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    (server, gateway)
}

pub(crate) async fn run(server: &TestServer) -> CycleView {
    let made = server.ok("POST", "/v1/allocations/run", NONE).await;
    serde_json::from_value(made).unwrap()
}

pub(crate) async fn allocations(server: &TestServer, query: &str) -> Value {
    let path = format!("/v1/allocations{query}");
    server.ok("GET", &path, NONE).await
}

pub(crate) fn part(view: &Value, key: &str, field: &str) -> f64 {
    let name = format!("hash:{}", hash(key));
    let customers = view["customers"].as_array().unwrap();
    let customer = customers
        .iter()
        .find(|customer| customer["customer"] == *name)
        .unwrap_or_else(|| panic!("{key} is not in {view}"));
    customer["resources"][0][field].as_f64().unwrap()
}

pub(crate) fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 0.05 * other.abs().max(1.0)
}
