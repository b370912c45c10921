//! What is measured, all of it real: a control plane, two gateways with both plugins as shipped, and a backend.

use std::time::Duration;

use anyhow::{Result, ensure};
use forebay_envoy_tests::{
    Admission, Bootstrap, ControlPlane, Envoy, Listener, Options, Upstream, until,
};
use hyper::Method;
use serde_json::{Value, json};

use super::backend::Backend;
use super::scene::{Arrangement, Condition, GATEWAYS, Route, arrivals, customers};
use super::sender::{Answer, Sender};
use crate::call::cluster;

/// The ledger that both plugins of a gateway share.
const VM_ID: &str = "gateway";
const LISTENERS: [(Route, &str); 3] = [
    (Route::Admitted, "front"),
    (Route::Open, "open"),
    (Route::Refused, "refused"),
];
const IN_FORCE_WITHIN: Duration = Duration::from_secs(60);
/// Traffic before a cycle is asked for, so that it knows what everybody asks for.
const KNOWN_AFTER_US: u64 = 4_000_000;
const SETTLED_AFTER_US: u64 = 1_000_000;

pub(super) struct Site {
    pub(super) backend: Backend,
    pub(super) plane: ControlPlane,
    pub(super) gateways: Vec<Envoy>,
    sender: Sender,
}

// === impl Site ===

impl Site {
    pub(super) async fn start(first: &Arrangement) -> Result<Self> {
        let backend = Backend::start(first.backend_per_s).await?;
        let plane = ControlPlane::start().await?;
        // A gateway has listeners from when it has a policy.
        let (status, answer) = plane
            .admin(Method::POST, "/v1/policies", &first.policy())
            .await?;
        ensure!(
            status < 300,
            "the policy was refused with {status}: {answer}"
        );
        let (mut gateways, mut listeners) = (Vec::new(), Vec::new());
        for number in 0..GATEWAYS {
            let envoy = gateway(&plane, &backend, number).await?;
            for (route, name) in LISTENERS {
                listeners.push((route, number, envoy.address(name)));
            }
            gateways.push(envoy);
        }
        let sender = Sender::connect(&listeners, &customers()).await?;
        Ok(Self {
            backend,
            plane,
            gateways,
            sender,
        })
    }

    /// Puts it in force at all gateways, and has a division made of what everybody usually asks for.
    pub(super) async fn arrange(&self, arrangement: &Arrangement) -> Result<()> {
        self.backend.resize(arrangement.backend_per_s);
        let (status, answer) = self
            .plane
            .admin(Method::POST, "/v1/policies", &arrangement.policy())
            .await?;
        ensure!(
            status < 300,
            "the policy was refused with {status}: {answer}"
        );
        until("the policy is in force", IN_FORCE_WITHIN, || async {
            let status = self.get("/v1/status").await.ok()?;
            let gateways = status["gateways"].as_array()?;
            let version = &status["policy_version"];
            let of = |gateway: &Value| &gateway["policy_version"] == version;
            (gateways.len() == GATEWAYS && gateways.iter().all(of)).then_some(())
        })
        .await;
        self.send(Condition::Quiet, 0, KNOWN_AFTER_US).await?;
        if arrangement.has_sharing {
            let (status, answer) = self
                .plane
                .admin(Method::POST, "/v1/allocations/run", &json!({}))
                .await?;
            ensure!(
                status < 300,
                "the cycle was refused with {status}: {answer}"
            );
        }
        self.send(Condition::Quiet, 1, SETTLED_AFTER_US).await?;
        Ok(())
    }

    /// The traffic of a window.
    pub(super) async fn send(
        &self,
        condition: Condition,
        seed: u64,
        length_us: u64,
    ) -> Result<Vec<Answer>> {
        self.sender.run(arrivals(condition, seed, length_us)).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let (status, answer) = self.plane.admin(Method::GET, path, &Value::Null).await?;
        ensure!(status == 200, "GET {path}: {status} {answer}");
        Ok(answer)
    }
}

async fn gateway(plane: &ControlPlane, backend: &Backend, number: usize) -> Result<Envoy> {
    let config = json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": "x-customer", "trusted": true } },
            "charges": [{ "resource": "requests" }],
        }],
        "control_plane": { "cold_start": "deny" },
    });
    let mut filter = Admission::new(VM_ID, config).filter()?;
    filter.host_env_keys = ControlPlane::environment_names();
    let to_backend = |name: &str, wasm| Listener {
        upstream: Upstream::Cluster("backend".to_owned()),
        ..Listener::direct(name, wasm)
    };
    let refusal = json!({
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": { "http_status": 429, "percentage": { "numerator": 100 } },
        },
    });
    let mut bootstrap = Bootstrap::with(vec![
        to_backend("front", Some(filter)),
        to_backend("open", None),
        Listener {
            filters_before: vec![refusal],
            ..Listener::direct("refused", None)
        },
    ]);
    let mut backend = cluster("backend", backend.address);
    // The default of 1024 requests would protect the backend where nothing should.
    backend["circuit_breakers"] = json!({ "thresholds": [{
        "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
    }] });
    bootstrap.clusters = vec![plane.cluster(), backend];
    let id = format!("gateway-{number}");
    bootstrap.extensions.push(plane.forecaster(VM_ID, &id)?);
    let options = Options {
        concurrency: 1,
        hop_port: None,
        environment: ControlPlane::environment(),
    };
    Envoy::start_with(&bootstrap, &options).await
}
