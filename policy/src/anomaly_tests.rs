//! What is said about anomalies, and where each mistake is said to be.

use super::*;
use serde_json::{Value, json};

fn document() -> Value {
    let limits = json!({"requests": {"rate_per_s": 5, "burst": 5}});
    json!({
        "version": 1,
        "resources": {"requests": {"capacity_per_s": 1000}},
        "sharing": {},
        "anomaly": {"action": "cap_at_contract", "cap_from_score": 1.5},
        "events": [
            {"name": "sale", "from_unix_s": 100, "until_unix_s": 200, "factor": 8},
            {"name": "launch", "from_unix_s": 150, "until_unix_s": 160, "factor": 2.5, "contracts": ["gold"]}
        ],
        "contracts": {
            "free": {"limits": limits, "anomaly": "off"},
            "gold": {"limits": limits}
        }
    })
}

fn read(document: &Value) -> Result<Option<Anomaly>, PolicyError> {
    anomaly(&serde_json::from_value(document.clone()).unwrap())
}

#[test]
fn a_contract_has_its_own_word_before_that_of_all_and_events_know_whom_they_move() {
    let read = read(&document()).unwrap().unwrap();
    let expected = [AnomalyAction::Off, AnomalyAction::CapAtContract];
    assert_eq!(
        (read.actions.as_slice(), read.cap_from_score),
        (&expected[..], 1.5)
    );
    let events: Vec<_> = read
        .events
        .iter()
        .map(|event| {
            (
                event.from_unix_ms,
                event.until_unix_ms,
                event.factor,
                event.contracts.clone(),
            )
        })
        .collect();
    assert_eq!(
        events,
        [
            (100_000, 200_000, 8.0, None),
            (150_000, 160_000, 2.5, Some(BTreeSet::from([1])))
        ]
    );
}

#[test]
fn nobody_is_watched_by_default_and_whoever_is_flagged_is_only_flagged() {
    let mut plain = document();
    for field in ["anomaly", "events", "sharing"] {
        plain.as_object_mut().unwrap().remove(field);
    }
    plain["contracts"]["free"]
        .as_object_mut()
        .unwrap()
        .remove("anomaly");
    assert_eq!(read(&plain).unwrap(), None);
    plain["anomaly"] = json!({});
    let read = read(&plain).unwrap().unwrap();
    assert_eq!(read.actions, [AnomalyAction::Flag; 2]);
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let without = |field: &str| {
        let mut document = document();
        document.as_object_mut().unwrap().remove(field);
        document
    };
    let with = |pointer: &str, value: Value| {
        let mut document = document();
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let paths = |document: &Value| -> Vec<String> {
        let error = read(document).unwrap_err();
        error
            .mistakes
            .iter()
            .map(|mistake| mistake.path.clone())
            .collect()
    };
    assert_eq!(
        paths(&without("anomaly")),
        ["events", "contracts.free.anomaly"]
    );
    assert_eq!(paths(&without("sharing")), ["anomaly.action"]);
    for (pointer, value, path) in [
        (
            "/anomaly/cap_from_score",
            json!(0.5),
            "anomaly.cap_from_score",
        ),
        (
            "/anomaly/cap_from_score",
            json!(101),
            "anomaly.cap_from_score",
        ),
        ("/anomaly/action", json!("flag"), "anomaly.cap_from_score"),
        (
            "/events/0/until_unix_s",
            json!(100),
            "events[0].until_unix_s",
        ),
        (
            "/events/0/until_unix_s",
            json!(100 + LONGEST_S + 1),
            "events[0].until_unix_s",
        ),
        ("/events/0/factor", json!(0.9), "events[0].factor"),
        ("/events/0/factor", json!(101), "events[0].factor"),
        ("/events/0/name", json!("a sale"), "events[0].name"),
        (
            "/events/1/contracts/0",
            json!("glod"),
            "events[1].contracts[0]",
        ),
    ] {
        assert_eq!(paths(&with(pointer, value)), [path], "{pointer}");
    }
    // An event without a moment, at the end of all numbers.
    let never =
        json!({"name": "never", "from_unix_s": u64::MAX, "until_unix_s": u64::MAX, "factor": 2});
    assert_eq!(paths(&with("/events/0", never)), ["events[0].from_unix_s"]);
    let many = vec![document()["events"][0].clone(); MAX_EVENTS + 1];
    assert_eq!(paths(&with("/events", json!(many))), ["events"]);
}
