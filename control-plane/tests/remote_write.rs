//! Covariates come in by remote write, also from a real Prometheus, and reach the folder of a training.

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
mod writes;

use axum::body::Body;
use forebay_control_plane::covariates::Dropped;
use forebay_control_plane::history::{Chunk, Series, chunk_key};
use forebay_control_plane::models::Sandbox;
use forebay_control_plane::store::{Batch, MemoryStore, Store, Table};
use forebay_control_plane::training::{Training, TrainingOptions};
use forebay_redis_tests::Node;
use hyper::body::Frame;
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{Gateway, SENDER_TOKEN, STEP_MS, TestServer, hash, policy};
use process::{ADMIN_TOKEN, Process, send};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use timeseries::{Database, Label, WriteRequest};
use tokio::task::JoinSet;
use writes::*;

#[tokio::test]
async fn a_step_has_the_mean_of_all_samples_of_a_customer_and_covariate() {
    let server = server().await;
    let now = now_ms(&server);
    let step = now / u64::from(STEP_MS) - 3;
    let at = |step: u64, ms: u64| step * u64::from(STEP_MS) + ms;
    let bolt = format!("hash:{}", hash("bolt"));
    write(
        &server,
        vec![
            of(
                "acme",
                "a",
                &[
                    (at(step, 0), 1.0),
                    (at(step, 500), 2.0),
                    (at(step + 1, 0), 8.0),
                ],
            ),
            of("acme", "b", &[(at(step, 999), 6.0)]),
            of(&bolt, "a", &[(at(step, 10), 0.0)]),
            series(
                &[("__name__", "app_cpu"), ("customer", "acme")],
                &[(at(step, 0), 0.25)],
            ),
        ],
    )
    .await;
    // In another request, and in a step that is not the newest any more.
    write(&server, vec![of("acme", "c", &[(at(step, 1), 3.0)])]).await;
    let latency = BTreeMap::from([(step, 3.0), (step + 1, 8.0)]);
    assert_eq!(history(&server, "acme", "latency_s").await, latency);
    assert_eq!(
        history(&server, "acme", "cpu").await,
        BTreeMap::from([(step, 0.25)])
    );
    assert_eq!(
        history(&server, "bolt", "latency_s").await,
        BTreeMap::from([(step, 0.0)])
    );
    let usage = server.ok("GET", "/v1/history?key=acme", Value::Null).await;
    assert_eq!(known(&usage), BTreeMap::new(), "it is no usage");
    assert_eq!(dropped(&server), BTreeMap::new());
    assert_eq!(server.server.plane.measured().unwrap().kept, 7);
    let log = server.ok("GET", "/v1/audit", Value::Null).await;
    assert_eq!(
        log["records"].as_array().unwrap().len(),
        1,
        "the policy's: {log}"
    );
}

