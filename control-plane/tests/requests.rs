//! What a request may look like: what does not matter is taken, what could be misunderstood is refused with its place.

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
use kit::{ADMIN_TOKEN, TestServer, bytes_of, policy};
use serde_json::{Value, json};
use tower::ServiceExt;

async fn send(server: &TestServer, request: Request<Body>) -> (StatusCode, Value) {
    let response = router(&server.server).oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = bytes_of(response).await;
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn the_case_of_the_scheme_of_a_token_does_not_matter() {
    let server = TestServer::new();
    let with = async |value: String| {
        let request = Request::get("/v1/status").header("authorization", value);
        send(&server, request.body(Body::empty()).unwrap()).await
    };
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let (status, answer) = with(format!("{scheme} {ADMIN_TOKEN}")).await;
        assert_eq!(status, StatusCode::OK, "{scheme}: {answer}");
        let (status, answer) = with(format!("{scheme}  {ADMIN_TOKEN}")).await;
        assert_eq!(status, StatusCode::OK, "{scheme} and two blanks: {answer}");
    }
    for wrong in [
        ADMIN_TOKEN.to_owned(),
        format!("Bearer{ADMIN_TOKEN}"),
        format!("Basic {ADMIN_TOKEN}"),
        "bear".to_owned(),
        "bearer".to_owned(),
    ] {
        let (status, answer) = with(wrong.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong}: {answer}");
    }
    let (status, answer) = with(format!("bearer {}", ADMIN_TOKEN.to_uppercase())).await;
    assert_eq!(
        status,
        StatusCode::FORBIDDEN,
        "that of the token does: {answer}"
    );
}

#[tokio::test]
async fn the_case_of_a_content_type_does_not_matter() {
    let server = TestServer::new();
    let yaml = "version: 1\nresources: {requests: {}}\ncontracts: {a: {limits: {requests: {rate_per_s: 1, burst: 1}}}}\n";
    for content_type in [
        "application/yaml",
        "Application/YAML",
        "text/x-Yaml; charset=utf-8",
    ] {
        let request = Request::post("/v1/policies/check")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", content_type);
        let (status, answer) = send(&server, request.body(Body::from(yaml)).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{content_type}: {answer}");
    }
}

#[tokio::test]
async fn an_array_is_not_taken_for_an_object_whose_fields_it_has_in_order() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let refused = async |path: &str, body: Value, place: &str| {
        let (status, error) = server.admin("POST", path, body.clone()).await;
        assert!(status.is_client_error(), "{path} {body}: {status} {error}");
        assert_eq!(error["where"], place, "{path} {body}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("invalid type: sequence"), "{message}");
    };
    refused("/v1/customers/acme/credit", json!(["requests", 5.0]), ".").await;
    refused("/v1/customers/acme/ban", json!([null]), ".").await;
    refused("/v1/customers/acme/reset", json!([]), ".").await;
    for (pointer, place) in [
        ("/contracts/gold", "contracts.gold"),
        (
            "/contracts/gold/limits/requests",
            "contracts.gold.limits.requests",
        ),
        ("/customers/1", "customers[1]"),
        ("/resources/requests", "resources.requests"),
        ("/unknown", "unknown"),
        ("", ""),
    ] {
        let mut document = policy();
        let object = document.pointer_mut(pointer).unwrap();
        let fields: Vec<Value> = object.as_object().unwrap().values().cloned().collect();
        *object = fields.into();
        refused("/v1/policies", document, place).await;
    }
    let yaml = "version: 1\nresources: {requests: {}}\ncontracts: {a: [{requests: {rate_per_s: 1, burst: 1}}]}\n";
    let request = Request::post("/v1/policies/check")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/yaml");
    let (status, error) = send(&server, request.body(Body::from(yaml)).unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error["where"], "contracts.a", "{error}");
    let history = json!({"series": [["acme", "requests", 1_000, null, [1.0]]]});
    let (status, error) = server.admin("PUT", "/v1/history", history).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["where"], "series[0]", "{error}");
}

#[tokio::test]
async fn a_parameter_that_is_no_text_is_not_taken_for_another_one() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    for (path, name) in [
        ("/v1/history?key=%ff", "`key`"),
        ("/v1/history?key=acme&resource=requests%c3", "`resource`"),
        ("/v1/customers?after=%80", "`after`"),
    ] {
        let (status, error) = server.admin("GET", path, Value::Null).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {error}");
        assert_eq!(error["code"], "malformed", "{path}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(name) && message.contains("UTF-8"),
            "{message}"
        );
    }
    let text = "/v1/history?key=caf%C3%A9+au+lait";
    server.ok("GET", text, Value::Null).await;
}
