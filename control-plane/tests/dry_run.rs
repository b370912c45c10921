//! A candidate policy beside the one in force: what is counted, and that nothing of it is enforced.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_control_plane::dry_run::DryRunQuery;
use forebay_control_plane::store::{Batch, Store, Table};
use kit::{Gateway, STEP_MS, TestServer, hash, policy};
use prost::Message;
use serde_json::{Value, json};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const NONE: Value = Value::Null;
const CANDIDATE: &str = "/v1/policies/candidate";

/// The policy of the kit with another rate for acme and bolt, who have 100 tokens per second.
fn with_rate(rate_per_s: u64) -> Value {
    let mut document = policy();
    document["contracts"]["gold"]["limits"]["requests"]["rate_per_s"] = json!(rate_per_s);
    document
}

/// A second of usage: who asks for how many tokens in it. Returns what the gateway is answered.
async fn pass_step(
    server: &TestServer,
    gateway: &mut Gateway,
    usage: &[(&str, u64)],
) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    for quarter in 0..4_u64 {
        for (key, tokens) in usage {
            let part = tokens / 4 + u64::from(quarter < tokens % 4);
            gateway.spend(key, part);
        }
        replies.push(gateway.sync(server).await.encode_to_vec());
        server.server.plane.count_dry_run();
        server.advance_ms(u64::from(STEP_MS / 4));
    }
    replies
}

async fn started() -> (TestServer, Gateway) {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    for _ in 0..2 {
        pass_step(&server, &mut gateway, &[("acme", 10)]).await;
    }
    (server, gateway)
}

async fn view(server: &TestServer) -> Value {
    server.ok("GET", CANDIDATE, NONE).await
}

fn of<'a>(view: &'a Value, key: &str) -> &'a Value {
    let changes = view["resources"][0]["changes"].as_array().unwrap();
    let name = hash(key).to_string();
    changes
        .iter()
        .find(|change| change["customer"] == name)
        .unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[tokio::test]
