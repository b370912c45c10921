//! The admin API: every refusal says what, where and what to do, and the last good state stays.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use forebay_control_plane::api::router;
use forebay_wire::sync::{FLAG_EXEMPT, FLAG_FROZEN, SyncReply};
use http_body_util::BodyExt;
use kit::{ADMIN_TOKEN, GATEWAY_TOKEN, Gateway, TestServer, policy, server_and_gateway};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tower::ServiceExt;

const NONE: Value = Value::Null;

async fn refused(
    server: &TestServer,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let (status, error) = server.admin(method, path, body).await;
    assert!(
        status.is_client_error() || status.is_server_error(),
        "{method} {path}: {status} {error}"
    );
    for field in ["code", "message", "where", "hint"] {
        assert!(
            error[field].is_string(),
            "{method} {path}: no {field} in {error}"
        );
    }
    assert_ne!(error["hint"], "", "{method} {path}: {error}");
    (status, error)
}

#[tokio::test]
async fn each_token_opens_its_own_routes_only() {
    let server = TestServer::new();
    let digest = "0".repeat(64);
    let model = format!("/v1/models/{digest}");
    for (method, path, token, status) in [
        ("GET", "/v1/status", ADMIN_TOKEN, 200),
        ("GET", "/v1/status", GATEWAY_TOKEN, 403),
        ("GET", "/v1/status", "", 403),
        ("GET", "/v1/policies/active", GATEWAY_TOKEN, 403),
        ("PUT", "/v1/history", GATEWAY_TOKEN, 403),
        ("POST", "/v1/sync", ADMIN_TOKEN, 403),
        ("POST", "/v1/sync", GATEWAY_TOKEN, 422),
        ("GET", model.as_str(), GATEWAY_TOKEN, 404),
        ("GET", model.as_str(), ADMIN_TOKEN, 404),
        ("GET", model.as_str(), "another token altogether", 403),
        ("GET", "/metrics", "", 200),
        ("GET", "/healthz", "", 200),
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/v1/status", ADMIN_TOKEN, 405),
    ] {
        assert_eq!(
            server.request(method, path, token, Body::empty()).await.0,
            status,
            "{method} {path} {token}"
        );
    }
    let without = Request::builder()
        .uri("/v1/status")
        .body(Body::empty())
        .unwrap();
    let response = router(&server.server).oneshot(without).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let error: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(error["code"], "no_token");
}

