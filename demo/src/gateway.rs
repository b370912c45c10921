//! The real Envoy: the admission filter in front of the upstream, the forecaster beside it.
//!
//! The bootstrap is built here and not read from `envoy/`, because every port is chosen at the start; what the plugins
//! are configured with is what an operator would write.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::{CUSTOMER_HEADER, VERDICT_HEADER};
use crate::control_plane::Secrets;
use crate::http::Endpoint;
use crate::outcome::Refills;
use crate::places::Places;
use crate::processes::Process;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const WASM_SERVICE: &str = "type.googleapis.com/envoy.extensions.wasm.v3.WasmService";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const HTTP_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Both plugins must name the same one to see the same ledger.
const VM_ID: &str = "forebay";
/// Name of the gateway in the fleet.
const GATEWAY_ID: &str = "demo";
/// V8 compiles the forecaster before Envoy is ready.
const READY_POLLS: u32 = 1_200;
const POLL: Duration = Duration::from_millis(50);

/// What a gateway is started with.
#[derive(Debug)]
pub(crate) struct GatewaySpec<'a> {
    /// The programs.
    pub places: &'a Places,
    /// Folder for bootstrap and log.
    pub folder: &'a Path,
    /// Where admitted requests go.
    pub upstream: SocketAddr,
    /// Where the forecaster synchronises.
    pub control_plane: SocketAddr,
    /// Shared with the control plane.
    pub secrets: &'a Secrets,
    /// Ed25519 key under which models are signed, hexadecimal.
    pub model_key: &'a str,
    /// Length of a step in the trace.
    pub trace_step_s: u32,
    /// Calendar seconds per second.
    pub speed_up: u64,
    /// A moment on the wall clock, Unix time.
    pub wall_ms: u64,
    /// The same moment on the trace's calendar.
    pub calendar_ms: u64,
}

/// A running Envoy.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Where customers send their requests.
    pub address: SocketAddr,
    admin: Endpoint,
    process: Process,
}

