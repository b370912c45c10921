//! Calendars as operators have them: CSV, iCalendar with recurring events, CloudEvents.
//!
//! What is read becomes [`Event`]s of the families, one for each occurrence within a time, and for whom it is. A crate of its own, so that the
//! families know no files, and whoever asks for a calendar need not know the families' models.

mod cloud_events;
mod csv_file;
mod error;
mod icalendar_file;
mod stamp;
mod zones;

pub use csv_file::CsvNames;
pub use error::CalendarError;
use forebay_families::Event;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Largest file.
pub const MAX_BYTES: u64 = 32 << 20;

/// Occurrences of one calendar.
pub const MAX_EVENTS: usize = 65_536;

/// For how many times the time that is asked for events may be felt: as if eight were under way all of the time, with the usual time before and after.
pub const FELT_MOST: i64 = 20;

/// What editors of Windows write before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

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

/// What a file says of the time that is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    /// Occurrences, by their beginning.
    pub entries: Vec<Entry>,
    /// Entries of iCalendar files that end when they begin, and are left out.
    pub momentary: usize,
}

/// Which occurrences are asked for, and how to read what a file leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// Unix time in seconds: those that end before are left out.
    pub from_s: i64,
    /// Those that begin at or after this are left out.
    pub until_s: i64,
    /// IANA name of the time zone of local times and days that name none.
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
pub fn read(path: &Path, options: &ReadOptions) -> Result<Calendar, CalendarError> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let read_entries = match ending.to_str() {
        Some("csv") => csv_file::read,
        Some("ics") => icalendar_file::read,
        Some("json" | "jsonl" | "ndjson") => cloud_events::read,
        _ => return Err(CalendarError::Format { path: path.into() }),
    };
    let text = text_of(path)?;
    let mut kept = Kept {
        options,
        entries: Vec::new(),
        momentary: 0,
    };
    let refuse = |(place, reason)| CalendarError::Entry {
        path: path.into(),
        place,
        reason,
    };
    read_entries(&text, options, &mut kept).map_err(refuse)?;
    let Kept {
        mut entries,
        momentary,
        ..
    } = kept;
    entries.sort_by_key(|entry| (entry.event.starts_s, entry.event.ends_s));
    match crowded(&entries, options) {
        None => Ok(Calendar { entries, momentary }),
        Some((whom, felt_s)) => Err(CalendarError::Crowded {
            path: path.into(),
            whom,
            felt_s,
        }),
    }
}

/// Not more of a file than can be a calendar, whatever its size is said to be.
fn text_of(path: &Path) -> Result<String, CalendarError> {
    let failed = |source| CalendarError::Io {
        path: path.into(),
        source,
    };
    // To open a pipe is to wait for whoever writes to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(CalendarError::NoFile { path: path.into() });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut start = file.take(MAX_BYTES + 1);
    start.read_to_end(&mut bytes).map_err(failed)?;
    if start.limit() == 0 {
        return Err(CalendarError::TooLarge { path: path.into() });
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| failed(io::Error::new(ErrorKind::InvalidData, error)))?;
    match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

/// For whom more is felt than can be followed, and for how long: work and memory grow with it. Whatever is cut from it instead could be what is known,
/// because of something that is not known yet.
fn crowded(entries: &[Entry], options: &ReadOptions) -> Option<(String, i64)> {
    let mut felt_s: BTreeMap<Option<&str>, i64> = BTreeMap::new();
    for Entry { customer, event } in entries {
        let felt = event.felt();
        let within = felt.end.min(options.until_s) - felt.start.max(options.from_s);
        let sum = felt_s.entry(customer.as_deref()).or_insert(0);
        *sum = sum.saturating_add(within.max(0));
    }
    let common_s = felt_s.get(&None).copied().unwrap_or(0);
    let asked_s = options.until_s.saturating_sub(options.from_s);
    felt_s.into_iter().find_map(|(customer, own_s)| {
        let all_s = match customer {
            None => own_s,
            Some(_) => own_s.saturating_add(common_s),
        };
        let whom = customer.map_or("all customers".to_owned(), |one| {
            format!("customer `{one}`")
        });
        (all_s > asked_s.saturating_mul(FELT_MOST)).then_some((whom, all_s))
    })
}

/// Where an entry is, and what is wrong with it.
pub(crate) type Refused = (String, String);

/// What was read so far.
pub(crate) struct Kept<'a> {
    options: &'a ReadOptions,
    entries: Vec<Entry>,
    momentary: usize,
}

// === impl Kept ===

impl Kept<'_> {
    /// Takes what was read, or says what is wrong with it.
    pub(crate) fn keep(&mut self, entry: Entry) -> Result<(), String> {
        check(&entry.event)?;
        if entry.event.ends_s > self.options.from_s && entry.event.starts_s < self.options.until_s {
            if self.entries.len() == MAX_EVENTS {
                return Err(format!(
                    "with it there are more than {MAX_EVENTS} events in the time that is asked for: name a shorter one, or give recurring events a COUNT or an UNTIL"
                ));
            }
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Counts an entry that takes no time.
    pub(crate) fn leave_out(&mut self) {
        self.momentary += 1;
    }
}

/// The same for all of an entry's occurrences.
pub(crate) fn check_kind(kind: &str) -> Result<(), String> {
    match kind.len() {
        1..=MAX_KIND_BYTES => Ok(()),
        _ => Err(format!("its kind must have 1 to {MAX_KIND_BYTES} bytes")),
    }
}

fn check(event: &Event) -> Result<(), String> {
    check_kind(&event.kind)?;
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
