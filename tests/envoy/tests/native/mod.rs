//! What tests of Envoy's own filters share: a control plane that serves them, and the filters' configurations.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::Duration;

use forebay_envoy_tests::{ControlPlane, Place, until};
use hyper::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane that serves Envoy's own filters by this policy.
pub(crate) async fn plane_with(policy: &Value) -> ControlPlane {
    let place = Place {
        grpc_listen: Some("127.0.0.1:0".to_owned()),
        ..Place::default()
    };
    let plane = ControlPlane::start_in(place).await.unwrap();
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", policy)
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    // The gateway behind the filters has the policy.
    until("the quota gateway has the policy", PATIENCE, async || {
        let answer = plane.admin(Method::GET, "/v1/status", &Value::Null).await;
        let (_, status) = answer.unwrap();
        let gateways = status["gateways"].as_array()?.clone();
        gateways
            .iter()
            .any(|gateway| gateway["policy_version"] == 1)
            .then_some(())
    })
    .await;
    plane
}

/// Where the filters find it.
pub(crate) fn grpc_service() -> Value {
    let bearer = format!("Bearer {}", ControlPlane::filter_token());
    json!({
        "envoy_grpc": { "cluster_name": "quota" },
        "initial_metadata": [{ "key": "authorization", "value": bearer }],
        "timeout": "5s",
    })
}

/// Envoy's `rate_limit_quota` filter. It lets requests pass for which it can build no bucket id, so those without the header
/// get a bucket of nobody's. `behaviors` are those without an assignment and after one has expired.
pub(crate) fn is_assigned(domain: &str, behaviors: &Value) -> Value {
    let customer = json!({
        "name": "customer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "x-customer",
        },
    });
    let settings = |bucket_id: Value| {
        let mut settings = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
            "bucket_id_builder": { "bucket_id_builder": bucket_id },
            "reporting_interval": "1s",
        });
        for (name, behavior) in behaviors.as_object().unwrap() {
            settings[name] = behavior.clone();
        }
        settings
    };
    let action =
        |bucket_id| json!({ "action": { "name": "quota", "typed_config": settings(bucket_id) } });
    json!({
        "name": "envoy.filters.http.rate_limit_quota",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
            "domain": domain,
            "rlqs_server": grpc_service(),
            "bucket_matchers": {
                "matcher_list": { "matchers": [{
                    "predicate": { "single_predicate": {
                        "input": customer,
                        "value_match": { "safe_regex": { "google_re2": {}, "regex": ".+" } },
                    } },
                    "on_match": action(json!({ "customer": { "custom_value": customer } })),
                }] },
                "on_no_match": action(json!({ "nobody": { "string_value": "1" } })),
            },
        },
    })
}
