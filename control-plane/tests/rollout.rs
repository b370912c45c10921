//! A policy at a share of the customers: who goes by which, at the server and at its gateways, whatever happens meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::http::StatusCode;
use forebay_control_plane::store::{Batch, Store, Table};
use kit::{Gateway, TestServer, hash};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NONE: Value = Value::Null;
const CUSTOMERS: usize = 300;
/// Tokens per second of the older policy and the newer one.
const OLDER: u64 = 100;
const NEWER: u64 = 40;

fn key(number: usize) -> String {
    format!("customer-{number}")
}

/// All customers under one contract of so many tokens per second.
fn policy(rate_per_s: u64) -> Value {
    let customers: Vec<Value> = (0..CUSTOMERS)
        .map(|number| json!({"key": key(number), "contract": "gold"}))
        .collect();
    json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 100_000}},
        "contracts": {
            "gold": {"limits": {"requests": {"rate_per_s": rate_per_s, "burst": 50}}},
            "free": {"tier": 3, "limits": {"requests": {"rate_per_s": 10, "burst": 5}}}
        },
        "customers": customers,
    })
}

async fn rate_of(server: &TestServer, key: &str) -> u64 {
    let path = format!("/v1/customers/{key}");
    let customer = server.ok("GET", &path, NONE).await;
    customer["resources"][0]["rate_per_s"].as_f64().unwrap() as u64
}

/// Those who go by the newer policy; everybody goes by one of both.
async fn moved(server: &TestServer) -> BTreeSet<usize> {
    let mut moved = BTreeSet::new();
    for number in 0..CUSTOMERS {
        match rate_of(server, &key(number)).await {
            NEWER => assert!(moved.insert(number)),
            rate => assert_eq!(rate, OLDER, "{number}"),
        }
    }
    moved
}

async fn share(server: &TestServer, percent: u8) -> Value {
    let path = format!("/v1/policies?share={percent}");
    server.ok("POST", &path, policy(NEWER)).await
}

async fn listed(server: &TestServer) -> Value {
    server.ok("GET", "/v1/policies", NONE).await
}

async fn last_deed(server: &TestServer) -> Value {
    let log = server.ok("GET", "/v1/audit", NONE).await;
    log["records"].as_array().unwrap().last().unwrap().clone()
}

async fn started() -> TestServer {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy(OLDER)).await;
    server
}

async fn refused(server: &TestServer, path: &str, body: Value, status: u16, code: &str) -> Value {
    let (found, answer) = server.admin("POST", path, body).await;
    assert_eq!(
        (found.as_u16(), answer["code"].as_str().unwrap()),
        (status, code),
        "{answer}"
    );
    answer
}

