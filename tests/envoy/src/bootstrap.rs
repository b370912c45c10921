//! Envoy's bootstrap as data: listeners with an optional wasm filter in front of one upstream.

use std::path::Path;

use serde_json::{Value, json};

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Everything that one Envoy process is started with.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Listeners that are there from the start.
    pub listeners: Vec<Listener>,
    /// Further clusters, as Envoy's own JSON.
    pub clusters: Vec<Value>,
    /// Bootstrap extensions, as Envoy's own JSON.
    pub extensions: Vec<Value>,
    /// Watch `lds.json` in the process's folder for listeners that change under load.
    pub dynamic_listeners: bool,
}

/// One listener on a free port of 127.0.0.1, found by its name.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, by which the client finds the port.
    pub name: String,
    /// The filter in front of the upstream.
    pub wasm: Option<Wasm>,
    /// Envoy's own filters before the wasm filter (they set metadata, for instance).
    pub filters_before: Vec<Value>,
    /// What answers.
    pub upstream: Upstream,
    /// An access log format; the lines land in `NAME.log` in the process's folder.
    pub access_log: Option<String>,
}

/// What answers the requests that a filter let through.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The route itself, with 200 and the body `ok`.
    Direct,
    /// A listener of the same Envoy, one real hop away: it answers 200 and `ok`, and repeats the request header
    /// `x-echo-cost` as the response header `x-cost`.
    Hop,
    /// A cluster from [`Bootstrap::clusters`].
    Cluster(String),
}

/// A wasm HTTP filter.
#[derive(Clone, Debug)]
pub struct Wasm {
    /// The module's file.
    pub module: String,
    /// The shared-data namespace; filters that must not see each other's ledger need different ones.
    pub vm_id: String,
    /// The plugin's configuration, handed over as a string.
    pub config: String,
    /// Reload a trapped VM instead of answering 503 for ever.
    pub reload: bool,
    /// Names of environment variables of Envoy that the plugin may see.
    pub host_env_keys: Vec<String>,
}

// === impl Listener ===

impl Listener {
    /// A listener whose route answers by itself.
    pub fn direct(name: &str, wasm: Option<Wasm>) -> Self {
        Self {
            name: name.to_owned(),
            wasm,
            filters_before: Vec::new(),
            upstream: Upstream::Direct,
            access_log: None,
        }
    }

    /// A listener with one real hop behind it.
    pub fn hop(name: &str, wasm: Option<Wasm>) -> Self {
        Self {
            upstream: Upstream::Hop,
            ..Self::direct(name, wasm)
        }
    }

    /// Envoy's JSON; `folder` is where access logs go.
    pub fn to_json(&self, folder: &Path) -> Value {
        let route = match &self.upstream {
            Upstream::Direct => direct_route(),
            Upstream::Hop => json!({ "match": { "prefix": "/" }, "route": { "cluster": "hop" } }),
            Upstream::Cluster(name) => {
                json!({ "match": { "prefix": "/" }, "route": { "cluster": name } })
            }
        };
        let mut filters = self.filters_before.clone();
        filters.extend(self.wasm.iter().map(|wasm| wasm.to_json(&self.name)));
        let mut listener = http_listener(&self.name, tcp_address(0), &route, filters);
        if let Some(format) = &self.access_log {
            let path = folder.join(format!("{}.log", self.name));
            listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = json!([{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": FILE_LOG,
                    "path": path,
                    "log_format": { "text_format_source": { "inline_string": format!("{format}\n") } },
                },
            }]);
        }
        listener
    }
}

// === impl Wasm ===

impl Wasm {
    /// Envoy's JSON of the filter.
    pub fn to_json(&self, name: &str) -> Value {
        let mut vm = json!({
            "vm_id": self.vm_id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": self.module } },
        });
        if !self.host_env_keys.is_empty() {
            vm["environment_variables"] = json!({ "host_env_keys": self.host_env_keys });
        }
        let mut config = json!({
            "name": name,
            "vm_config": vm,
            "configuration": { "@type": STRING, "value": self.config },
        });
        if self.reload {
            config["failure_policy"] = json!("FAIL_RELOAD");
            config["reload_config"] = json!({ "backoff": { "base_interval": "0.05s" } });
        }
        json!({ "name": "envoy.filters.http.wasm", "typed_config": { "@type": WASM, "config": config } })
    }
}

// === impl Bootstrap ===

impl Bootstrap {
    /// A bootstrap with these listeners.
    pub fn with(listeners: Vec<Listener>) -> Self {
        Self {
            listeners,
            ..Self::default()
        }
    }

    /// Envoy's JSON for a process that keeps its files in `folder`; `hop_port` is the upstream listener's, or
    /// `None` for a socket file.
    pub fn to_json(&self, folder: &Path, hop_port: Option<u16>) -> Value {
        let hop = match hop_port {
            Some(port) => tcp_address(port),
            // A file needs no free port, so nobody can take it between the choice and the start.
            None => json!({ "pipe": { "path": folder.join("hop.sock") } }),
        };
        let mut listeners: Vec<Value> = self
            .listeners
            .iter()
            .map(|listener| listener.to_json(folder))
            .collect();
        listeners.push(http_listener(
            "hop",
            hop.clone(),
            &direct_route(),
            Vec::new(),
        ));
        let mut clusters = vec![cluster("hop", hop)];
        clusters.extend(self.clusters.iter().cloned());
        let mut bootstrap = json!({
            "admin": { "address": tcp_address(0) },
            "node": { "id": "test", "cluster": "test" },
            "static_resources": { "listeners": listeners, "clusters": clusters },
            "bootstrap_extensions": self.extensions,
        });
        if self.dynamic_listeners {
            bootstrap["dynamic_resources"] = json!({
                "lds_config": {
                    "path_config_source": {
                        "path": folder.join("lds.json"),
                        "watched_directory": { "path": folder },
                    },
                    "resource_api_version": "V3",
                },
            });
        }
        bootstrap
    }
}

/// A static cluster with one endpoint.
pub(crate) fn cluster(name: &str, address: Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
        // The default of 1024 pending requests would deny what the filter under test admitted.
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }] },
    })
}

pub(crate) fn tcp_address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn direct_route() -> Value {
    json!({
        "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": "ok" } },
        "response_headers_to_add": [{ "header": { "key": "x-cost", "value": "%REQ(x-echo-cost)%" } }],
    })
}

fn http_listener(name: &str, address: Value, route: &Value, mut filters: Vec<Value>) -> Value {
    filters
        .push(json!({ "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } }));
    json!({
        "name": name,
        "address": address,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": HCM,
                "stat_prefix": name,
                "codec_type": "AUTO",
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
                "http_filters": filters,
                // A source address behind the proxy of a cloud: taken from x-forwarded-for's last entry.
                "use_remote_address": true,
            },
        }] }],
    })
}
