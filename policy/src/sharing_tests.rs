//! What is said about sharing, and where each mistake is said to be.

use super::*;
use crate::compile::compile;
use forebay_core::amount::Rate;
use forebay_wire::policy::PolicyDocument;
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "version": 1,
        "resources": {"requests": {"capacity_per_s": 1000}, "bytes": {}},
        "sharing": {"interval_ms": 60000, "quantiles": [0.95, 0.8, 0.5], "reserve_share": 0.2, "credits": true,
            "spillover": {"threshold_score": 0.05, "headroom_share": 0.2, "ttl_ms": 600000, "protect": "spiker"},
            "prioritize": {"most": 3, "error_budget": 0.01, "half_life_ms": 120000}},
        "groups": {
            "alpha": {"parent": "zulu", "cap_per_s": {"requests": 400}},
            "zulu": {}
        },
        "contracts": {
            "free": {"tier": 3, "limits": {
                "requests": {"rate_per_s": 5, "burst": 5}, "bytes": {"rate_per_s": 10, "burst": 10}
            }},
            "gold": {"limits": {
                "requests": {"rate_per_s": 500, "burst": 100, "guarantee_per_s": 200, "lend_limit_per_s": 50},
                "bytes": {"rate_per_s": 10, "burst": 10}
            }}
        },
        "customers": [
            {"key": "acme", "contract": "gold", "group": "alpha"},
            {"key": "bolt", "contract": "free", "group": "zulu"},
            {"key": "crab", "contract": "gold"}
        ]
    })
}

fn read(document: &Value) -> Result<Option<Sharing>, PolicyError> {
    let document: PolicyDocument = serde_json::from_value(document.clone()).unwrap();
    sharing(&document, &compile(&document).unwrap())
}

#[test]
fn groups_lie_behind_those_that_they_are_a_part_of() {
    let sharing = read(&document()).unwrap().unwrap();
    let names: Vec<&str> = sharing
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["zulu", "alpha"]);
    assert_eq!(sharing.groups[1].parent, Some(0));
    let requests = ResourceIndex::new(1).unwrap();
    assert_eq!(
        *sharing.groups[1].cap.at(requests),
        Some(Rate::from_tokens_per_s(400))
    );
    assert_eq!(sharing.group_of, [Some(1), Some(0), None]);
    assert_eq!(*sharing.lend_limits[0].at(requests), None);
    assert_eq!(
        *sharing.lend_limits[1].at(requests),
        Some(Rate::from_tokens_per_s(50))
    );
    assert!(sharing.with_credits);
    let spillover = Spillover {
        threshold_score: 0.05,
        headroom_share: 0.2,
        ttl_ms: 600_000,
        protect: Protect::Spiker,
    };
    assert_eq!(sharing.spillover, Some(spillover));
    let prioritize = Prioritize {
        most: 3,
        error_budget: 0.01,
        half_life_ms: 120_000,
    };
    assert_eq!(sharing.prioritize, Some(prioritize));
}

