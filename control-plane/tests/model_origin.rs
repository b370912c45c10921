//! Where a model comes from: its card, the model before it, its data.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_control_plane::models::Sandbox;
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{ADMIN_TOKEN, TestServer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

async fn server_with_a_model() -> (tempfile::TempDir, TestServer, String) {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), LIMITS);
    let clock = Arc::new(AtomicU64::new(0));
    let server = TestServer::with(Arc::default(), clock, sandbox, None);
    let (_, answer) = server
        .request("POST", "/v1/models", ADMIN_TOKEN, b"a model".to_vec())
        .await;
    let view: Value = serde_json::from_slice(&answer).unwrap();
    let digest = view["digest"].as_str().unwrap().to_owned();
    (directory, server, digest)
}

#[tokio::test]
async fn a_card_is_kept_with_its_model_and_says_what_the_data_were() {
    let (_directory, server, digest) = server_with_a_model().await;
    let about = format!("/v1/models/{digest}/about");
    let (parent, data) = ("1".repeat(64), "2".repeat(64));
    let card = json!({"model_sha256": digest, "data_sha256": data, "family": "gru"});
    let view = server
        .ok("PUT", &about, json!({"card": card, "parent": parent}))
        .await;
    assert_eq!(
        (&view["parent"], &view["data_digest"], &view["card"]),
        (&json!(parent), &json!(data), &card)
    );
    // It outlives the server, and the file that comes again.
    let server = server.killed();
    assert_eq!(server.ok("GET", &about, Value::Null).await, view);
    let list = server.ok("GET", "/v1/models", Value::Null).await;
    assert_eq!(list["models"][0], view);
    let log = server.ok("GET", "/v1/audit", Value::Null).await;
    let deed = log["records"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&deed["action"], &deed["parameters"]["parent"]),
        (&json!("model.describe"), &json!(parent))
    );
}

#[tokio::test]
async fn a_model_that_is_uploaded_again_keeps_its_card() {
    let (_directory, server, digest) = server_with_a_model().await;
    let about = format!("/v1/models/{digest}/about");
    let view = server
        .ok("PUT", &about, json!({"card": {"family": "gru"}}))
        .await;
    server
        .request("POST", "/v1/models", ADMIN_TOKEN, b"a model".to_vec())
        .await;
    let again = server.ok("GET", &about, Value::Null).await;
    assert_eq!(again["card"], view["card"]);
}

#[tokio::test]
async fn what_cannot_be_the_origin_of_a_model_is_refused_with_its_place() {
    let (_directory, server, digest) = server_with_a_model().await;
    let about = format!("/v1/models/{digest}/about");
    let long = json!({"notes": "x".repeat(40 << 10)});
    for (body, code, place) in [
        (
            json!({"card": {"model_sha256": "3"}}),
            "wrong_card",
            "card.model_sha256",
        ),
        (
            json!({"card": {"data_sha256": "2".repeat(64)}, "data_digest": "3".repeat(64)}),
            "wrong_card",
            "data_digest",
        ),
        (
            json!({"card": {"data_sha256": "short"}}),
            "malformed",
            "data_digest",
        ),
        (json!({"parent": "short"}), "malformed", "parent"),
        (json!({"parent": digest}), "own_parent", "parent"),
        (json!({"card": long}), "card_too_large", "card"),
        (json!({"card": [1]}), "malformed", "card"),
        (json!({"cart": {}}), "malformed", "cart"),
    ] {
        let (_, error) = server.admin("PUT", &about, body).await;
        assert_eq!(
            (error["code"].as_str(), error["where"].as_str()),
            (Some(code), Some(place)),
            "{error}"
        );
    }
    let nobody = format!("/v1/models/{}/about", "0".repeat(64));
    for method in ["GET", "PUT"] {
        let (_, error) = server.admin(method, &nobody, json!({})).await;
        assert_eq!(error["code"], "no_such_model", "{method}");
    }
    assert!(
        server
            .ok("GET", &about, Value::Null)
            .await
            .get("card")
            .is_none()
    );
}
