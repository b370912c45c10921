//! `Retry-After` and `X-RateLimit-*`, as vectors.

use serde_json::{Value, json};

use crate::case::{Case, Expected, Sent, Want, minimal};

const LIMIT: &str = "x-ratelimit-limit";
const REMAINING: &str = "x-ratelimit-remaining";
const RESET: &str = "x-ratelimit-reset";
const POLICY: &str = "ratelimit-policy";
const RATE_LIMIT: &str = "ratelimit";
const RETRY: &str = "retry-after";

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    let all = json!({ "limit": true, "quota_policy": false, "remaining": true, "reset": true });
    let policy = json!({ "limit": true, "quota_policy": true });
    vec![
        Case::new("only retry-after is sent by default", &minimal(0.05, 1.0))
            .step(
                a.clone(),
                Expected::ok()
                    .header(LIMIT, Want::Absent)
                    .header(REMAINING, Want::Absent)
                    .header(RESET, Want::Absent)
                    .header(RETRY, Want::Absent),
            )
            .step(
                a.clone(),
                Expected::denied()
                    .header(LIMIT, Want::Absent)
                    .header(RETRY, Want::Between(10, 20)),
            ),
        Case::new(
            "retry-after is the time until the request could succeed",
            &minimal(0.02, 2.0),
        )
        .admits(2, &a)
        .step(
            a.clone(),
            Expected::denied().header(RETRY, Want::Between(40, 50)),
        ),
        Case::new("retry-after counts the cost", &costing_three())
            .admits(1, &a)
            .step(
                a.clone(),
                Expected::denied().header(RETRY, Want::Between(80, 100)),
            ),
        Case::new(
            "retry-after can be switched off",
            &with(0.05, 1.0, &json!({ "retry_after": false })),
        )
        .admits(1, &a)
        .step(a.clone(), Expected::denied().header(RETRY, Want::Absent)),
        Case::new(
            "retry-after is absent when nothing comes back",
            &minimal(0.0, 1.0),
        )
        .admits(1, &a)
        .step(a.clone(), Expected::denied().header(RETRY, Want::Absent)),
        Case::new("remaining counts down to a denial", &with(0.01, 3.0, &all))
            .step(a.clone(), remaining(Expected::ok(), "2"))
            .step(a.clone(), remaining(Expected::ok(), "1"))
            .step(a.clone(), remaining(Expected::ok(), "0"))
            .step(a.clone(), remaining(Expected::denied(), "0")),
        Case::new(
            "reset is the time until the bucket is full",
            &with(0.02, 4.0, &all),
        )
        .step(
            a.clone(),
            Expected::ok().header(RESET, Want::Between(45, 50)),
        )
        .step(
            a.clone(),
            Expected::ok().header(RESET, Want::Between(90, 100)),
        ),
        Case::new(
            "the quota policy says burst and window",
            &with(0.5, 5.0, &policy),
        )
        .step(
            a.clone(),
            Expected::ok()
                .header(LIMIT, Want::Is("5, 5;w=10"))
                .header(REMAINING, Want::Absent),
        ),
        Case::new(
            "structured fields say burst and window, what remains and for how long",
            &with(0.5, 2.0, &json!({ "rate_limit": true })),
        )
        .step(
            a.clone(),
            fields(
                Expected::ok(),
                r#""requests";q=2;w=4"#,
                r#""requests";r=1;t=2"#,
            ),
        ),
        Case::new(
            "structured fields count down to a denial",
            &with(0.0, 2.0, &json!({ "rate_limit": true })),
        )
        .step(
            a.clone(),
            fields(Expected::ok(), r#""requests";q=2"#, r#""requests";r=1"#),
        )
        .step(
            a.clone(),
            fields(Expected::ok(), r#""requests";q=2"#, r#""requests";r=0"#),
        )
        .step(
            a.clone(),
            fields(Expected::denied(), r#""requests";q=2"#, r#""requests";r=0"#),
        ),
        Case::new("each customer sees its own balance", &with(0.01, 3.0, &all))
            .step(a.clone(), remaining(Expected::ok(), "2"))
            .step(Sent::by("b"), remaining(Expected::ok(), "2"))
            .step(a.clone(), remaining(Expected::ok(), "1")),
        Case::new("the upstream's headers stay", &with(0.01, 3.0, &all)).step(
            a.clone().costing("9"),
            remaining(Expected::ok(), "2").header("x-cost", Want::Is("9")),
        ),
    ]
}

fn remaining(expected: Expected, left: &'static str) -> Expected {
    expected
        .header(LIMIT, Want::Is("3"))
        .header(REMAINING, Want::Is(left))
}

fn fields(expected: Expected, policy: &'static str, left: &'static str) -> Expected {
    expected
        .header(POLICY, Want::Is(policy))
        .header(RATE_LIMIT, Want::Is(left))
        .header(LIMIT, Want::Absent)
}

fn with(rate_per_s: f64, burst: f64, headers: &Value) -> Value {
    let mut config = minimal(rate_per_s, burst);
    config["headers"] = headers.clone();
    config
}

fn costing_three() -> Value {
    let mut config = minimal(0.02, 4.0);
    config["rules"][0]["charges"][0]["cost"] = json!({ "constant": 3 });
    config
}
