//! The shipped forecaster with two models: both are scored, in the memory and by the clock of a real VM, and claims are as with one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

use ed25519_dalek::{Signer, SigningKey};
use forebay_core::amount::{Micro, Rate};
use forebay_core::error::CoreError;
use forebay_core::ledger::{self, CustomerHash, Entry, Ledger, Region, SetError};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::policy::{Contract, Limits, Policy, Resource, ShadowRule, Tier, Unknown};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_host::{Gateway, Headers, HttpCall, Plugin, SharedData, Status, Worker};
use forebay_wire::key;
use forebay_wire::model::{ModelStatement, ReleaseKind};
use forebay_wire::sync::{
    Grant, ModelRelease, ModelState, ModelStatus, PolicyCustomer, PolicyDelta, SyncReply,
    SyncRequest, Window,
};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

const CUSTOMERS: u8 = 2;
const TICK_MS: u64 = 20;
/// A second of the gateway is a step of the models.
const TICKS_PER_STEP: u64 = 1_000 / TICK_MS;
/// Steps that the control plane knows of each customer.
const KNOWN_STEPS: usize = 1_024;

/// One gateway, and a control plane of a few lines that offers a model and perhaps a challenger.
struct Scene {
    gateway: Gateway,
    worker: Worker,
    files: BTreeMap<String, Vec<u8>>,
    model: ModelRelease,
    challenger: Option<ModelRelease>,
    status: ModelStatus,
    steps: u64,
}

/// The ledger of a gateway, for a test that looks and counts.
struct Shared(SharedData);

// === impl Shared ===

