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
use kit::{ADMIN_TOKEN, TestServer, bytes_of};
use serde_json::Value;
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
