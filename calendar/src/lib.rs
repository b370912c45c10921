//! Calendars as operators have them: CSV, iCalendar with recurring events, CloudEvents.
//!
//! What is read becomes [`Event`]s of the families, one for each occurrence within a time, and for whom it is. A crate of its own, so that the
//! families know no files, and whoever asks for a calendar need not know the families' models.

mod cloud_events;
mod csv_file;
mod error;
mod icalendar_file;
mod stamp;

pub use csv_file::CsvNames;
pub use error::CalendarError;
use forebay_families::Event;
use std::fs;
use std::path::Path;

/// Occurrences of one calendar.
pub const MAX_EVENTS: usize = 65_536;

/// Longest name of a kind.
const MAX_KIND_BYTES: usize = 256;

/// An event, and whom it concerns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The customer; without one, all of them.
    pub customer: Option<String>,
    /// What happens when.
    pub event: Event,
}

/// Which occurrences are asked for, and how to read what a file leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// Unix time in seconds: those that end before are left out.
    pub from_s: i64,
    /// Those that begin at or after this are left out.
    pub until_s: i64,
    /// IANA name of the time zone of local times that name none.
    pub zone: String,
    /// How columns of a CSV file are named.
    pub names: CsvNames,
}

impl Default for ReadOptions {
    /// From 1970 on for two hundred years, in UTC.
    fn default() -> Self {
        Self {
            from_s: 0,
            until_s: 6_311_433_600,
            zone: "UTC".to_owned(),
            names: CsvNames::default(),
        }
    }
}

/// Reads a calendar by the ending of its name, ordered by beginning.
///
/// # Errors
/// When it cannot be read, with the entry and what is wrong with it.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Vec<Entry>, CalendarError> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let read_text = match ending.to_str() {
        Some("csv") => csv_file::read,
        Some("ics") => icalendar_file::read,
        Some("json" | "jsonl" | "ndjson") => cloud_events::read,
        _ => return Err(CalendarError::Format { path: path.into() }),
    };
    let text = fs::read_to_string(path).map_err(|source| CalendarError::Io {
        path: path.into(),
        source,
    })?;
    let refuse = |place: String, reason: String| CalendarError::Entry {
        path: path.into(),
        place,
        reason,
    };
    let mut entries = Vec::new();
    let mut keep = |entry: Entry| {
        check(&entry.event)?;
        if entry.event.ends_s > options.from_s && entry.event.starts_s < options.until_s {
            if entries.len() == MAX_EVENTS {
                return Err(format!(
                    "with it there are more than {MAX_EVENTS} events in the time that is asked for: name a shorter one, or give recurring events a COUNT or an UNTIL"
                ));
            }
            entries.push(entry);
        }
        Ok(())
    };
    read_text(&text, options, &mut keep).map_err(|(place, reason)| refuse(place, reason))?;
    entries.sort_by_key(|entry| (entry.event.starts_s, entry.event.ends_s));
    Ok(entries)
}

/// Where an entry is, and what is wrong with it.
pub(crate) type Refused = (String, String);

/// Takes what was read, or says what is wrong with it.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(Entry) -> Result<(), String>;

fn check(event: &Event) -> Result<(), String> {
    if event.kind.is_empty() || event.kind.len() > MAX_KIND_BYTES {
        return Err(format!("its kind must have 1 to {MAX_KIND_BYTES} bytes"));
    }
    if event.ends_s <= event.starts_s {
        return Err("it ends before it begins".to_owned());
    }
    if !(0.0..=1.0).contains(&event.confidence) {
        return Err(format!(
            "its confidence is {}; it must be from 0 to 1",
            event.confidence
        ));
    }
    match event.factor {
        Some(factor) if !(factor > 0.0 && factor <= 1e3) => Err(format!(
            "its factor is {factor}; it must be above 0 and at most 1000"
        )),
        _ => Ok(()),
    }
}
