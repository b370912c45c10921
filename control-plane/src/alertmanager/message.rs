//! `POST /api/v2/alerts`: an array of alerts with labels, annotations, and when they start and end.

use super::book::Notice;
use serde_json::{Map, Value, json};
use std::time::Duration;
use x509_cert::der::DateTime;

/// What an Alertmanager is told of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) notice: Notice,
    pub(super) ended_unix_ms: Option<u64>,
}

/// The body of a request. What fires is said to end at `until_unix_ms`, unless that is put off by the next request: an Alertmanager that hears nothing
/// any more must not hold it for true for ever.
pub(super) fn encode(told: &[Told], until_unix_ms: u64) -> Vec<u8> {
    let alerts = told.iter().map(|told| alert(told, until_unix_ms));
    Value::Array(alerts.collect()).to_string().into_bytes()
}

fn alert(told: &Told, until_unix_ms: u64) -> Value {
    let notice = &told.notice;
    let kind = notice.key.kind;
    let mut labels = Map::new();
    let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.into());
    label("alertname", kind.name());
    label("severity", kind.severity().name());
    for (name, value) in [
        ("gateway", &notice.key.gateway),
        ("model", &notice.key.model),
        ("customer", &notice.key.customer),
    ] {
        value.as_ref().map(|value| label(name, value));
    }
    let ends = told.ended_unix_ms.unwrap_or(until_unix_ms);
    json!({
        "labels": labels,
        "annotations": {"summary": notice.summary, "description": notice.description},
        "startsAt": rfc3339(notice.since_unix_ms),
        "endsAt": rfc3339(ends.max(notice.since_unix_ms)),
    })
}

/// A time as the API takes it.
fn rfc3339(unix_ms: u64) -> String {
    let seconds = DateTime::from_unix_duration(Duration::from_secs(unix_ms / 1_000));
    // Behind the year 9999 the last one that there is.
    let seconds = seconds.unwrap_or(DateTime::INFINITY).to_string();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_alerts::{Key, Kind};

    fn told(gateway: Option<&str>, ended_unix_ms: Option<u64>) -> Told {
        Told {
            notice: Notice {
                key: Key {
                    kind: Kind::ModelRefused,
                    gateway: gateway.map(str::to_owned),
                    model: Some("abc".to_owned()),
                    customer: None,
                },
                since_unix_ms: 1_790_000_000_123,
                summary: "in a \"line\"".to_owned(),
                description: "what to do".to_owned(),
            },
            ended_unix_ms,
        }
    }

    #[test]
    fn an_alert_says_what_the_api_asks_for() {
        let body = encode(
            &[
                told(Some("g\"1"), None),
                told(None, Some(1_790_000_001_000)),
            ],
            1_790_000_240_123,
        );
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!([
            {
                "labels": {"alertname": "ForebayModelRefused", "severity": "warning", "gateway": "g\"1", "model": "abc"},
                "annotations": {"summary": "in a \"line\"", "description": "what to do"},
                "startsAt": "2026-09-21T14:13:20.123Z",
                "endsAt": "2026-09-21T14:17:20.123Z",
            },
            {
                "labels": {"alertname": "ForebayModelRefused", "severity": "warning", "model": "abc"},
                "annotations": {"summary": "in a \"line\"", "description": "what to do"},
                "startsAt": "2026-09-21T14:13:20.123Z",
                "endsAt": "2026-09-21T14:13:21.000Z",
            },
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn where_a_clock_was_set_back_no_alert_ends_before_it_begins() {
        let body = encode(&[told(None, None)], 1_000);
        let sent: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(sent[0]["endsAt"], sent[0]["startsAt"]);
    }

    #[test]
    fn no_time_is_too_late_to_be_said() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(&rfc3339(u64::MAX)[..10], "9999-12-31");
    }
}