#[tokio::test]
async fn what_is_no_measurement_of_a_customer_is_dropped_and_counted_and_the_rest_is_kept() {
    let server = server().await;
    let now = now_ms(&server);
    let (step_ms, history_steps) = (u64::from(STEP_MS), kit::settings().history_steps);
    let step = now / step_ms;
    let oldest = (step - history_steps) * step_ms;
    let replica = |number, samples: &[(u64, f64)]| {
        let mut replica = of("acme", "r", samples);
        let label = Label {
            name: "__replica__".to_owned(),
            value: number,
        };
        replica.labels.insert(0, label);
        replica
    };
    write(
        &server,
        vec![
            of(
                "acme",
                "a",
                &[
                    (oldest - 1, 1.0),
                    (oldest, 4.0),
                    (now + 10_000, 5.0),
                    (now + 10_001, 5.0),
                ],
            ),
            of(
                "acme",
                "b",
                &[
                    (now, STALE),
                    (now, f64::NAN),
                    (now, f64::INFINITY),
                    (now, -1.0),
                    (now, 1e31),
                    (now - 3 * step_ms, 7.0),
                    (now - 3 * step_ms, 9.0),
                    (now - 3 * step_ms - 1, 9.0),
                ],
            ),
            of("nobody", "a", &[(now, 1.0)]),
            of(&"x".repeat(100_000), "a", &[(now, 1.0)]),
            of("hash:no-hash", "a", &[(now, 1.0)]),
            series(&[("__name__", "app_cpu")], &[(now, 1.0), (now, 2.0)]),
            series(&[("__name__", "up"), ("customer", "acme")], &[(now, 1.0)]),
            replica("1".to_owned(), &[(now - 5 * step_ms, 2.0)]),
            replica("2".to_owned(), &[(now - 5 * step_ms, 4.0)]),
        ],
    )
    .await;
    let expected = [
        ("duplicate", 2),
        ("no_customer", 2),
        ("not_a_measurement", 4),
        ("not_chosen", 1),
        ("out_of_order", 1),
        ("stale", 1),
        ("too_new", 1),
        ("too_old", 1),
        ("unknown_customer", 3),
    ];
    assert_eq!(dropped(&server), BTreeMap::from(expected));
    let kept = BTreeMap::from([
        (step - history_steps, 4.0),
        (step - 5, 2.0),
        (step - 3, 7.0),
    ]);
    // What is kept for so many steps ends with the last one that has finished.
    let there = history(&server, "acme", "latency_s").await;
    assert_eq!(there, kept);
    // Somebody whom a gateway has reported is known, although no policy lists it.
    let mut gateway = Gateway::new("g1", 7);
    gateway.spend("nobody", 1);
    gateway.sync(&server).await;
    write(&server, vec![of("nobody", "a", &[(now - step_ms, 3.0)])]).await;
    assert_eq!(
        history(&server, "nobody", "latency_s").await,
        BTreeMap::from([(step - 1, 3.0)])
    );
    let (_, text) = server.request("GET", "/metrics", "", "").await;
    let text = String::from_utf8(text).unwrap();
    let reference = include_str!("../../docs/reference/metrics.md");
    for line in [
        "forebay_covariate_samples_total 5",
        "forebay_covariate_samples_dropped_total{reason=\"stale\"} 1",
        "forebay_covariate_series 4",
        "forebay_covariate_requests_refused_total 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
        let name = line.split([' ', '{']).next().unwrap();
        assert!(reference.contains(&format!("`{name}`")), "{name}");
    }
    for reason in Dropped::ALL {
        assert!(
            reference.contains(&format!("`{}`", reason.name())),
            "{reason:?}"
        );
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_a_step_goes_on() {
    let server = server().await;
    let now = now_ms(&server);
    let step = now / u64::from(STEP_MS);
    write(
        &server,
        vec![of("acme", "a", &[(now - 1_000, 2.0), (now, 4.0)])],
    )
    .await;
    let (store, clock) = (Arc::clone(&server.store), Arc::clone(&server.clock));
    drop(server);
    // Covariates are told apart by name, not by place.
    let chosen = chosen(&[
        "cpu=app_cpu",
        "memory=m",
        r#"latency_s=app_latency_seconds{quantile="0.9"}"#,
    ]);
    let server = on(store, clock, chosen);
    write(&server, vec![of("acme", "a", &[(now + 1, 8.0)])]).await;
    server.advance_ms(u64::from(STEP_MS));
    let expected = BTreeMap::from([(step - 1, 2.0), (step, 6.0)]);
    assert_eq!(history(&server, "acme", "latency_s").await, expected);
    assert_eq!(history(&server, "acme", "cpu").await, BTreeMap::new());
    assert_eq!(history(&server, "acme", "memory").await, BTreeMap::new());
    let (status, error) = server
        .admin("GET", "/v1/history?key=acme&covariate=disk", Value::Null)
        .await;
    assert_eq!(
        (status.as_u16(), &error["code"]),
        (404, &json!("no_such_covariate"))
    );
    let both = "/v1/history?key=acme&covariate=cpu&resource=requests";
    assert_eq!(server.admin("GET", both, Value::Null).await.0, 400);
}

#[tokio::test]
async fn years_of_samples_take_no_more_room_than_the_history() {
    let server = server().await;
    let step_ms = u64::from(STEP_MS);
    let settings = kit::settings();
    // Nobody syncs meanwhile.
    for _ in 0..40 {
        let now = now_ms(&server);
        let steps: Vec<(u64, f64)> = (0..64)
            .map(|step| (now + step * step_ms, 1.0 + step as f64))
            .collect();
        server.advance_ms(64 * step_ms);
        write(&server, vec![of("acme", "a", &steps)]).await;
    }
    let there = history(&server, "acme", "latency_s").await;
    assert_eq!(there.len() as u64, settings.history_steps);
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        Ok(())
    };
    server.store.visit(Table::History, &mut count).unwrap();
    let chunks = settings.history_steps / 64 + 2;
    assert!(rows <= chunks, "{rows} rows of {chunks}");
}

/// The store as it is now.
fn copy_of(store: &MemoryStore) -> Arc<MemoryStore> {
    let mut batch = Batch::default();
    for table in Table::ALL {
        let mut put = |key: &[u8], value: &[u8]| {
            batch.put(table, key, value);
            Ok(())
        };
        store.visit(table, &mut put).unwrap();
    }
    let copy = MemoryStore::default();
    copy.commit(&batch).unwrap();
    Arc::new(copy)
}

#[tokio::test]
async fn what_was_acknowledged_when_it_was_sent_again_is_durable_and_counts_once() {
    let server = server().await;
    let now = now_ms(&server);
    let step = now / u64::from(STEP_MS) - 1;
    let request = || body(vec![of("acme", "a", &[(now - 1_000, 2.0)])]);
    server.store.set_full(true);
    for attempt in 0..2 {
        let (status, _) = server.request("POST", WRITE, SENDER_TOKEN, request()).await;
        assert_eq!(status, 503, "a sender repeats 5xx; attempt {attempt}");
    }
    server.store.set_full(false);
    let (status, _) = server.request("POST", WRITE, SENDER_TOKEN, request()).await;
    assert_eq!(status, 200);
    let killed_now = on(copy_of(&server.store), Arc::clone(&server.clock), latency());
    assert_eq!(
        history(&killed_now, "acme", "latency_s").await,
        BTreeMap::from([(step, 2.0)])
    );
    write(&server, vec![of("acme", "b", &[(now - 1_000, 4.0)])]).await;
    assert_eq!(
        history(&server, "acme", "latency_s").await,
        BTreeMap::from([(step, 3.0)])
    );
}

/// A body of which no byte ever comes.
struct Silent;

impl axum::body::HttpBody for Silent {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn senders_that_are_slow_hold_nobody_up_and_are_told_to_send_again() {
    let server = Arc::new(server().await);
    let now = now_ms(&server);
    let mut slow = JoinSet::new();
    for _ in 0..16 {
        let server = Arc::clone(&server);
        slow.spawn(async move {
            let body = Body::new(Silent);
            server.respond("POST", WRITE, SENDER_TOKEN, body).await
        });
    }
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    let began_at = Instant::now();
    write(&server, vec![of("acme", "a", &[(now - 1_000, 2.0)])]).await;
    assert!(began_at.elapsed() < Duration::from_secs(5));
    tokio::time::pause();
    let paused_at = tokio::time::Instant::now();
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap().status(), 503);
    }
    assert!(paused_at.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_a_gap_and_takes_nothing_else_away() {
    let server = on(
        Arc::default(),
        Arc::new(AtomicU64::new(1_000_000_000)),
        latency(),
    );
    server.ok("POST", "/v1/policies", policy()).await;
    let now = now_ms(&server);
    let running = now / u64::from(STEP_MS);
    let steps = running - 200..running;
    let samples = steps.clone().map(|step| (step * u64::from(STEP_MS), 1.0));
    let samples: Vec<(u64, f64)> = samples.collect();
    write(&server, vec![of("acme", "a", &samples)]).await;
    let usage = json!([{"key": "acme", "step_ms": STEP_MS, "usage": vec![1.0; 200]}]);
    server
        .ok("PUT", "/v1/history", json!({"series": usage}))
        .await;
    let damaged = Chunk::number_of(running - 100);
    let mut batch = Batch::default();
    for number in [0, 192] {
        let series = Series::new(hash("acme"), number);
        batch.put(Table::History, chunk_key(series, damaged), b"damaged");
    }
    server.store.commit(&batch).unwrap();
    let expected: BTreeMap<u64, f64> = steps
        .filter(|step| Chunk::number_of(*step) != damaged)
        .map(|step| (step, 1.0))
        .collect();
    assert!((100..200).contains(&expected.len()));
    assert_eq!(history(&server, "acme", "latency_s").await, expected);
    let usage = server.ok("GET", "/v1/history?key=acme", Value::Null).await;
    assert_eq!(known(&usage), expected);
}

#[tokio::test]
async fn hostile_bodies_are_refused_for_good_and_nothing_of_them_is_kept() {
    let server = server().await;
    let now = now_ms(&server);
    let good = of("acme", "a", &[(now - 1_000, 1.0)]);
    let mut broken = WriteRequest {
        timeseries: vec![good.clone()],
    }
    .encode_to_vec();
    broken.extend_from_slice(b"\x0a\x7f");
    let long = of(&"x".repeat(2 << 20), "a", &[(now, 1.0)]);
    let many: Vec<(u64, f64)> = (0..100_001).map(|ms| (now - ms, 1.0)).collect();
    for (name, body, expected) in [
        ("no Snappy", b"no snappy at all".to_vec(), 400),
        ("empty", Vec::new(), 400),
        // What it is when it is decompressed would be 4 GiB, and 17 MiB.
        ("a promise", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00], 400),
        ("a bomb", compressed(&vec![0; 17 << 20]), 400),
        ("no protobuf", compressed(b"no protobuf"), 400),
        ("a broken end", compressed(&broken), 400),
        ("huge labels", self::body(vec![good.clone(), long]), 400),
        (
            "many samples",
            self::body(vec![good, of("acme", "b", &many)]),
            400,
        ),
        ("a large body", vec![0; (4 << 20) + 1], 413),
    ] {
        let (status, said) = server.request("POST", WRITE, SENDER_TOKEN, body).await;
        assert_eq!(
            status,
            expected,
            "{name}: {}",
            String::from_utf8_lossy(&said)
        );
        let said: Value = serde_json::from_slice(&said).unwrap();
        let hint = said["hint"].as_str().unwrap();
        // What to change, which is another thing for each.
        let expected = match name {
            "no Snappy" | "empty" => "one raw block of Snappy",
            "no protobuf" | "a broken end" => "prometheus.WriteRequest",
            _ => "less at once|fewer samples at once",
        };
        assert!(
            expected.split('|').any(|part| hint.contains(part)),
            "{name}: {hint}"
        );
    }
    assert_eq!(history(&server, "acme", "latency_s").await, BTreeMap::new());
    let counts = server.server.plane.measured().unwrap();
    assert_eq!((counts.kept, counts.refused), (0, 9));
    // A million series of nothing are a small body, and take no memory.
    let nothing = compressed(&b"\x0a\x00".repeat(1 << 20));
    let (status, _) = server.request("POST", WRITE, SENDER_TOKEN, nothing).await;
    assert_eq!(status, 200);
    let off = TestServer::new();
    let (status, said) = off
        .request("POST", WRITE, SENDER_TOKEN, body(Vec::new()))
        .await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(
        (status.as_u16(), &said["code"]),
        (404, &json!("no_covariates"))
    );
}

#[tokio::test]
async fn a_series_with_a_label_twice_is_refused_by_name_and_takes_no_other_one_with_it() {
    let server = server().await;
    let now = now_ms(&server);
    let step = now / u64::from(STEP_MS);
    let at = now - u64::from(STEP_MS);
    let twice = |labels: &[(&str, &str)]| {
        let of_app = [("__name__", "app_cpu"), ("customer", "acme")];
        series(&[&of_app, labels].concat(), &[(at, 8.0), (at + 1, 8.0)])
    };
    let timeseries = vec![
        of("acme", "a", &[(at, 2.0)]),
        // Beside each other, apart, equal in value too, and of a metric that no option asks for.
        twice(&[("pod", "a"), ("pod", "b")]),
        twice(&[("a", "1"), ("customer", "bolt")]),
        twice(&[("pod", "a"), ("pod", "a")]),
        series(&[("__name__", "up"), ("x", "1"), ("x", "2")], &[(at, 8.0)]),
        of("bolt", "a", &[(at, 3.0)]),
    ];
    let (status, said) = server
        .request("POST", WRITE, SENDER_TOKEN, body(timeseries))
        .await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(
        (status.as_u16(), &said["code"]),
        (400, &json!("repeated_label"))
    );
    let message = said["message"].as_str().unwrap();
    assert!(
        message.contains("4 series") && message.contains("`pod`"),
        "{said}"
    );
    for (customer, value) in [("acme", 2.0), ("bolt", 3.0)] {
        let there = history(&server, customer, "latency_s").await;
        assert_eq!(there, BTreeMap::from([(step - 1, value)]));
        assert_eq!(history(&server, customer, "cpu").await, BTreeMap::new());
    }
    assert_eq!(dropped(&server), BTreeMap::from([("repeated_label", 7)]));
    let counts = server.server.plane.measured().unwrap();
    assert_eq!((counts.kept, counts.refused), (2, 1));
}

#[tokio::test]
async fn a_training_gets_covariates_beside_the_usage() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = folder.path().join("trainer.sh");
    // What is in the folder of the run when the data set is prepared, and then an end to it.
    let script = format!(
        "#!/bin/sh\ncp -r . {0}/run\necho \"$2\" > {0}/told\nexit 1\n",
        folder.path().display()
    );
    fs::write(&trainer, script).unwrap();
    fs::set_permissions(&trainer, fs::Permissions::from_mode(0o755)).unwrap();
    let options = TrainingOptions {
        trainer: Some(trainer),
        ..TrainingOptions::default()
    };
    let server = TestServer::measuring(
        Arc::default(),
        Arc::new(AtomicU64::new(100_000_000)),
        latency(),
        Sandbox::new(&fake_forecaster(folder.path()), LIMITS),
        Training::new(
            options
                .choose(STEP_MS, 604_800)
                .unwrap()
                .kept_by(env!("CARGO_BIN_EXE_forebay").into()),
        ),
    );
    server.ok("POST", "/v1/policies", policy()).await;
    let usage = json!([{"key": "acme", "step_ms": STEP_MS, "usage": [1, 2, 3, 4]}]);
    server
        .ok("PUT", "/v1/history", json!({"series": usage}))
        .await;
    let now = now_ms(&server);
    let at = |steps_ago: u64| now - steps_ago * u64::from(STEP_MS);
    // Of bolt there is no usage, and so no use.
    let samples = [(at(3), 0.5), (at(1), 0.75), (at(0), 1.0)];
    write(
        &server,
        vec![of("acme", "a", &samples), of("bolt", "a", &samples)],
    )
    .await;
    server.ok("POST", "/v1/training", json!({})).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view = server.ok("GET", "/v1/training", Value::Null).await;
        if view["running"].is_null() && view["runs"].as_array().is_some_and(|runs| !runs.is_empty())
        {
            break;
        }
        assert!(Instant::now() < deadline, "{view}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(
        read("told").trim().ends_with("/sources.toml"),
        "{}",
        read("told")
    );
    let sources = read("run/sources.toml");
    assert!(
        sources.contains("path = \"usage-0.json\"") && sources.contains("name = \"latency_s\""),
        "{sources}"
    );
    assert!(
        !sources.contains("cpu"),
        "nothing was measured of it: {sources}"
    );
    let latency = read("run/covariate-latency_s.json");
    assert_eq!(latency.lines().count(), 1, "{latency}");
    let latency: Value = serde_json::from_str(&latency).unwrap();
    let newest = now / u64::from(STEP_MS) - 1;
    let expected = json!({"key": format!("hash:{}", hash("acme")), "resource": "latency_s",
        "step_ms": STEP_MS, "newest_step": newest, "usage": [0.5, null, 0.75]});
    assert_eq!(latency, expected, "the running step is no past");
}

