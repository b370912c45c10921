//! Cycles of the real `forebay serve`: they come by themselves, the command line shows them, and `kill -9` takes none of them away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a failed step must stop the test"
)]

mod process;

use process::{ADMIN_TOKEN, Process, send};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let (status, answer) = send(address, method, path, ADMIN_TOKEN, body)
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(status < 300, "{method} {path}: {answer}");
    answer
}

/// Waits until the cycle in force is a later one.
async fn cycle_behind(address: &str, number: u64) -> Value {
    let began = Instant::now();
    loop {
        let view = ask(address, "GET", "/v1/allocations", &Value::Null).await;
        if view["cycle"]["number"].as_u64() > Some(number) {
            return view["cycle"].clone();
        }
        assert!(
            began.elapsed() < PATIENCE,
            "no cycle behind {number}: {view}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn forebay(address: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env("FOREBAY_SERVER", format!("http://{address}"))
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn policy(capacity_per_s: u64) -> Value {
    json!({
        "version": 1,
        "resources": {"requests": {"capacity_per_s": capacity_per_s}},
        "sharing": {},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 60, "burst": 60, "guarantee_per_s": 20}}}},
        "customers": [{"key": "acme/north", "contract": "gold"}]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cycles_come_by_themselves_are_shown_by_the_command_line_and_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::start(directory.path()).await;
    ask(&server.address, "POST", "/v1/policies", &policy(100)).await;
    let first = cycle_behind(&server.address, 0).await;
    assert_eq!(
        (&first["number"], &first["cause"]),
        (&json!(1), &json!("policy"))
    );
    // Another policy changes what there is within seconds, though the interval is five minutes.
    ask(&server.address, "POST", "/v1/policies", &policy(80)).await;
    let second = cycle_behind(&server.address, 1).await;
    assert_eq!(second["cause"], "policy");
    let third = forebay(&server.address, &["allocations", "--run"]).await;
    assert_eq!(
        (&third["number"], &third["cause"]),
        (&json!(3), &json!("asked"))
    );
    let of_acme = ["allocations", "--customer", "acme/north"];
    let shown = forebay(&server.address, &of_acme).await;
    assert_eq!(shown["cycle"], third);
    assert_eq!(third["resources"][0]["capacity_per_s"], json!(80.0));
    assert_eq!(
        shown["customers"][0]["resources"][0]["guarantee_per_s"],
        json!(20.0)
    );
    let loans = forebay(&server.address, &["loans", "--limit", "5"]).await;
    assert_eq!((&loans["cycle"], &loans["loans"]), (&json!(3), &json!([])));
    let statement = forebay(&server.address, &["statement", "acme/north"]).await;
    assert_eq!(statement["resources"][0]["lent_tokens"], json!(0.0));
    server.kill().await;
    let mut server = Process::start(directory.path()).await;
    let after = forebay(&server.address, &of_acme).await;
    assert_eq!(after["cycle"], third);
    assert_eq!(after["customers"], shown["customers"]);
    let fourth = forebay(&server.address, &["allocations", "--run"]).await;
    assert_eq!(fourth["number"], json!(4));
    server.terminate().await;
}
