//! The command line against a real server: what it prints, and what it says when something is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod process;

use forebay_control_plane::models::{digest_of, hex};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const POLICY: &str = "version: 1
resources: {requests: {}}
contracts:
  gold: {limits: {requests: {rate_per_s: 10, burst: 20}}}
customers:
  - {key: 'acme/north', contract: gold}
";

fn forebay(server: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env("FOREBAY_SERVER", format!("http://{server}"))
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    let text = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn ok(server: &str, arguments: &[&str]) -> Value {
    let (success, text) = forebay(server, arguments);
    assert!(success, "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn refused(server: &str, arguments: &[&str], says: &[&str]) {
    let (success, text) = forebay(server, arguments);
    assert!(!success, "{arguments:?}: {text}");
    for part in says {
        assert!(
            text.contains(part),
            "{arguments:?} does not say {part:?}: {text}"
        );
    }
}

#[test]
fn what_cannot_be_printed_ends_in_a_reason_and_a_reader_that_has_seen_enough_in_none() {
    let print = |to: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["policy", "schema"])
            .stdout(to)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = print(writer.into());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = print(full.into());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot print the answer"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_do_everything_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", POLICY);
    let wrong = file("wrong.yaml", &POLICY.replace("burst: 20", "burst: -20"));
    let json = file("wrong.json", "{\"version\": 1,\n \"resources\": []}");
    let data = directory.path().join("data");
    let mut process = Process::start(&data).await;
    let server = process.address.as_str();
    tokio::task::block_in_place(|| {
        assert_eq!(ok(server, &["policy", "check", &good])["customers"], 1);
        refused(
            server,
            &["policy", "check", &wrong],
            &["wrong.yaml: line 4, column", "burst", "negative"],
        );
        refused(
            server,
            &["policy", "check", &json],
            &["line 2, column", "resources"],
        );
        refused(
            server,
            &["policy", "check", "/nonexistent"],
            &["cannot read /nonexistent"],
        );
        refused(
            server,
            &["policy", "show"],
            &["no policy has been applied yet", "forebay policy apply"],
        );
        assert_eq!(ok(server, &["policy", "apply", &good])["version"], 1);
        refused(
            server,
            &["policy", "apply", &wrong],
            &["contracts.gold.limits.requests.burst", "policy_refused"],
        );
        assert_eq!(ok(server, &["policy", "list"])["active"], 1);
        assert_eq!(ok(server, &["policy", "activate", "1"])["version"], 2);
        differences(
            server,
            [
                &good,
                &wrong,
                &file("other.yaml", &POLICY.replace("burst: 20", "burst: 30")),
            ],
        );
        assert_eq!(
            ok(server, &["policy", "show"])["customers"][0]["key"],
            "acme/north"
        );
        customers(server);
        a_viewer(server);
        models(server, directory.path());
        audit(server);
        assert_eq!(ok(server, &["status"])["policy_version"], 2);
        refused(
            server,
            &["gateway", "retire", "g1"],
            &["gateway `g1` holds nothing here"],
        );
        refused(
            "127.0.0.1:1",
            &["status"],
            &["cannot reach the server at 127.0.0.1:1", "forebay serve"],
        );
        refused(
            server,
            &["status", "--token", "two\nlines"],
            &["line break", "one line"],
        );
        refused(
            server,
            &["status", "--token", "a wrong token"],
            &["wrong_token", "FOREBAY_ADMIN_TOKEN"],
        );
        refused(
            server,
            &["status", "--server", "https://example.org"],
            &["--tls-ca FILE"],
        );
        second_servers(&data);
    });
    process.terminate().await;
    let process = Process::start(&data).await;
    let status = tokio::task::block_in_place(|| ok(&process.address, &["status"]));
    assert_eq!(
        (&status["start"], &status["policy_version"]),
        (&Value::from("clean"), &Value::from(2))
    );
}

