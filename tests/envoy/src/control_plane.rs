//! A real `forebay serve` for tests, and the forecaster that talks to it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bootstrap::{Wasm, cluster, tcp_address};
use crate::client::{Client, Protocol};
use crate::envoy::resident_bytes;
use crate::place::{artefact, binary};

const GATEWAY_TOKEN: &str = "gateway-token-of-a-test";
const FILTER_TOKEN: &str = "filter-token-of-a-test";
const ADMIN_TOKEN: &str = "admin-token-of-a-test";
const KEY_HASH_SECRET: &str = "000102030405060708090a0b0c0d0e0f";
const SERVICE: &str = "type.googleapis.com/envoy.extensions.wasm.v3.WasmService";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";

/// Opening a store takes milliseconds, but the machine may be busy.
const LISTENS_WITHIN_POLLS: u32 = 600;
const POLL: Duration = Duration::from_millis(50);

/// What /proc counts CPU time in.
const TICK: Duration = Duration::from_millis(10);

/// A running control plane. Dropping it kills the process as `kill -9` does.
#[derive(Debug)]
pub struct ControlPlane {
    process: Child,
    folder: TempDir,
    address: SocketAddr,
    model_key: String,
    place: Place,
}

/// Where a control plane runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Nodes of Redis, for a replica; else the store is embedded.
    pub store: Option<String>,
    /// What it listens on; port 0 for a free one.
    pub listen: String,
    /// What it listens on for Envoy's own filters, if it should.
    pub grpc_listen: Option<String>,
    /// Where other replicas reach it, if not there.
    pub advertise: Option<String>,
    /// The network namespace of its process, if not ours.
    pub namespace: Option<String>,
    /// The only core of the machine that it has, if it should not have all.
    pub core: Option<u32>,
}

// === impl Place ===

impl Default for Place {
    fn default() -> Self {
        Self {
            store: None,
            listen: "127.0.0.1:0".to_owned(),
            grpc_listen: None,
            advertise: None,
            namespace: None,
            core: None,
        }
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts on an empty embedded store.
    pub async fn start() -> Result<Self> {
        Self::start_in(Place::default()).await
    }

    /// Starts where it should be.
    pub async fn start_in(place: Place) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let forebay = binary("forebay")?;
        let keygen = Command::new(&forebay)
            .args(["model", "keygen", "--out"])
            .arg(folder.path().join("model.key"))
            .output()?;
        let answer: Value = serde_json::from_slice(&keygen.stdout)
            .context("forebay model keygen printed no JSON")?;
        let model_key = answer["public_key"]
            .as_str()
            .context("no public key")?
            .to_owned();
        let process = serve(&folder, &place)?;
        let mut plane = Self {
            process,
            folder,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            model_key,
            place,
        };
        plane.address = plane.listening().await?;
        plane.place.listen = plane.address.to_string();
        if plane.place.grpc_listen.is_some() {
            plane.place.grpc_listen = Some(plane.grpc_listening().await?.to_string());
        }
        Ok(plane)
    }

