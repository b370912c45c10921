//! Alerts at a real Alertmanager, and what its receivers are notified of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod process;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use forebay_alerts::{Key, Kind};
use forebay_control_plane::alertmanager::{Notice, Notifier, Pace};
use forebay_control_plane::models::generate_key;
use forebay_redis_tests::Node;
use forebay_wire::sync::{ModelState, ModelStatus, SyncReply};
use kit::forecaster::fake_forecaster;
use kit::{Gateway, policy};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN, http, send};
use prost::Message;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a free port before the Alertmanager does.
const PORTS_TRIED: usize = 5;

/// Prometheus' pace, some hundred times as fast.
const QUICK: Pace = Pace {
    resend_after: Duration::from_millis(300),
    first_retry: Duration::from_millis(50),
    most_retry: Duration::from_millis(200),
};

/// A running Alertmanager, and what it has notified its receiver of. Dropping it kills the process.
struct Alertmanager {
    process: Child,
    folder: TempDir,
    port: u16,
    received: Received,
}

/// Status and gateway of each alert that the receiver was notified of.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, String)>>>);

// === impl Alertmanager ===

impl Alertmanager {
    async fn start() -> Self {
        let received = Received::default();
        let app = Router::new()
            .route("/", post(receive))
            .with_state(received.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        for _ in 0..PORTS_TRIED {
            let folder = tempfile::tempdir().unwrap();
            let configuration = format!(
                "route:\n  receiver: hook\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\n\
                 receivers:\n- name: hook\n  webhook_configs:\n  - url: http://{webhook}/\n    send_resolved: true\n"
            );
            std::fs::write(folder.path().join("am.yml"), configuration).unwrap();
            let port = free_port();
            let mut this = Self {
                process: spawn(folder.path(), port),
                folder,
                port,
                received: received.clone(),
            };
            if this.answers().await {
                return this;
            }
        }
        panic!("Alertmanager does not come up");
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A notifier that tells it at a quick pace.
    fn told(&self) -> Notifier {
        let endpoint = self.url().parse().unwrap();
        Notifier::start(vec![endpoint], QUICK, &Handle::current())
    }

    /// Ends it by a signal.
    async fn stop(&mut self, signal: &str) {
        let id = self.process.id().unwrap().to_string();
        let mut kill = Command::new("sh");
        let sent = kill.args(["-c", &format!("kill -{signal} {id}")]).status();
        assert!(sent.await.unwrap().success());
        self.process.wait().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), self.port);
        assert!(self.answers().await, "Alertmanager does not come up again");
    }