impl Gateway {
    /// Starts Envoy and waits until it listens.
    pub(crate) async fn start(spec: &GatewaySpec<'_>) -> Result<Self> {
        let bootstrap = spec.folder.join("envoy.json");
        let admin_file = spec.folder.join("envoy-admin.txt");
        fs::write(
            &bootstrap,
            serde_json::to_vec_pretty(&bootstrap_json(spec))?,
        )
        .with_context(|| format!("cannot write {}", bootstrap.display()))?;
        let mut process = Process::start(
            "envoy",
            &spec.places.envoy,
            &spec.folder.join("envoy.log"),
            |command| {
                command
                    .arg("-c")
                    .arg(&bootstrap)
                    .args([
                        "--concurrency",
                        "1",
                        "--disable-hot-restart",
                        "--log-level",
                        "warning",
                    ])
                    .args(["--component-log-level", "wasm:info"])
                    .arg("--admin-address-path")
                    .arg(&admin_file)
                    .env("FOREBAY_GATEWAY_TOKEN", &spec.secrets.gateway_token)
                    .env("FOREBAY_KEY_HASH_SECRET", &spec.secrets.key_hash);
            },
        )?;
        for _ in 0..READY_POLLS {
            process.check()?;
            if let Some(admin) = admin_endpoint(&admin_file)
                && admin.get("/ready").await.is_ok()
                && let Some(address) = listener_address(&admin).await?
            {
                return Ok(Self {
                    address,
                    admin,
                    process,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        bail!(
            "Envoy is not ready after {:?}; end of its log:\n{}",
            POLL * READY_POLLS,
            process.log_tail()
        )
    }

    /// An error if Envoy has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// The last lines of Envoy's log.
    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Shadow refills so far, by where they came from.
    pub(crate) async fn refills(&self) -> Result<Refills> {
        Ok(Refills {
            network: self.stat("shadow_refills_source=network").await?,
            fallback: self.stat("shadow_refills_source=fallback").await?,
        })
    }

    /// A counter or gauge of the plugins; 0 when Envoy does not know it.
    pub(crate) async fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.admin.get("/stats?filter=forebay").await?;
        let value = stats.lines().find_map(|line| {
            line.split_once(": ")
                .filter(|(left, _)| left.ends_with(name))
        });
        value.map_or(Ok(0), |(_, number)| {
            number
                .trim()
                .parse()
                .with_context(|| format!("{name} is {number}"))
        })
    }
}

fn admin_endpoint(file: &Path) -> Option<Endpoint> {
    let address = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(Endpoint {
        address,
        token: None,
    })
}

async fn listener_address(admin: &Endpoint) -> Result<Option<SocketAddr>> {
    let listeners = admin.get_json("/listeners?format=json").await?;
    let port =
        listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64();
    Ok(port
        .and_then(|port| u16::try_from(port).ok())
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
}

fn bootstrap_json(spec: &GatewaySpec<'_>) -> Value {
    let admission = json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": CUSTOMER_HEADER, "trusted": true } },
            "charges": [{ "resource": "requests", "cost": { "constant": 1 } }],
        }],
        "access_log": { "verdict": true },
        "control_plane": { "cold_start": "deny" },
        "ledger": { "max_policy_customers": 64, "max_other_customers": 64 },
    });
    let forecaster = json!({
        "version": 1,
        "control_plane": { "cluster": "control-plane", "gateway_id": GATEWAY_ID },
        "calendar": {
            "speed_up": spec.speed_up,
            "wall_start_ms": spec.wall_ms,
            "calendar_start_ms": spec.calendar_ms,
        },
        "series": { "step_s": spec.trace_step_s },
        "model": { "public_keys": [spec.model_key] },
    });
    let filters = json!([
        {
            "name": "forebay-admission",
            "typed_config": {
                "@type": WASM_FILTER,
                "config": plugin("forebay-admission", &spec.places.admission, &admission),
            },
        },
        { "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } },
    ]);
    json!({
        "node": { "id": GATEWAY_ID, "cluster": "demo" },
        "admin": { "address": tcp(SocketAddr::from(([127, 0, 0, 1], 0))) },
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.wasm",
            "typed_config": {
                "@type": WASM_SERVICE,
                "singleton": true,
                "config": plugin("forebay-forecaster", &spec.places.forecaster, &forecaster),
            },
        }],
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": HCM,
                        "stat_prefix": "gateway",
                        "route_config": { "virtual_hosts": [{
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{
                                "match": { "prefix": "/" },
                                "route": { "cluster": "upstream", "timeout": "5s" },
                                // The filter writes the verdict for access logs only; the demo shows it to the client.
                                "response_headers_to_add": [{ "header": {
                                    "key": VERDICT_HEADER,
                                    "value": "%FILTER_STATE(wasm.forebay.verdict:PLAIN)%",
                                } }],
                            }],
                        }] },
                        "http_filters": filters,
                    },
                }] }],
            }],
            "clusters": [cluster("upstream", spec.upstream), cluster("control-plane", spec.control_plane)],
        },
    })
}

fn plugin(name: &str, module: &Path, config: &Value) -> Value {
    json!({
        "name": name,
        "failure_policy": "FAIL_CLOSED",
        "vm_config": {
            "vm_id": VM_ID,
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": module } },
            "environment_variables": { "host_env_keys": ["FOREBAY_GATEWAY_TOKEN", "FOREBAY_KEY_HASH_SECRET"] },
        },
        "configuration": { "@type": STRING, "value": config.to_string() },
    })
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": tcp(address) } }] }],
        },
        // The defaults would refuse what the filter has admitted: a full pool is a thousand requests at once.
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }] },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                "explicit_http_config": { "http_protocol_options": {} },
            },
        },
    })
}

fn tcp(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
