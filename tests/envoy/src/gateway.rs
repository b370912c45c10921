//! A gateway of a fleet: an Envoy with both plugins and a control plane.

use anyhow::Result;
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::bootstrap::{Bootstrap, Listener};
use crate::control_plane::ControlPlane;
use crate::envoy::{Envoy, Options};

/// The ledger of the one gateway in an Envoy.
const VM_ID: &str = "gateway";

/// Starts a gateway that reaches the control plane by `cluster`. Its listener `front` answers by itself; customers come by the trusted
/// header `x-customer`, and a request costs one token.
pub async fn gateway(
    plane: &ControlPlane,
    cluster: Value,
    gateway_id: &str,
    concurrency: u32,
) -> Result<Envoy> {
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
    let mut bootstrap = Bootstrap::with(vec![Listener::direct("front", Some(filter))]);
    bootstrap.clusters.push(cluster);
    bootstrap
        .extensions
        .push(plane.forecaster(VM_ID, gateway_id)?);
    let options = Options {
        concurrency,
        hop_port: None,
        environment: ControlPlane::environment(),
    };
    Envoy::start_with(&bootstrap, &options).await
}
