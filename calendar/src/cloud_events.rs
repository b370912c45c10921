//! CloudEvents (v1.0, JSON format, single, batched as an array, or a line for each): what another system announces.
//!
//! `type` is the kind, `subject` the customer, `time` when it became known; `data` has `starts` and `ends` or `duration_s`, and may have `lead_s`,
//! `decay_s`, `confidence` and `factor`.

use crate::stamp::unix_s;
use crate::{Entry, Keep, ReadOptions, Refused};
use forebay_families::Event;
use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// The version that is understood.
const VERSION: &str = "1.0";

#[derive(Deserialize)]
struct CloudEvent {
    specversion: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    starts: String,
    ends: Option<String>,
    duration_s: Option<u32>,
    lead_s: Option<u32>,
    decay_s: Option<u32>,
    confidence: Option<f64>,
    factor: Option<f64>,
}

// === impl CloudEvent ===

impl CloudEvent {
    fn entry(self) -> Result<Entry, String> {
        if self.specversion != VERSION {
            return Err(format!(
                "its specversion is `{}`; {VERSION} is understood",
                self.specversion
            ));
        }
        let starts_s = unix_s(&self.data.starts)?;
        let ends_s = match (&self.data.ends, self.data.duration_s) {
            (Some(ends), _) => unix_s(ends)?,
            (None, Some(duration_s)) => starts_s.saturating_add(duration_s.into()),
            (None, None) => return Err("its data have neither `ends` nor `duration_s`".to_owned()),
        };
        Ok(Entry {
            customer: self.subject,
            event: Event {
                lead_s: self.data.lead_s,
                decay_s: self.data.decay_s,
                known_s: self.time.as_deref().map(unix_s).transpose()?,
                confidence: self.data.confidence.unwrap_or(1.0),
                factor: self.data.factor,
                ..Event::new(self.kind, starts_s, ends_s)
            },
        })
    }
}

pub(crate) fn read(text: &str, _: &ReadOptions, keep: Keep<'_>) -> Result<(), Refused> {
    let mut nth = 0_usize;
    for value in Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| ("the document".to_owned(), error.to_string()))?;
        let batch = match value {
            Value::Array(batch) => batch,
            one => vec![one],
        };
        for one in batch {
            nth += 1;
            let event: Result<CloudEvent, _> = serde_json::from_value(one);
            let entry = event
                .map_err(|error| error.to_string())
                .and_then(CloudEvent::entry);
            let kept = entry.and_then(&mut *keep);
            kept.map_err(|reason| (format!("event {nth}"), reason))?;
        }
    }
    Ok(())
}
