//! What a policy says of customers: unknown, banned, exempt, frozen, dry run.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Expected, Sent, Want, minimal};

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    let commons = json!({ "action": "commons", "contract": "standard", "prefix_len_v4": 32 });
    let mut dry_run = minimal(STILL, 1.0);
    dry_run["policy"]["dry_run"] = json!(true);
    let mut banned_dry_run = of_a(&json!({ "banned": true }), 1.0);
    banned_dry_run["policy"]["dry_run"] = json!(true);
    let mut two_contracts = minimal(STILL, 1.0);
    two_contracts["policy"]["contracts"]["gold"] =
        json!({ "limits": { "requests": { "rate_per_s": STILL, "burst": 3 } } });
    two_contracts["policy"]["customers"][1]["contract"] = json!("gold");
    vec![
        Case::new(
            "an unknown customer is denied by default",
            &minimal(STILL, 2.0),
        )
        .denies(&Sent::by("stranger"))
        .admits(2, &a),
        Case::new(
            "unknown customers can have a contract each",
            &unknown(&json!({ "action": "default_contract", "contract": "standard" })),
        )
        .admits(2, &Sent::by("stranger"))
        .denies(&Sent::by("stranger"))
        .admits(2, &Sent::by("other"))
        .admits(2, &a),
        Case::new(
            "unknown customers can share a bucket by their address",
            &unknown(&commons),
        )
        .admits(1, &Sent::by("stranger").from(2))
        .admits(1, &Sent::by("other").from(2))
        .denies(&Sent::by("third").from(2))
        .admits(2, &Sent::by("stranger").from(3))
        .denies(&Sent::by("stranger").from(3)),
        Case::new(
            "known customers do not share with the unknown",
            &unknown(&commons),
        )
        .admits(2, &Sent::by("stranger").from(2))
        .denies(&Sent::by("stranger").from(2))
        .admits(2, &a.clone().from(2))
        .denies(&a.clone().from(2)),
        Case::new("customers have their own contracts", &two_contracts)
            .admits(1, &a)
            .denies(&a)
            .admits(3, &Sent::by("b"))
            .denies(&Sent::by("b")),
        Case::new(
            "a banned customer is denied and not told when to return",
            &of_a(&json!({ "banned": true }), 2.0),
        )
        .step(
            a.clone(),
            Expected::denied().header("retry-after", Want::Absent),
        )
        .admits(2, &Sent::by("b")),
        Case::new(
            "a ban that has ended does not bind",
            &of_a(&json!({ "ban_until_unix_s": 946_684_800 }), 1.0),
        )
        .admits(1, &a)
        .denies(&a),
        Case::new(
            "a ban that has not ended binds",
            &of_a(&json!({ "ban_until_unix_s": 4_102_444_800_u64 }), 1.0),
        )
        .denies(&a)
        .admits(1, &Sent::by("b")),
        Case::new(
            "an exempt customer is always admitted",
            &of_a(&json!({ "exempt": true }), 1.0),
        )
        .admits(5, &a)
        .admits(1, &Sent::by("b"))
        .denies(&Sent::by("b")),
        Case::new(
            "a frozen customer is denied and not told when to return",
            &of_a(&json!({ "frozen": true }), 2.0),
        )
        .step(
            a.clone(),
            Expected::denied().header("retry-after", Want::Absent),
        )
        .admits(2, &Sent::by("b")),
        Case::new("a dry run never denies", &dry_run)
            .admits(4, &a)
            .admits(1, &Sent::by("stranger")),
        Case::new("a dry run does not deny the banned", &banned_dry_run).admits(2, &a),
    ]
}

fn unknown(rule: &Value) -> Value {
    let mut config = minimal(STILL, 2.0);
    config["policy"]["unknown"] = rule.clone();
    config
}

fn of_a(fields: &Value, burst: f64) -> Value {
    let mut config = minimal(STILL, burst);
    for (name, value) in fields.as_object().into_iter().flatten() {
        config["policy"]["customers"][0][name] = value.clone();
    }
    config
}
