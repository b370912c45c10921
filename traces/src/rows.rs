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
/// More resources than this are refused: a deployment has four at most, and a column of something else has a name in each row.
const RESOURCES_MAX: usize = 64;

/// Forecasts have single precision.
const AMOUNT_MAX: f64 = 1e30;

/// One usable row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Index into [`Rows::tenants`].
    pub(crate) tenant: u32,
    /// Index into [`Rows::resources`].
    pub(crate) resource: u32,
    /// Unix time, in nanoseconds.
    pub(crate) at_ns: i64,
    /// Amount; NaN = the row says that there is no data.
    pub(crate) value: f64,
}

/// What a row says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells<'a> {
    pub(crate) tenant: &'a str,
    /// Of rows that are told apart by resource.
    pub(crate) resource: Option<&'a str>,
    pub(crate) at_ns: i64,
    pub(crate) value: Option<f64>,
    /// The row itself says that there is no data.
    pub(crate) is_gap: bool,
}

/// All rows of a file, or of several.
#[derive(Debug)]
pub(crate) struct Rows {
    path: PathBuf,
    /// Rows of this file so far, those that were left out included.
    read: u64,
    by_name: HashMap<String, u32>,
    /// Tenant names in order of appearance.
    pub(crate) tenants: Vec<String>,
    /// The rows in order of appearance.
    pub(crate) rows: Vec<Row>,
    /// `None`: a negative amount is an error, and all rows are of one resource.
    pub(crate) resources: Option<Resources>,
}

/// Resources by which rows are told apart.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    by_name: HashMap<String, u32>,
    pub(crate) found: Vec<Resource>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) name: String,
    /// Rows that were left out because their amount was negative.
    pub(crate) negatives: u64,
    /// File and row of the first of them.
    pub(crate) first_negative: Option<(PathBuf, u64)>,
}

// === impl Rows ===

impl Rows {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
            by_name: HashMap::new(),
            tenants: Vec::new(),
            rows: Vec::new(),
            resources: None,
        }
    }

    /// Rows of several files, told apart by resource.
    pub(crate) fn by_resource() -> Self {
        Self {
            resources: Some(Resources::default()),
            ..Self::new(Path::new(""))
        }
    }

    /// What follows comes from another file.
    pub(crate) fn begin(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
        self.read = 0;
    }

    /// Number of the row that the next [`Rows::push`] adds; the first is 1.
    pub(crate) fn next_row(&self) -> u64 {
        self.read.saturating_add(1)
    }

    /// Adds a row. A gap or a missing value is kept as NaN, so that it occupies its bucket.
    pub(crate) fn push(&mut self, cells: Cells<'_>, value_columns: &str) -> Result<(), TraceError> {
        if self.rows.len() >= ROWS_MAX {
            return Err(self.too_many("rows", ROWS_MAX));
        }
        let value = match cells.value {
            Some(value) if !cells.is_gap && !value.is_nan() => value,
            _ => f64::NAN,
        };
        let is_left_out = value < 0.0 && self.resources.is_some();
        if value.is_infinite() || (value < 0.0 && !is_left_out) {
            return Err(self.bad_cell(
                value_columns,
                format!("{value} is no amount; amounts are finite and not negative"),
            ));
        }
        if value > AMOUNT_MAX {
            return Err(self.bad_cell(
                value_columns,
                format!("{value:e} is above {AMOUNT_MAX:e}, the most that can be forecast"),
            ));
        }
        let tenant = self.intern(cells.tenant)?;
        let resource = match &mut self.resources {
            None => 0,
            Some(resources) => match resources.number(cells.resource.unwrap_or_default()) {
                Some(resource) => resource,
                None => return Err(self.too_many("resources", RESOURCES_MAX)),
            },
        };
        self.read = self.next_row();
        if is_left_out {
            let resources = self.resources.as_mut();
            if let Some(found) = resources.and_then(|all| all.found.get_mut(resource as usize)) {
                found.negatives = found.negatives.saturating_add(1);
                let place = || (self.path.clone(), self.read);
                found.first_negative.get_or_insert_with(place);
            }
            return Ok(());
        }
        self.rows.push(Row {
            tenant,
            resource,
            at_ns: cells.at_ns,
            // Zero has a sign, which no amount has.
            value: value + 0.0,
        });
        Ok(())
    }

    /// An error at the row that would be added next.
    pub(crate) fn bad_cell(&self, column: &str, reason: impl Into<String>) -> TraceError {
        TraceError::BadCell {
            path: self.path.clone(),
            row: self.next_row(),
            line: None,
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

// === impl Resources ===

impl Resources {
    /// Index of a resource; `None` when there are too many.
    fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(&known) = self.by_name.get(name) {
            return Some(known);
        }
        if self.found.len() >= RESOURCES_MAX {
            return None;
        }
        let index = u32::try_from(self.found.len()).ok()?;
        self.found.push(Resource {
            name: name.to_owned(),
            negatives: 0,
            first_negative: None,
        });
        self.by_name.insert(name.to_owned(), index);
        Some(index)
    }
}