#[tokio::test]
async fn thirty_percent_are_about_thirty_percent_and_more_keeps_them_and_going_back_gives_back_all()
{
    let server = started().await;
    let info = share(&server, 30).await;
    assert_eq!(
        [&info["version"], &info["share"], &info["base"]],
        [2, 30, 1]
    );
    let thirty = moved(&server).await;
    // 90, and four standard deviations of as many coins.
    assert!((58..=122).contains(&thirty.len()), "{}", thirty.len());
    let deed = last_deed(&server).await;
    assert_eq!(deed["action"], "policy.roll_out");
    assert_eq!(
        deed["parameters"],
        json!({"share": "30", "base": "1", "moved": thirty.len().to_string()})
    );
    let view = listed(&server).await["rollout"].clone();
    assert_eq!(
        [
            &view["base"],
            &view["version"],
            &view["share"],
            &view["customers"],
            &view["moved"]
        ],
        [1, 2, 30, CUSTOMERS, thirty.len()]
    );

    assert_eq!(share(&server, 60).await["base"], 1);
    let sixty = moved(&server).await;
    assert!(sixty.is_superset(&thirty) && sixty.len() > thirty.len());
    share(&server, 30).await;
    assert_eq!(
        moved(&server).await,
        thirty,
        "less of it is the same as before"
    );

    let back = server.ok("POST", "/v1/policies/rollback", NONE).await;
    assert_eq!([&back["version"], &back["restores"]], [5, 1]);
    assert!(moved(&server).await.is_empty());
    let documents = [1, 5].map(|version| format!("/v1/policies/{version}"));
    let [before, after] = [
        server.ok("GET", &documents[0], NONE).await,
        server.ok("GET", &documents[1], NONE).await,
    ];
    assert_eq!(before, after);
    assert_eq!(last_deed(&server).await["action"], "policy.roll_back");
    assert_eq!(listed(&server).await["rollout"], NONE);

    share(&server, 60).await;
    assert_eq!(
        moved(&server).await,
        sixty,
        "the same policy begins with the same ones"
    );
    let all = server.ok("POST", "/v1/policies/promote", NONE).await;
    assert_eq!([&all["version"], &all["share"]], [&json!(7), &NONE]);
    assert_eq!(moved(&server).await.len(), CUSTOMERS);
    assert_eq!(last_deed(&server).await["action"], "policy.promote");
    let active = server.ok("GET", "/v1/policies/active", NONE).await;
    assert_eq!(active["contracts"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_restart_in_the_middle_changes_nobodys_contract_and_both_ways_stay_open() {
    for is_clean in [true, false] {
        let server = started().await;
        share(&server, 30).await;
        let (before, view) = (moved(&server).await, listed(&server).await);
        let server = match is_clean {
            true => server.restarted().await,
            false => server.killed(),
        };
        assert_eq!(moved(&server).await, before);
        assert_eq!(listed(&server).await, view);
        assert!(share(&server, 50).await["version"] == 3);
        assert!(moved(&server).await.is_superset(&before));
        let server = server.killed();
        match is_clean {
            true => server.ok("POST", "/v1/policies/promote", NONE).await,
            false => server.ok("POST", "/v1/policies/rollback", NONE).await,
        };
        let expected = if is_clean { CUSTOMERS } else { 0 };
        assert_eq!(moved(&server).await.len(), expected);
        let server = server.killed();
        assert_eq!(moved(&server).await.len(), expected);
        assert_eq!(listed(&server).await["rollout"], NONE);
    }
}

/// What an older program has left behind, which knew nothing of shares and has put another policy in force since.
#[tokio::test]
async fn a_roll_out_that_is_not_that_of_the_newest_version_is_none() {
    let server = started().await;
    share(&server, 30).await;
    let row = server.store.get(Table::Meta, b"policy_rollout").unwrap();
    server.ok("POST", "/v1/policies/rollback", NONE).await;
    let mut batch = Batch::default();
    batch.put(Table::Meta, b"policy_rollout", row.unwrap());
    server.store.commit(&batch).unwrap();
    let server = server.killed();
    assert_eq!(listed(&server).await["rollout"], NONE);
    server.ok("POST", "/v1/policies", policy(NEWER)).await;
}

#[tokio::test]
async fn two_gateways_never_hold_more_of_a_customer_than_the_larger_contract_and_soon_no_more_than_its_own()
 {
    let server = started().await;
    let mut gateways = [Gateway::new("g1", 1), Gateway::new("g2", 1)];
    let keys: Vec<String> = (0..20).map(key).collect();
    let held = |gateways: &[Gateway; 2], key: &str| -> u64 {
        let grants = gateways
            .iter()
            .filter_map(|gateway| gateway.grants.get(&hash(key)));
        grants.map(|grant| grant.rate_micro_per_s).sum::<u64>()
    };
    let mut largest = 0;
    // Which share, and for how many rounds of syncs.
    for percent in [None, Some(30), Some(60), Some(10), Some(90)] {
        if let Some(percent) = percent {
            share(&server, percent).await;
        }
        for round in 0..24_usize {
            for gateway in &mut gateways {
                for (number, key) in keys.iter().enumerate() {
                    let here = (number + round / 5) % 2 == usize::from(gateway.id == "g1");
                    gateway.spend(key, if here { 9 } else { 1 });
                }
            }
            for place in 0..gateways.len() {
                gateways[place].sync(&server).await;
                for key in &keys {
                    let rate = held(&gateways, key);
                    assert!(rate <= OLDER * 1_000_000, "{key}: {rate}");
                    largest = largest.max(rate);
                }
            }
            server.advance_ms(250);
        }
        for key in &keys {
            let own = rate_of(&server, key).await * 1_000_000;
            let rate = held(&gateways, key);
            assert!(rate <= own, "{key} at {percent:?}: {rate} of {own}");
        }
    }
    assert!(
        largest > OLDER * 500_000,
        "what is granted is worth the test: {largest}"
    );
}

#[tokio::test]
async fn what_makes_no_sense_for_a_share_is_refused_and_what_is_in_force_stays() {
    let server = TestServer::new();
    refused(
        &server,
        "/v1/policies?share=10",
        policy(NEWER),
        404,
        "no_policy",
    )
    .await;
    server.ok("POST", "/v1/policies", policy(OLDER)).await;
    for path in ["/v1/policies/promote", "/v1/policies/rollback"] {
        refused(&server, path, NONE, 409, "no_rollout").await;
    }
    for percent in ["0", "100", "255"] {
        let path = format!("/v1/policies?share={percent}");
        let answer = refused(&server, &path, policy(NEWER), 422, "bad_share").await;
        assert_eq!(answer["where"], "share");
    }
    for wrong in [
        "share=256",
        "share=-1",
        "share=1.5",
        "share=",
        "share=a",
        "part=10",
        "share=1&share=2",
    ] {
        let path = format!("/v1/policies?{wrong}");
        let answer = refused(&server, &path, policy(NEWER), 400, "malformed").await;
        if answer["where"] == "share" {
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains("1 to 99"), "{wrong}: {message}");
        } else {
            assert!(["part=10", "share=1&share=2"].contains(&wrong), "{answer}");
        }
    }
    let changed = |pointer: &str, value: Value| {
        let mut document = policy(NEWER);
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = value;
        document
    };
    for (pointer, value, place) in [
        (
            "/resources/requests/capacity_per_s",
            json!(200_000),
            "resources.requests",
        ),
        ("/dry_run", json!(true), "dry_run"),
        ("/unknown", json!({"action": "deny"}), "unknown"),
        ("/contracts/free/tier", json!(2), "contracts.free"),
    ] {
        let document = changed(pointer, value);
        let answer = refused(
            &server,
            "/v1/policies?share=10",
            document,
            422,
            "not_for_a_share",
        )
        .await;
        assert_eq!(answer["where"], place);
    }
    let document = changed("/contracts/gold/limits/requests/burst", json!(-1));
    refused(
        &server,
        "/v1/policies?share=10",
        document,
        422,
        "policy_refused",
    )
    .await;
    for garbage in ["", "{", "[]", "\u{0}", "{\"version\": 1}"] {
        let path = "/v1/policies?share=10";
        let (status, _) = server
            .request("POST", path, kit::ADMIN_TOKEN, garbage)
            .await;
        assert!(status.is_client_error(), "{garbage:?}: {status}");
    }
    assert_eq!(listed(&server).await["active"], 1);

    share(&server, 30).await;
    let other = policy(NEWER + 1);
    for path in ["/v1/policies", "/v1/policies?share=50"] {
        let answer = refused(&server, path, other.clone(), 409, "rollout_runs").await;
        assert!(
            answer["hint"]
                .as_str()
                .unwrap()
                .contains("forebay policy rollback")
        );
    }
    refused(
        &server,
        "/v1/policies/1/activate",
        NONE,
        409,
        "rollout_runs",
    )
    .await;
    assert_eq!(listed(&server).await["active"], 2);
}

/// Each policy fits by itself: the one guarantees the first half of the customers as much as there is, the other one the second half.
#[tokio::test]
async fn guarantees_that_do_not_fit_together_are_refused_before_anybody_has_them() {
    let policy = |first: &str, second: &str| {
        let mut document = policy(OLDER);
        document["contracts"] = json!({
            "sure": {"limits": {"requests": {"rate_per_s": 1000, "burst": 9, "guarantee_per_s": 660}}},
            "free": {"tier": 3, "limits": {"requests": {"rate_per_s": 10, "burst": 5}}}
        });
        let customers = document["customers"].as_array_mut().unwrap();
        for (number, customer) in customers.iter_mut().enumerate() {
            let is_first = number < CUSTOMERS / 2;
            customer["contract"] = json!(if is_first { first } else { second });
        }
        document
    };
    let server = TestServer::new();
    server
        .ok("POST", "/v1/policies", policy("sure", "free"))
        .await;
    let mut sound = 0;
    for percent in [10, 30, 50, 70, 90] {
        let path = format!("/v1/policies?share={percent}");
        let (status, answer) = server.admin("POST", &path, policy("free", "sure")).await;
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            let message = answer["message"].as_str().unwrap();
            assert!(
                message.contains("resources.requests.capacity_per_s"),
                "{message}"
            );
            continue;
        }
        assert_eq!(status, StatusCode::OK, "{answer}");
        sound += 1;
        let document = server.ok("GET", "/v1/policies/active", NONE).await;
        let sure = document["customers"].as_array().unwrap();
        let sure = sure
            .iter()
            .filter(|customer| customer["contract"] == "sure");
        assert!(sure.count() * 660 <= 100_000);
    }
    assert!(sound < 5, "at least one share holds more of them than fit");
}

/// A gateway that applies replies and does not take the policy that they bring.
async fn sync_and_refuse(gateway: &mut Gateway, server: &TestServer) {
    let kept = (gateway.epoch, gateway.cursor);
    gateway.sync(server).await;
    (gateway.epoch, gateway.cursor) = kept;
}

#[tokio::test]
async fn a_policy_that_a_gateway_refuses_is_taken_back_without_anybody() {
    let server = started().await;
    let (mut good, mut other) = (Gateway::new("good", 1), Gateway::new("other", 1));
    for gateway in [&mut good, &mut other] {
        gateway.sync(&server).await;
        gateway.sync(&server).await;
    }
    share(&server, 30).await;
    for _ in 0..2 {
        good.sync(&server).await;
        sync_and_refuse(&mut other, &server).await;
        server.advance_ms(250);
    }
    let view = listed(&server).await["rollout"].clone();
    assert_eq!([&view["gateways"], &view["gateways_with_it"]], [2, 1]);
    assert_eq!(server.server.plane.watch_rollout().await.unwrap(), None);
    assert!(
        !moved(&server).await.is_empty(),
        "once or twice may be chance"
    );
    for _ in 0..3 {
        sync_and_refuse(&mut other, &server).await;
    }
    let back = server.server.plane.watch_rollout().await.unwrap().unwrap();
    assert_eq!((back.version, back.restores), (3, Some(1)));
    assert!(moved(&server).await.is_empty());
    let deed = last_deed(&server).await;
    assert_eq!(
        [
            &deed["role"],
            &deed["action"],
            &deed["object"],
            &deed["parameters"]["refused_by"]
        ],
        ["server", "policy.roll_back", "version 1", "other"]
    );
    assert_eq!(server.server.plane.watch_rollout().await.unwrap(), None);
}

#[tokio::test]
async fn a_gateway_that_is_slow_or_begins_anew_refuses_nothing() {
    let server = started().await;
    let mut gateway = Gateway::new("g1", 1);
    gateway.sync(&server).await;
    share(&server, 30).await;
    // Replies are lost on the way: it has applied none of them.
    for _ in 0..8 {
        let request = gateway.request();
        server.sync(&request).await;
    }
    for incarnation in 2..10 {
        gateway = Gateway::new("g1", incarnation);
        gateway.sync(&server).await;
    }
    assert_eq!(server.server.plane.watch_rollout().await.unwrap(), None);
    for _ in 0..8 {
        gateway.sync(&server).await;
    }
    assert_eq!(server.server.plane.watch_rollout().await.unwrap(), None);
    assert_eq!(gateway.epoch, 2);
}

/// A row of the store's table of policies.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionRow {
    #[prost(string, tag = "1")]
    document: String,
    #[prost(bytes = "vec", tag = "2")]
    compiled: Vec<u8>,
    #[prost(string, tag = "3")]
    info: String,
}