/// The exit code is for scripts: 0 same, 1 different, 2 nobody knows.
fn differences(server: &str, [good, wrong, other]: [&String; 3]) {
    let differ = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["policy", "diff"])
            .args(arguments)
            .env("FOREBAY_SERVER", format!("http://{server}"))
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let text = "contract gold (1 customers): requests.burst 20 -> 30\n".to_owned();
    let back = "contract gold (1 customers): requests.burst 30 -> 20\n".to_owned();
    assert_eq!(differ(&[good]), (Some(0), String::new()));
    assert_eq!(differ(&["1", "active"]), (Some(0), String::new()));
    assert_eq!(
        differ(&[other]),
        (Some(1), text.clone()),
        "alone: what would it change?"
    );
    assert_eq!(differ(&["active", other]), (Some(1), text));
    assert_eq!(differ(&[other, "1"]), (Some(1), back));
    let (code, json) = differ(&[good, other, "--json"]);
    let diff: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &diff["contracts"][0]["changes"][0]["after"]),
        (Some(1), &Value::from("30"))
    );
    for unknown in [
        &[wrong.as_str()][..],
        &["9"],
        &["/nonexistent"],
        &[good, "7"],
    ] {
        assert_eq!(differ(unknown), (Some(2), String::new()), "{unknown:?}");
    }
}

fn customers(server: &str) {
    let key = "acme/north";
    assert_eq!(
        ok(server, &["customer", "credit", key, "-7.5"])["resources"][0]["central_tokens"],
        12.5
    );
    assert_eq!(
        ok(server, &["customer", "reset", key])["resources"][0]["central_tokens"],
        20.0
    );
    assert!(ok(server, &["customer", "ban", key])["banned_until_unix_ms"].is_u64());
    assert!(ok(server, &["customer", "unban", key])["banned_until_unix_ms"].is_null());
    assert_eq!(ok(server, &["customer", "freeze", key])["frozen"], true);
    assert_eq!(ok(server, &["customer", "unfreeze", key])["frozen"], false);
    assert_eq!(ok(server, &["customer", "exempt", key])["exempt"], true);
    assert_eq!(ok(server, &["customer", "unexempt", key])["exempt"], false);
    refused(
        server,
        &["customer", "show", "nobody"],
        &["no_such_customer", "FOREBAY_KEY_HASH_SECRET"],
    );
    refused(
        server,
        &["customer", "credit", key, "1e-9"],
        &["tokens", "millionth"],
    );
}

/// Whoever has only the token of a smaller role uses it by its own name.
fn a_viewer(server: &str) {
    let as_viewer = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(arguments)
            .env("FOREBAY_SERVER", format!("http://{server}"))
            .env_remove("FOREBAY_ADMIN_TOKEN")
            .env("FOREBAY_VIEWER_TOKEN", VIEWER_TOKEN)
            .output()
            .unwrap()
    };
    assert!(
        as_viewer(&["customer", "show", "acme/north"])
            .status
            .success()
    );
    let refused = as_viewer(&["customer", "freeze", "acme/north"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(
        said.contains("role_too_small") && said.contains("value of FOREBAY_ADMIN_TOKEN of"),
        "{said}"
    );
}

fn audit(server: &str) {
    let (success, text) = forebay(server, &["audit"]);
    assert!(success, "{text}");
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let actions: Vec<_> = records[..3]
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        ["policy.apply", "policy.activate", "customer.credit"]
    );
    // What the chain says can be checked without this program.
    for (line, next) in text.lines().zip(&records[1..]) {
        assert_eq!(next["previous"], hex(&digest_of(line.as_bytes())));
    }
    let (_, rest) = forebay(server, &["audit", "--after", "2"]);
    assert_eq!(rest.lines().next(), text.lines().nth(2));
    let verified = ok(server, &["audit", "--verify"]);
    assert_eq!(
        (&verified["ok"], &verified["records"]),
        (&Value::from(true), &Value::from(records.len()))
    );
}