    /// Ends it at once, without a chance to write anything.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same store and port.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = serve(&self.folder, &self.place)?;
        self.listening().await?;
        Ok(())
    }

    /// Sends the process a signal, by its name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status()
            .context("kill (Debian package procps) cannot be started")?;
        ensure!(status.success(), "kill failed: {status}");
        Ok(())
    }

    /// Lets no file of the process grow beyond so many bytes from now on, as on a full disk; `None`: as large as it likes.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let status = Command::new("prlimit")
            .args(["--pid", &self.process.id().to_string()])
            .arg(format!("--fsize={limit}:unlimited"))
            .status()
            .context("prlimit (Debian package util-linux) cannot be started")?;
        ensure!(status.success(), "prlimit failed: {status}");
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for Envoy's own filters.
    pub fn grpc_address(&self) -> Result<SocketAddr> {
        self.says("gRPC on ").context("no gRPC listener")
    }

    /// The cluster by which Envoy's own filters reach it.
    pub fn grpc_cluster(&self) -> Result<Value> {
        let mut cluster = cluster("quota", tcp_address(self.grpc_address()?.port()));
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
        Ok(cluster)
    }

    /// The process's id, for /proc.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Memory that it has resident.
    pub fn resident_bytes(&self) -> Result<u64> {
        resident_bytes(self.process.id())
    }

    /// What the embedded store takes on disk.
    pub fn store_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for file in fs::read_dir(self.folder.path().join("store"))? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }

    /// CPU time that it has used since it was started.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name in parentheses may hold anything; the numbers come after it.
        let (_, numbers) = stat.rsplit_once(')').context("/proc/PID/stat is odd")?;
        let ticks: u64 = numbers
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|number| number.parse::<u64>().unwrap_or(0))
            .sum();
        Ok(TICK * u32::try_from(ticks)?)
    }

    /// What a gateway authenticates itself with.
    pub const fn gateway_token() -> &'static str {
        GATEWAY_TOKEN
    }

    /// What Envoy's own filters authenticate themselves with.
    pub const fn filter_token() -> &'static str {
        FILTER_TOKEN
    }

    /// What customer keys are hashed under.
    pub const fn key_hash_secret() -> &'static str {
        KEY_HASH_SECRET
    }

    /// Calls the admin API; the answer's status and JSON.
    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.send(method, path, "application/json", body.to_string().into())
            .await
    }

    /// Calls the admin API of any replica at its address.
    pub async fn admin_at(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value)> {
        let body = body.to_string().into();
        self.send_to(address, method, path, "application/json", body)
            .await
    }

    /// Uploads a model file; the answer's status and JSON.
    pub async fn upload_model(&self, file: Vec<u8>) -> Result<(u16, Value)> {
        self.send(
            Method::POST,
            "/v1/models",
            "application/octet-stream",
            file.into(),
        )
        .await
    }

    /// The bootstrap extension with the forecaster of a gateway, which shares the ledger of `vm_id`.
    pub fn forecaster(&self, vm_id: &str, gateway_id: &str) -> Result<Value> {
        let config = self.forecaster_config(gateway_id);
        Ok(json!({
            "name": "envoy.bootstrap.wasm",
            "typed_config": {
                "@type": SERVICE,
                "singleton": true,
                "config": {
                    "name": "forecaster",
                    "vm_config": {
                        "vm_id": vm_id,
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": artefact("forecaster")? } },
                        "environment_variables": { "host_env_keys": Self::environment_names() },
                    },
                    "configuration": { "@type": STRING, "value": config.to_string() },
                },
            },
        }))
    }

    /// The forecaster as an ordinary filter of a listener, from this file and with this configuration. No request may depend on it.
    pub fn forecaster_filter(module: &Path, vm_id: &str, config: &Value) -> Value {
        let filter = Wasm {
            module: module.display().to_string(),
            vm_id: vm_id.to_owned(),
            config: config.to_string(),
            reload: false,
            host_env_keys: Self::environment_names(),
        };
        let mut filter = filter.to_json("forecaster");
        filter["typed_config"]["config"]["failure_policy"] = json!("FAIL_OPEN");
        filter
    }

    /// The forecaster's configuration.
    pub fn forecaster_config(&self, gateway_id: &str) -> Value {
        json!({
            "version": 1,
            "control_plane": { "cluster": "control_plane", "gateway_id": gateway_id, "sync_interval_ms": 100 },
            "model": { "public_keys": [self.model_key] },
        })
    }

    /// The cluster by which the forecaster reaches it.
    pub fn cluster(&self) -> Value {
        cluster("control_plane", tcp_address(self.address.port()))
    }

    /// The cluster by which the forecaster reaches whichever of several replicas leads.
    pub fn cluster_of(replicas: &[SocketAddr]) -> Value {
        let endpoint = |replica: &SocketAddr| {
            let (address, port_value) = (replica.ip().to_string(), replica.port());
            json!({ "endpoint": { "address": { "socket_address": { "address": address, "port_value": port_value } } } })
        };
        let endpoints: Vec<Value> = replicas.iter().map(endpoint).collect();
        let mut cluster = cluster("control_plane", Value::Null);
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!(endpoints);
        cluster["health_checks"] = json!([{
            "timeout": "1s",
            "interval": "1s",
            "unhealthy_interval": "0.5s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": { "path": "/readyz" },
        }]);
        cluster
    }

    /// Whether it answers by itself, and does not stand by.
    pub async fn leads(&self, at: SocketAddr) -> bool {
        let Ok(mut client) = Client::connect(at, Protocol::Http1).await else {
            return false;
        };
        client
            .get("/readyz", &[])
            .await
            .is_ok_and(|reply| reply.status == 200)
    }

    /// What Envoy must have in its environment.
    pub fn environment() -> Vec<(String, String)> {
        let values = [GATEWAY_TOKEN, KEY_HASH_SECRET].map(str::to_owned);
        Self::environment_names().into_iter().zip(values).collect()
    }

    /// The names of [`Self::environment`].
    pub fn environment_names() -> Vec<String> {
        ["FOREBAY_GATEWAY_TOKEN", "FOREBAY_KEY_HASH_SECRET"]
            .map(str::to_owned)
            .to_vec()
    }

    /// What it logged since it was last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("forebay.log")).unwrap_or_default()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Bytes,
    ) -> Result<(u16, Value)> {
        self.send_to(self.address, method, path, content, body)
            .await
    }

    async fn send_to(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        content: &str,
        body: Bytes,
    ) -> Result<(u16, Value)> {
        let mut client = Client::connect(address, Protocol::Http1).await?;
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [
            ("authorization", bearer.as_bytes()),
            ("content-type", content.as_bytes()),
        ];
        let reply = client.send(&method, path, &headers, body).await?;
        Ok((
            reply.status,
            serde_json::from_slice(&reply.body).unwrap_or(Value::Null),
        ))
    }

    /// The address that it has printed behind some words.
    fn says(&self, words: &str) -> Option<SocketAddr> {
        let log = self.log();
        log.lines()
            .find_map(|line| line.strip_prefix(words)?.parse().ok())
    }

    /// It is said after the other one.
    async fn grpc_listening(&self) -> Result<SocketAddr> {
        for _ in 0..LISTENS_WITHIN_POLLS {
            if let Ok(address) = self.grpc_address() {
                return Ok(address);
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("forebay serve does not listen for gRPC:\n{}", self.log())
    }

    async fn listening(&mut self) -> Result<SocketAddr> {
        for _ in 0..LISTENS_WITHIN_POLLS {
            if let Some(status) = self.process.try_wait()? {
                bail!("forebay serve ended ({status}):\n{}", self.log());
            }
            if let Some(address) = self.says("listening on ") {
                return Ok(address);
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("forebay serve does not listen:\n{}", self.log())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _killed = self.kill();
        if std::thread::panicking() {
            eprintln!("--- forebay serve logged:\n{}", self.log());
        }
    }
}

fn serve(folder: &TempDir, place: &Place) -> Result<Child> {
    let log = fs::File::create(folder.path().join("forebay.log"))?;
    let forebay = binary("forebay")?;
    // Each of these becomes the program after it, so the process that is started is the server itself. Ignored, the signal of a file
    // that may not grow becomes an error of the write, as it is on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
    if let Some(namespace) = &place.namespace {
        command.args(["ip", "netns", "exec", namespace]);
    }
    if let Some(core) = place.core {
        command.args(["taskset", "--cpu-list", &core.to_string()]);
    }
    command
        .arg(forebay)
        .args(["serve", "--listen", &place.listen]);
    match &place.store {
        Some(nodes) => command.args(["--store", nodes]),
        None => command.arg("--data").arg(folder.path().join("store")),
    };
    if let Some(address) = &place.grpc_listen {
        command.args(["--grpc-listen", address]);
    }
    if let Some(address) = &place.advertise {
        command.args(["--advertise", address]);
    }
    command
        .arg("--forecaster-wasm")
        .arg(artefact("forecaster")?)
        .arg("--model-signing-key")
        .arg(folder.path().join("model.key"))
        .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("FOREBAY_FILTER_TOKEN", FILTER_TOKEN)
        .env("FOREBAY_KEY_HASH_SECRET", KEY_HASH_SECRET)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start forebay serve")
}
