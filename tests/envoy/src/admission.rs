//! The admission filter's configuration for tests.

use anyhow::Result;
use serde_json::{Value, json};

use crate::bootstrap::Wasm;
use crate::place::artefact;

/// Builds the filter as an operator would configure it.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Shared-data namespace.
    pub vm_id: String,
    /// The plugin configuration.
    pub config: Value,
}

impl Admission {
    /// A filter with a ledger of its own.
    pub fn new(vm_id: &str, config: Value) -> Self {
        Self {
            vm_id: vm_id.to_owned(),
            config,
        }
    }

    /// As an Envoy filter that reloads after a trap.
    pub fn filter(&self) -> Result<Wasm> {
        Ok(Wasm {
            module: artefact("admission")?.display().to_string(),
            vm_id: self.vm_id.clone(),
            config: self.config.to_string(),
            reload: true,
            host_env_keys: Vec::new(),
        })
    }
}

/// One rule (customer from the trusted header `x-customer`, one request token each) and one contract for all of
/// `customers`.
pub fn minimal_config(rate_per_s: u64, burst: u64, customers: &[&str]) -> Value {
    let customers: Vec<Value> = customers
        .iter()
        .map(|key| json!({ "key": key, "contract": "standard" }))
        .collect();
    json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": "x-customer", "trusted": true } },
            "charges": [{ "resource": "requests", "cost": { "constant": 1 } }],
        }],
        "policy": {
            "version": 1,
            "unknown": { "action": "deny" },
            "resources": { "requests": {} },
            "contracts": { "standard": {
                "limits": { "requests": { "rate_per_s": rate_per_s, "burst": burst } },
            } },
            "customers": customers,
        },
    })
}
