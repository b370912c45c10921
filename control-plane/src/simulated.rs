//! The control plane as a part of a simulation: the real one, on a store in memory and on the simulation's clock.
//!
//! Syncs are given to it as messages, not over HTTP: what is simulated is the division of contracts, and a connection adds nothing to
//! it but time.

use crate::auth::{Caller, Role};
use crate::document::Format;
use crate::keys::Keys;
use crate::plane::{Clock, Plane, Settings};
use crate::store::{MemoryStore, Store};
use forebay_core::{CustomerHash, TimeUs};
use forebay_sharing::Law;
use forebay_simulator::{Coordinator, Scenario, SimulationError};
use forebay_wire::key::KeySecret;
use forebay_wire::sync::{SyncReply, SyncRequest};
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;

/// A control plane whose time is that of the last message.
#[derive(Debug)]
pub struct SimulatedPlane {
    /// `None` only while it restarts.
    plane: Option<Plane>,
    store: Arc<MemoryStore>,
    clock: Arc<AtomicU64>,
    settings: Settings,
    keys: Keys,
    law: &'static dyn Law,
    runtime: Runtime,
}

// === impl SimulatedPlane ===

impl SimulatedPlane {
    /// Starts with the contracts of a run in force, to be divided by `law`.
    ///
    /// # Errors
    /// When it does not start, or does not take the contracts.
    pub fn new(
        scenario: &Scenario,
        settings: Settings,
        law: &'static dyn Law,
    ) -> Result<Self, SimulationError> {
        let mut plane = Self {
            plane: None,
            store: Arc::new(MemoryStore::default()),
            clock: Arc::new(AtomicU64::new(scenario.fleet_starts.0)),
            settings,
            // The key protects nothing here, and the same hashes are in each run.
            keys: Keys::new(None, None).map_err(failed)?,
            law,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .map_err(failed)?,
        };
        plane.start()?;
        let policy = policy(scenario).to_string();
        let by = Caller {
            role: Role::Admin,
            fingerprint: String::new(),
        };
        let applied =
            plane
                .runtime
                .block_on(plane.running()?.apply_policy(&by, &policy, Format::Json));
        applied.map_err(|error| failed(format!("{}: {}", error.message, error.hint)))?;
        Ok(plane)
    }

    fn start(&mut self) -> Result<(), SimulationError> {
        let plane = Plane::start(
            Arc::clone(&self.store) as Arc<dyn Store>,
            self.keys.clone(),
            self.settings.clone(),
            Clock::Manual(Arc::clone(&self.clock)),
        );
        self.plane = Some(plane.map_err(failed)?.divided_by(self.law));
        Ok(())
    }

    fn running(&self) -> Result<&Plane, SimulationError> {
        let plane = self.plane.as_ref();
        plane.ok_or_else(|| failed("it did not come back from a restart"))
    }
}

impl Coordinator for SimulatedPlane {
    fn key_fingerprint(&self) -> u64 {
        KeySecret::development().fingerprint()
    }

    fn hash(&self, tenant: &str) -> CustomerHash {
        CustomerHash(self.keys.hash(tenant).0)
    }

    fn sync(&mut self, request: SyncRequest, now: TimeUs) -> Result<SyncReply, SimulationError> {
        self.clock.store(now.0, Ordering::SeqCst);
        let plane = self.running()?;
        Ok(self.runtime.block_on(plane.sync(request)).reply)
    }

    fn restart(&mut self, is_clean: bool, now: TimeUs) -> Result<(), SimulationError> {
        self.clock.store(now.0, Ordering::SeqCst);
        if is_clean {
            let stopped = self.runtime.block_on(self.running()?.stop());
            stopped.map_err(failed)?;
        }
        // What was acknowledged is in the store when this is gone.
        self.plane = None;
        self.start()
    }
}

/// A contract of its own for each customer, and no pool: nothing but the contract decides. A guarantee would be a claim on the pool.
fn policy(scenario: &Scenario) -> Value {
    let decimal = |micro: u64| micro as f64 / 1e6;
    let numbered = || scenario.tenants.iter().zip(&scenario.contracts).enumerate();
    let contracts: serde_json::Map<String, Value> = numbered()
        .map(|(index, (_, contract))| {
            let limits = json!({
                "rate_per_s": decimal(contract.rate().get()),
                "burst": decimal(contract.burst().get().unsigned_abs()),
            });
            (
                format!("contract-{index}"),
                json!({"limits": {"requests": limits}}),
            )
        })
        .collect();
    let customers: Vec<Value> = numbered()
        .map(|(index, (tenant, _))| json!({"key": tenant, "contract": format!("contract-{index}")}))
        .collect();
    json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {}},
        "contracts": contracts,
        "customers": customers,
    })
}

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> SimulationError {
    SimulationError::Coordinator(error.into())
}
