//! Demand as it is in a file: each request by itself, or how many there are in each step.
//!
//! A simulation needs requests and not a grid: at steps of a second, a burst of milliseconds would be gone. Which of the two a file has is
//! seen by its column `requests`: a file without it, or with nothing but ones in it, has a row for each request.

use std::path::Path;

use crate::read::read_rows;
use crate::{Join, ReadOptions, Series, TraceError, grid};

const REQUESTS: &str = "requests";

/// What a file says of its requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// A row for each of them.
    Events(Events),
    /// A number of them for each step; no tenant without a series.
    Steps(Vec<Series>),
}

/// Requests one by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Who asks, by name, in order of appearance.
    pub tenants: Vec<String>,
    /// The requests, by time.
    pub events: Vec<Event>,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Unix time, in nanoseconds.
    pub at_ns: i64,
    /// Who asks: an index into [`Events::tenants`].
    pub tenant: u32,
}

/// Reads requests, or how many there are in each step. The columns are those of [`read()`](crate::read()), with `requests` as the value.
/// Rows of one step are added up.
///
/// # Errors
/// [`TraceError`] with the file, the row and the column.
pub fn read_demand(path: &Path) -> Result<Demand, TraceError> {
    let mut options = ReadOptions::value(REQUESTS);
    options.join = Join::Sum;
    let rows = match read_rows(path, &options) {
        Err(TraceError::MissingColumn { column, .. }) if column == REQUESTS => {
            options.value_columns.clear();
            read_rows(path, &options)?
        }
        rows => rows?,
    };
    let has_counts = !options.value_columns.is_empty();
    if has_counts && rows.rows.iter().any(|row| row.value != 1.0) {
        return Ok(Demand::Steps(grid::to_series(path, rows, &options)?));
    }
    if rows.rows.is_empty() {
        return Err(TraceError::Empty {
            path: path.to_owned(),
        });
    }
    let events = rows.rows.iter().filter(|row| !row.value.is_nan());
    let mut events: Vec<Event> = events
        .map(|row| Event {
            at_ns: row.at_ns,
            tenant: row.tenant,
        })
        .collect();
    events.sort_unstable();
    Ok(Demand::Events(Events {
        tenants: rows.tenants,
        events,
    }))
}
