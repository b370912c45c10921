//! CloudEvents (v1.0, JSON format, single, batched as an array, or a line for each): what another system announces.
//!
//! `type` is the kind, `subject` the customer, `time` when it became known; `data` has `starts` and `ends` or `duration_s`, and may have `lead_s`,
//! `decay_s`, `confidence` and `factor`. A batch is never held as a whole: as values of JSON it would take many times the memory of its text.

use crate::stamp::unix_s;
use crate::{Entry, Kept, ReadOptions, Refused};
use forebay_families::Event;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

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

/// Takes events one by one, alone or out of an array.
struct Taker<'a, 'b> {
    kept: &'a mut Kept<'b>,
    /// Number of the event that is read.
    nth: usize,
    /// Why it was refused, if it was not the parser that did.
    refused: Option<String>,
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

// === impl Taker ===

impl Taker<'_, '_> {
    fn take<E: Error>(&mut self, event: CloudEvent) -> Result<(), E> {
        let kept = event.entry().and_then(|entry| self.kept.keep(entry));
        kept.map_err(|reason| {
            self.refused = Some(reason);
            E::custom("refused")
        })
    }
}

impl<'de> DeserializeSeed<'de> for &mut Taker<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Taker<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, or an array of events")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.nth += 1;
        let event = CloudEvent::deserialize(MapAccessDeserializer::new(map))?;
        self.take(event)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut batch: A) -> Result<(), A::Error> {
        self.nth += 1;
        while let Some(event) = batch.next_element()? {
            self.take(event)?;
            self.nth += 1;
        }
        self.nth -= 1;
        Ok(())
    }
}

pub(crate) fn read(text: &str, _: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let mut document = serde_json::Deserializer::from_str(text);
    let mut taker = Taker {
        kept,
        nth: 0,
        refused: None,
    };
    while document.end().is_err() {
        if let Err(error) = taker.deserialize(&mut document) {
            let place = match error.is_data() && taker.nth > 0 {
                true => format!("event {}", taker.nth),
                false => "the document".to_owned(),
            };
            let reason = taker.refused.take();
            return Err((place, reason.unwrap_or_else(|| error.to_string())));
        }
    }
    Ok(())
}