/// Has the document of version 1 say what the checks of today refuse, as if an older program had let it through.
fn rewrite(server: &TestServer, change: impl FnOnce(&mut Value)) {
    let version = 1_u64.to_be_bytes();
    let row = server.store.get(Table::Policies, &version).unwrap();
    let mut row = VersionRow::decode(row.unwrap().as_slice()).unwrap();
    let mut document: Value = serde_json::from_str(&row.document).unwrap();
    change(&mut document);
    row.document = document.to_string();
    let mut batch = Batch::default();
    batch.put(Table::Policies, version, row.encode_to_vec());
    server.store.commit(&batch).unwrap();
}

/// No guarantee may be above its rate.
fn refused_today(document: &mut Value) {
    document["contracts"]["gold"]["limits"]["requests"]["guarantee_per_s"] = json!(OLDER + 1);
}

#[tokio::test]
async fn what_was_in_force_comes_back_although_it_would_be_refused_today_and_so_it_does_after_a_restart()
 {
    let server = started().await;
    share(&server, 30).await;
    rewrite(&server, refused_today);
    let document = server.ok("GET", "/v1/policies/1", NONE).await;
    refused(
        &server,
        "/v1/policies/check",
        document,
        422,
        "policy_refused",
    )
    .await;
    let back = server.ok("POST", "/v1/policies/rollback", NONE).await;
    assert_eq!([&back["version"], &back["restores"]], [3, 1]);
    assert!(moved(&server).await.is_empty());
    let server = server.killed();
    assert!(moved(&server).await.is_empty());
    assert_eq!(rate_of(&server, "stranger").await, 10);
}

