//! A table of events: a row for each.

use crate::stamp::unix_s;
use crate::{Entry, Kept, ReadOptions, Refused};
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
        parsed
            .map(Some)
            .map_err(|_| format!("`{name}` is `{cell}`, which is no number that fits"))
    }

    fn entry(&self, names: &CsvNames) -> Result<Entry, String> {
        let missing = |name: &str| format!("it has no `{name}`");
        let starts = self
            .cell(&names.starts)
            .ok_or_else(|| missing(&names.starts))?;
        let starts_s = unix_s(starts)?;
        let duration_s = self.number::<u32>("duration_s")?.or(names.duration_s);
        let ends_s = match (self.cell(&names.ends), duration_s) {
            (Some(ends), _) => unix_s(ends)?,
            (None, Some(duration_s)) => starts_s.saturating_add(duration_s.into()),
            (None, None) => {
                return Err(format!("it has neither `{}` nor `duration_s`", names.ends));
            }
        };
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
                known_s: self.cell("known").map(unix_s).transpose()?,
                confidence: self.number("confidence")?.unwrap_or(1.0),
                factor: self.number("factor")?,
                ..Event::new(kind, starts_s, ends_s)
            },
        })
    }
}

pub(crate) fn read(text: &str, options: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let refused = |error: csv::Error| ("the table".to_owned(), error.to_string());
    let headers = reader.headers().map_err(refused)?.clone();
    for cells in reader.records() {
        let cells = cells.map_err(refused)?;
        let line = cells.position().map_or(0, csv::Position::line);
        let row = Row {
            headers: &headers,
            cells: &cells,
        };
        let entry = row.entry(&options.names);
        let taken = entry.and_then(|entry| kept.keep(entry));
        taken.map_err(|reason| (format!("line {line}"), reason))?;
    }
    Ok(())
}
