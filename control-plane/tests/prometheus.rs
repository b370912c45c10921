//! Usage history leaves for a real Prometheus and a real VictoriaMetrics, and comes back from them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod process;
mod timeseries;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use forebay_control_plane::prometheus::RemoteWrite;
use forebay_control_plane::store::MemoryStore;
use forebay_redis_tests::Node;
use forebay_wire::sync::SyncReply;
use kit::{Gateway, TestServer, hash, policy};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN, send};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use timeseries::{Database, Kind};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::Command;
use tokio::runtime::Handle;
use url::form_urlencoded;

/// That of processes of tests.
const STEP_MS: u64 = 100;
const SELECTOR: &str = "forebay_usage_tokens{resource=\"requests\", step_ms=\"100\"}";
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times were asked for, and with which authorization.
type Asked = Arc<Mutex<Vec<(usize, String)>>>;

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

async fn admin(address: &str, method: &str, path: &str, body: &Value) -> Option<Value> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let (status, bytes) = send(address, method, path, ADMIN_TOKEN, body).await?;
    (status == 200).then(|| serde_json::from_slice(&bytes).unwrap())
}

/// Asks until somebody leads.
async fn until_answered(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = admin(address, method, path, body).await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{method} {path} is not answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Syncs, whoever leads meanwhile.
async fn sync(gateway: &mut Gateway, address: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = gateway.request().encode_to_vec();
        let answer = send(address, "POST", "/v1/sync", GATEWAY_TOKEN, request).await;
        if let Some((200, reply)) = &answer {
            gateway.apply(&SyncReply::decode(reply.clone()).unwrap());
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the next step. Syncs meanwhile: demand after a pause of a step is no usage of one step.
async fn next_step(gateway: &mut Gateway, address: &str) {
    let step = unix_ms() / STEP_MS;
    while unix_ms() / STEP_MS == step {
        sync(gateway, address).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Demand until the history has some more of it: acme in most steps, bolt in a few. On a busy machine the history leaves some out.
async fn demand(gateway: &mut Gateway, address: &str) {
    const MORE: usize = 3;
    let deadline = Instant::now() + PATIENCE;
    let mut used = Vec::new();
    for key in ["acme", "bolt"] {
        used.push(not_zero(&history(address, key).await).len());
    }
    while not_zero(&history(address, "acme").await).len() < used[0] + 2 * MORE
        || not_zero(&history(address, "bolt").await).len() < used[1] + MORE
    {
        assert!(Instant::now() < deadline, "no demand comes to the history");
        demand_some(gateway, address).await;
    }
}

async fn demand_some(gateway: &mut Gateway, address: &str) {
    for step in 0..7 {
        next_step(gateway, address).await;
        if step % 7 < 4 {
            gateway.spend("acme", 1 + step % 3);
        }
        if step % 3 == 2 {
            gateway.spend("bolt", 2);
        }
        sync(gateway, address).await;
    }
}

/// Two more steps end, without demand.
async fn settle(gateway: &mut Gateway, address: &str) {
    for _ in 0..3 {
        next_step(gateway, address).await;
        sync(gateway, address).await;
    }
}

/// Usage by the end of its step, as the history API says it; gaps are left out.
async fn history(address: &str, key: &str) -> BTreeMap<u64, f64> {
    let path = format!("/v1/history?key={key}");
    let view = until_answered(address, "GET", &path, &Value::Null).await;
    let usage = view["usage"].as_array().unwrap();
    let newest = view["newest_step"].as_u64().unwrap();
    let ends = (0..usage.len() as u64)
        .rev()
        .map(|ago| (newest - ago + 1) * STEP_MS);
    ends.zip(usage)
        .filter_map(|(end, value)| Some((end, value.as_f64()?)))
        .collect()
}

fn not_zero(values: &BTreeMap<u64, f64>) -> BTreeMap<u64, f64> {
    let values = values.iter().filter(|(_, value)| **value != 0.0);
    values.map(|(end, value)| (*end, *value)).collect()
}

/// Waits until the database has what the history has, and compares them. A zero is there only to end a demand, and once more where
/// another run began: it does not know that it was sent.
async fn compare(database: &Database, address: &str, starts_again: usize) {
    for key in ["acme", "bolt"] {
        let in_history = history(address, key).await;
        let used = not_zero(&in_history);
        let customer = format!("hash:{}", hash(key));
        let last = *used.last_key_value().unwrap().0;
        let samples = database
            .until(SELECTOR, |samples| {
                let newest = samples.get(&customer).and_then(BTreeMap::last_key_value);
                newest.is_some_and(|(end, _)| *end > last)
            })
            .await;
        let samples = &samples[&customer];
        assert_eq!(not_zero(samples), used, "{key}");
        let mut zeros_again = 0;
        for (end, value) in samples {
            assert_eq!(in_history.get(end), Some(value), "{key} at {end}");
            let before = samples.range(..end).next_back();
            let ends_demand = before.is_some_and(|(_, value)| *value > 0.0);
            zeros_again += usize::from(*value == 0.0 && !ends_demand);
        }
        assert!(zeros_again <= starts_again, "{key}: {samples:?}");
    }
}

async fn metrics(address: &str) -> BTreeMap<String, f64> {
    let (status, text) = send(address, "GET", "/metrics", VIEWER_TOKEN, Vec::new())
        .await
        .unwrap();
    assert_eq!(status, 200);
    let text = String::from_utf8(text.to_vec()).unwrap();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines
        .filter(|(name, _)| name.starts_with("forebay_remote_write_"))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

async fn until_sent(address: &str) -> BTreeMap<String, f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = metrics(address).await;
        if metrics["forebay_remote_write_queue_samples"] == 0.0 {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{metrics:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn dropped(metrics: &BTreeMap<String, f64>) -> f64 {
    let dropped = metrics
        .iter()
        .filter(|(name, _)| name.contains("_dropped_"));
    dropped.map(|(_, value)| value).sum()
}

async fn usage_leaves(kind: Kind) {
    let database = Database::start(kind).await;
    let directory = tempfile::tempdir().unwrap();
    let environment = [("FOREBAY_REMOTE_WRITE", database.write_url())];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut process = Process::start_with(directory.path(), &environment).await;
    let address = process.address.clone();
    admin(&address, "POST", "/v1/policies", &policy())
        .await
        .unwrap();
    let mut gateway = Gateway::new("g1", 7);
    demand(&mut gateway, &address).await;
    settle(&mut gateway, &address).await;
    compare(&database, &address, 0).await;
    let metrics = until_sent(&address).await;
    let samples = database.samples("forebay_usage_tokens").await;
    let there: usize = samples.values().map(BTreeMap::len).sum();
    assert_eq!(samples.len(), 2, "two customers, and no pool: {samples:?}");
    let sent = metrics["forebay_remote_write_samples_sent_total"];
    assert_eq!((sent, dropped(&metrics)), (there as f64, 0.0));
    // What the last sync has ended is sent although the server stops at once.
    demand(&mut gateway, &address).await;
    settle(&mut gateway, &address).await;
    process.terminate().await;
    let process = Process::start(directory.path()).await;
    compare(&database, &process.address, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_in_prometheus_as_it_is_in_the_history() {
    usage_leaves(Kind::Prometheus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_in_victoria_metrics_as_it_is_in_the_history() {
    usage_leaves(Kind::VictoriaMetrics).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_end_while_the_database_is_away_arrive_later() {
    let mut database = Database::start(Kind::Prometheus).await;
    let directory = tempfile::tempdir().unwrap();
    let url = database.write_url();
    let environment = [("FOREBAY_REMOTE_WRITE", url.as_str())];
    let process = Process::start_with(directory.path(), &environment).await;
    admin(&process.address, "POST", "/v1/policies", &policy())
        .await
        .unwrap();
    let mut gateway = Gateway::new("g1", 7);
    demand(&mut gateway, &process.address).await;
    database.kill().await;
    demand(&mut gateway, &process.address).await;
    let away = metrics(&process.address).await;
    assert!(away["forebay_remote_write_queue_samples"] > 0.0, "{away:?}");
    database.restart().await;
    demand(&mut gateway, &process.address).await;
    settle(&mut gateway, &process.address).await;
    compare(&database, &process.address, 0).await;
    let metrics = until_sent(&process.address).await;
    assert!(metrics["forebay_remote_write_requests_failed_total"] > 0.0);
    assert_eq!(dropped(&metrics), 0.0, "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_the_one_that_leads_sends() {
    let (node, database) = (
        Node::start().unwrap(),
        Database::start(Kind::Prometheus).await,
    );
    let url = database.write_url();
    let environment = [("FOREBAY_REMOTE_WRITE", url.as_str())];
    let mut first = Process::start_replica_with(&node.url(), &environment).await;
    until_answered(&first.address, "POST", "/v1/policies", &policy()).await;
    let second = Process::start_replica_with(&node.url(), &environment).await;
    let mut gateway = Gateway::new("g1", 7);
    // By way of the one that stands by.
    demand(&mut gateway, &second.address).await;
    first.terminate().await;
    demand(&mut gateway, &second.address).await;
    settle(&mut gateway, &second.address).await;
    compare(&database, &second.address, 1).await;
    let metrics = until_sent(&second.address).await;
    assert!(metrics["forebay_remote_write_samples_sent_total"] > 5.0);
    assert_eq!(dropped(&metrics), 0.0, "{metrics:?}");
}

/// An address that is taken, and at which nobody listens.
fn deaf() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/write", socket.local_addr().unwrap());
    (socket, url)
}

/// A server of which all that is to be sent waits.
fn sending(url: &str, store: Arc<MemoryStore>, clock: Arc<AtomicU64>) -> TestServer {
    let remote_write = RemoteWrite::start(url.parse().unwrap(), &Handle::current());
    TestServer::sending(store, clock, remote_write)
}

fn waiting(server: &TestServer) -> usize {
    server.server.plane.exported().unwrap().waiting
}

#[tokio::test]
async fn a_step_is_sent_once_and_only_when_the_store_has_it() {
    let step_ms = u64::from(kit::STEP_MS);
    let (_socket, url) = deaf();
    let server = sending(&url, Arc::default(), Arc::new(AtomicU64::new(1_000_000)));
    server.ok("POST", "/v1/policies", policy()).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    gateway.spend("acme", 5);
    gateway.sync(&server).await;
    assert_eq!(waiting(&server), 0, "the step is not over");
    // The value, then the zero behind it, then nothing.
    for expected in [1, 2, 2] {
        server.advance_ms(step_ms);
        gateway.sync(&server).await;
        gateway.sync(&server).await;
        assert_eq!(waiting(&server), expected);
    }
    server.server.plane.stop().await.unwrap();
    let counts = server.server.plane.exported().unwrap();
    assert_eq!((counts.waiting, counts.dropped), (0, [0, 0, 0, 2]));
    // The account still says what it asked for in the first step, which was sent.
    let server = sending(&url, Arc::clone(&server.store), Arc::clone(&server.clock));
    server.advance_ms(step_ms);
    gateway.sync(&server).await;
    assert_eq!(waiting(&server), 0, "not sent again");
    gateway.spend("acme", 5);
    gateway.sync(&server).await;
    server.store.set_full(true);
    server.advance_ms(step_ms);
    let (status, _) = server.sync(&gateway.request()).await;
    assert_eq!(status, 503);
    let counts = server.server.plane.exported().unwrap();
    assert_eq!((counts.waiting, counts.dropped), (0, [0, 0, 0, 0]));
    // What the store could not take it takes with the next batch, and then it is sent, in a sync that has ended no step.
    server.store.set_full(false);
    let (status, _) = server.sync(&gateway.request()).await;
    assert_eq!(status, 200);
    assert_eq!(waiting(&server), 1);
}

/// Runs `forebay history import` with more arguments, on the resource and label of these tests.
async fn import(server: &str, database: &str, more: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["history", "import", "--server", &format!("http://{server}")])
        .args(["--customer-label", "tenant", "--prometheus", database])
        .args(more)
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .await
        .unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

/// What the test's database knows of a customer at the end of a step: amounts with gaps between them.
fn known(step: u64) -> Option<f64> {
    (!step.is_multiple_of(11)).then_some((step % 50) as f64 / 4.0)
}

async fn usage_comes_in(kind: Kind) {
    const STEPS: u64 = 2_000;
    let database = Database::start(kind).await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path()).await;
    let server = process.address.as_str();
    admin(server, "POST", "/v1/policies", &policy())
        .await
        .unwrap();
    let last = unix_ms() / STEP_MS - 700;
    let steps = || last + 1 - STEPS..=last;
    let end = |step: u64| (step + 1) * STEP_MS;
    let values: Vec<(u64, f64)> = steps()
        .filter_map(|step| Some((end(step), known(step)?)))
        .collect();
    // The second time with the hash, as the API shows it.
    let bolt = format!("hash:{}", hash("bolt"));
    for tenant in ["acme", bolt.as_str()] {
        let labels = [("__name__", "per_step"), ("tenant", tenant)];
        database.write(&labels, &values).await;
    }
    let total: Vec<(u64, f64)> = steps().map(|step| (end(step), step as f64 * 3.0)).collect();
    for pod in ["1", "2"] {
        let labels = [("__name__", "total"), ("pod", pod), ("tenant", "coin")];
        database.write(&labels, &total).await;
    }
    let everything = values.len() * 2 + total.len() * 2;
    database.until_it_counts(everything).await;
    let query = "last_over_time(per_step[50ms])";
    let arguments = ["--query", query, "--resource", "requests"];
    let summary = import(server, &database.url(), &arguments).await.unwrap();
    assert_eq!(summary["customers"], 2, "{summary}");
    assert_eq!(summary["values"], 2 * values.len(), "{summary}");
    assert_eq!(summary["step_ms"], STEP_MS, "{summary}");
    for key in ["acme", "bolt"] {
        let there = history(server, key).await;
        assert_eq!(there, values.iter().copied().collect(), "{key}");
    }
    // A counter in two pods: 30 tokens a second in each of them.
    let query = "sum by (tenant) (rate(total[1s]))";
    let from_s = (end(last) - 20_000).div_ceil(1_000);
    let from = [from_s.to_string(), (from_s + 10).to_string()];
    let range = ["--from-unix-s", &from[0], "--to-unix-s", &from[1]];
    let arguments = [&["--query", query, "--per-second"][..], &range].concat();
    let summary = import(server, &database.url(), &arguments).await.unwrap();
    assert_eq!(summary["values"], 100, "{summary}");
    let there = history(server, "coin").await;
    assert_eq!(there.len(), 100);
    assert!(
        there.values().all(|tokens| (tokens - 6.0).abs() < 1e-3),
        "{there:?}"
    );
    // The length of a step need not be known.
    let query = "sum by (tenant) (count_over_time(total[$__interval])) * 0 + 4";
    let arguments = [&["--query", query][..], &range].concat();
    import(server, &database.url(), &arguments).await.unwrap();
    let there = history(server, "coin").await;
    assert!(there.len() == 100 && there.values().all(|tokens| *tokens == 4.0));
    refusals(server, &database.url(), &range).await;
}

/// What cannot be imported, and what is said then.
async fn refusals(server: &str, database: &str, range: &[&str]) {
    let (_socket, away) = deaf();
    let nowhere = format!("{database}/no/such/place");
    for (url, query, says) in [
        (database, "sum by (tenant (total)", "refuses the query ("),
        (database, "total", "two series for the customer coin"),
        (database, "sum(total)", "has no label `tenant`"),
        (
            database,
            "sum by (tenant) (0 - total)",
            "customer coin has -",
        ),
        (database, "no_such_metric", "the query has no values from"),
        (&away, "total", "cannot ask http://127.0.0.1:"),
        (&nowhere, "total", "which is not what Prometheus' API says"),
        ("https://localhost", "total", "only http:// is spoken"),
    ] {
        let arguments = [&["--query", query][..], range].concat();
        let error = import(server, url, &arguments).await.unwrap_err();
        assert!(error.contains(says), "{url} {query}: {error}");
    }
    let arguments = [&["--query", "total", "--resource", "bytes"][..], range].concat();
    let error = import(server, database, &arguments).await.unwrap_err();
    assert!(error.contains("resource"), "{error}");
}

/// Says 1 at each time that it is asked for, and more than anybody reads when these are more than 300.
async fn talkative(State(asked): State<Asked>, headers: HeaderMap, form: String) -> String {
    let form: BTreeMap<String, String> = form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    let ms = |name: &str| (form[name].parse::<f64>().unwrap() * 1e3).round() as u64;
    let (start, end, step) = (ms("start"), ms("end"), ms("step"));
    let times: Vec<u64> = (start..=end)
        .step_by(usize::try_from(step).unwrap())
        .collect();
    let authorization = headers["authorization"].to_str().unwrap().to_owned();
    asked.lock().unwrap().push((times.len(), authorization));
    if times.len() > 300 {
        return " ".repeat(65 << 20);
    }
    let values = times.iter().map(|ms| json!([*ms as f64 / 1e3, "1"]));
    let values: Vec<Value> = values.collect();
    let result = json!([{"metric": {"tenant": "acme"}, "values": values}]);
    let data = json!({"resultType": "matrix", "result": result});
    json!({"status": "success", "data": data}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_is_asked_for_in_parts_and_nothing_is_left_out() {
    let asked = Asked::default();
    let app = Router::new()
        .route("/base/api/v1/query_range", post(talkative))
        .with_state(Arc::clone(&asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path()).await;
    let server = process.address.as_str();
    admin(server, "POST", "/v1/policies", &policy())
        .await
        .unwrap();
    let from_s = unix_ms() / 1_000 - 120;
    let range = [from_s.to_string(), (from_s + 100).to_string()];
    let range = ["--from-unix-s", &range[0], "--to-unix-s", &range[1]];
    let more = [
        &["--query", "x", "--prometheus-token", "secret"][..],
        &range,
    ]
    .concat();
    let summary = import(server, &format!("http://{address}/base/"), &more).await;
    assert_eq!(summary.unwrap()["values"], 1_000);
    let there = history(server, "acme").await;
    assert!(there.len() == 1_000 && there.values().all(|tokens| *tokens == 1.0));
    let asked = asked.lock().unwrap();
    let pages: Vec<usize> = asked.iter().map(|(times, _)| *times).collect();
    assert_eq!(pages, [1_000, 500, 250, 250, 250, 250]);
    assert!(asked.iter().all(|(_, shown)| shown == "Bearer secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_comes_in_from_prometheus() {
    usage_comes_in(Kind::Prometheus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_comes_in_from_victoria_metrics() {
    usage_comes_in(Kind::VictoriaMetrics).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_of_remote_write_is_refused_at_the_start_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    for (url, says) in [
        (
            "https://me:very-secret@host/api/v1/write",
            "only http:// is spoken",
        ),
        ("http://me:very-secret@host:9090", "has no path"),
        ("very-secret", "not a URL"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.path())
            .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("FOREBAY_REMOTE_WRITE", url)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains(says), "{url}: {said}");
        assert!(!said.contains("very-secret"), "{said}");
    }
}