#[tokio::test]
async fn what_cannot_come_back_is_said_and_tried_again_after_a_while_and_not_at_once() {
    let server = started().await;
    let mut gateway = Gateway::new("g1", 1);
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    share(&server, 30).await;
    rewrite(&server, |document| {
        document["customers"][0]["contract"] = json!("gone");
    });
    for _ in 0..4 {
        sync_and_refuse(&mut gateway, &server).await;
    }
    let plane = &server.server.plane;
    let error = plane.watch_rollout().await.unwrap_err();
    assert!(error.message.contains("`gone`"), "{error:?}");
    assert_eq!(plane.watch_rollout().await.unwrap(), None, "not at once");
    server.advance_ms(1_001);
    assert!(plane.watch_rollout().await.is_err());
    server.advance_ms(1_001);
    assert_eq!(
        plane.watch_rollout().await.unwrap(),
        None,
        "and later still"
    );
    let path = "/v1/policies/rollback";
    let answer = refused(&server, path, NONE, 422, "policy_refused").await;
    assert!(answer["hint"].as_str().unwrap().contains("promote"));
    assert!(!moved(&server).await.is_empty());
    rewrite(&server, |document| {
        document["customers"][0]["contract"] = json!("gold");
    });
    server.advance_ms(1_001);
    let back = plane.watch_rollout().await.unwrap().unwrap();
    assert_eq!(back.restores, Some(1));
    assert!(moved(&server).await.is_empty());
}

