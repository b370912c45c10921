//! Rows as they come out of a file, before they are put on a grid: columns side by side, tenants interned.
//!
//! Both file readers fill this one shape, so that "what is a valid row" is decided once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::TraceError;

/// More rows than this are refused: at 24 bytes a row it keeps a mistaken file below about 1.2 GB.
pub(crate) const ROWS_MAX: usize = 50_000_000;
/// More tenants than this are refused.
pub(crate) const TENANTS_MAX: usize = 1_000_000;

/// One usable row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Index into [`Rows::tenants`].
    pub(crate) tenant: u32,
    /// Unix time, in nanoseconds.
    pub(crate) at_ns: i64,
    /// Amount; NaN = the row says that there is no data.
    pub(crate) value: f64,
}

/// All rows of a file.
#[derive(Debug)]
pub(crate) struct Rows {
    path: PathBuf,
    by_name: HashMap<String, u32>,
    /// Tenant names in order of appearance.
    pub(crate) tenants: Vec<String>,
    /// The rows in order of appearance.
    pub(crate) rows: Vec<Row>,
}

impl Rows {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            by_name: HashMap::new(),
            tenants: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Number of the row that the next [`Rows::push`] adds; the first is 1.
    pub(crate) fn next_row(&self) -> u64 {
        (self.rows.len() as u64).saturating_add(1)
    }

    /// Adds a row. A gap or a missing value is kept as NaN, so that it occupies its bucket.
    pub(crate) fn push(
        &mut self,
        tenant: &str,
        at_ns: i64,
        value: Option<f64>,
        gap: bool,
        value_columns: &str,
    ) -> Result<(), TraceError> {
        if self.rows.len() >= ROWS_MAX {
            return Err(self.too_many("rows", ROWS_MAX));
        }
        let value = match value {
            Some(value) if !gap && !value.is_nan() => {
                if !value.is_finite() || value < 0.0 {
                    return Err(self.bad_cell(
                        value_columns,
                        format!("{value} is no amount; amounts are finite and not negative"),
                    ));
                }
                value
            }
            _ => f64::NAN,
        };
        let tenant = self.intern(tenant)?;
        self.rows.push(Row {
            tenant,
            at_ns,
            value,
        });
        Ok(())
    }

    /// An error at the row that would be added next.
    pub(crate) fn bad_cell(&self, column: &str, reason: impl Into<String>) -> TraceError {
        TraceError::BadCell {
            path: self.path.clone(),
            row: self.next_row(),
            column: column.to_owned(),
            reason: reason.into(),
        }
    }

    fn intern(&mut self, tenant: &str) -> Result<u32, TraceError> {
        if let Some(&known) = self.by_name.get(tenant) {
            return Ok(known);
        }
        if self.tenants.len() >= TENANTS_MAX {
            return Err(self.too_many("tenants", TENANTS_MAX));
        }
        let index =
            u32::try_from(self.tenants.len()).map_err(|_| self.too_many("tenants", TENANTS_MAX))?;
        self.tenants.push(tenant.to_owned());
        self.by_name.insert(tenant.to_owned(), index);
        Ok(index)
    }

    fn too_many(&self, what: &'static str, limit: usize) -> TraceError {
        TraceError::TooMany {
            path: self.path.clone(),
            what,
            limit: limit as u64,
        }
    }
}
