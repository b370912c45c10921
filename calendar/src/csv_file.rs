//! A table of events: a row for each.

use crate::error::shown;
use crate::stamp::Stamp;
use crate::zones::zone;
use crate::{Entry, Kept, ReadOptions, Refused};
use chrono::Timelike;
use chrono_tz::Tz;
use csv::{Position, StringRecord};
use forebay_families::Event;
use serde::Deserialize;
use std::collections::BTreeSet;

/// How the columns are named, and what holds where a column is missing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CsvNames {
    /// Column of beginnings.
    pub starts: String,
    /// Column of ends.
    pub ends: String,
    /// Column of kinds, or, if there is no such column, the kind of all.
    pub kind: String,
    /// How long events take that have no end.
    pub duration_s: Option<u32>,
}

impl Default for CsvNames {
    fn default() -> Self {
        Self {
            starts: "starts".to_owned(),
            ends: "ends".to_owned(),
            kind: "kind".to_owned(),
            duration_s: None,
        }
    }
}

/// A row, by names of columns.
struct Row<'a> {
    headers: &'a StringRecord,
    cells: &'a StringRecord,
}

// === impl Row ===

impl<'a> Row<'a> {
    /// A cell that is there and not empty.
    fn cell(&self, name: &str) -> Option<&'a str> {
        let at = self
            .headers
            .iter()
            .position(|header| header.trim() == name)?;
        let cell = self.cells.get(at)?.trim();
        (!cell.is_empty()).then_some(cell)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(cell) = self.cell(name) else {
            return Ok(None);
        };
        let parsed = cell.parse();
        parsed.map(Some).map_err(|_| {
            format!(
                "`{name}` is `{}`, which is no number that fits",
                shown(cell)
            )
        })
    }

    fn entry(&self, names: &CsvNames, zone: Tz) -> Result<Entry, String> {
        let missing = |name: &str| format!("it has no `{name}`");
        let starts = self
            .cell(&names.starts)
            .ok_or_else(|| missing(&names.starts))?;
        let starts = Stamp::of(starts, zone)?;
        let duration_s = self.number::<u32>("duration_s")?.or(names.duration_s);
        let span = starts
            .span(self.cell(&names.ends), duration_s, zone)?
            .ok_or_else(|| format!("it has neither `{}` nor `duration_s`", names.ends))?;
        let known = self.cell("known").map(|cell| Stamp::of(cell, zone));
        let has_kinds = self
            .headers
            .iter()
            .any(|header| header.trim() == names.kind);
        let kind = match has_kinds {
            true => self.cell(&names.kind).ok_or_else(|| missing(&names.kind))?,
            false => &names.kind,
        };
        Ok(Entry {
            customer: self.cell("customer").map(str::to_owned),
            event: Event {
                lead_s: self.number("lead_s")?,
                decay_s: self.number("decay_s")?,
                known_s: known.transpose()?.map(|stamp| stamp.unix_s),
                local_hour: starts
                    .clock
                    .and_then(|clock| u8::try_from(clock.hour()).ok()),
                confidence: self.number("confidence")?.unwrap_or(1.0),
                factor: self.number("factor")?,
                ..Event::new(kind, span.start, span.end)
            },
        })
    }
}

/// A table without a heading has lost its first row to it.
fn check_heading(headers: &StringRecord, names: &CsvNames) -> Result<(), String> {
    if headers.is_empty() {
        return Err(format!(
            "the file is empty: its first line must name the columns, such as {},{},duration_s",
            names.kind, names.starts
        ));
    }
    let mut before = BTreeSet::new();
    let mut all = headers
        .iter()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    if let Some(twice) = all.find(|name| !before.insert(*name)) {
        return Err(format!(
            "there are two columns `{}`: leave one of them out, or name it otherwise",
            shown(twice)
        ));
    }
    if !before.contains(names.starts.as_str()) {
        let present: Vec<&str> = headers.iter().collect();
        return Err(format!(
            "no column is named `{}`, the first line has {}: write the names of the columns there, or say with `columns` how that one is named",
            names.starts,
            shown(&present.join(", "))
        ));
    }
    Ok(())
}

/// In which line a row begins. The reader's own count is one less where lines end with CR LF, and does not know of empty lines.
fn line_of(text: &str, at: &Position) -> usize {
    let start = usize::try_from(at.byte()).unwrap_or(usize::MAX);
    let bytes = text.as_bytes();
    let skipped = bytes.iter().skip(start);
    let skipped = skipped.take_while(|byte| b"\r\n".contains(byte)).count();
    let before = bytes.iter().take(start.saturating_add(skipped));
    1 + before.filter(|byte| **byte == b'\n').count()
}

pub(crate) fn read(text: &str, options: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let refused = |error: csv::Error| ("the table".to_owned(), error.to_string());
    let zone = zone(&options.zone).map_err(|reason| ("the table".to_owned(), reason))?;
    let headers = reader.headers().map_err(refused)?.clone();
    check_heading(&headers, &options.names).map_err(|reason| ("the heading".to_owned(), reason))?;
    for cells in reader.records() {
        let cells = cells.map_err(refused)?;
        let row = Row {
            headers: &headers,
            cells: &cells,
        };
        let entry = row.entry(&options.names, zone);
        let taken = entry.and_then(|entry| kept.keep(entry));
        let line = || cells.position().map_or(0, |at| line_of(text, at));
        taken.map_err(|reason| (format!("line {}", line()), reason))?;
    }
    Ok(())
}