#[tokio::test]
async fn an_older_policy_and_a_second_operator_wait_for_the_end_of_a_roll_out() {
    let server = started().await;
    share(&server, 30).await;
    let path = "/v1/policies/1/activate";
    refused(&server, path, NONE, 409, "rollout_runs").await;
    let path = "/v1/policies/promote";
    let both = tokio::join!(
        server.admin("POST", path, NONE),
        server.admin("POST", "/v1/policies/rollback", NONE),
    );
    let mut found = [both.0.0.as_u16(), both.1.0.as_u16()];
    found.sort_unstable();
    assert_eq!(found, [200, 409], "{both:?}");
    assert_eq!(listed(&server).await["active"], 3);
}

#[tokio::test]
async fn what_is_said_of_a_customer_by_hand_holds_through_every_step_of_a_roll_out() {
    let server = started().await;
    share(&server, 30).await;
    let first = *moved(&server).await.first().unwrap();
    let path = format!("/v1/customers/{}", key(first));
    server.ok("POST", &format!("{path}/freeze"), NONE).await;
    share(&server, 60).await;
    server.ok("POST", "/v1/policies/rollback", NONE).await;
    assert_eq!(server.ok("GET", &path, NONE).await["frozen"], true);
    let server = server.killed();
    assert_eq!(server.ok("GET", &path, NONE).await["frozen"], true);
    assert!(moved(&server).await.is_empty());
}