fn models(server: &str, directory: &Path) {
    let key = directory.join("key");
    let key = key.to_str().unwrap();
    let public = ok(server, &["model", "keygen", "--out", key])["public_key"].clone();
    refused(
        server,
        &["model", "keygen", "--out", key],
        &["cannot use the key file"],
    );
    let digest = "ab".repeat(32);
    let signed = ok(
        server,
        &[
            "model", "sign", "--key", key, "--digest", &digest, "--epoch", "3",
        ],
    );
    assert_eq!(
        (
            &signed["public_key"],
            signed["signature"].as_str().unwrap().len()
        ),
        (&public, 128)
    );
    let signature = signed["signature"].as_str().unwrap();
    let activate = [
        "model",
        "activate",
        &digest,
        "--epoch",
        "3",
        "--signature",
        signature,
    ];
    refused(
        server,
        &activate,
        &["no_such_model", "forebay model upload"],
    );
    refused(server, &["model", "rollback"], &["nothing_to_roll_back_to"]);
    refused(server, &["model", "promote"], &["no_canary", "--share"]);
    refused(server, &["model", "show", &digest], &["no_such_model"]);
    let activate = |share: &str| ["model", "activate", &digest, "--share", share].map(String::from);
    for share in ["0%", "100%", "ten", "1.5%"] {
        let arguments = activate(share);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(server, &arguments, &["from 1% to 99%"]);
    }
    let canary = activate("10%");
    let canary: Vec<&str> = canary.iter().map(String::as_str).collect();
    refused(server, &canary, &["no_such_model"]);
    refused(
        server,
        &["model", "activate", &digest, "--promote", "auto"],
        &["--share"],
    );
    let challenge = ["model", "challenge", &digest, "--promote", "auto"];
    refused(server, &challenge, &["no_such_model"]);
    let compared = ["no_challenger", "forebay model challenge"];
    refused(server, &["model", "challenger"], &compared);
    refused(server, &["model", "withdraw"], &compared);
    let sign = [
        "model",
        "sign",
        "--key",
        key,
        "--digest",
        &digest,
        "--epoch",
        "3",
        "--challenger",
    ];
    assert_ne!(
        ok(server, &sign)["signature"],
        signature,
        "a statement of its own kind"
    );
    refused(
        server,
        &["model", "upload", key, "--card", key],
        &["not a card in JSON"],
    );
    refused(
        server,
        &["model", "check", key, "--forecaster-wasm", "/nonexistent"],
        &["cannot use the forecaster"],
    );
    assert_eq!(
        ok(server, &["model", "list"])["models"],
        serde_json::json!([])
    );
}

/// What keeps a server from starting is said in a line.
fn second_servers(data: &Path) {
    let start = |gateway: &str, admin: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(more)
            .env("FOREBAY_GATEWAY_TOKEN", gateway)
            .env("FOREBAY_ADMIN_TOKEN", admin)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = start(GATEWAY_TOKEN, ADMIN_TOKEN, &[]);
    assert!(said.contains("open in another process"), "{said}");
    let place = data.display().to_string();
    assert!(said.contains(&place), "{said}");
    for way_out in ["stop the other `forebay serve`", "its own --data directory"] {
        assert!(said.contains(way_out), "{said}");
    }
    assert!(start("short", ADMIN_TOKEN, &[]).contains("FOREBAY_GATEWAY_TOKEN is shorter than 16"));
    assert!(start(ADMIN_TOKEN, ADMIN_TOKEN, &[]).contains("are the same"));
    let said = start(GATEWAY_TOKEN, ADMIN_TOKEN, &["--viewer-token", ADMIN_TOKEN]);
    assert!(
        said.contains("FOREBAY_VIEWER_TOKEN and FOREBAY_ADMIN_TOKEN are the same"),
        "{said}"
    );
    assert!(
        start(GATEWAY_TOKEN, ADMIN_TOKEN, &["--key-hash-secret", "xyz"])
            .contains("FOREBAY_KEY_HASH_SECRET")
    );
    assert!(
        start(
            GATEWAY_TOKEN,
            ADMIN_TOKEN,
            &["--model-signing-key", "/nonexistent"]
        )
        .contains("forebay: cannot use the key file")
    );
}