#[test]
fn a_document_that_says_nothing_shares_nothing() {
    let mut silent = document();
    for field in ["sharing", "groups"] {
        silent.as_object_mut().unwrap().remove(field);
    }
    for customer in silent["customers"].as_array_mut().unwrap() {
        customer.as_object_mut().unwrap().remove("group");
    }
    let gold = &mut silent["contracts"]["gold"]["limits"]["requests"];
    gold.as_object_mut().unwrap().remove("lend_limit_per_s");
    assert_eq!(read(&silent).unwrap(), None);
    silent["sharing"] = json!({});
    let defaults = read(&silent).unwrap().unwrap();
    assert_eq!(
        (defaults.interval_ms, defaults.reserve_share),
        (300_000, 0.25)
    );
    assert_eq!(defaults.spillover, None, "nobody asked for it");
    assert_eq!(defaults.events, []);
    assert_eq!(defaults.prioritize, None, "nor for this");
    assert_eq!(defaults.tuning, None, "nor for this");
    silent["sharing"] = json!({"spillover": {}, "prioritize": {}, "tuning": {}});
    let tuning = read(&silent).unwrap().unwrap().tuning.unwrap();
    assert_eq!(
        (tuning.reserve_share, tuning.quantiles, tuning.loss_most),
        ([0.1, 0.4], None, 0.01)
    );
    let prioritize = read(&silent).unwrap().unwrap().prioritize.unwrap();
    assert_eq!((prioritize.most, prioritize.half_life_ms), (2, 900_000));
    let spillover = read(&silent).unwrap().unwrap().spillover.unwrap();
    assert_eq!(
        (spillover.threshold_score, spillover.protect),
        (0.02, Protect::Hit)
    );
    let sale = json!({"name": "sale", "from_unix_s": 100, "until_unix_s": 200, "factor": 3, "contracts": ["gold"]});
    silent["events"] = json!([sale]);
    let events = read(&silent).unwrap().unwrap().events;
    let contracts = events[0].contracts.as_ref().unwrap();
    assert_eq!(
        (events[0].from_unix_ms, events[0].until_unix_ms),
        (100_000, 200_000)
    );
    assert!(contracts.contains(&1), "{contracts:?}");
    silent["events"][0]["contracts"][0] = json!("golf");
    let refused = read(&silent).unwrap_err().to_string();
    assert!(refused.contains("events[0].contracts[0]"), "{refused}");
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let cases = [
        (
            "/sharing",
            json!(null),
            "groups has no effect without a `sharing` section",
        ),
        (
            "/sharing/interval_ms",
            json!(9999),
            "sharing.interval_ms is 9999",
        ),
        (
            "/sharing/quantiles/1",
            json!(0.4),
            "sharing.quantiles[1] is 0.4",
        ),
        (
            "/sharing/reserve_share",
            json!(0.95),
            "sharing.reserve_share is 0.95",
        ),
        (
            "/sharing/prioritize/most",
            json!(0),
            "sharing.prioritize.most is 0",
        ),
        (
            "/sharing/prioritize/error_budget",
            json!(0.6),
            "sharing.prioritize.error_budget is 0.6",
        ),
        (
            "/sharing/prioritize/half_life_ms",
            json!(5),
            "sharing.prioritize.half_life_ms is 5",
        ),
        (
            "/sharing/tuning",
            json!({"reserve_share": [0.1, 0.6]}),
            "sharing.tuning.reserve_share is 0.1 to 0.6",
        ),
        (
            "/sharing/tuning",
            json!({"reserve_share": [0.3, 0.4]}),
            "holds the policy's own value, 0.2",
        ),
        (
            "/sharing/tuning",
            json!({"quantiles": [[0.9, 0.99], [0.81, 0.9], [0.5, 0.6]]}),
            "sharing.tuning.quantiles[1] is 0.81 to 0.9",
        ),
        (
            "/sharing/tuning",
            json!({"loss_most": 0.6}),
            "sharing.tuning.loss_most is 0.6",
        ),
        (
            "/sharing/spillover/threshold_score",
            json!(0),
            "sharing.spillover.threshold_score is 0",
        ),
        (
            "/sharing/spillover/threshold_score",
            json!(1.001),
            "sharing.spillover.threshold_score is 1.001",
        ),
        (
            "/sharing/spillover/headroom_share",
            json!(0.501),
            "sharing.spillover.headroom_share is 0.501",
        ),
        (
            "/sharing/spillover/headroom_share",
            json!(-0.1),
            "sharing.spillover.headroom_share is -0.1",
        ),
        (
            "/sharing/spillover/ttl_ms",
            json!(59999),
            "sharing.spillover.ttl_ms is 59999",
        ),
        (
            "/sharing/spillover/ttl_ms",
            json!(3_600_001),
            "sharing.spillover.ttl_ms is 3600001",
        ),
        (
            "/groups/alpha/parent",
            json!("zulo"),
            "groups.alpha.parent names the group `zulo`, which is not under `groups` (did you mean `zulu`?)",
        ),
        (
            "/groups/zulu/parent",
            json!("alpha"),
            "groups.alpha.parent makes a circle",
        ),
        (
            "/groups/zulu/parent",
            json!("zulu"),
            "groups.zulu.parent makes a circle",
        ),
        (
            "/groups/alpha/cap_per_s/requests",
            json!(199),
            "groups.alpha.cap_per_s.requests is 199 tokens/s, but the guarantees",
        ),
        (
            "/groups/alpha/cap_per_s/bytes",
            json!(5),
            "groups.alpha.cap_per_s.bytes has no effect on a resource without a capacity_per_s",
        ),
        (
            "/groups/alpha/cap_per_s/tokens",
            json!(5),
            "groups.alpha.cap_per_s.tokens is not a resource of this policy",
        ),
        (
            "/customers/1/group",
            json!("alfa"),
            "customers[1].group names the group `alfa`",
        ),
        (
            "/contracts/gold/limits/requests/lend_limit_per_s",
            json!(201),
            "contracts.gold.limits.requests.lend_limit_per_s is 201",
        ),
        (
            "/contracts/free/limits/requests/lend_limit_per_s",
            json!(1),
            "contracts.free.limits.requests.lend_limit_per_s has no effect without a guarantee_per_s",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut wrong = document();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        match wrong.pointer_mut(parent).unwrap() {
            Value::Object(fields) => drop(fields.insert(field.to_owned(), value)),
            Value::Array(values) => values[field.parse::<usize>().unwrap()] = value,
            _ => unreachable!(),
        }
        let found = read(&wrong).unwrap_err().to_string();
        assert!(found.contains(expected), "{pointer}: {found}");
    }
    let mut no_pool = document();
    no_pool["resources"]["requests"] = json!({});
    no_pool["contracts"]["gold"]["limits"]["requests"] = json!({"rate_per_s": 500, "burst": 100});
    no_pool["groups"] = json!({"alpha": {}, "zulu": {}});
    let found = read(&no_pool).unwrap_err().to_string();
    assert_eq!(
        found,
        "sharing has no effect without a resource that has a capacity_per_s: remove it"
    );
}

#[test]
fn groups_are_nested_eight_deep_and_no_deeper() {
    let chain = |depth: usize| {
        let mut deep = document();
        deep["groups"] = json!({"alpha": {}, "zulu": {}, "level-0": {}});
        for level in 1..depth {
            deep["groups"][format!("level-{level}")] =
                json!({"parent": format!("level-{}", level - 1)});
        }
        read(&deep)
    };
    assert_eq!(chain(8).unwrap().unwrap().groups.len(), 10);
    let found = chain(9).unwrap_err().to_string();
    assert!(
        found.contains("groups.level-8.parent makes a circle, or more than 8"),
        "{found}"
    );
}
