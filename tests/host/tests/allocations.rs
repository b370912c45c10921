//! The shipped forecaster and a control plane that divides a pool: claims follow it, and end with it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

use forebay_core::amount::{Micro, Rate};
use forebay_core::error::CoreError;
use forebay_core::ledger::{self, CustomerHash, Ledger, Region, SetError};
use forebay_core::policy::{
    Contract, Limits, Policy, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_host::{Gateway, Headers, Plugin, SharedData, Worker};
use forebay_wire::key;
use forebay_wire::sync::{
    Allocation, PolicyCustomer, PolicyDelta, PoolGrant, SyncReply, SyncRequest,
};
use prost::Message;

const TICK_MS: u64 = 20;
const TOKEN: u64 = 1_000_000;
const CUSTOMER: [u8; 16] = [1; 16];
const CYCLE: u64 = 5;
const TTL_MS: u32 = 2_000;

const CONFIG: &str = r#"{"version": 1, "control_plane": {"cluster": "plane", "gateway_id": "gw-1"},
    "series": {"step_s": 1, "max_series": 100}, "ledger": {"max_policy_customers": 4, "max_other_customers": 4}}"#;

/// One gateway, and whether its control plane answers.
struct Scene {
    gateway: Gateway,
    worker: Worker,
    answers: bool,
    applied: u64,
}

/// The ledger of a gateway, for a test that looks.
struct Shared(SharedData);

// === impl Shared ===

impl ledger::SharedData for Shared {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        Ok(self.0.get(key.as_bytes()).map(|(value, cas)| {
            *into = value;
            cas
        }))
    }

    fn set(&mut self, _: &str, _: &[u8], _: Option<u32>) -> Result<(), SetError> {
        Err(SetError::CasMismatch)
    }
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let mut gateway = Gateway::new().with_environment("FOREBAY_GATEWAY_TOKEN", "token");
        let plugin = Plugin::shipped("forecaster").unwrap();
        let worker = gateway.worker(&plugin, CONFIG).unwrap();
        Self {
            gateway,
            worker,
            answers: true,
            applied: 0,
        }
    }

    fn live(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.gateway.clock.advance_ms(TICK_MS);
            self.worker.tick().unwrap();
            for call in self.worker.take_http_calls() {
                let request = SyncRequest::decode(call.body.as_slice()).unwrap();
                self.applied = request.allocation_cycle_applied;
                let (status, body) = if self.answers {
                    ("200", reply_to(&request).encode_to_vec())
                } else {
                    ("503", Vec::new())
                };
                let headers = Headers::from_text(&[(":status", status)]);
                self.worker.answer(call.token, headers, body).unwrap();
            }
        }
    }

    /// Refill of the customer's shadow bucket in micro-tokens per second.
    fn claim(&self) -> u64 {
        let mut data = Shared(self.gateway.shared.clone());
        let mut ledger = Ledger::open(&mut data).unwrap();
        let customer = CustomerHash(CUSTOMER);
        let page = ledger.state().layout.page_of(Region::Policy, &customer);
        let view = ledger.view_page(&mut data, Region::Policy, page).unwrap();
        let mut entries = view.entries().flatten();
        let entry = entries.find(|entry| entry.customer == customer).unwrap();
        entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get()
    }
}

/// A quarter of a pool of 1000, and 80 tokens per second for the customer at all gateways together.
fn reply_to(request: &SyncRequest) -> SyncReply {
    let (hash_high, hash_low) = key::CustomerHash(CUSTOMER).parts();
    let allocation = Allocation {
        hash_high,
        hash_low,
        resource: 0,
        rate_micro_per_s: 80 * TOKEN,
    };
    let has_policy = request.policy_epoch_applied > 0;
    let is_told = request.allocation_cycle_applied == CYCLE;
    SyncReply {
        sequence: request.sequence,
        sent_at_us: request.sent_at_us,
        lease_ttl_ms: 5_000,
        fallback_ttl_ms: 10_000,
        policy: (!has_policy).then(policy_delta),
        pools: vec![PoolGrant {
            rate_micro_per_s: 250 * TOKEN,
            local_cap_micro: 250 * TOKEN,
            ..PoolGrant::default()
        }],
        allocations: (has_policy && !is_told)
            .then_some(allocation)
            .into_iter()
            .collect(),
        allocation_ttl_ms: TTL_MS,
        allocation_cycle: if has_policy { CYCLE } else { 0 },
        ..SyncReply::default()
    }
}

fn policy_delta() -> PolicyDelta {
    let limits = Limits::plain(Rate::from_tokens_per_s(100), Micro::from_tokens(50));
    let policy = Policy {
        epoch: 7,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".to_owned(),
            pool: Some(PoolRule {
                capacity: Rate::from_tokens_per_s(1_000),
                depth: Micro::from_tokens(1_000),
            }),
        }],
        contracts: vec![Contract {
            name: "gold".to_owned(),
            tier: Tier::One,
            priority: 0,
            weight: 1,
            limits: PerResource::only_first(limits),
        }],
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    };
    let (hash_high, hash_low) = key::CustomerHash(CUSTOMER).parts();
    PolicyDelta {
        epoch: policy.epoch,
        full: true,
        compiled: policy.encode(),
        customers: vec![PolicyCustomer {
            hash_high,
            hash_low,
            ..PolicyCustomer::default()
        }],
        cursor: 1,
        complete: true,
        customers_total: 1,
    }
}

#[test]
fn the_shipped_forecaster_claims_what_is_allocated_while_that_holds() {
    let mut scene = Scene::new();
    scene.live(3_000);
    assert_eq!(scene.claim(), 20 * TOKEN, "{:?}", scene.worker.logs());
    assert_eq!(scene.applied, CYCLE);
    scene.answers = false;
    scene.live(u64::from(TTL_MS) + 100);
    assert_eq!(scene.claim(), 0, "{:?}", scene.worker.logs());
    scene.answers = true;
    scene.live(3_000);
    assert_eq!(scene.claim(), 20 * TOKEN);
}