/// Options of a real server.
fn options() -> Vec<String> {
    vec![
        "--covariate=latency_s=app_latency_seconds{quantile=\"0.9\"}".to_owned(),
        format!("--sender-token={SENDER_TOKEN}"),
    ]
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Asks until somebody answers, and it is what is waited for.
async fn until(
    address: &str,
    method: &str,
    path: &str,
    body: &Value,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let answer = send(address, method, path, ADMIN_TOKEN, bytes).await;
        if let Some((200, bytes)) = &answer {
            let answer = serde_json::from_slice(bytes).unwrap();
            if is_so(&answer) {
                return answer;
            }
        }
        assert!(Instant::now() < deadline, "{method} {path}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_sends_what_it_measures() {
    const PROCESS_STEP_MS: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    let process =
        Process::start_with_options("--data", directory.path().as_ref(), &options(), true).await;
    let address = process.address.as_str();
    until(address, "POST", "/v1/policies", &policy(), |_| true).await;
    let url = format!("http://{address}{WRITE}");
    let prometheus = Database::start_sending(&url, SENDER_TOKEN).await;
    // It sends what comes after its start.
    let first = unix_ms() + PROCESS_STEP_MS;
    let samples: Vec<(u64, f64)> = (0..20_u32)
        .map(|number| {
            (
                first + u64::from(number) * PROCESS_STEP_MS / 2,
                f64::from(number),
            )
        })
        .collect();
    let labels = [
        ("__name__", "app_latency_seconds"),
        ("customer", "acme"),
        ("quantile", "0.9"),
    ];
    let mut expected: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (at, value) in &samples {
        expected
            .entry(at / PROCESS_STEP_MS)
            .or_default()
            .push(*value);
    }
    let means = expected
        .into_iter()
        .map(|(step, values)| (step, values.iter().sum::<f64>() / values.len() as f64));
    let means: BTreeMap<u64, f64> = means.collect();
    prometheus.write(&labels, &samples).await;
    prometheus
        .write(&[("__name__", "up"), ("customer", "acme")], &samples)
        .await;
    let path = "/v1/history?key=acme&covariate=latency_s";
    let view = until(address, "GET", path, &Value::Null, |view| {
        known(view).len() >= means.len()
    })
    .await;
    assert_eq!(known(&view), means);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_by_passes_a_write_on_to_the_one_that_leads() {
    let node = Node::start().unwrap();
    let (kind, url) = ("--store", node.url());
    let mut first = Process::start_with_options(kind, OsStr::new(&url), &options(), true).await;
    until(&first.address, "POST", "/v1/policies", &policy(), |_| true).await;
    let second = Process::start_with_options(kind, OsStr::new(&url), &options(), true).await;
    let at = unix_ms() - 1_000;
    let request = body(vec![of("acme", "a", &[(at, 2.5)])]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = send(
            &second.address,
            "POST",
            WRITE,
            SENDER_TOKEN,
            request.clone(),
        )
        .await;
        match answer {
            Some((200, _)) => break,
            // While it does not know yet who leads.
            Some((503, _)) => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let path = "/v1/history?key=acme&covariate=latency_s";
    let expected = BTreeMap::from([(at / 100, 2.5)]);
    let is_there = |view: &Value| known(view) == expected;
    until(&first.address, "GET", path, &Value::Null, is_there).await;
    first.terminate().await;
    until(&second.address, "GET", path, &Value::Null, is_there).await;
}
