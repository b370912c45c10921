//! The sync protocol: charged once whatever is repeated, and no path that refills.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::http::StatusCode;
use forebay_wire::sync::{CustomerForecast, FLAG_FROZEN, ModelStatus, SyncErrorCode, SyncRequest};
use kit::{Gateway, TestServer, hash, policy, server_and_gateway, wish};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};

fn code(reply: &forebay_wire::sync::SyncReply) -> SyncErrorCode {
    reply
        .error
        .as_ref()
        .map_or(SyncErrorCode::None, |error| error.code())
}

async fn demand_of(server: &TestServer, key: &str) -> f64 {
    let view = server
        .ok("GET", &format!("/v1/customers/{key}"), Value::Null)
        .await;
    view["resources"][0]["demand"].as_f64().unwrap()
}

#[tokio::test]
async fn a_gateway_gets_policy_grants_and_pool_once_each() {
    let (server, mut gateway) = server_and_gateway().await;
    assert_eq!(gateway.granted_tokens("acme"), 50.0);
    assert_eq!(gateway.grants[&hash("acme")].rate_micro_per_s, 100_000_000);
    let reply = gateway.sync(&server).await;
    assert_eq!(
        (reply.policy, reply.grants.len()),
        (None, 0),
        "nothing is told twice"
    );
    assert_eq!(reply.pools[0].granted_cum_micro, 1_000_000_000);
    assert_eq!((reply.sequence, reply.sent_at_us), (3, 3_000));
}

#[tokio::test]
async fn grants_of_a_lost_reply_are_told_again_and_are_the_same() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    let lost = server.sync(&gateway.request()).await.1;
    assert_eq!(lost.grants.len(), 2);
    server.advance_ms(5_000);
    let again = gateway.sync(&server).await;
    assert_eq!(
        again.grants, lost.grants,
        "time with the gateway refills nothing here"
    );
}

#[tokio::test]
async fn a_list_of_grants_that_is_too_long_for_one_reply_goes_on_in_the_next() {
    let server = TestServer::new();
    let mut long = policy();
    long["resources"]["requests"]["capacity_per_s"] = json!(1_000_000);
    long["customers"] = (0..5_000)
        .map(|number| json!({"key": format!("c{number}"), "contract": "gold"}))
        .collect();
    server.ok("POST", "/v1/policies", long).await;
    let mut gateway = Gateway::new("g1", 7);
    let (mut seen, mut cursor) = (0, 0);
    while gateway.epoch == 0 {
        let mut request = gateway.request();
        (request.policy_epoch_seen, request.policy_cursor) = (seen, cursor);
        let part = server.sync(&request).await.1.policy.unwrap();
        (seen, cursor) = (part.epoch, part.cursor);
        gateway.epoch = if part.complete { part.epoch } else { 0 };
    }
    gateway.cursor = cursor;
    let first = gateway.sync(&server).await;
    let rest = gateway.sync(&server).await;
    assert_eq!((first.grants.len(), first.grants_left), (4_096, true));
    assert_eq!((rest.grants.len(), rest.grants_left), (904, false));
}

#[tokio::test]
async fn what_an_outage_has_gathered_is_no_pace() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let (mut busy, mut idle) = (Gateway::new("g1", 7), Gateway::new("g2", 8));
    for _ in 0..12 {
        server.advance_ms(250);
        busy.spend("acme", 2);
        busy.sync(&server).await;
        idle.sync(&server).await;
    }
    let rate_per_s = |gateway: &Gateway| gateway.grants[&hash("acme")].rate_micro_per_s / 1_000_000;
    let usual_per_s = rate_per_s(&busy);
    assert!((20..80).contains(&usual_per_s), "{usual_per_s}");
    server.advance_ms(3_000);
    idle.sync(&server).await;
    busy.spend("acme", 3_000);
    busy.sync(&server).await;
    busy.sync(&server).await;
    assert!(rate_per_s(&busy) <= usual_per_s, "{}", rate_per_s(&busy));
}

