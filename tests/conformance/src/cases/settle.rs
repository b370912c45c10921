//! Costs that are known only with the response.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Expected, Sent, Want, minimal};

pub(super) fn cases() -> Vec<Case> {
    let costing = |cost| Sent::by("a").costing(cost);
    vec![
        Case::new(
            "a request that cost more is charged the rest",
            &settled(STILL, 3.0, 1, 100),
        )
        .admits(1, &costing("3"))
        .denies(&costing("1")),
        Case::new(
            "a request that cost less gives the rest back",
            &settled(STILL, 3.0, 3, 100),
        )
        .admits(1, &costing("0"))
        .admits(1, &costing("0"))
        .admits(1, &costing("1"))
        .denies(&costing("0")),
        Case::new(
            "a give-back does not fill a bucket above its burst",
            &settled(STILL, 2.0, 2, 100),
        )
        .admits(3, &costing("0"))
        .admits(1, &costing("2"))
        .denies(&costing("0")),
        Case::new(
            "a response without the header keeps the estimate",
            &settled(STILL, 4.0, 2, 100),
        )
        .admits(2, &Sent::by("a"))
        .denies(&Sent::by("a")),
        Case::new(
            "a debt stops admission until it is repaid",
            &settled(0.5, 2.0, 1, 100),
        )
        .admits(1, &costing("4"))
        .denies(&costing("0"))
        .step_at(3_000, costing("0"), Expected::denied())
        .step_at(8_000, costing("0"), Expected::ok()),
        Case::new(
            "a report above the maximum is charged the maximum",
            &settled(STILL, 10.0, 1, 5),
        )
        .admits(1, &costing("1000000"))
        .admits(1, &costing("5"))
        .denies(&costing("1")),
        Case::new(
            "a negative report keeps the estimate",
            &settled(STILL, 2.0, 1, 5),
        )
        .admits(2, &costing("-5"))
        .denies(&costing("1")),
        Case::new(
            "a report that is no number keeps the estimate",
            &settled(STILL, 2.0, 1, 5),
        )
        .admits(2, &costing("lots"))
        .denies(&costing("1")),
        Case::new(
            "the client does not see the report",
            &settled(STILL, 5.0, 1, 5),
        )
        .step(costing("2"), Expected::ok().header("x-cost", Want::Absent)),
        Case::new(
            "a client's own report is ignored",
            &settled(STILL, 2.0, 1, 5),
        )
        .admits(2, &Sent::by("a").with("x-cost", b"0"))
        .denies(&costing("0")),
        Case::new("a fraction is settled exactly", &settled(0.0, 2.0, 1, 5))
            .admits(1, &costing("0.5"))
            .admits(1, &costing("0.5"))
            .admits(1, &costing("0.75"))
            .denies(&costing("0")),
    ]
}

fn settled(rate_per_s: f64, burst: f64, estimate: u64, max: u64) -> Value {
    let mut config = minimal(rate_per_s, burst);
    config["rules"][0]["charges"][0]["cost"] =
        json!({ "settle": { "estimate": estimate, "response_header": "x-cost", "max": max } });
    config
}
