//! A disk that is full and has room again: what was refused meanwhile is accepted then, without a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

mod process;

use forebay_control_plane::store::{Batch, Journal, MemoryStore, Store, Table};
use process::{ADMIN_TOKEN, Process};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn forebay(server: &Process, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env("FOREBAY_SERVER", format!("http://{}", server.address))
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap()
}

fn key_of(customer: usize) -> String {
    format!("{customer:0300}")
}

fn write_policy(path: &Path, customers: usize) {
    let customers: Vec<_> = (0..customers)
        .map(|number| json!({"key": key_of(number), "contract": "gold"}))
        .collect();
    let policy = json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 1, "burst": 1}}}},
        "customers": customers,
    });
    std::fs::write(path, policy.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_full_takes_changes_again_when_it_has_room() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (small, large) = (
        directory.path().join("small.json"),
        directory.path().join("large.json"),
    );
    write_policy(&small, 1);
    write_policy(&large, 10_000);
    let (small, large) = (small.to_str().unwrap(), large.to_str().unwrap());
    let customer = key_of(0);
    let mut server = Process::start_on_small_disk(&data, 1 << 20).await;
    assert!(
        forebay(&server, &["policy", "apply", small])
            .status
            .success()
    );
    for attempt in 0..3 {
        let refused = forebay(&server, &["policy", "apply", large]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "attempt {attempt}");
        assert!(text.contains("no_room"), "attempt {attempt}: {text}");
        // It holds up nothing that fits.
        let change = if attempt % 2 == 0 {
            "freeze"
        } else {
            "unfreeze"
        };
        let changed = forebay(&server, &["customer", change, &customer]);
        assert!(
            changed.status.success(),
            "attempt {attempt}: {}",
            String::from_utf8_lossy(&changed.stderr)
        );
    }
    server.fill_disk().await;
    let refused = forebay(&server, &["customer", "unfreeze", &customer]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("store_unavailable"), "{text}");
    server.enlarge_disk().await;
    let applied = forebay(&server, &["policy", "apply", large]);
    assert!(
        applied.status.success(),
        "{}",
        String::from_utf8_lossy(&applied.stderr)
    );
    server.kill().await;
    let server = Process::start(&data).await;
    let shown = forebay(&server, &["policy", "list"]);
    assert!(shown.status.success());
    assert!(String::from_utf8(shown.stdout).unwrap().contains("10000"));
    // It became durable with the next change.
    let shown = forebay(&server, &["customer", "show", &customer]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("\"frozen\": false"), "{text}");
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later_even_if_nobody_changes_anything() {
    let store = Arc::new(MemoryStore::default());
    let journal = Journal::start(Arc::<MemoryStore>::clone(&store) as Arc<dyn Store>).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Meta, *b"key", *b"value");
    store.set_full(true);
    assert!(journal.submit(batch).durable().await.is_err());
    assert_eq!(journal.progress().durable, 0);
    store.set_full(false);
    let deadline = Instant::now() + Duration::from_secs(30);
    while journal.progress().durable == 0 {
        assert!(Instant::now() < deadline, "it is never tried again");
        tokio::task::yield_now().await;
    }
    assert_eq!(
        store.get(Table::Meta, b"key").unwrap(),
        Some(b"value".to_vec())
    );
    assert_eq!(journal.progress().queued, journal.progress().durable);
}