#[tokio::test]
async fn policies_are_versions_and_going_back_makes_a_new_one() {
    let server = TestServer::new();
    assert_eq!(
        refused(&server, "GET", "/v1/policies/active", NONE).await.1["code"],
        "no_policy"
    );
    assert_eq!(
        server.ok("POST", "/v1/policies/check", policy()).await["customers"],
        2
    );
    assert_eq!(
        server.ok("GET", "/v1/policies", NONE).await["active"],
        0,
        "a check keeps nothing"
    );
    server.ok("POST", "/v1/policies", policy()).await;
    let mut second = policy();
    second["dry_run"] = json!(true);
    assert_eq!(
        server.ok("POST", "/v1/policies", second).await["version"],
        2
    );
    assert_eq!(
        server.ok("GET", "/v1/policies/active", NONE).await["dry_run"],
        true
    );
    let third = server.ok("POST", "/v1/policies/1/activate", NONE).await;
    assert_eq!(
        (&third["version"], &third["restores"]),
        (&json!(3), &json!(1))
    );
    let server = server.killed();
    let list = server.ok("GET", "/v1/policies", NONE).await;
    assert_eq!(
        (
            list["active"].as_u64(),
            list["versions"].as_array().unwrap().len()
        ),
        (Some(3), 3)
    );
    assert_eq!(
        server.ok("GET", "/v1/policies/3", NONE).await["dry_run"],
        false
    );
    assert_eq!(
        refused(&server, "GET", "/v1/policies/9", NONE).await.1["code"],
        "no_such_version"
    );
    assert_eq!(
        refused(&server, "POST", "/v1/policies/x/activate", NONE)
            .await
            .0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn versions_are_compared() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut second = policy();
    second["contracts"]["gold"]["limits"]["requests"]["rate_per_s"] = json!(120.5);
    server.ok("POST", "/v1/policies", second).await;
    let there = server
        .ok("GET", "/v1/policies/diff?from=1&to=active", NONE)
        .await;
    assert_eq!(
        (&there["from"], &there["to"], &there["same"]),
        (&json!(1), &json!(2), &json!(false))
    );
    let change = json!([{"field": "requests.rate_per_s", "before": "100", "after": "120.5"}]);
    let gold = json!([{"name": "gold", "kind": "changed", "customers": 2, "changes": change}]);
    assert_eq!(there["diff"]["contracts"], gold);
    let same = server
        .ok("GET", "/v1/policies/diff?from=2&to=2", NONE)
        .await;
    assert_eq!(same["same"], true);
    for (query, code, place) in [
        ("from=1", "malformed", "query"),
        ("from=1&to=x", "malformed", "to"),
        ("from=7&to=1", "no_such_version", "from"),
    ] {
        let path = format!("/v1/policies/diff?{query}");
        let (_, error) = refused(&server, "GET", &path, NONE).await;
        assert_eq!(
            (&error["code"], &error["where"]),
            (&json!(code), &json!(place)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_wrong_policy_is_refused_with_its_place_and_the_last_good_one_stays() {
    let (server, _) = server_and_gateway().await;
    let limit = "/contracts/gold/limits/requests";
    let cases = [
        ("/version", json!(3), "version"),
        ("/customers/1/key", json!("acme"), "customers[1].key"),
        (
            "/resources/requests/capacity_per_s",
            json!(39),
            "resources.requests.capacity_per_s",
        ),
        (
            "/resources",
            json!({"requests": {"capacity_per_s": 1000}, "bytes": {}}),
            "contracts.free.limits",
        ),
        (
            limit,
            json!({"rate_per_s": -1, "burst": 1}),
            "contracts.gold.limits.requests.rate_per_s",
        ),
        (
            limit,
            json!({"rate_per_s": 1e300, "burst": 1}),
            "contracts.gold.limits.requests.rate_per_s",
        ),
        (
            limit,
            json!({"rate_per_s": 1, "burst": 1, "brust": 1}),
            "contracts.gold.limits.requests",
        ),
        (
            "/customers/0/key",
            json!("k".repeat(1 << 20)),
            "customers[0].key",
        ),
        (
            "/customers/0/contract",
            json!("platinum"),
            "customers[0].contract",
        ),
    ];
    for (pointer, value, place) in cases {
        let mut wrong = policy();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let (status, error) = refused(&server, "POST", "/v1/policies", wrong).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{pointer}: {error}"
        );
        let found = error["where"].as_str().unwrap();
        assert!(found.starts_with(place), "{pointer}: {error}");
    }
    for (text, says) in [
        (r#"{"version": 1, "#, "EOF"),
        (
            r#"{"version": 1, "resources": {}, "contracts": {}, "customers": [], "extra": NaN}"#,
            "extra",
        ),
        (r#"[]"#, "invalid"),
        ("\u{0}", "expected value"),
    ] {
        let (status, bytes) = server
            .request("POST", "/v1/policies", ADMIN_TOKEN, text)
            .await;
        let error = String::from_utf8(bytes).unwrap();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
    }
    let (status, bytes) = server
        .request("POST", "/v1/policies", ADMIN_TOKEN, vec![b'{', 0xff])
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8(bytes).unwrap().contains("byte 1"));
    assert_eq!(server.ok("GET", "/v1/policies", NONE).await["active"], 1);
    assert_eq!(
        server.ok("GET", "/v1/customers/acme", NONE).await["contract"],
        "gold"
    );
}

#[tokio::test]
async fn another_set_of_resources_is_refused() {
    let (server, _) = server_and_gateway().await;
    let renamed = policy().to_string().replace("requests", "calls");
    let (status, error) = refused(
        &server,
        "POST",
        "/v1/policies",
        serde_json::from_str(&renamed).unwrap(),
    )
    .await;
    assert_eq!(
        (status, error["code"].as_str()),
        (StatusCode::CONFLICT, Some("resources_changed"))
    );
    assert_eq!(error["where"], "resources");
}

#[tokio::test]
async fn yaml_is_a_policy_as_well() {
    let server = TestServer::new();
    let yaml = "version: 1\nresources: {requests: {}}\ncontracts: {a: {limits: {requests: {rate_per_s: 1, burst: 1}}}}\n";
    let post = |text: String| {
        Request::post("/v1/policies")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/yaml")
            .body(Body::from(text))
            .unwrap()
    };
    let response = router(&server.server)
        .oneshot(post(yaml.to_owned()))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let wrong = yaml.replace("burst: 1", "burst: .inf");
    let response = router(&server.server).oneshot(post(wrong)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let error = String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert!(
        error.contains("line 3, column") && error.contains("burst"),
        "{error}"
    );
}

#[tokio::test]
async fn an_operator_sees_and_changes_customers() {
    let (server, _) = server_and_gateway().await;
    let view = server.ok("GET", "/v1/customers/acme", NONE).await;
    assert_eq!(
        (&view["contract"], &view["held_by_gateway"]),
        (&json!("gold"), &json!(true))
    );
    let by_hash = server
        .ok(
            "GET",
            &format!("/v1/customers/hash:{}", view["hash"].as_str().unwrap()),
            NONE,
        )
        .await;
    assert_eq!(by_hash, view);
    let banned = server
        .ok(
            "POST",
            "/v1/customers/acme/ban",
            json!({"until_unix_s": 4_000_000_000_u64}),
        )
        .await;
    assert_eq!(banned["banned_until_unix_ms"], 4_000_000_000_000_u64);
    let server = server.killed();
    assert_eq!(
        server.ok("POST", "/v1/customers/acme/freeze", NONE).await["frozen"],
        true
    );
    assert_eq!(
        server.ok("POST", "/v1/customers/acme/unfreeze", NONE).await["frozen"],
        false
    );
    assert_eq!(
        server.ok("POST", "/v1/customers/acme/unban", NONE).await["banned_until_unix_ms"],
        NONE
    );
    let list = server.ok("GET", "/v1/customers?limit=1", NONE).await["customers"].clone();
    let after = list[0]["hash"].as_str().unwrap();
    let rest = server
        .ok("GET", &format!("/v1/customers?after={after}"), NONE)
        .await["customers"]
        .clone();
    assert_eq!(
        (
            list.as_array().unwrap().len(),
            rest.as_array().unwrap().len()
        ),
        (1, 1)
    );
    let odd_key = server.ok("GET", "/v1/customers/a%2Fb%20%C3%A4", NONE).await;
    assert_eq!(odd_key["in_policy"], false);
}

#[tokio::test]
async fn an_exemption_reaches_gateways_survives_a_kill_and_goes_before_the_policy() {
    let (server, mut gateway) = server_and_gateway().await;
    let told = |reply: &SyncReply, key: &str| {
        let (hash_high, hash_low) = kit::hash(key).parts();
        let told = reply.policy.iter().flat_map(|policy| &policy.customers);
        let of_key = told.filter(|told| (told.hash_high, told.hash_low) == (hash_high, hash_low));
        of_key.map(|told| told.flags).next_back()
    };
    server.ok("POST", "/v1/customers/acme/exempt", NONE).await;
    assert_eq!(
        told(&gateway.sync(&server).await, "acme"),
        Some(FLAG_EXEMPT)
    );
    let server = server.killed();
    let mut newcomer = Gateway::new("g2", 1);
    assert_eq!(
        told(&newcomer.sync(&server).await, "acme"),
        Some(FLAG_EXEMPT)
    );
    let status = server.ok("GET", "/v1/status", NONE).await;
    assert_eq!(status["customers_exempt"], 1);
    server.ok("POST", "/v1/customers/acme/freeze", NONE).await;
    assert_eq!(
        told(&newcomer.sync(&server).await, "acme"),
        Some(FLAG_EXEMPT | FLAG_FROZEN),
        "a freeze goes before an exemption at the gateway"
    );
    server.ok("POST", "/v1/customers/acme/unfreeze", NONE).await;
    server.ok("POST", "/v1/customers/acme/unexempt", NONE).await;
    assert_eq!(told(&newcomer.sync(&server).await, "acme"), Some(0));
}

#[tokio::test]
async fn a_freeze_reaches_gateways_survives_a_kill_and_shows_until_it_is_ended() {
    let (server, mut gateway) = server_and_gateway().await;
    let frozen_at = |reply: &SyncReply| {
        let told = reply.policy.iter().flat_map(|policy| &policy.customers);
        let (hash_high, hash_low) = kit::hash("acme").parts();
        let acme = told.filter(|told| (told.hash_high, told.hash_low) == (hash_high, hash_low));
        acme.map(|told| told.flags & FLAG_FROZEN != 0).next_back()
    };
    let by_hand = async |server: &TestServer| {
        let status = server.ok("GET", "/v1/status", NONE).await;
        (
            status["customers_frozen"].as_u64(),
            status["customers_banned"].as_u64(),
        )
    };
    assert_eq!(
        frozen_at(&gateway.sync(&server).await),
        None,
        "nothing is new"
    );
    server.ok("POST", "/v1/customers/acme/freeze", NONE).await;
    server
        .ok(
            "POST",
            "/v1/customers/bolt/ban",
            json!({"until_unix_s": 1_790_000_100}),
        )
        .await;
    assert_eq!(frozen_at(&gateway.sync(&server).await), Some(true));
    let server = server.killed();
    assert_eq!(by_hand(&server).await, (Some(1), Some(1)));
    server.advance_ms(100_000);
    assert_eq!(
        by_hand(&server).await,
        (Some(1), Some(0)),
        "the ban is over, the freeze is not"
    );
    let mut newcomer = Gateway::new("g2", 1);
    assert_eq!(frozen_at(&newcomer.sync(&server).await), Some(true));
    server.ok("POST", "/v1/customers/acme/unfreeze", NONE).await;
    assert_eq!(frozen_at(&newcomer.sync(&server).await), Some(false));
    assert_eq!(by_hand(&server).await, (Some(0), Some(0)));
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused_with_their_place() {
    let (server, _) = server_and_gateway().await;
    let long_key = format!("/v1/customers/{}", "k".repeat(60_000));
    for (method, path, body, code, place) in [
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({}),
            "malformed",
            ".",
        ),
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": "many"}),
            "malformed",
            "tokens",
        ),
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": 1e300}),
            "bad_amount",
            "tokens",
        ),
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": 1e-9}),
            "bad_amount",
            "tokens",
        ),
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": 1, "resource": "no"}),
            "no_such_resource",
            "resource",
        ),
        (
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": 1, "tokins": 1}),
            "malformed",
            "tokins",
        ),
        (
            "POST",
            "/v1/customers/acme/ban",
            json!({"until_unix_s": -1}),
            "malformed",
            "until_unix_s",
        ),
        (
            "POST",
            "/v1/customers/acme/reset",
            json!({"all": true}),
            "malformed",
            "all",
        ),
        (
            "POST",
            "/v1/customers/acme/explode",
            NONE,
            "no_such_route",
            "",
        ),
        (
            "POST",
            "/v1/customers/stranger/credit",
            json!({"tokens": 1}),
            "not_in_policy",
            "key",
        ),
        ("GET", "/v1/customers/hash:zz", NONE, "malformed", "key"),
        // The account of the pools.
        (
            "POST",
            "/v1/customers/hash:00000000000000000000000000000000/freeze",
            NONE,
            "malformed",
            "key",
        ),
        (
            "POST",
            "/v1/customers/acme/ban",
            json!({"until_unix_s": 1}),
            "ban_is_over",
            "until_unix_s",
        ),
        ("GET", "/v1/customers/%FF", NONE, "malformed", "path"),
        ("GET", long_key.as_str(), NONE, "malformed", "key"),
        (
            "GET",
            "/v1/customers?limit=many",
            NONE,
            "malformed",
            "query",
        ),
        ("GET", "/v1/customers?lim=1", NONE, "malformed", "query"),
    ] {
        let (_, error) = refused(&server, method, path, body).await;
        assert_eq!(
            (
                error["code"].as_str().unwrap(),
                error["where"].as_str().unwrap()
            ),
            (code, place),
            "{path}: {error}"
        );
    }
    let (status, bytes) = server
        .request(
            "POST",
            "/v1/customers/acme/ban",
            ADMIN_TOKEN,
            vec![b' '; 1 << 17],
        )
        .await;
    assert_eq!(
        status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

#[tokio::test]
async fn a_credit_before_any_gateway_stops_at_the_burst_and_survives() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    server
        .ok("POST", "/v1/customers/acme/credit", json!({"tokens": -30}))
        .await;
    let view = server
        .ok("POST", "/v1/customers/acme/credit", json!({"tokens": 7.5}))
        .await;
    assert_eq!(view["resources"][0]["central_tokens"], 27.5);
    let server = server.restarted().await;
    assert_eq!(
        server.ok("GET", "/v1/customers/acme", NONE).await["resources"][0]["central_tokens"],
        27.5
    );
    let view = server.ok("POST", "/v1/customers/acme/reset", NONE).await;
    assert_eq!(view["resources"][0]["central_tokens"], 50.0);
    server
        .ok(
            "POST",
            "/v1/customers/acme/credit",
            json!({"tokens": -1_000}),
        )
        .await;
    let view = server.ok("POST", "/v1/customers/acme/reset", NONE).await;
    assert_eq!(
        view["resources"][0]["central_tokens"], 50.0,
        "the debt is forgiven"
    );
    let server = server.killed();
    let view = server.ok("GET", "/v1/customers/acme", NONE).await;
    assert_eq!(
        view["resources"][0]["central_tokens"], 0.0,
        "after an unclean end balances count as nothing"
    );
}

#[tokio::test]
async fn history_goes_in_and_comes_out_again() {
    let (server, mut gateway) = server_and_gateway().await;
    let usage = json!([1.5, null, 0, 3]);
    let series = json!({"series": [{"key": "acme", "step_ms": kit::STEP_MS, "usage": usage}]});
    assert_eq!(
        server.ok("PUT", "/v1/history", series.clone()).await["values"],
        4
    );
    let out = server.ok("GET", "/v1/history?key=acme&steps=4", NONE).await;
    assert_eq!(out["usage"], json!([1.5, null, 0.0, 3.0]));
    let again = TestServer::new();
    again.ok("POST", "/v1/policies", policy()).await;
    again
        .ok("PUT", "/v1/history", json!({"series": [out]}))
        .await;
    let mut request = gateway.request();
    (request.windows_wanted, request.window_steps) = (vec![kit::wish("acme")], 4);
    let (_, reply) = server.sync(&request).await;
    assert_eq!(
        (
            reply.windows[0].usage.as_slice(),
            reply.windows[0].mask.as_slice()
        ),
        (&[1.5, 0.0, 0.0, 3.0][..], &[0b1101][..])
    );
    for (field, value, place) in [
        ("step_ms", json!(5), "series[0].step_ms"),
        ("usage", json!([-1]), "series[0].usage[0]"),
        ("usage", json!([]), "series[0].usage"),
        ("usage", json!(vec![1; 600]), "series[0].usage"),
        ("newest_step", json!(u64::MAX), "series[0].newest_step"),
        ("newest_step", json!(2), "series[0].newest_step"),
        ("resource", json!("bytes"), "series[0].resource"),
        ("key", json!(""), "series[0].key"),
        ("speed", json!(1), "series[0].speed"),
    ] {
        let mut wrong = series.clone();
        wrong["series"][0][field] = value;
        assert_eq!(
            refused(&server, "PUT", "/v1/history", wrong).await.1["where"],
            place
        );
    }
}

#[tokio::test]
async fn a_customer_may_stand_in_an_import_twice() {
    let server = TestServer::new();
    let (_, none) = refused(&server, "GET", "/v1/history?key=acme", NONE).await;
    assert_eq!(none["code"], "no_policy");
    server.ok("POST", "/v1/policies", policy()).await;
    let out = server.ok("GET", "/v1/history?key=acme&steps=1", NONE).await;
    let newest = out["newest_step"].as_u64().unwrap();
    // A long part up to now, then a short one far back in it: both reach into the same chunks.
    let part = |back: u64, usage: Vec<f64>| json!({"key": "acme", "step_ms": kit::STEP_MS, "newest_step": newest - back, "usage": usage});
    let series = [part(0, vec![1.0; 200]), part(150, vec![2.0; 5])];
    server
        .ok("PUT", "/v1/history", json!({"series": series}))
        .await;
    let out = server
        .ok("GET", "/v1/history?key=acme&steps=200", NONE)
        .await;
    let mut expected = vec![1.0; 200];
    expected[45..50].fill(2.0);
    assert_eq!(out["usage"], json!(expected));
}

#[tokio::test]
async fn a_policy_that_no_gateway_could_take_is_refused() {
    let server = TestServer::new();
    let resources = ["a", "b", "c", "d"];
    let with_contracts = |round: usize, count: usize| {
        let each = resources.map(|name| (name, json!({"rate_per_s": 1, "burst": 1})));
        let limits = json!({"limits": BTreeMap::from(each)});
        let contracts: BTreeMap<String, &Value> = (0..count)
            .map(|number| (format!("{:040}-{round}-{number}", 0), &limits))
            .collect();
        let resources = BTreeMap::from(resources.map(|name| (name, json!({}))));
        json!({"version": 1, "resources": resources, "contracts": contracts, "customers": []})
    };
    // Contracts that come and go leave rows behind, but never more than fit.
    for round in 0..4 {
        server
            .ok("POST", "/v1/policies", with_contracts(round, 2_000))
            .await;
        let newcomer = Gateway::new("east", round as u64).request();
        let (_, reply) = server.sync(&newcomer).await;
        let bytes = reply.policy.map_or(0, |policy| policy.compiled.len());
        assert!((1..3 << 19).contains(&bytes), "{bytes} in round {round}");
    }
    let (status, error) = refused(&server, "POST", "/v1/policies", with_contracts(9, 7_000)).await;
    assert_eq!(
        (status.as_u16(), &error["where"]),
        (422, &json!("contracts"))
    );
}

#[tokio::test]
async fn status_and_metrics_tell_what_is_going_on() {
    let (server, mut gateway) = server_and_gateway().await;
    gateway.sync(&server).await;
    let mut second = Gateway::new("g\"2", 1);
    server.sync(&second.request()).await;
    let mut nameless = Gateway::new("", 2);
    server.sync(&nameless.request()).await;
    let status = server.ok("GET", "/v1/status", NONE).await;
    assert_eq!(
        (&status["start"], &status["syncs_refused"]),
        (&json!("new"), &json!(1))
    );
    let gateways = status["gateways"].as_array().unwrap();
    let seen = gateways
        .iter()
        .map(|gateway| (&gateway["id"], &gateway["live"], &gateway["policy_version"]));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            (&json!("g\"2"), &json!(true), &json!(0)),
            (&json!("g1"), &json!(true), &json!(1))
        ]
    );
    let (_, text) = server.request("GET", "/metrics", "", Body::empty()).await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\nforebay_syncs_total 4\n"), "{text}");
    assert!(text.contains("\nforebay_gateways 2\n"), "{text}");
    assert!(
        text.contains("\nforebay_gateway_policy_version{gateway=\"g1\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("\nforebay_gateway_live{gateway=\"g\\\"2\"} 1\n"),
        "{text}"
    );
    assert!(!text.contains("acme"));
    let server = server.killed();
    assert_eq!(
        server.ok("GET", "/v1/status", NONE).await["start"],
        "unclean"
    );
}
