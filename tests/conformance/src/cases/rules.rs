//! Which rules apply, and how several of them add up.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Sent, minimal};

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    [matching(), several(&a)].concat()
}

fn matching() -> Vec<Case> {
    let a = Sent::by("a");
    let flagged = |value: &str| Sent::by("a").with("x-flag", value.as_bytes());
    vec![
        Case::new(
            "a path prefix matches byte for byte",
            &matching_on(&json!({ "path_prefix": "/api" })),
        )
        .admits(1, &a.clone().to("/api/x"))
        .denies(&a.clone().to("/api"))
        .admits(2, &a.clone().to("/API"))
        .admits(1, &a.clone().to("/")),
        Case::new(
            "a path prefix sees the query",
            &matching_on(&json!({ "path_prefix": "/s?q=" })),
        )
        .admits(1, &a.clone().to("/s?q=1"))
        .denies(&a.clone().to("/s?q=2"))
        .admits(2, &a.clone().to("/s")),
        Case::new(
            "a method matches",
            &matching_on(&json!({ "methods": ["POST", "PUT"] })),
        )
        .admits(1, &a.clone().method("POST"))
        .denies(&a.clone().method("PUT"))
        .admits(2, &a),
        Case::new(
            "a header matches exactly",
            &matching_on(&header(&json!({ "exact": "on" }))),
        )
        .admits(1, &flagged("on"))
        .denies(&flagged("on"))
        .admits(2, &flagged("off")),
        Case::new(
            "a header matches by its prefix",
            &matching_on(&header(&json!({ "prefix": "v2" }))),
        )
        .admits(1, &flagged("v2.1"))
        .denies(&flagged("v2"))
        .admits(2, &flagged("v1")),
        Case::new(
            "a header matches by being there",
            &matching_on(&header(&json!({ "present": true }))),
        )
        .admits(1, &flagged("x"))
        .denies(&flagged("y"))
        .admits(2, &a),
        Case::new(
            "a header matches by not being there",
            &matching_on(&header(&json!({ "present": false }))),
        )
        .admits(1, &a)
        .denies(&a)
        .admits(2, &flagged("x")),
        Case::new(
            "all conditions must hold",
            &matching_on(&json!({ "path_prefix": "/api", "methods": ["POST"] })),
        )
        .admits(1, &a.clone().to("/api").method("POST"))
        .denies(&a.clone().to("/api").method("POST"))
        .admits(2, &a.clone().to("/api"))
        .admits(2, &a.clone().method("POST")),
    ]
}

fn several(a: &Sent) -> Vec<Case> {
    let mut first_wins = minimal(STILL, 3.0);
    first_wins["rules"] = json!([
        rule(
            "api",
            &json!({ "path_prefix": "/api" }),
            &json!({ "constant": 2 })
        ),
        rule("all", &json!({}), &json!({ "constant": 1 })),
    ]);
    let mut two_keys = minimal(STILL, 3.0);
    append(
        &mut two_keys["rules"],
        json!({
            "name": "everybody",
            "key": { "constant": "everybody" },
            "charges": [{ "resource": "shared" }],
        }),
    );
    two_keys["policy"]["resources"]["shared"] = json!({});
    limit(&mut two_keys, "standard", "shared", 9.0);
    two_keys["policy"]["contracts"]["common"] = json!({ "limits": {
        "requests": { "rate_per_s": 1, "burst": 1 },
        "shared": { "rate_per_s": STILL, "burst": 4 },
    } });
    append(
        &mut two_keys["policy"]["customers"],
        json!({ "key": "everybody", "contract": "common" }),
    );
    vec![
        Case::new("the first matching rule charges a resource", &first_wins)
            .admits(1, &a.clone().to("/api"))
            .denies(&a.clone().to("/api"))
            .admits(1, &a.clone().to("/other"))
            .denies(a),
        Case::new(
            "a request pays for all its resources or for none",
            &two_resources(),
        )
        .admits(1, &a.clone().with("x-units", b"6"))
        .denies(&a.clone().with("x-units", b"5"))
        .denies(&a.clone().with("x-units", b"5"))
        .admits(2, &a.clone().with("x-units", b"1"))
        .denies(&a.clone().with("x-units", b"0")),
        Case::new(
            "a request pays for all its customers or for none",
            &two_keys,
        )
        .admits(2, a)
        .admits(2, &Sent::by("b"))
        .denies(a)
        .denies(&Sent::by("c"))
        .denies(&Sent::by("b")),
    ]
}

fn matching_on(conditions: &Value) -> Value {
    let mut config = minimal(STILL, 1.0);
    config["rules"][0]["match"] = conditions.clone();
    config
}

fn header(condition: &Value) -> Value {
    let mut header = condition.clone();
    header["name"] = json!("x-flag");
    json!({ "headers": [header] })
}

fn rule(name: &str, matches: &Value, cost: &Value) -> Value {
    json!({
        "name": name,
        "match": matches,
        "key": { "header": { "name": "x-customer", "trusted": true } },
        "charges": [{ "resource": "requests", "cost": cost }],
    })
}

/// `requests` (burst 3) and `units` (burst 10, from a header).
fn two_resources() -> Value {
    let mut config = minimal(STILL, 3.0);
    append(
        &mut config["rules"][0]["charges"],
        json!({
            "resource": "units",
            "cost": { "header": { "name": "x-units", "trusted": true, "default": 1, "max": 100 } },
        }),
    );
    config["policy"]["resources"]["units"] = json!({});
    limit(&mut config, "standard", "units", 10.0);
    config
}

fn limit(config: &mut Value, contract: &str, resource: &str, burst: f64) {
    config["policy"]["contracts"][contract]["limits"][resource] =
        json!({ "rate_per_s": STILL, "burst": burst });
}

fn append(list: &mut Value, item: Value) {
    if let Some(items) = list.as_array_mut() {
        items.push(item);
    }
}
