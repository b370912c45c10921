//! The door: which columns of which file, and how rows become series.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::rows::Rows;
use crate::{Series, TraceError, csv_file, grid, parquet_file};

/// How the rows of one tenant that fall into one step are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    /// Their mean: right for samples of a rate, and harmless for one row per step.
    #[default]
    Mean,
    /// Their sum: right for event files, and for several functions of one owner.
    Sum,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Columns whose sum is the amount, e.g. `tokens_in` and `tokens_out`.
    pub value_columns: Vec<String>,
    /// Step in seconds; found from the stamps when `None`.
    pub step_s: Option<u32>,
    /// How rows of one step are joined.
    pub join: Join,
    /// A step without any row counts as 0 instead of missing. Only for event files, where no row does mean no demand.
    pub fill_zero: bool,
    /// Of [`Samples`](crate::Samples) alone: rows are told apart by their column `resource`, and are of this one where there is none.
    pub resource: Option<String>,
}

impl ReadOptions {
    /// Options for one value column, or several joined by `+`; everything else as found in the file.
    #[must_use]
    pub fn value(columns: &str) -> Self {
        Self {
            value_columns: columns
                .split('+')
                .map(|column| column.trim().to_owned())
                .collect(),
            step_s: None,
            join: Join::Mean,
            fill_zero: false,
            resource: None,
        }
    }
}

/// Reads a trace: one series per tenant, sorted by name, on the grid of its step.
///
/// The columns are `tenant` (or `customer`), `timestamp_utc` (or `timestamp`), the value columns, and optionally `gap`
/// (true = the source has no data for this row). Stamps are floored to the step; rows may come in any order; rows of
/// one step are joined; steps between a tenant's first and last row that have no row are missing.
///
/// # Errors
/// [`TraceError`] with the file, the row and the column.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Vec<Series>, TraceError> {
    check_columns(path, options)?;
    if options.step_s == Some(0) {
        return Err(TraceError::Options {
            path: path.to_owned(),
            reason: "a step of 0 s was asked for; it must be at least 1 s".into(),
        });
    }
    grid::to_series(path, read_rows(path, options)?, options)
}

/// The rows of a file, by what its name ends in.
pub(crate) fn read_rows(path: &Path, options: &ReadOptions) -> Result<Rows, TraceError> {
    let mut rows = Rows::new(path);
    read_into(&mut rows, path, options)?;
    Ok(rows)
}

pub(crate) fn check_columns(path: &Path, options: &ReadOptions) -> Result<(), TraceError> {
    if options.value_columns.iter().any(String::is_empty) || options.value_columns.is_empty() {
        return Err(TraceError::Options {
            path: path.to_owned(),
            reason: "no value column was named; give a column, or several joined by +".into(),
        });
    }
    if let Some(twice) = named_twice(options.value_columns.iter().map(String::as_str)) {
        return Err(TraceError::Options {
            path: path.to_owned(),
            reason: format!("the value column `{twice}` was named twice, and would count twice"),
        });
    }
    Ok(())
}

/// A name that is there twice; empty ones name nothing.
pub(crate) fn named_twice<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut before = HashSet::new();
    let mut names = names.filter(|name| !name.is_empty());
    names.find(|name| !before.insert(*name))
}

/// Adds the rows of a file to those that are there.
pub(crate) fn read_into(
    rows: &mut Rows,
    path: &Path,
    options: &ReadOptions,
) -> Result<(), TraceError> {
    let found = fs::metadata(path).map_err(|source| TraceError::Io {
        path: path.to_owned(),
        source,
    })?;
    if !found.is_file() {
        return Err(TraceError::NoFile {
            path: path.to_owned(),
        });
    }
    let kind = path.extension().and_then(|kind| kind.to_str());
    match kind.map(str::to_ascii_lowercase).as_deref() {
        Some("parquet") => parquet_file::read(path, options, rows),
        Some("csv") => csv_file::read(path, options, rows),
        _ => Err(TraceError::UnknownKind {
            path: path.to_owned(),
        }),
    }
}
