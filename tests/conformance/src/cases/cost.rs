//! What a request costs: constants and trusted headers.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Sent, minimal};

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    let costs = |cost: &str| Sent::by("a").with("x-units", cost.as_bytes());
    vec![
        Case::new(
            "a constant cost is taken each time",
            &costing(10.0, &json!({ "constant": 5 })),
        )
        .admits(2, &a)
        .denies(&a),
        Case::new(
            "half a token is a cost",
            &costing(1.0, &json!({ "constant": 0.5 })),
        )
        .admits(2, &a)
        .denies(&a),
        Case::new(
            "a millionth of a token is a cost",
            &costing(0.000_003, &json!({ "constant": 0.000_001 })),
        )
        .admits(3, &a)
        .denies(&a),
        Case::new(
            "a request that costs nothing is always admitted",
            &costing(1.0, &header(0, 10)),
        )
        .admits(1, &costs("1"))
        .denies(&costs("1"))
        .admits(3, &costs("0")),
        Case::new(
            "a cost above the burst is never admitted",
            &costing(3.0, &json!({ "constant": 4 })),
        )
        .denies(&a)
        .denies(&a),
        Case::new("a header says the cost", &costing(10.0, &header(1, 100)))
            .admits(1, &costs("7"))
            .denies(&costs("4"))
            .admits(1, &costs("3"))
            .denies(&costs("1")),
        Case::new(
            "a missing cost header costs the default",
            &costing(4.0, &header(2, 100)),
        )
        .admits(2, &a)
        .denies(&costs("1")),
        Case::new(
            "a cost that is no number costs the default",
            &costing(4.0, &header(2, 100)),
        )
        .admits(1, &costs("many"))
        .admits(1, &costs(""))
        .denies(&costs("1")),
        Case::new(
            "a negative cost costs the default and gives nothing",
            &costing(4.0, &header(2, 100)),
        )
        .admits(2, &costs("-50"))
        .denies(&costs("1")),
        Case::new(
            "a cost above its maximum costs the maximum",
            &costing(5.0, &header(1, 5)),
        )
        .admits(1, &costs("6"))
        .denies(&costs("1")),
        Case::new(
            "an endless number costs the maximum",
            &costing(5.0, &header(1, 5)),
        )
        .admits(1, &costs("99999999999999999999999999999999999999999"))
        .denies(&costs("1")),
        Case::new(
            "a cost with a fraction is exact",
            &costing(1.0, &header(1, 5)),
        )
        .admits(1, &costs("0.75"))
        .denies(&costs("0.250001"))
        .admits(1, &costs("0.25"))
        .denies(&costs("0.000001")),
        Case::new(
            "bytes that are not UTF-8 cost the default",
            &costing(2.0, &header(1, 5)),
        )
        .admits(2, &Sent::by("a").with("x-units", b"\xff\xfe"))
        .denies(&costs("1")),
    ]
}

fn costing(burst: f64, cost: &Value) -> Value {
    let mut config = minimal(STILL, burst);
    // Nothing may come back even where a millionth of a token counts.
    config["policy"]["contracts"]["standard"]["limits"]["requests"]["rate_per_s"] = json!(0);
    config["rules"][0]["charges"][0]["cost"] = cost.clone();
    config
}

fn header(default: u64, max: u64) -> Value {
    json!({ "header": { "name": "x-units", "trusted": true, "default": default, "max": max } })
}