async fn what_the_candidate_would_deny_is_counted_by_customer_against_the_same_model() {
    let (server, mut gateway) = started().await;
    let begun = server.ok("POST", CANDIDATE, with_rate(40)).await;
    assert_eq!([&begun["steps"], &begun["customers"]], [0, 2]);
    assert_eq!(begun["counted_from_unix_ms"], NONE);
    let usage = [("acme", 80), ("bolt", 20), ("stranger", 4)];
    for _ in 0..22 {
        pass_step(&server, &mut gateway, &usage).await;
    }
    let view = view(&server).await;
    let steps = number(&view["steps"]);
    assert!((18.0..=21.0).contains(&steps), "{view}");
    assert_eq!((&view["live"], &view["gaps"]), (&json!(1), &json!(0)));
    assert!(
        view["counted_from_unix_ms"].as_u64().unwrap() >= view["since_unix_ms"].as_u64().unwrap()
    );
    let changes = view["resources"][0]["changes"].as_array().unwrap();
    assert_eq!(
        changes[0]["customer"],
        hash("acme").to_string(),
        "the largest first"
    );
    let acme = of(&view, "acme");
    assert!(
        (number(&acme["asked"]) - 80.0 * steps).abs() < 1.0,
        "{acme}"
    );
    assert!(
        (number(&acme["live"]["admitted"]) - 80.0 * steps).abs() < 1.0,
        "{acme}"
    );
    // 40 of 80 in each second, beside the burst of 50.
    let admitted = 40.0 * steps + 50.0;
    assert!(
        (number(&acme["candidate"]["admitted"]) - admitted).abs() < 2.0,
        "{acme}"
    );
    assert!(
        (number(&acme["candidate"]["denied_by_contract"]) - (80.0 * steps - admitted)).abs() < 2.0
    );
    assert!((number(&acme["change"]) + 80.0 * steps - admitted).abs() < 2.0);
    for key in ["bolt", "stranger"] {
        assert_eq!(number(&of(&view, key)["change"]), 0.0, "{key}");
    }
    // What gateways have counted beside it: everything was admitted, as the model of the policy in force says.
    let counted = &view["resources"][0]["counted"];
    assert!(
        (number(&counted["admitted"]) / (104.0 * steps) - 1.0).abs() < 0.06,
        "{counted}"
    );
    assert!(
        number(&view["resources"][0]["model_error"]) < 0.06,
        "{view}"
    );
    let limited = server
        .ok("GET", "/v1/policies/candidate?limit=1", NONE)
        .await;
    assert_eq!(
        limited["resources"][0]["changes"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn replies_are_the_same_to_the_byte_with_a_candidate_and_without() {
    let (plain, mut one) = started().await;
    let (tried, mut other) = started().await;
    tried.ok("POST", CANDIDATE, with_rate(20)).await;
    let usage = [("acme", 150), ("bolt", 20), ("stranger", 4)];
    for _ in 0..12 {
        let replies = pass_step(&plain, &mut one, &usage).await;
        assert_eq!(replies, pass_step(&tried, &mut other, &usage).await);
    }
    assert!(number(&view(&tried).await["steps"]) > 5.0);
    assert_eq!(
        tried.ok("GET", "/v1/policies/active", NONE).await["version"],
        1
    );
    assert_eq!(tried.ok("GET", "/v1/policies", NONE).await["active"], 1);
}

#[tokio::test]
async fn a_model_that_is_far_from_what_gateways_counted_says_so() {
    let (server, mut gateway) = started().await;
    server.ok("POST", CANDIDATE, with_rate(40)).await;
    for _ in 0..22 {
        // The gateway of the kit admits whatever is asked for: twice what the contract has.
        pass_step(&server, &mut gateway, &[("acme", 200)]).await;
    }
    let error = number(&view(&server).await["resources"][0]["model_error"]);
    assert!((0.35..0.6).contains(&error), "{error}");
}

#[tokio::test]
async fn a_candidate_survives_a_restart_and_counts_begin_anew_and_say_from_when() {
    let (server, mut gateway) = started().await;
    server.ok("POST", CANDIDATE, with_rate(40)).await;
    for _ in 0..6 {
        pass_step(&server, &mut gateway, &[("acme", 80)]).await;
    }
    let before = view(&server).await;
    assert!(number(&before["steps"]) >= 3.0);
    let server = server.killed();
    let fresh = view(&server).await;
    assert_eq!(
        [&fresh["digest"], &fresh["since_unix_ms"]],
        [&before["digest"], &before["since_unix_ms"]]
    );
    assert_eq!(
        [&fresh["steps"], &fresh["counted_from_unix_ms"]],
        [&json!(0), &NONE]
    );
    for _ in 0..6 {
        pass_step(&server, &mut gateway, &[("acme", 80)]).await;
    }
    let after = view(&server).await;
    assert!(number(&after["steps"]) >= 2.0, "{after}");
    assert!(number(&after["counted_from_unix_ms"]) > number(&before["counted_from_unix_ms"]));

    // Another policy comes into force: against the one before it there is nothing to be said any more.
    server.ok("POST", "/v1/policies", with_rate(90)).await;
    for _ in 0..6 {
        pass_step(&server, &mut gateway, &[("acme", 80)]).await;
    }
    let anew = view(&server).await;
    assert_eq!(anew["live"], 2);
    assert!(number(&anew["counted_from_unix_ms"]) > number(&after["counted_from_unix_ms"]));
    assert!(number(&anew["steps"]) < 6.0);
}

#[tokio::test]
async fn words_by_hand_hold_under_both_policies_and_lists_of_each_under_its_own() {
    let (server, mut gateway) = started().await;
    let mut candidate = with_rate(100);
    candidate["customers"] = json!([
        {"key": "acme", "contract": "gold", "banned": true},
        {"key": "bolt", "contract": "gold"},
        {"key": "crab", "contract": "gold", "exempt": true}
    ]);
    server.ok("POST", CANDIDATE, candidate).await;
    server.ok("POST", "/v1/customers/bolt/freeze", NONE).await;
    for _ in 0..12 {
        pass_step(
            &server,
            &mut gateway,
            &[("acme", 20), ("bolt", 20), ("crab", 60)],
        )
        .await;
    }
    let view = view(&server).await;
    let of = |key, side: &str, field: &str| number(&of(&view, key)[side][field]);
    let asked = number(&view["steps"]) * 20.0;
    assert_eq!(of("acme", "live", "refused"), 0.0);
    assert!((of("acme", "candidate", "refused") - asked).abs() < 1.0);
    for side in ["live", "candidate"] {
        assert!((of("bolt", side, "refused") - asked).abs() < 1.0, "{view}");
    }
    assert!(
        of("crab", "live", "denied_by_contract") > asked,
        "unknown customers have 10 per second"
    );
    assert!((of("crab", "candidate", "admitted") - 3.0 * asked).abs() < 1.0);
}

/// What is lent under each is told apart: the candidate lets nobody have the guarantee that acme leaves idle.
#[tokio::test]
async fn who_would_have_lent_to_whom_is_told_for_both() {
    let server = TestServer::new();
    let document = |lend: Option<u64>| {
        let mut document = policy();
        document["resources"]["requests"]["capacity_per_s"] = json!(100);
        document["sharing"] = json!({"interval_ms": 10_000});
        let limit =
            |guarantee: u64| json!({"rate_per_s": 95, "burst": 95, "guarantee_per_s": guarantee});
        let mut sure = limit(70);
        if let Some(lend) = lend {
            sure["lend_limit_per_s"] = json!(lend);
        }
        document["contracts"]["sure"] = json!({"limits": {"requests": sure}});
        document["contracts"]["gold"] = json!({"limits": {"requests": limit(5)}});
        document["customers"][0]["contract"] = json!("sure");
        document
    };
    server.ok("POST", "/v1/policies", document(None)).await;
    server.ok("POST", CANDIDATE, document(Some(0))).await;
    let mut gateway = Gateway::new("g1", 7);
    for _ in 0..34 {
        pass_step(&server, &mut gateway, &[("bolt", 90)]).await;
    }
    let view = view(&server).await;
    let loans = view["resources"][0]["loans"].as_array().unwrap();
    assert_eq!(loans[0]["lender"], hash("acme").to_string(), "{view}");
    assert_eq!(loans[0]["borrower"], hash("bolt").to_string());
    assert!(number(&loans[0]["live_token_seconds"]) > 0.0);
    assert_eq!(number(&loans[0]["candidate_token_seconds"]), 0.0);
}

#[tokio::test]
async fn a_candidate_is_checked_as_any_policy_and_ends_when_somebody_says_so() {
    let server = TestServer::new();
    let answer = server.admin("POST", CANDIDATE, with_rate(40)).await;
    assert_eq!(
        (answer.0.as_u16(), &answer.1["code"]),
        (404, &json!("no_policy"))
    );
    server.ok("POST", "/v1/policies", policy()).await;
    for method in ["GET", "DELETE"] {
        let (status, answer) = server.admin(method, CANDIDATE, NONE).await;
        assert_eq!(
            (status.as_u16(), &answer["code"]),
            (404, &json!("no_candidate"))
        );
    }
    let mut other_resources = policy();
    other_resources["resources"]["bytes"] = json!({});
    for contract in ["gold", "free"] {
        other_resources["contracts"][contract]["limits"]["bytes"] =
            json!({"rate_per_s": 1, "burst": 1});
    }
    let mut wrong = policy();
    wrong["contracts"]["gold"]["limits"]["requests"]["burst"] = json!(-1);
    for (document, status, code) in [
        (other_resources, 409, "resources_changed"),
        (wrong, 422, "policy_refused"),
        (json!([]), 422, "policy_refused"),
        (
            json!({"version": 1, "contracts": {}, "resources": {}}),
            422,
            "policy_refused",
        ),
    ] {
        let (found, answer) = server.admin("POST", CANDIDATE, document).await;
        assert_eq!((found.as_u16(), &answer["code"]), (status, &json!(code)));
    }
    for query in ["limit=-1", "limit=a", "customers=1"] {
        let path = format!("{CANDIDATE}?{query}");
        assert_eq!(
            server.admin("GET", &path, NONE).await.0.as_u16(),
            400,
            "{query}"
        );
    }
    assert_eq!(server.admin("GET", CANDIDATE, NONE).await.0.as_u16(), 404);

    let first = server.ok("POST", CANDIDATE, with_rate(40)).await;
    let second = server.ok("POST", CANDIDATE, with_rate(50)).await;
    assert_ne!(
        first["digest"], second["digest"],
        "the newer one takes its place"
    );
    let huge = format!("{CANDIDATE}?limit=18446744073709551615");
    server.ok("GET", &huge, NONE).await;
    assert_eq!(
        server.ok("DELETE", CANDIDATE, NONE).await["digest"],
        second["digest"]
    );
    let log = server.ok("GET", "/v1/audit", NONE).await;
    let records = log["records"].as_array().unwrap();
    let deeds: Vec<&str> = records
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        deeds,
        ["policy.apply", "policy.try", "policy.try", "policy.try_end"]
    );
    let digest = format!("sha256:{}", second["digest"].as_str().unwrap());
    assert_eq!(records[3]["object"], json!(digest));
    let server = server.killed();
    assert_eq!(server.admin("GET", CANDIDATE, NONE).await.0.as_u16(), 404);
}

/// Nothing depends on it, so a server must not stay away for it.
#[tokio::test]
async fn a_candidate_that_cannot_be_read_any_more_is_left_out() {
    for (key, value) in [
        (&b"policy_candidate"[..], &b"{"[..]),
        (b"policy_candidate_document", b"\xff"),
        (b"policy_candidate_document", b"{\"version\": 2}"),
    ] {
        let (server, mut gateway) = started().await;
        server.ok("POST", CANDIDATE, with_rate(40)).await;
        let mut batch = Batch::default();
        batch.put(Table::Meta, key, value);
        server.store.commit(&batch).unwrap();
        let server = server.killed();
        assert_eq!(server.admin("GET", CANDIDATE, NONE).await.0.as_u16(), 404);
        pass_step(&server, &mut gateway, &[("acme", 10)]).await;
    }
}

#[tokio::test]
async fn how_it_stands_can_be_asked_for_while_a_long_gap_is_counted() {
    let (server, mut gateway) = started().await;
    server.ok("POST", CANDIDATE, with_rate(40)).await;
    let keys: Vec<String> = (0..200)
        .map(|number| format!("customer-{number}"))
        .collect();
    let usage: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), 4)).collect();
    for _ in 0..4 {
        pass_step(&server, &mut gateway, &usage).await;
    }
    let before = number(&view(&server).await["steps"]);
    assert!(before > 0.0);
    server.advance_ms(3_600_000);
    for _ in 0..8 {
        gateway.spend("acme", 1);
        gateway.sync(&server).await;
        server.advance_ms(u64::from(STEP_MS / 2));
    }
    let plane = &server.server.plane;
    let is_over = AtomicBool::new(false);
    let begins = Barrier::new(2);
    let answers = thread::scope(|scope| {
        scope.spawn(|| {
            begins.wait();
            plane.count_dry_run();
            is_over.store(true, Ordering::Release);
        });
        begins.wait();
        let mut answers = 0_u32;
        while !is_over.load(Ordering::Acquire) {
            plane.dry_run(&DryRunQuery::default()).unwrap();
            answers += 1;
        }
        answers
    });
    let view = view(&server).await;
    assert!(number(&view["gaps"]) > 3_000.0, "{view}");
    assert_eq!(number(&view["steps"]), before + 1.0);
    assert!(answers > 20, "{answers} while it was counted");
}