impl ledger::SharedData for Shared {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        Ok(self.0.get(key.as_bytes()).map(|(value, cas)| {
            *into = value;
            cas
        }))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        match self.0.set(key.as_bytes(), value, cas.unwrap_or(0)) {
            Status::Ok => Ok(()),
            _ => Err(SetError::CasMismatch),
        }
    }
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let public: String = signing_key()
            .verifying_key()
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let config = format!(
            r#"{{"version": 1, "control_plane": {{"cluster": "plane", "gateway_id": "gw-1"}},
                "series": {{"step_s": 600, "max_series": 100}}, "ledger": {{"max_policy_customers": 4, "max_other_customers": 4}},
                "calendar": {{"speed_up": 600, "wall_start_ms": 1767574800000, "calendar_start_ms": 1767574800000}},
                "model": {{"public_keys": ["{public}"]}}}}"#
        );
        let mut gateway = Gateway::new().with_environment("FOREBAY_GATEWAY_TOKEN", "token");
        let plugin = Plugin::shipped("forecaster").unwrap();
        let worker = gateway.worker(&plugin, &config).unwrap();
        let file = shipped("demo.onnx");
        Self {
            gateway,
            worker,
            model: release(1, ReleaseKind::Release, &file, "/model"),
            files: BTreeMap::from([("/model".to_owned(), file)]),
            challenger: None,
            status: ModelStatus::default(),
            steps: 0,
        }
    }

    fn offer_challenger(&mut self) {
        let file = shipped("edge.onnx");
        let offer = release(2, ReleaseKind::Challenger, &file, "/challenger");
        self.challenger = Some(offer);
        self.files.insert("/challenger".to_owned(), file);
    }

    /// Lets so many steps pass, with demand once there is a ledger with customers.
    fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            let phase = self.steps % 8;
            self.steps += 1;
            for number in 0..CUSTOMERS {
                self.use_tokens(number, 20 + u64::from(number) + 3 * phase);
            }
            for _ in 0..TICKS_PER_STEP {
                self.gateway.clock.advance_ms(TICK_MS);
                self.worker.tick().unwrap();
                for call in self.worker.take_http_calls() {
                    let body = self.answer_to(&call);
                    let headers = Headers::from_text(&[(":status", "200")]);
                    self.worker.answer(call.token, headers, body).unwrap();
                }
            }
        }
    }

    fn answer_to(&mut self, call: &HttpCall) -> Vec<u8> {
        let path = call.headers.text(":path").unwrap();
        if let Some(file) = self.files.get(&path) {
            return file.clone();
        }
        let request = SyncRequest::decode(call.body.as_slice()).unwrap();
        let wall_ms = self.gateway.clock.wall_ns() / 1_000_000;
        let step_now = wall_ms / 1_000;
        let needs_policy = request.policy_epoch_applied == 0;
        if let Some(status) = request.model_status {
            self.status = status;
        }
        let windows = request.windows_wanted.iter().map(|wish| Window {
            hash_high: wish.hash_high,
            hash_low: wish.hash_low,
            resource: 0,
            step_ms: 1_000,
            newest_step: step_now - 1,
            usage: (0..KNOWN_STEPS)
                .map(|step| 20.0 + (step % 8) as f32)
                .collect(),
            mask: vec![0xff; KNOWN_STEPS / 8],
        });
        let reply = SyncReply {
            sequence: request.sequence,
            sent_at_us: request.sent_at_us,
            lease_ttl_ms: 5_000,
            fallback_ttl_ms: 10_000,
            step_ms: 1_000,
            step_now,
            step_elapsed_ms: u32::try_from(wall_ms % 1_000).unwrap(),
            policy: needs_policy.then(policy_delta),
            grants: (0..CUSTOMERS).map(grant).collect(),
            windows: windows.collect(),
            model: Some(self.model.clone()),
            challenger: self.challenger.clone(),
            ..SyncReply::default()
        };
        reply.encode_to_vec()
    }

    /// Counts demand on the customer's entry, as an admission filter does when it settles a chunk.
    fn use_tokens(&self, number: u8, tokens: u64) {
        let mut data = Shared(self.gateway.shared.clone());
        let Ok(mut ledger) = Ledger::open(&mut data) else {
            return;
        };
        let Some(policy) = ledger.read_policy(&mut data).unwrap() else {
            return;
        };
        let now = TimeUs(self.gateway.clock.monotonic_ns() / 1_000);
        let (lease, customer) = (ledger.state().lease, CustomerHash([number; 16]));
        let page = ledger.state().layout.page_of(Region::Policy, &customer);
        ledger
            .edit_page(&mut data, Region::Policy, page, now, |page| {
                let position = page.view().find(&customer).unwrap();
                let mut entry = page.get(position)?;
                entry.refill(&policy, &lease, now);
                entry.holdings.at_mut(ResourceIndex::FIRST).admitted_cum += tokens * 1_000_000;
                page.put(position, &entry);
                Ok(true)
            })
            .unwrap();
    }

    /// At what rate the shadow buckets refill.
    fn claims(&self) -> Vec<u64> {
        let rate = |entry: Entry| entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get();
        (0..CUSTOMERS)
            .map(|number| self.entry(number).map_or(0, rate))
            .collect()
    }

    fn entry(&self, number: u8) -> Option<Entry> {
        let mut data = Shared(self.gateway.shared.clone());
        let mut ledger = Ledger::open(&mut data).ok()?;
        let customer = CustomerHash([number; 16]);
        let page = ledger.state().layout.page_of(Region::Policy, &customer);
        let view = ledger.view_page(&mut data, Region::Policy, page).unwrap();
        view.entries()
            .flatten()
            .find(|entry| entry.customer == customer)
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn shipped(name: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    std::fs::read(models.join(name)).unwrap()
}

fn release(epoch: u64, kind: ReleaseKind, file: &[u8], path: &str) -> ModelRelease {
    let digest: [u8; 32] = Sha256::digest(file).into();
    let statement = ModelStatement {
        digest,
        epoch,
        kind,
    };
    ModelRelease {
        epoch,
        digest: digest.to_vec(),
        kind: u32::from(kind.code()),
        signature: signing_key()
            .sign(&statement.to_bytes())
            .to_bytes()
            .to_vec(),
        path: path.to_owned(),
        bytes: file.len() as u64,
    }
}

fn policy_delta() -> PolicyDelta {
    let limits = Limits::plain(Rate::from_tokens_per_s(100), Micro::from_tokens(50));
    let policy = Policy {
        epoch: 7,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".to_owned(),
            pool: None,
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
    let customers = (0..CUSTOMERS).map(|number| {
        let (hash_high, hash_low) = key::CustomerHash([number; 16]).parts();
        PolicyCustomer {
            hash_high,
            hash_low,
            ..PolicyCustomer::default()
        }
    });
    PolicyDelta {
        epoch: policy.epoch,
        full: true,
        compiled: policy.encode(),
        customers: customers.collect(),
        cursor: 1,
        complete: true,
        customers_total: u64::from(CUSTOMERS),
    }
}

fn grant(number: u8) -> Grant {
    let (hash_high, hash_low) = key::CustomerHash([number; 16]).parts();
    Grant {
        hash_high,
        hash_low,
        granted_cum_micro: 50_000_000,
        local_cap_micro: 50_000_000,
        ..Grant::default()
    }
}

#[test]
fn both_models_are_scored_and_claims_are_as_with_one() {
    let (mut alone, mut beside) = (Scene::new(), Scene::new());
    alone.live(12);
    beside.live(12);
    assert_eq!(beside.status.epoch, 1, "{:?}", beside.worker.logs());
    beside.offer_challenger();
    let mut claimed = 0;
    for _ in 0..30 {
        alone.live(1);
        beside.live(1);
        assert_eq!(alone.claims(), beside.claims());
        claimed += alone.claims().iter().filter(|rate| **rate > 0).count();
    }
    assert!(claimed > 30, "{claimed}");
    let told = beside.status.challenger.as_ref().unwrap();
    assert_eq!(
        (told.state(), told.epoch),
        (ModelState::Running, 2),
        "{}",
        told.message
    );
    let challenger = told.challenger_score.as_ref().unwrap();
    let champion = told.champion_score.as_ref().unwrap();
    assert!((30..=60).contains(&challenger.matured), "{challenger:?}");
    assert_eq!(
        (challenger.matured, challenger.usage),
        (champion.matured, champion.usage)
    );
    assert_ne!(challenger.loss, champion.loss, "two models");
    assert!(challenger.resources.len() <= MAX_RESOURCES);
    assert_eq!(beside.status.epoch, 1);
    assert_eq!(beside.status.score, alone.status.score);
    assert_eq!(alone.status.challenger, None);
    assert_eq!(beside.gateway.metrics.value("forebay.challenger_epoch"), 2);
    assert_eq!(alone.gateway.metrics.value("forebay.challenger_epoch"), 0);
}
