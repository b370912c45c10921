use super::begin::span_of;
use super::*;
use crate::models::Verdict;
use forebay_core::time::TimeUs;

const NOW: Now = Now {
    mono: TimeUs(0),
    unix_ms: 7,
};

fn share(percent: u8) -> Share {
    Share {
        percent,
        promotion: Promotion::Manual,
    }
}

fn gateways(count: u64) -> Vec<(u64, String)> {
    (0..count)
        .map(|number| (number << 56, format!("g{number}")))
        .collect()
}

fn present(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn runs(canary: &Canary) -> Vec<&str> {
    let runs = canary.assigned.iter().filter(|(_, runs)| **runs);
    runs.map(|(id, _)| id.as_str()).collect()
}

#[test]
fn a_share_is_at_least_one_gateway_and_leaves_one_to_compare_with() {
    for (percent, present, expected) in [
        (1, 1, 1),
        (1, 9, 1),
        (10, 10, 1),
        (11, 10, 2),
        (50, 3, 2),
        (99, 2, 1),
        (99, 200, 198),
    ] {
        let canary = Canary::begin(share(percent), 2, 1, gateways(present), NOW);
        assert_eq!(runs(&canary).len(), expected, "{percent} % of {present}");
    }
    let mut nobody = Canary::begin(share(1), 2, 1, Vec::new(), NOW);
    let both = present(&["late", "later"]);
    assert!(nobody.enrol("late", u64::MAX, false, &both));
    assert!(nobody.runs_at("late"));
    assert!(nobody.enrol("later", 0, false, &both));
    assert!(!nobody.runs_at("later"), "nobody to compare with");
}

#[test]
fn a_gateway_keeps_its_side_and_a_new_one_gets_it_by_its_hash() {
    let mut canary = Canary::begin(share(25), 2, 1, gateways(4), NOW);
    assert_eq!(runs(&canary), ["g0"]);
    for (hash, id) in gateways(4) {
        let all = present(&["g0", "g1", "g2", "g3"]);
        assert!(!canary.enrol(&id, hash, false, &all), "{id} has its side");
    }
    let all = present(&["g0", "g1", "low", "high"]);
    assert!(canary.enrol("low", u64::MAX / 5, false, &all));
    assert!(canary.enrol("high", u64::MAX / 2, false, &all));
    assert_eq!(runs(&canary), ["g0", "low"]);
}

#[test]
fn what_is_promoted_has_seen_a_season_and_a_day_is_enough() {
    for (facts, span_ms) in [
        (serde_json::json!({}), 86_400_000),
        (
            serde_json::json!({"step_s": 60, "season_steps": 60}),
            3_600_000,
        ),
        (
            serde_json::json!({"step_s": 3_600, "season_steps": 168}),
            86_400_000,
        ),
    ] {
        let verdict = Verdict {
            ok: true,
            message: String::new(),
            facts: facts.as_object().unwrap().clone(),
        };
        assert_eq!(span_of(&verdict), span_ms, "{facts}");
    }
}

#[test]
fn when_the_last_canary_has_gone_the_next_gateway_to_come_is_one() {
    let mut canary = Canary::begin(share(25), 2, 1, gateways(4), NOW);
    let left = present(&["g1", "g2", "g3", "pod-b"]);
    assert!(!canary.enrol("g1", 0, false, &left), "it keeps its side");
    assert!(canary.enrol("pod-b", u64::MAX, false, &left));
    assert_eq!(runs(&canary), ["g0", "pod-b"]);
    // One whose name is forgotten, but that has taken its epoch, cannot go back.
    assert!(canary.enrol("pod-c", u64::MAX, true, &left));
    assert_eq!(runs(&canary), ["g0", "pod-b", "pod-c"]);
}

#[test]
fn however_many_gateways_have_come_and_gone_the_next_one_finds_its_side() {
    let mut canary = Canary::begin(share(25), 2, 1, gateways(2), NOW);
    for number in 0..2 * MAX_ASSIGNED {
        let name = format!("pod-{number}");
        let there = present(&["g0", "g1", &name]);
        assert!(canary.enrol(&name, 0, false, &there), "{name}");
        assert!(canary.runs_at(&name), "{name}");
    }
}
