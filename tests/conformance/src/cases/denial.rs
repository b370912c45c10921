//! What a denied client is told.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Expected, Sent, Want, minimal};

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    vec![
        Case::new("a denial is 429 with a short text", &minimal(STILL, 1.0)).admits(1, &a).step(
            a.clone(),
            Expected::denied().body("rate limited\n").header("content-type", Want::Is("text/plain")),
        ),
        Case::new(
            "status, body and content type can be chosen",
            &denying(&json!({ "status": 503, "body": "{\"error\":\"busy\"}", "content_type": "application/json" })),
        )
        .admits(1, &a)
        .step(
            a.clone(),
            Expected::status(503).body("{\"error\":\"busy\"}").header("content-type", Want::Is("application/json")),
        ),
        Case::new("a denial can have no body", &denying(&json!({ "body": "" })))
            .admits(1, &a)
            .step(a.clone(), Expected::denied().body("")),
        Case::new("a gRPC client gets RESOURCE_EXHAUSTED", &minimal(STILL, 1.0))
            .admits(1, &a.clone().grpc())
            .step(a.clone().grpc(), Expected::status(200).grpc(8)),
        Case::new("the gRPC status can be chosen", &denying(&json!({ "grpc_status": 14 })))
            .admits(1, &a)
            .step(a.clone().grpc(), Expected::status(200).grpc(14)),
    ]
}

fn denying(denial: &Value) -> Value {
    let mut config = minimal(STILL, 1.0);
    config["denial"] = denial.clone();
    config
}