    /// False when it has ended instead.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/-/ready").await.is_none() {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "Alertmanager does not answer");
            tokio::time::sleep(POLL).await;
        }
        true
    }

    async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let address = format!("127.0.0.1:{}", self.port);
        let (status, body) = http(&address, "GET", path, &[], Vec::new()).await?;
        (status == 200).then(|| body.to_vec())
    }

    /// The alerts that it holds for firing.
    async fn alerts(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts").await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    async fn until(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let alerts = self.alerts().await;
            if holds(&alerts) {
                return alerts;
            }
            assert!(Instant::now() < deadline, "{alerts:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

// === impl Received ===

impl Received {
    fn count(&self, status: &str, gateway: &str) -> usize {
        let all = self.0.lock().unwrap();
        let same = all.iter().filter(|(s, g)| s == status && g == gateway);
        same.count()
    }

    async fn until(&self, status: &str, gateway: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(status, gateway) == 0 {
            let all = self.0.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "{status} {gateway}: {all:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn receive(State(received): State<Received>, body: String) {
    let notification: Value = serde_json::from_str(&body).unwrap();
    let alerts = notification["alerts"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = alerts.map(|alert| (text(&alert["status"]), text(&alert["labels"]["gateway"])));
    received.0.lock().unwrap().extend(alerts);
}

fn spawn(folder: &Path, port: u16) -> Child {
    let file = folder.join("am.yml").display().to_string();
    let storage = folder.join("data").display().to_string();
    let program = std::fs::canonicalize(tool("prometheus-alertmanager")).unwrap();
    // It looks for its templates below the folder that the package was unpacked into.
    let package = program.ancestors().nth(3).unwrap();
    Command::new(&program)
        .current_dir(package)
        .args([
            format!("--config.file={file}"),
            format!("--storage.path={storage}"),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=".to_owned(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// An installed tool, `.tools/bin/NAME`.
fn tool(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.parent().unwrap().join(".tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make setup`, which says why if it cannot fetch the Debian package `{name}`",
        path.display()
    );
    path
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn notice(gateway: &str) -> Notice {
    Notice {
        key: Key {
            kind: Kind::ModelRefused,
            gateway: Some(gateway.to_owned()),
            model: Some("ab".repeat(32)),
            customer: None,
        },
        since_unix_ms: unix_ms(),
        summary: format!("Gateway {gateway} has refused a model"),
        description: "what to do".to_owned(),
    }
}

/// Waits until the Alertmanager has been sent so many more alerts.
async fn until_sent(notifier: &Notifier, more: u64) {
    let sent = || notifier.notified()[0].sent;
    let (until, deadline) = (sent() + more, Instant::now() + PATIENCE);
    while sent() < until {
        assert!(Instant::now() < deadline, "{:?}", notifier.notified());
        tokio::time::sleep(POLL).await;
    }
}

fn fingerprints(alerts: &[Value]) -> Vec<&str> {
    let fingerprints = alerts.iter().map(|alert| alert["fingerprint"].as_str());
    fingerprints.map(Option::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_one_alert_however_often_it_is_sent_and_notifies_once_of_each_end() {
    let alertmanager = Alertmanager::start().await;
    let notifier = alertmanager.told();
    let first = notice("g1");
    notifier.set(vec![first.clone()], unix_ms());
    alertmanager.received.until("firing", "g1").await;
    until_sent(&notifier, 6).await;
    let alerts = alertmanager.alerts().await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["labels"]["alertname"], "ForebayModelRefused");
    assert_eq!(alerts[0]["labels"]["severity"], "warning");
    assert_eq!(alerts[0]["annotations"]["description"], "what to do");
    notifier.set(Vec::new(), unix_ms());
    alertmanager.received.until("resolved", "g1").await;
    // Whatever there was to be notified of comes before this.
    notifier.set(vec![notice("g2")], unix_ms());
    until_sent(&notifier, 6).await;
    alertmanager.received.until("firing", "g2").await;
    let count = |status| alertmanager.received.count(status, "g1");
    assert_eq!((count("firing"), count("resolved")), (1, 1));
}

async fn comes_back(signal: &str) -> (Alertmanager, Notifier) {
    let mut alertmanager = Alertmanager::start().await;
    let notifier = alertmanager.told();
    let first = notice("g1");
    notifier.set(vec![first.clone()], unix_ms());
    alertmanager.received.until("firing", "g1").await;
    let before = alertmanager.alerts().await;
    alertmanager.stop(signal).await;
    // What begins while it is away is not lost.
    notifier.set(vec![first.clone(), notice("g2")], unix_ms());
    let deadline = Instant::now() + PATIENCE;
    while notifier.notified()[0].failed < 3 {
        assert!(Instant::now() < deadline, "{:?}", notifier.notified());
        tokio::time::sleep(POLL).await;
    }
    alertmanager.start_again().await;
    let after = alertmanager.until(|alerts| alerts.len() == 2).await;
    let same = after
        .iter()
        .find(|alert| fingerprints(&before) == [alert["fingerprint"].as_str().unwrap()]);
    assert_eq!(same.unwrap()["startsAt"], before[0]["startsAt"]);
    alertmanager.received.until("firing", "g2").await;
    // What ends while it is away ends.
    alertmanager.stop(signal).await;
    notifier.set(vec![first], unix_ms());
    alertmanager.start_again().await;
    let left = alertmanager.until(|alerts| alerts.len() == 1).await;
    assert_eq!(fingerprints(&left), fingerprints(&before));
    (alertmanager, notifier)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alertmanager_that_is_killed_and_comes_back_knows_all_that_fires() {
    comes_back("KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_and_started_notifies_of_nothing_twice() {
    let (alertmanager, notifier) = comes_back("TERM").await;
    until_sent(&notifier, 4).await;
    notifier.set(Vec::new(), unix_ms());
    alertmanager.received.until("resolved", "g1").await;
    let count = |status| alertmanager.received.count(status, "g1");
    assert_eq!((count("firing"), count("resolved")), (1, 1));
}

/// A gateway that refuses the model that it is to run.
struct Refused {
    gateway: Gateway,
    status: ModelStatus,
    offered: Vec<u8>,
}

// === impl Refused ===

impl Refused {
    fn new() -> Self {
        Self {
            gateway: Gateway::new("g1", 7),
            status: ModelStatus::default(),
            offered: Vec::new(),
        }
    }

    /// Syncs, whoever leads meanwhile.
    async fn sync(&mut self, address: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = self.gateway.request();
            request.model_status = Some(self.status.clone());
            let body = request.encode_to_vec();
            let answer = send(address, "POST", "/v1/sync", GATEWAY_TOKEN, body).await;
            if let Some((200, reply)) = &answer {
                let reply = SyncReply::decode(reply.clone()).unwrap();
                self.gateway.apply(&reply);
                let offer = reply.model.unwrap();
                self.status.offered_epoch = offer.epoch;
                self.offered = offer.digest;
                return;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    fn refuse(&mut self) {
        self.status.set_state(ModelState::Refused);
        self.status.message = "the golden vector differs".to_owned();
    }

    fn run(&mut self) {
        self.status.set_state(ModelState::Running);
        self.status.digest = self.offered.clone();
    }

    /// Syncs until the receiver has been notified.
    async fn sync_until(&mut self, address: &str, received: &Received, status: &str) {
        let deadline = Instant::now() + PATIENCE;
        while received.count(status, "g1") == 0 {
            assert!(Instant::now() < deadline, "not {status}");
            self.sync(address).await;
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Asks until somebody leads.
async fn ask(address: &str, method: &str, path: &str, body: Vec<u8>) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = send(address, method, path, ADMIN_TOKEN, body.clone()).await;
        if let Some((200, answer)) = answer {
            return serde_json::from_slice(&answer).unwrap();
        }
        assert!(Instant::now() < deadline, "{method} {path}: {answer:?}");
        tokio::time::sleep(POLL).await;
    }
}

async fn metrics(address: &str) -> String {
    let answer = send(address, "GET", "/metrics", VIEWER_TOKEN, Vec::new()).await;
    String::from_utf8(answer.unwrap().1.to_vec()).unwrap()
}

async fn serve(kind: &str, store: &OsStr, folder: &Path, alertmanager: &Alertmanager) -> Process {
    let key = folder.join("key");
    if !key.exists() {
        generate_key(&key).unwrap();
    }
    let options = [
        format!("--alertmanager={}", alertmanager.url()),
        format!("--forecaster-wasm={}", fake_forecaster(folder).display()),
        format!("--model-signing-key={}", key.display()),
    ];
    Process::start_with_options(kind, store, &options, true).await
}

async fn release_a_model(address: &str) -> String {
    ask(
        address,
        "POST",
        "/v1/policies",
        policy().to_string().into_bytes(),
    )
    .await;
    let view = ask(address, "POST", "/v1/models", b"a model".to_vec()).await;
    let digest = view["digest"].as_str().unwrap().to_owned();
    let path = format!("/v1/models/{digest}/activate");
    ask(address, "POST", &path, b"{}".to_vec()).await;
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_refuses_its_model_is_told_by_the_server_until_it_runs_it() {
    let alertmanager = Alertmanager::start().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut process = serve("--data", data.as_os_str(), folder.path(), &alertmanager).await;
    let address = process.address.clone();
    let digest = release_a_model(&address).await;
    let mut gateway = Refused::new();
    gateway.sync(&address).await;
    gateway.refuse();
    let received = alertmanager.received.clone();
    gateway.sync_until(&address, &received, "firing").await;
    let alerts = alertmanager.alerts().await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["labels"]["alertname"], "ForebayModelRefused");
    assert_eq!(alerts[0]["labels"]["gateway"], "g1");
    assert_eq!(alerts[0]["labels"]["model"], digest);
    let description = alerts[0]["annotations"]["description"].as_str().unwrap();
    assert!(
        description.contains("the golden vector differs"),
        "{description}"
    );
    let view = ask(&address, "GET", "/v1/alerts", Vec::new()).await;
    assert_eq!(view["alerts"][0]["state"], "firing", "{view}");
    let status = ask(&address, "GET", "/v1/status", Vec::new()).await;
    assert_eq!(status["alerts_firing"]["ForebayModelRefused"], 1);
    let text = metrics(&address).await;
    let to = format!("{{alertmanager=\"{}/\"}}", alertmanager.url());
    for line in [
        "forebay_alerts_firing{alertname=\"ForebayModelRefused\"} 1\n".to_owned(),
        "forebay_alerts_firing{alertname=\"ForebayForecastLoss\"} 0\n".to_owned(),
        format!("forebay_alertmanager_alerts_sent_total{to} 1\n"),
        format!("forebay_alertmanager_requests_failed_total{to} 0\n"),
    ] {
        assert!(text.contains(&line), "{line} {text}");
    }
    gateway.run();
    gateway.sync_until(&address, &received, "resolved").await;
    assert_eq!(received.count("firing", "g1"), 1);
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_goes_on_with_the_same_alert() {
    let (node, alertmanager) = (Node::start().unwrap(), Alertmanager::start().await);
    let folder = tempfile::tempdir().unwrap();
    let url = node.url();
    let mut first = serve("--store", url.as_ref(), folder.path(), &alertmanager).await;
    release_a_model(&first.address).await;
    let second = serve("--store", url.as_ref(), folder.path(), &alertmanager).await;
    let mut gateway = Refused::new();
    gateway.sync(&second.address).await;
    gateway.refuse();
    let received = alertmanager.received.clone();
    gateway
        .sync_until(&second.address, &received, "firing")
        .await;
    let before = alertmanager.alerts().await;
    first.terminate().await;
    // The one that leads now finds it firing, and says so.
    let deadline = Instant::now() + PATIENCE;
    let is_told = |text: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("forebay_alertmanager_alerts_sent_total"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    while !is_told(&metrics(&second.address).await) {
        assert!(Instant::now() < deadline, "it is not told");
        gateway.sync(&second.address).await;
        tokio::time::sleep(POLL).await;
    }
    let after = alertmanager.alerts().await;
    assert_eq!(fingerprints(&before), fingerprints(&after));
    assert_eq!(after[0]["startsAt"], before[0]["startsAt"]);
    gateway.run();
    gateway
        .sync_until(&second.address, &received, "resolved")
        .await;
    let counts = (
        received.count("firing", "g1"),
        received.count("resolved", "g1"),
    );
    assert_eq!(counts, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_refused_at_the_start_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    for (url, says) in [
        ("https://me:very-secret@host/", "only http:// is spoken"),
        ("http://host:9093,very-secret", "not a URL"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.path())
            .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("FOREBAY_ALERTMANAGER", url)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            said.contains("--alertmanager: ") && said.contains(says),
            "{url}: {said}"
        );
        assert!(!said.contains("very-secret"), "{said}");
    }
}