#[tokio::test]
async fn a_new_incarnation_starts_from_nothing_and_the_old_one_is_fenced_off() {
    let (server, mut old) = server_and_gateway().await;
    old.spend("acme", 10);
    old.sync(&server).await;
    server.advance_ms(60_000);
    let mut new = Gateway::new("g1", 8);
    new.sync(&server).await;
    new.sync(&server).await;
    assert_eq!(
        new.granted_tokens("acme"),
        0.0,
        "what the old one held counts as spent, until this moment"
    );
    assert_eq!(new.grants[&hash("acme")].rate_micro_per_s, 100_000_000);
    let (status, reply) = server.sync(&old.request()).await;
    assert_eq!(
        (status, code(&reply)),
        (StatusCode::CONFLICT, SyncErrorCode::StaleIncarnation)
    );
    new.spend("acme", 3);
    new.sync(&server).await;
    assert_eq!(
        demand_of(&server, "acme").await,
        13.0,
        "counters of both incarnations add up"
    );
}

#[tokio::test]
async fn a_repeated_request_is_refused_because_its_reply_could_be_another_one() {
    let (server, mut gateway) = server_and_gateway().await;
    let request = gateway.request();
    let (status, reply) = server.sync(&request).await;
    assert_eq!(status, StatusCode::OK);
    let (status, again) = server.sync(&request).await;
    assert_eq!(
        (status, code(&again)),
        (StatusCode::CONFLICT, SyncErrorCode::StaleSequence)
    );
    gateway.apply(&reply);
    gateway.sync(&server).await;
}

#[tokio::test]
async fn a_gateway_that_was_away_for_long_is_counted_once_and_owes_nothing() {
    let (server, mut gateway) = server_and_gateway().await;
    gateway.spend("acme", 30);
    gateway.sync(&server).await;
    let before = gateway.granted_tokens("acme");
    server.advance_ms(80_000);
    gateway.spend("acme", 20);
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    assert_eq!(demand_of(&server, "acme").await, 50.0, "its counters go on");
    let news = gateway.granted_tokens("acme") - before;
    assert!(
        news > 0.0 && news <= 50.0,
        "what has flowed since it could spend no more, up to the burst; not {news}"
    );
}

