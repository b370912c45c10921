//! The pool: capacity shared by all, floors of the tiers, guarantees, borrowing.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Expected, Sent, Want, minimal};

pub(super) fn cases() -> Vec<Case> {
    let [a, b, c] = ["a", "b", "c"].map(Sent::by);
    vec![
        Case::new(
            "a pool limits customers that have tokens left",
            &pooled(8.0, &json!({})),
        )
        .admits(8, &a)
        .denies(&a)
        .denies(&b),
        shared_by_whoever_comes(),
        Case::new(
            "tier 2 leaves a tenth of the pool",
            &pooled(10.0, &json!({ "a": 2 })),
        )
        .admits(9, &a)
        .denies(&a)
        .admits(1, &b)
        .denies(&b),
        Case::new(
            "tier 3 leaves a quarter of the pool",
            &pooled(8.0, &json!({ "a": 3 })),
        )
        .admits(6, &a)
        .denies(&a)
        .admits(2, &b)
        .denies(&b),
        Case::new(
            "each tier stops at its own floor",
            &pooled(20.0, &json!({ "a": 3, "b": 2 })),
        )
        .admits(15, &a)
        .denies(&a)
        .admits(3, &b)
        .denies(&b)
        .admits(2, &c)
        .denies(&c),
        Case::new("a guarantee is kept from others", &guaranteed())
            .admits(6, &b)
            .denies(&b)
            .admits(2, &a)
            .denies(&a),
        Case::new(
            "a pool denial takes no contract tokens",
            &pool_then_contract(),
        )
        .admits(2, &b)
        .denies(&a)
        .denies(&a)
        .step_at(5_000, a.clone(), Expected::ok())
        .denies(&a),
        Case::new("a customer borrows up to its allowance", &borrowing(2.0))
            .admits(3, &a)
            .denies(&a),
        Case::new(
            "a pool denial says when to come back",
            &pooled(2.0, &json!({})),
        )
        .admits(2, &a)
        .step(
            a.clone(),
            Expected::denied().header("retry-after", Want::Between(20, 60)),
        ),
    ]
}

/// Nobody asks twice within the horizon of a chunk, which would draw a token more than is asked for and keep it from the others.
fn shared_by_whoever_comes() -> Case {
    let [a, b, c] = ["a", "b", "c"].map(Sent::by);
    let case = Case::new(
        "a pool is shared by whoever comes",
        &pooled(8.0, &json!({})),
    );
    [
        (0, &a),
        (0, &b),
        (0, &c),
        (1, &a),
        (1, &b),
        (1, &c),
        (2, &a),
        (2, &b),
    ]
    .into_iter()
    .fold(case, |case, (at_s, sent)| {
        case.step_at(at_s * 1_000, sent.clone(), Expected::ok())
    })
    .denies(&c)
    .denies(&a)
    .denies(&b)
}

/// A pool of so many tokens, filled anew in a minute, and contracts that do not limit.
fn pooled(depth: f64, tiers: &Value) -> Value {
    let mut config = minimal(STILL, 100.0);
    pool(&mut config, depth);
    for (index, key) in ["a", "b", "c"].iter().enumerate() {
        let tier = tiers.get(key).cloned().unwrap_or(json!(1));
        config["policy"]["contracts"][format!("tier-{key}")] = json!({ "tier": tier, "limits": { "requests": { "rate_per_s": STILL, "burst": 100 } } });
        config["policy"]["customers"][index]["contract"] = json!(format!("tier-{key}"));
    }
    config
}

fn pool(config: &mut Value, depth: f64) {
    config["policy"]["resources"]["requests"] =
        json!({ "capacity_per_s": rounded(depth / 60.0), "depth_ms": 60_000 });
}

/// Two of eight tokens are kept for `a`.
fn guaranteed() -> Value {
    let mut config = pooled(8.0, &json!({}));
    config["policy"]["shadow"] = json!({ "span_ms": 60_000 });
    let limits = &mut config["policy"]["contracts"]["tier-a"]["limits"]["requests"];
    limits["rate_per_s"] = json!(0.1);
    limits["guarantee_per_s"] = json!(0.033_334);
    config
}

/// A pool of two tokens that come back within four seconds, and one token for `a`.
fn pool_then_contract() -> Value {
    let mut config = minimal(0.0, 5.0);
    config["policy"]["resources"]["requests"] = json!({ "capacity_per_s": 0.5, "depth_ms": 4_000 });
    config["policy"]["contracts"]["one"] =
        json!({ "limits": { "requests": { "rate_per_s": 0, "burst": 1 } } });
    config["policy"]["customers"][0]["contract"] = json!("one");
    config
}

fn borrowing(borrow_limit: f64) -> Value {
    let mut config = minimal(STILL, 1.0);
    pool(&mut config, 20.0);
    let limits = &mut config["policy"]["contracts"]["standard"]["limits"]["requests"];
    limits["ceiling_per_s"] = json!(STILL * 2.0);
    limits["borrow_limit"] = json!(borrow_limit);
    config
}

/// Six digits, as many as a rate has; rounded up, so that the pool is not a millionth too shallow.
fn rounded(rate_per_s: f64) -> f64 {
    (rate_per_s * 1e6).ceil() / 1e6
}
