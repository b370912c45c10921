//! A dry run lets every request pass and counts what enforcement would have done: the same requests, the same figures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a failed step must stop the test

mod gateway;

use std::collections::BTreeMap;

use gateway::{Answer, Gateway, Request, config};

/// A rule for the customer, whose cost is settled, and one for everybody together.
const RULES: &str = r#"
    {"name": "customer", "key": {"header": {"name": "x-key", "trusted": true}}, "charges": [
        {"resource": "requests", "cost": {"settle": {"estimate": 4, "response_header": "x-used", "max": 8}}}]},
    {"name": "all", "key": {"constant": "all"}, "charges": [{"resource": "calls"}]}"#;
const MORE: &str =
    r#""access_log": {"verdict": true, "customer": true}, "headers": {"remaining": true},"#;
const POLICY: &str = r#""unknown": {"action": "default_contract", "contract": "basic"}, "resources": {"requests": {}, "calls": {}},
    "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 0.001, "burst": 9}, "calls": {"rate_per_s": 0.001, "burst": 6}}}}"#;

/// What came of 12 requests of four customers.
fn run(dry_run: bool) -> (Vec<Answer>, BTreeMap<String, u64>) {
    let policy = format!(r#""dry_run": {dry_run}, {POLICY}"#);
    let mut gateway = Gateway::new(&config(RULES, MORE, &policy), 1);
    let answers = (0..12)
        .map(|n| {
            let request = Request::of(&format!("key-{}", n % 4)).response("x-used", "1");
            gateway.send(0, &request)
        })
        .collect();
    gateway.metric("");
    let counted = |(name, _): &(String, u64)| {
        name.starts_with("forebay.decisions") || name.starts_with("forebay.tokens")
    };
    let metrics = gateway.world.metrics.into_iter().filter(counted).collect();
    (answers, metrics)
}

#[test]
fn a_dry_run_counts_what_enforcement_would_have_done() {
    let (enforced, enforced_metrics) = run(false);
    let (dry, dry_metrics) = run(true);
    let renamed: BTreeMap<String, u64> = dry_metrics
        .into_iter()
        .map(|(name, count)| (name.replace("=dry_run.", "=denied."), count))
        .collect();
    assert_eq!(renamed, enforced_metrics);
    for (n, (enforced, dry)) in enforced.iter().zip(&dry).enumerate() {
        assert!(dry.admitted(), "request {n}");
        assert_eq!(
            dry.state["forebay.verdict"].replace("dry_run:", "denied:"),
            enforced.state["forebay.verdict"],
            "request {n}"
        );
        assert_eq!(
            dry.state["forebay.customer"], enforced.state["forebay.customer"],
            "request {n}"
        );
    }
    let denied = enforced.iter().filter(|answer| !answer.admitted()).count();
    assert_eq!(denied, 6, "the sixth call of all is the last");
}

#[test]
fn a_denied_request_counts_for_the_customer_that_was_denied_alone() {
    let (_, metrics) = run(false);
    let decisions = |label: &str| {
        metrics
            .get(&format!("forebay.decisions.rule={label}"))
            .copied()
            .unwrap_or(0)
    };
    assert_eq!(decisions("customer.verdict=standard"), 6);
    assert_eq!(decisions("all.verdict=standard"), 6);
    assert_eq!(decisions("all.verdict=denied.reason=contract"), 6);
}

#[test]
fn a_dry_run_settles_nothing_that_was_not_charged_and_shows_the_client_no_cost() {
    let one = RULES.split_once("},\n    {\"name\": \"all\"").unwrap().0;
    let policy = format!(r#""dry_run": true, {POLICY}"#);
    let mut gateway = Gateway::new(&config(&format!("{one}}}"), MORE, &policy), 1);
    let used = |cost| Request::of("acme").response("x-used", cost);
    assert_eq!(
        gateway.send(0, &used("8")).state["forebay.verdict"],
        "standard"
    );
    for _ in 0..5 {
        let answer = gateway.send(0, &used("0"));
        assert_eq!(answer.state["forebay.verdict"], "dry_run:contract");
        assert_eq!(answer.header("x-used"), None);
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("1"));
        gateway.advance_ms(200);
        gateway.tick_all();
    }
}