#[tokio::test]
async fn a_retired_gateway_gives_way_at_once_but_leaves_nothing() {
    let (server, mut first) = server_and_gateway().await;
    server
        .ok("POST", "/v1/gateways/g1/retire", Value::Null)
        .await;
    let mut second = Gateway::new("g2", 1);
    second.sync(&server).await;
    second.sync(&server).await;
    assert_eq!(second.granted_tokens("acme"), 0.0);
    let (status, _) = server.sync(&first.request()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, error) = server
        .admin("POST", "/v1/gateways/g1/retire", Value::Null)
        .await;
    assert_eq!(
        (status, error["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("no_such_gateway"))
    );
}

#[tokio::test]
async fn a_killed_or_restarted_server_refills_nobody() {
    let (server, mut gateway) = server_and_gateway().await;
    gateway.spend("acme", 20);
    gateway.sync(&server).await;
    let mut server = server.killed();
    for _ in 0..3 {
        server.advance_ms(30_000);
        gateway.spend("acme", 1);
        gateway.sync(&server).await;
        gateway.sync(&server).await;
        assert_eq!(gateway.granted_tokens("acme"), 50.0);
        server = server.restarted().await;
    }
    assert_eq!(demand_of(&server, "acme").await, 23.0);
    let mut successor = Gateway::new("g1", 8);
    successor.sync(&server).await;
    successor.sync(&server).await;
    assert_eq!(successor.granted_tokens("acme"), 0.0);
}

#[tokio::test]
async fn after_an_unclean_start_customers_never_seen_start_empty_too() {
    let (server, _) = server_and_gateway().await;
    let server = server.killed();
    let mut with_new = policy();
    with_new["customers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"key": "new", "contract": "gold"}));
    server.ok("POST", "/v1/policies", with_new).await;
    server.advance_ms(100);
    let mut gateway = Gateway::new("g1", 8);
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    assert_eq!(gateway.granted_tokens("new"), 10.0, "0.1 s at 100/s");
}

#[tokio::test]
async fn policy_edits_refill_nobody_and_bind_what_they_lower() {
    let (server, mut gateway) = server_and_gateway().await;
    let mut without = policy();
    without["customers"].as_array_mut().unwrap().remove(0);
    server.ok("POST", "/v1/policies", without).await;
    gateway.sync(&server).await;
    let mut lowered = policy();
    lowered["contracts"]["gold"]["limits"]["requests"] = json!({"rate_per_s": 5, "burst": 5});
    server.ok("POST", "/v1/policies", lowered).await;
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    let grant = gateway.grants[&hash("acme")];
    assert_eq!(
        gateway.granted_tokens("acme"),
        50.0,
        "removed and put back: still only the first grant"
    );
    assert_eq!(
        (grant.rate_micro_per_s, grant.local_cap_micro),
        (5_000_000, 5_000_000)
    );
}

#[tokio::test]
async fn listing_a_customer_that_the_gateway_served_already_refills_nothing() {
    let (server, mut gateway) = server_and_gateway().await;
    gateway.spend("stranger", 5);
    gateway.sync(&server).await;
    server.advance_ms(60_000);
    let mut listed = policy();
    listed["customers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"key": "stranger", "contract": "gold"}));
    server.ok("POST", "/v1/policies", listed).await;
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    let grant = gateway.grants[&hash("stranger")];
    assert_eq!(
        (grant.granted_cum_micro, grant.rate_micro_per_s),
        (0, 100_000_000)
    );
}

#[tokio::test]
async fn an_operators_word_reaches_the_gateway_with_the_next_sync() {
    let (server, mut gateway) = server_and_gateway().await;
    server
        .ok("POST", "/v1/customers/acme/credit", json!({"tokens": 2.5}))
        .await;
    server
        .ok("POST", "/v1/customers/bolt/freeze", Value::Null)
        .await;
    server
        .ok("POST", "/v1/customers/stranger/ban", json!({}))
        .await;
    let reply = gateway.sync(&server).await;
    assert_eq!(gateway.grants[&hash("acme")].adjust_cum_micro, 2_500_000);
    let told = reply.policy.unwrap().customers;
    let of = |key: &str| {
        told.iter()
            .find(|customer| (customer.hash_high, customer.hash_low) == hash(key).parts())
            .unwrap()
    };
    assert_eq!(of("bolt").flags, FLAG_FROZEN);
    assert_eq!(of("stranger").ban_until_unix_ms, u64::MAX);
    server
        .ok("POST", "/v1/customers/stranger/unban", Value::Null)
        .await;
    server
        .ok("POST", "/v1/customers/acme/reset", Value::Null)
        .await;
    let server = server.killed();
    let reply = gateway.sync(&server).await;
    let told = reply.policy.unwrap();
    assert!(told.full, "a cursor of another run starts the list again");
    let stranger = told
        .customers
        .iter()
        .find(|customer| (customer.hash_high, customer.hash_low) == hash("stranger").parts());
    assert_eq!(stranger.unwrap().ban_until_unix_ms, 0);
    gateway.sync(&server).await;
    assert_eq!(
        gateway.grants[&hash("acme")].adjust_cum_micro,
        52_500_000,
        "the reset is a whole burst; the bucket clamps it"
    );
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_with_a_reason() {
    let (server, mut gateway) = server_and_gateway().await;
    type Change = fn(&mut SyncRequest);
    let cases: [(Change, SyncErrorCode, &str); 5] = [
        (
            |request| request.protocol = 9,
            SyncErrorCode::ProtocolVersion,
            "same release",
        ),
        (
            |request| request.key_fingerprint = 1,
            SyncErrorCode::KeySecretMismatch,
            "FOREBAY_KEY_HASH_SECRET",
        ),
        (
            |request| request.gateway_id.clear(),
            SyncErrorCode::Malformed,
            "FOREBAY_GATEWAY_ID",
        ),
        (
            |request| request.gateway_id = "x".repeat(1 << 20),
            SyncErrorCode::Malformed,
            "1 to 128 bytes",
        ),
        (
            |request| request.sequence = 0,
            SyncErrorCode::StaleSequence,
            "nothing is lost",
        ),
    ];
    for (change, expected, says) in cases {
        let mut request = gateway.request();
        change(&mut request);
        let (status, reply) = server.sync(&request).await;
        assert!(status.is_client_error(), "{expected:?}: {status}");
        assert_eq!(code(&reply), expected);
        assert!(reply.error.unwrap().message.contains(says), "{expected:?}");
    }
    for garbage in [vec![0xff; 100], b"hello".to_vec(), vec![0; 5 << 20]] {
        let (status, _) = server
            .request("POST", "/v1/sync", kit::GATEWAY_TOKEN, garbage)
            .await;
        assert!(status.is_client_error());
    }
    gateway.sync(&server).await;
}

#[tokio::test]
async fn a_full_disk_grants_nothing_and_heals() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    server.store.set_full(true);
    let (status, reply) = server.sync(&gateway.request()).await;
    assert_eq!(
        (status, code(&reply)),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            SyncErrorCode::StoreUnavailable
        )
    );
    assert_eq!(reply.grants, [], "a refusal carries no grant");
    let (status, error) = server
        .admin("POST", "/v1/customers/acme/ban", json!({}))
        .await;
    assert_eq!(
        (status, error["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("store_unavailable"))
    );
    server.store.set_full(false);
    gateway.sync(&server).await;
    assert_eq!(gateway.granted_tokens("acme"), 50.0);
}

#[tokio::test]
async fn usage_of_finished_steps_comes_back_as_a_window_with_zeros_and_gaps() {
    let (server, mut gateway) = server_and_gateway().await;
    for tokens in [4, 0, 6] {
        gateway.spend("acme", tokens);
        gateway.sync(&server).await;
        server.advance_ms(u64::from(kit::STEP_MS));
    }
    server.advance_ms(2 * u64::from(kit::STEP_MS));
    gateway.spend("acme", 100);
    gateway.sync(&server).await;
    let mut request = gateway.request();
    (request.windows_wanted, request.window_steps) = (vec![wish("acme"), wish("nobody")], 6);
    let (_, reply) = server.sync(&request).await;
    assert_eq!(reply.windows.len(), 2);
    assert_eq!(reply.windows[0].usage, [0.0, 4.0, 0.0, 6.0, 0.0, 0.0]);
    assert_eq!(
        reply.windows[0].mask,
        [0b00_1110],
        "two steps without a sync are gaps, and before the first there is nothing"
    );
    assert_eq!(reply.windows[0].newest_step, reply.step_now - 1);
    assert_eq!(reply.windows[1].mask, [0]);
    server.advance_ms(u64::from(kit::STEP_MS));
    let server = server.killed();
    let mut request = gateway.request();
    (request.windows_wanted, request.window_steps) = (vec![wish("acme")], 7);
    let (_, reply) = server.sync(&request).await;
    assert_eq!(reply.windows[0].usage, [0.0, 4.0, 0.0, 6.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_step_whose_only_report_is_late_is_a_gap_and_no_zero() {
    let (server, mut gateway) = server_and_gateway().await;
    // Syncs come more slowly than steps: what the late ones bring is of several steps.
    for (tokens, wait_ms) in [(4, 1_500), (6, 1_500), (2, 1_000), (1, 0)] {
        gateway.spend("acme", tokens);
        gateway.sync(&server).await;
        server.advance_ms(wait_ms);
    }
    let path = "/v1/history?key=acme&steps=4";
    let history = server.ok("GET", path, Value::Null).await;
    assert_eq!(history["usage"], json!([4.0, null, null, null]));
}

/// What happens to a batch on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// The request arrives, the reply does not.
    ReplyLost,
    RequestLost,
    Repeated,
    /// The server dies after answering.
    ServerKilled,
    ServerRestarted,
}

#[tokio::test]
async fn usage_history_goes_on_when_a_clock_that_was_a_year_ahead_is_put_right() {
    const YEAR_MS: u64 = 365 * 86_400_000;
    let (server, mut gateway) = server_and_gateway().await;
    let step_ms = u64::from(kit::STEP_MS);
    server.advance_ms(YEAR_MS);
    for key in ["acme", "bolt", "acme"] {
        gateway.spend(key, 1);
        gateway.sync(&server).await;
    }
    server
        .clock
        .fetch_sub(YEAR_MS * 1_000, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..3 {
        server.advance_ms(step_ms);
        gateway.sync(&server).await;
        gateway.spend("acme", 5);
        gateway.sync(&server).await;
    }
    // Bolt's account still says what it asked for in the step of a year ahead: the running step is another.
    let server = server.restarted().await;
    server.advance_ms(step_ms);
    gateway.sync(&server).await;
    let out = server
        .ok("GET", "/v1/history?key=acme&steps=3", Value::Null)
        .await;
    assert_eq!(out["usage"], json!([5.0, 5.0, 5.0]), "{out}");
}

fn fates() -> impl Strategy<Value = Vec<(u64, Fate)>> {
    let fate = prop_oneof![
        4 => Just(Fate::Answered),
        2 => Just(Fate::ReplyLost),
        2 => Just(Fate::RequestLost),
        2 => Just(Fate::Repeated),
        1 => Just(Fate::ServerKilled),
        1 => Just(Fate::ServerRestarted),
    ];
    proptest::collection::vec((0_u64..20, fate), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever batches are repeated, merged, skipped, and whenever the server dies: every token of demand is counted once, and
    /// no more than one burst is ever granted to an incarnation.
    #[test]
    fn each_batch_is_charged_once_and_nothing_refills(schedule in fates()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, mut gateway) = server_and_gateway().await;
            let mut demand = 0;
            for (tokens, fate) in schedule {
                demand += tokens;
                gateway.spend("acme", tokens);
                server.advance_ms(300);
                let request = gateway.request();
                match fate {
                    Fate::RequestLost => continue,
                    Fate::ReplyLost => drop(server.sync(&request).await),
                    Fate::Repeated => {
                        let (_, reply) = server.sync(&request).await;
                        server.sync(&request).await;
                        gateway.apply(&reply);
                    }
                    Fate::Answered | Fate::ServerKilled | Fate::ServerRestarted => {
                        let (_, reply) = server.sync(&request).await;
                        gateway.apply(&reply);
                    }
                }
                server = match fate {
                    Fate::ServerKilled => server.killed(),
                    Fate::ServerRestarted => server.restarted().await,
                    _ => server,
                };
                assert!(gateway.granted_tokens("acme") <= 50.0);
            }
            gateway.sync(&server).await;
            gateway.sync(&server).await;
            assert_eq!(demand_of(&server, "acme").await, demand as f64);
            assert_eq!(gateway.granted_tokens("acme"), 50.0);
        });
    }
}

#[tokio::test]
async fn a_step_of_many_customers_is_closed_with_several_syncs_and_told_once_it_is() {
    let server = TestServer::new();
    let mut many = policy();
    many["resources"]["requests"]["capacity_per_s"] = json!(1_000_000);
    many["customers"] = (0..600)
        .map(|number| json!({"key": format!("c{number}"), "contract": "gold"}))
        .collect();
    server.ok("POST", "/v1/policies", many).await;
    let (mut busy, mut idle) = (Gateway::new("g1", 7), Gateway::new("g2", 8));
    for _ in 0..3 {
        busy.sync(&server).await;
        idle.sync(&server).await;
    }
    let all = |gateway: &mut Gateway, tokens| {
        for number in 0..600 {
            gateway.spend(&format!("c{number}"), tokens);
        }
    };
    server.advance_ms(u64::from(kit::STEP_MS));
    busy.sync(&server).await;
    idle.sync(&server).await;
    all(&mut busy, 3);
    busy.sync(&server).await;
    server.advance_ms(u64::from(kit::STEP_MS));
    // All ask for something in the next step before they are closed in the one before.
    all(&mut busy, 2);
    busy.sync(&server).await;
    assert_eq!(idle.sync(&server).await.step_usage, [], "not yet");
    let reply = idle.sync(&server).await;
    let told = reply.step_usage;
    assert_eq!(told.len(), 600);
    assert!(told.iter().all(|told| told.usage == 3.0), "{told:?}");
    assert!(
        told.iter().all(|told| told.step == reply.step_usage_whole),
        "{told:?}"
    );
    let again = idle.sync(&server).await;
    assert_eq!(
        (again.step_usage, again.step_usage_whole),
        (vec![], 0),
        "once"
    );
    server.advance_ms(u64::from(kit::STEP_MS));
    for _ in 0..3 {
        busy.sync(&server).await;
    }
    for key in ["c0", "c300", "c599"] {
        let path = format!("/v1/history?key={key}&steps=2");
        let history = server.ok("GET", &path, Value::Null).await;
        assert_eq!(history["usage"], json!([3.0, 2.0]), "{key}: {history}");
    }
}

#[tokio::test]
async fn what_a_gateway_says_of_its_forecaster_is_kept_within_bounds() {
    let (server, mut gateway) = server_and_gateway().await;
    let mut request = gateway.request();
    request.model_status = Some(ModelStatus {
        message: "m".repeat(1 << 20),
        digest: vec![7; 1 << 20],
        pinball_ppm: u64::MAX,
        coverage_ppm: u32::MAX,
        ..ModelStatus::default()
    });
    let (status, reply) = server.sync(&request).await;
    assert_eq!(status, 200);
    gateway.apply(&reply);
    let view = server.ok("GET", "/v1/status", Value::Null).await;
    let kept = view["gateways"][0].to_string();
    assert!(
        kept.contains("mmm") && kept.len() < 4_000,
        "{} bytes",
        kept.len()
    );
    let gateway = &view["gateways"][0];
    assert_eq!(
        (&gateway["pinball"], &gateway["coverage"]),
        (&json!(1_000.0), &json!(1.0))
    );
}

#[tokio::test]
async fn a_forecast_that_is_no_amount_is_not_kept() {
    let (server, mut gateway) = server_and_gateway().await;
    let customer = hash("acme");
    let (hash_high, hash_low) = customer.parts();
    for (high_per_s, kept) in [
        (f32::NAN, 7.0),
        (f32::INFINITY, 7.0),
        (-1.0, 7.0),
        (9.0, 9.0),
    ] {
        let mut request = gateway.request();
        let forecast = |high_per_s| CustomerForecast {
            hash_high,
            hash_low,
            high_per_s,
            ..CustomerForecast::default()
        };
        request.forecasts = vec![forecast(7.0), forecast(high_per_s)];
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, 200);
        gateway.apply(&reply);
        let view = server.ok("GET", "/v1/customers/acme", Value::Null).await;
        assert_eq!(
            view["resources"][0]["forecast_high_per_s"],
            json!(kept),
            "{high_per_s}: {view}"
        );
    }
}