#[test]
fn a_simulation_needs_no_server_and_writes_every_figure_and_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let arguments = [
        "simulate",
        "--generate",
        "7",
        "--seconds",
        "20",
        "--gateways",
        "3",
        "--seeds",
        "2",
        "--policy",
        "forebay",
        "oracle",
        "forebay",
        "--json",
    ];
    let (success, table) = forebay(
        "127.0.0.1:1",
        &[&arguments[..], &[json.to_str().unwrap()]].concat(),
    );
    assert!(success, "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("means over 2 seeds"), "{table}");
    assert!(
        lines[2].starts_with("forebay ") && lines[3].starts_with("oracle "),
        "{table}"
    );
    let fields: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(fields["forebay_over_admitted"], 0.0);
    assert_eq!(fields["oracle_false_rejected_ci95"], 0.0);
    assert!(fields["forebay_goodput"].as_f64().unwrap() > 0.5);
    let runs = std::fs::read_to_string(json.with_extension("csv")).unwrap();
    assert_eq!(runs.lines().count(), 5);
    assert!(runs.starts_with("policy,seed,goodput,"), "{runs}");
}

#[test]
fn a_store_that_is_no_url_is_refused_without_its_password() {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("serve")
        .env("FOREBAY_STORE", "redis//forebay:very-secret@10.0.0.1:7000")
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("--store") && said.contains("not a URL"),
        "{said}"
    );
    assert!(!said.contains("very-secret"), "{said}");
}

#[test]
fn options_of_clients_are_no_options_of_a_server() {
    let serve = |before: &[&str], behind: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(before)
            // No address of this machine: a server that started all the same would end at once.
            .args([
                "serve",
                "--listen",
                "192.0.2.1:1",
                "--data",
                "/nonexistent/data",
            ])
            .args(behind)
            .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("FOREBAY_SERVER", "http://127.0.0.1:1")
            .env("FOREBAY_TLS_CA", "/nonexistent/ca.pem")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (option, value, instead) in [
        ("--server", "http://127.0.0.1:7430", "--listen"),
        ("--token", "very-secret-token", "FOREBAY_ADMIN_TOKEN"),
        ("--tls-ca", "ca.pem", "--tls-client-ca"),
    ] {
        for said in [serve(&[option, value], &[]), serve(&[], &[option, value])] {
            assert!(
                said.contains(&format!("{option} is for clients")) && said.contains(instead),
                "{said}"
            );
            assert!(!said.contains("very-secret"), "{said}");
        }
    }
    let said = serve(&[], &[]);
    assert!(said.contains("cannot listen on 192.0.2.1:1"), "{said}");
}

#[test]
fn a_password_in_the_address_of_the_server_is_not_shown() {
    for (server, shown) in [
        (
            "http://admin:very-secret@127.0.0.1:1",
            "http://(not shown)@127.0.0.1:1",
        ),
        (
            "https://very-secret@127.0.0.1:1/",
            "https://(not shown)@127.0.0.1:1",
        ),
        ("admin:very-secret@127.0.0.1:1", "(not shown)@127.0.0.1:1"),
        (
            "ftp://a:very@secret@127.0.0.1",
            "ftp://(not shown)@127.0.0.1",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["status", "--server", server])
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains(shown) && said.contains("--token"), "{said}");
        assert!(!said.contains("very") && !said.contains("admin:"), "{said}");
    }
}

#[test]
fn an_address_at_which_no_replica_can_be_reached_is_refused() {
    for wrong in [
        "garbage",
        "127.0.0.1",
        "127.0.0.1:99999",
        "http://x:1",
        ":1",
        "",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args([
                "serve",
                "--store",
                "redis://127.0.0.1:1",
                "--advertise",
                wrong,
            ])
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains("--advertise"),
            "{said}"
        );
    }
}

#[test]
fn a_simulation_that_makes_no_sense_is_refused_with_what_would() {
    let refuse = |arguments: &[&str], says: &[&str]| {
        refused("127.0.0.1:1", &[&["simulate"], arguments].concat(), says);
    };
    refuse(&[], &["--trace", "--generate"]);
    refuse(
        &["--generate", "1", "--policy", "best"],
        &["`best`", "even_split"],
    );
    refuse(
        &["--generate", "1", "--reserve", "1"],
        &["--reserve 1", "0 to 0.9"],
    );
    refuse(
        &["--generate", "1", "--capacity", "0"],
        &["--capacity 0", "1.35"],
    );
    refuse(&["--trace", "/nowhere/trace.csv"], &["/nowhere/trace.csv"]);
}
