//! A share of the customers and a dry run at the real `forebay serve`: it counts and takes back by itself, the command line shows it, and `kill -9` ends neither.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod process;

use forebay_wire::sync::SyncReply;
use kit::{Gateway, policy};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, send};
use prost::Message;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn run(address: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env("FOREBAY_SERVER", format!("http://{address}"))
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap()
}

fn forebay(address: &str, arguments: &[&str]) -> Value {
    let output = run(address, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(address: &str, arguments: &[&str], says: &str) {
    let output = run(address, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(says),
        "{arguments:?}: {said}"
    );
}

async fn serve(data: &Path) -> Process {
    let options = ["--step-ms=1000".to_owned()];
    Process::start_with_options("--data", data.as_ref(), &options, true).await
}

/// Syncs; a gateway that refuses policies keeps the one that it has.
async fn sync(address: &str, gateway: &mut Gateway, refuses: bool) {
    let kept = (gateway.epoch, gateway.cursor);
    let body = gateway.request().encode_to_vec();
    let (status, answer) = send(address, "POST", "/v1/sync", GATEWAY_TOKEN, body)
        .await
        .unwrap();
    assert_eq!(status, 200);
    gateway.apply(&SyncReply::decode(answer).unwrap());
    if refuses {
        (gateway.epoch, gateway.cursor) = kept;
    }
}

/// Syncs until what the command line shows is as it is wanted.
async fn until(
    address: &str,
    gateway: &mut Gateway,
    refuses: bool,
    (arguments, is_there): (&[&str], fn(&Value) -> bool),
) -> Value {
    let began = Instant::now();
    loop {
        gateway.spend("acme", 8);
        sync(address, gateway, refuses).await;
        let view = tokio::task::block_in_place(|| forebay(address, arguments));
        if is_there(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "{arguments:?}: {view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_counted_and_a_refused_share_taken_back_by_the_server_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, rate_per_s: u64| {
        let mut document = policy();
        document["contracts"]["gold"]["limits"]["requests"]["rate_per_s"] = json!(rate_per_s);
        let path = directory.path().join(name);
        std::fs::write(&path, document.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (older, newer) = (file("older.json", 100), file("newer.json", 20));
    let data = directory.path().join("data");
    let mut server = serve(&data).await;
    let address = server.address.clone();
    for (arguments, says) in [
        (&["policy", "try"][..], "FILE"),
        (&["policy", "try", "--show"], "no policy is tried"),
        (&["policy", "try", "--stop"], "no policy is tried"),
        (
            &["policy", "try", "--show", "--stop"],
            "cannot be used with",
        ),
        (
            &["policy", "apply", &newer, "--share", "0%"],
            "from 1% to 99%",
        ),
        (
            &["policy", "apply", &newer, "--share", "10%"],
            "no policy has been applied yet",
        ),
        (&["policy", "promote"], "forebay policy apply FILE --share"),
        (&["policy", "rollback"], "forebay policy apply FILE --share"),
    ] {
        refused(&address, arguments, says);
    }
    forebay(&address, &["policy", "apply", &older]);
    let digest = forebay(&address, &["policy", "try", &newer])["digest"].clone();
    let mut gateway = Gateway::new("g1", 7);
    let show: &[&str] = &["policy", "try", "--show", "--limit", "5"];
    let counted = |view: &Value| view["steps"].as_u64() >= Some(3);
    let view = until(&address, &mut gateway, false, (show, counted)).await;
    let acme = &view["resources"][0]["changes"][0];
    let admitted = |side: &str| acme[side]["admitted"].as_f64().unwrap();
    assert!(admitted("candidate") < admitted("live"), "{view}");

    server.kill().await;
    let mut server = serve(&data).await;
    let address = server.address.clone();
    let view = forebay(&address, show);
    assert_eq!(view["digest"], digest);
    until(&address, &mut gateway, false, (show, counted)).await;
    assert_eq!(
        forebay(&address, &["policy", "try", "--stop"])["digest"],
        digest
    );

    let info = forebay(&address, &["policy", "apply", &newer, "--share", "60%"]);
    assert_eq!([&info["version"], &info["share"]], [2, 60]);
    let gone = |view: &Value| view["rollout"] == Value::Null;
    let list: &[&str] = &["policy", "list"];
    let view = until(&address, &mut gateway, true, (list, gone)).await;
    assert_eq!(view["versions"][0]["restores"], 1);
    forebay(&address, &["policy", "apply", &newer, "--share", "60%"]);
    server.kill().await;
    let server = serve(&data).await;
    let address = server.address.clone();
    refused(&address, &["policy", "apply", &older], "rollout_runs");
    assert_eq!(forebay(&address, &["policy", "promote"])["version"], 5);
    assert_eq!(forebay(&address, list)["rollout"], Value::Null);
}
