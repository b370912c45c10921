//! Envoy's own cases of its `rate_limit_quota` filter, with a stock Envoy and our server in the place of a simulated one, under the names
//! that they have there (envoyproxy/envoy, Apache-2.0, `test/extensions/filters/http/rate_limit_quota/integration_test.cc`).
//!
//! What matters to an operator is what these say together: which of the filter's rules holds when. The server's half of the suite, with
//! what is left out, is `control-plane/tests/rlqs.rs`. Left out here: what the filter does with answers that our server never gives
//! (`BasicFlowEmptyResponse`, `BasicFlowResponseNotMatched`, `MultiRequestWithUnsupportedStrategy`, `...UnsetStrategy`), and those that
//! `native_filters.rs` contains (`BasicFlowResponseMatched`, `MultiRequestWithTokenBucketThrottling`, `BasicFlowPeriodicalReport...`).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod native;

use std::time::Duration;

use forebay_envoy_tests::{Bootstrap, ControlPlane, Envoy, Listener, Protocol, until};
use native::{is_assigned, plane_with};
use serde_json::{Value, json};

/// An assignment lasts for 8 s at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds for which the rule after an assignment holds where it ends.
const TIMEOUT_S: u64 = 4;

/// One of the suite's cases: the rules, and what a request gets, step by step.
struct Case {
    name: &'static str,
    /// `no_assignment_behavior`.
    without: Option<&'static str>,
    /// `expired_assignment_behavior`, and whether it ends after [`TIMEOUT_S`].
    expired: Option<(&'static str, bool)>,
    /// Whether the contract serves every request of these tests, or none after the first one.
    is_served: bool,
    /// What comes after the server has died, and stays.
    without_server: &'static [u16],
}

const ALLOW: &str = "ALLOW_ALL";
const DENY: &str = "DENY_ALL";

const CASES: &[Case] = &[
    Case {
        name: "MultiSameRequestWithExpiredAssignmentDeny",
        without: Some(DENY),
        expired: Some((DENY, false)),
        is_served: true,
        without_server: &[429],
    },
    Case {
        name: "MultiSameRequestWithExpiredAssignmentAllow",
        without: Some(DENY),
        expired: Some((ALLOW, false)),
        is_served: false,
        without_server: &[200],
    },
    Case {
        name: "MultiSameRequestWithExpirationToDefaultDeny",
        without: Some(ALLOW),
        expired: Some((DENY, true)),
        is_served: true,
        without_server: &[429, 200],
    },
    Case {
        name: "MultiSameRequestWithExpirationWithoutFallback",
        without: Some(ALLOW),
        expired: None,
        is_served: false,
        without_server: &[200],
    },
];

// === impl Case ===

impl Case {
    fn behaviors(&self) -> Value {
        let fallback = |rule: &str| json!({ "fallback_rate_limit": { "blanket_rule": rule } });
        let mut behaviors = json!({});
        if let Some(rule) = self.without {
            behaviors["no_assignment_behavior"] = fallback(rule);
        }
        if let Some((rule, ends)) = self.expired {
            let mut behavior = fallback(rule);
            let timeout_s = if ends { TIMEOUT_S } else { 600 };
            behavior["expired_assignment_behavior_timeout"] = json!(format!("{timeout_s}s"));
            behaviors["expired_assignment_behavior"] = behavior;
        }
        behaviors
    }

    /// What the first request gets, before anything is assigned.
    fn first(&self) -> u16 {
        if self.without == Some(ALLOW) {
            200
        } else {
            429
        }
    }
}

/// `MultiSameRequestNoAssignmentAllowAll` and `...DenyAll` (the first request of each case), and what holds when assignments expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filters_rules_hold_before_and_after_an_assignment() {
    let mut plane = plane().await;
    let envoy = start(&plane).await;
    for case in CASES {
        assert_eq!(ask(&envoy, case).await, case.first(), "{}", case.name);
        let assigned = if case.is_served { 200 } else { 429 };
        until_status(&envoy, case, assigned).await;
    }
    plane.kill().unwrap();
    for case in CASES {
        for expected in case.without_server {
            until_status(&envoy, case, *expected).await;
        }
    }
    for case in CASES {
        let last = *case.without_server.last().unwrap();
        for _ in 0..20 {
            assert_eq!(ask(&envoy, case).await, last, "{}", case.name);
        }
    }
}

/// `StarFailed`: there is no server, and never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_failed() {
    let mut plane = plane().await;
    plane.kill().unwrap();
    let envoy = start(&plane).await;
    for case in CASES {
        for _ in 0..3 {
            assert_eq!(ask(&envoy, case).await, case.first(), "{}", case.name);
        }
    }
}

/// Each case is a customer.
async fn plane() -> ControlPlane {
    let customers: Vec<Value> = CASES
        .iter()
        .map(|case| {
            let contract = if case.is_served { "ample" } else { "nothing" };
            json!({ "key": case.name, "contract": contract })
        })
        .collect();
    plane_with(&json!({
        "version": 1,
        "resources": { "requests": {} },
        "contracts": {
            "ample": { "limits": { "requests": { "rate_per_s": 1_000, "burst": 1_000 } } },
            "nothing": { "limits": { "requests": { "rate_per_s": 0, "burst": 0 } } },
        },
        "customers": customers,
    }))
    .await
}

/// An Envoy with a listener for each case, each of its own domain.
async fn start(plane: &ControlPlane) -> Envoy {
    let listeners = CASES.iter().map(|case| {
        let mut listener = Listener::direct(case.name, None);
        let filter = is_assigned(case.name, &case.behaviors());
        listener.filters_before.push(filter);
        listener
    });
    let mut bootstrap = Bootstrap::with(listeners.collect());
    bootstrap.clusters.push(plane.grpc_cluster().unwrap());
    Envoy::start(&bootstrap, 1).await.unwrap()
}

async fn ask(envoy: &Envoy, case: &Case) -> u16 {
    let client = envoy.connect(case.name, Protocol::Http1).await;
    let reply = client.unwrap().get("/", &[("x-customer", case.name)]).await;
    reply.unwrap().status
}

async fn until_status(envoy: &Envoy, case: &Case, expected: u16) {
    let what = format!("{} gets {expected}", case.name);
    until(what, PATIENCE, async || {
        (ask(envoy, case).await == expected).then_some(())
    })
    .await;
}
