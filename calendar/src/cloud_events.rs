//! CloudEvents (v1.0, JSON format, single, batched as an array, or a line for each): what another system announces.
//!
//! `type` is the kind, `subject` the customer, `time` when it became known; `data` has `starts` and `ends` or `duration_s`, and may have `lead_s`,
//! `decay_s`, `confidence` and `factor`. A batch is never held as a whole: as values of JSON it would take many times the memory of its text.

use crate::stamp::Stamp;
use crate::zones::zone;
use crate::{Entry, Kept, ReadOptions, Refused};
use chrono::Timelike;
use chrono_tz::Tz;
use forebay_families::Event;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

const ERROR_CHARS: usize = 200;
/// The version that is understood.
const VERSION: &str = "1.0";

#[derive(Deserialize)]
struct CloudEvent {
    specversion: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<Said>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    starts: Said,
    ends: Option<Said>,
    duration_s: Option<u32>,
    lead_s: Option<u32>,
    decay_s: Option<u32>,
    confidence: Option<f64>,
    factor: Option<f64>,
}

/// A moment: a text, or a number, which is none.
enum Said {
    Text(String),
    Number(String),
}

struct SaidVisitor;

/// Takes events one by one, alone or out of an array.
struct Taker<'a, 'b> {
    kept: &'a mut Kept<'b>,
    zone: Tz,
    /// Number of the event that is read.
    nth: usize,
    /// Why it was refused, if it was not the parser that did.
    refused: Option<String>,
}

// === impl CloudEvent ===

impl CloudEvent {
    fn entry(self, zone: Tz) -> Result<Entry, String> {
        if self.specversion != VERSION {
            return Err(format!(
                "its specversion is `{}`; {VERSION} is understood",
                self.specversion
            ));
        }
        let starts = Stamp::of(self.data.starts.text("starts")?, zone)?;
        let ends = self.data.ends.as_ref().map(|ends| ends.text("ends"));
        let span = starts
            .span(ends.transpose()?, self.data.duration_s, zone)?
            .ok_or("its data have neither `ends` nor `duration_s`")?;
        let known = self.time.as_ref().map(|time| {
            let stamp = Stamp::of_rfc3339(time.text("time")?);
            stamp.map_err(|reason| format!("its `time`: {reason}"))
        });
        Ok(Entry {
            customer: self.subject,
            event: Event {
                lead_s: self.data.lead_s,
                decay_s: self.data.decay_s,
                known_s: known.transpose()?.map(|stamp| stamp.unix_s),
                local_hour: starts
                    .clock
                    .and_then(|clock| u8::try_from(clock.hour()).ok()),
                confidence: self.data.confidence.unwrap_or(1.0),
                factor: self.data.factor,
                ..Event::new(self.kind, span.start, span.end)
            },
        })
    }
}

// === impl Said ===

impl Said {
    fn text(&self, name: &str) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => Err(format!(
                "its `{name}` is the number {number}; it must be a text such as \"2026-03-01T09:00:00Z\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor)
    }
}

impl Visitor<'_> for SaidVisitor {
    type Value = Said;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a moment, as a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Said, E> {
        Ok(Said::Text(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Said, E> {
        Ok(Said::Number(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Said, E> {
        Ok(Said::Number(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Said, E> {
        Ok(Said::Number(number.to_string()))
    }
}

// === impl Taker ===

impl Taker<'_, '_> {
    fn take<E: Error>(&mut self, event: CloudEvent) -> Result<(), E> {
        let kept = event
            .entry(self.zone)
            .and_then(|entry| self.kept.keep(entry));
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

pub(crate) fn read(text: &str, options: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let zone = zone(&options.zone).map_err(|reason| ("the document".to_owned(), reason))?;
    // One of a text finds out the line and the column, from the beginning, whenever it is asked whether there is more.
    let mut document = serde_json::Deserializer::from_reader(text.as_bytes());
    let mut taker = Taker {
        kept,
        zone,
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
            return Err((place, reason.unwrap_or_else(|| said_of(&error))));
        }
    }
    Ok(())
}

/// Not more of it than helps: it may have what was written in it.
fn said_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(ERROR_CHARS) {
        Some((end, _)) => format!(
            "{}... at line {} column {}",
            &text[..end],
            error.line(),
            error.column()
        ),
        None => text,
    }
}
