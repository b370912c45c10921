//! A table of events: a row for each.

use crate::error::shown;
use crate::stamp::Stamp;
use crate::zones::zone;
use crate::{Entry, Kept, ReadOptions, Refused};
use chrono::Timelike;
use chrono_tz::Tz;
use csv::StringRecord;
use forebay_families::Event;
use serde::Deserialize;

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

pub(crate) fn read(text: &str, options: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let refused = |error: csv::Error| ("the table".to_owned(), error.to_string());
    let zone = zone(&options.zone).map_err(|reason| ("the table".to_owned(), reason))?;
    let headers = reader.headers().map_err(refused)?.clone();
    for cells in reader.records() {
        let cells = cells.map_err(refused)?;
        let line = cells.position().map_or(0, csv::Position::line);
        let row = Row {
            headers: &headers,
            cells: &cells,
        };
        let entry = row.entry(&options.names, zone);
        let taken = entry.and_then(|entry| kept.keep(entry));
        taken.map_err(|reason| (format!("line {line}"), reason))?;
    }
    Ok(())
}
