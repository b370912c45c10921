//! What a server warns of when it starts, and does all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

mod process;

use forebay_redis_tests::Node;
use process::{ADMIN_TOKEN, FILTER_TOKEN, GATEWAY_TOKEN, Process, send};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A server and its log.
struct Talkative {
    server: Process,
    folder: tempfile::TempDir,
}

// === impl Talkative ===

impl Talkative {
    async fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
        program
            .args(["serve", "--step-ms", "1000"])
            .args(options)
            .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("FOREBAY_FILTER_TOKEN", FILTER_TOKEN)
            .env("FOREBAY_KEY_HASH_SECRET", "0".repeat(32))
            .stderr(log);
        if !options.contains(&"--store") {
            program.arg("--data").arg(folder.path().join("data"));
        }
        let has_filters = options.contains(&"--grpc-listen");
        let server = Process::spawned(program, has_filters).await;
        Self { server, folder }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it has warned of until it was stopped.
    async fn warnings(mut self) -> Vec<String> {
        self.server.terminate().await;
        let log = std::fs::read_to_string(self.log()).unwrap();
        let warnings = log.lines().filter(|line| line.contains(" WARN "));
        // Tests have no plugin beside the program, and no policy for the gateway of filters.
        let others = ["forecaster.wasm", "no policy"];
        let ours = warnings.filter(|line| !others.iter().any(|words| line.contains(words)));
        ours.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_server_on_the_loopback_has_nothing_to_warn_of() {
    for address in ["127.0.0.1:0", "127.0.0.2:0", "[::ffff:127.0.0.1]:0"] {
        let said = Talkative::start(&["--listen", address]).await;
        assert_eq!(said.warnings().await, [""; 0], "{address}");
    }
}

/// What a replica on a node of Redis warns of when it leads.
async fn on_redis(node: &Node) -> Vec<String> {
    let url = node.url();
    let replica = Talkative::start(&["--listen", "127.0.0.1:0", "--store", &url]).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = send(&replica.server.address, "GET", "/readyz", "", Vec::new()).await;
        if answer.is_some_and(|(status, _)| status == 200) {
            return replica.warnings().await;
        }
        assert!(Instant::now() < deadline, "the replica does not lead");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_redis_that_keeps_nothing_or_might_throw_rows_away_is_warned_of_once() {
    let durable = ["--appendonly", "yes", "--save", ""];
    let node = Node::start_with(&durable).unwrap();
    assert_eq!(on_redis(&node).await, [""; 0]);

    let at = |node: &Node| format!("redis://127.0.0.1:{}", node.port());
    let node = Node::start().unwrap();
    let said = on_redis(&node).await;
    assert_eq!(said.len(), 1, "{said:?}");
    let place = at(&node);
    let words = [
        &*place,
        "appendonly no",
        "appendonly yes",
        "appendfsync always",
    ];
    assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");

    let evicting = [&durable[..], &["--maxmemory-policy", "allkeys-lru"]].concat();
    let node = Node::start_with(&evicting).unwrap();
    let said = on_redis(&node).await;
    assert_eq!(said.len(), 1, "{said:?}");
    let place = at(&node);
    let words = [&*place, "allkeys-lru", "noeviction"];
    assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");
}
