//! Usage as it was recorded: samples of (customer, resource, time, amount) from any number of sources, before anything is joined or filled.
//!
//! Beside [`read()`](crate::read()), which makes one series per tenant of one file and refuses what it cannot score: whoever prepares data
//! wants to know how much of it was doubled, negative or missing, and reads what several exports say of the same customers.

use std::path::Path;

use crate::grid::usual_step_s;
use crate::read::{check_columns, read_into};
use crate::rows::{Cells, Row, Rows};
use crate::{ReadOptions, TraceError};

/// What was recorded of one step, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Unix time in nanoseconds at which the step starts.
    pub at_ns: i64,
    /// Amount; NaN where the source says that it has none.
    pub amount: f64,
}

/// All that was recorded of one customer and resource, by time and amount.
#[derive(Debug)]
pub struct SampledSeries<'a> {
    /// The customer.
    pub tenant: &'a str,
    rows: &'a [Row],
}

/// Samples of many sources.
#[derive(Debug)]
pub struct Samples {
    rows: Rows,
}

// === impl Samples ===

impl Samples {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rows: Rows::by_resource(),
        }
    }

    /// Adds the rows of a Parquet or CSV file. Rows with a negative amount are left out and counted. Step and join of the options are for
    /// series and mean nothing here.
    ///
    /// # Errors
    /// [`TraceError`] with the file, the row and the column.
    pub fn read(&mut self, path: &Path, options: &ReadOptions) -> Result<(), TraceError> {
        check_columns(path, options)?;
        self.rows.begin(path);
        read_into(&mut self.rows, path, options)
    }

    /// What is [pushed](Self::push) from here on is of this source.
    pub fn begin(&mut self, source: &Path) {
        self.rows.begin(source);
    }

    /// Adds one sample; `None` is a gap. A negative amount is left out and counted.
    ///
    /// # Errors
    /// An amount that is infinite, or more samples than are taken.
    pub fn push(
        &mut self,
        tenant: &str,
        resource: &str,
        at_ns: i64,
        amount: Option<f64>,
    ) -> Result<(), TraceError> {
        let cells = Cells {
            tenant,
            resource: Some(resource),
            at_ns,
            value: amount,
            is_gap: false,
        };
        self.rows.push(cells, "amount")
    }

    /// Puts samples in the order of their content, so that nothing after it depends on that of the sources.
    pub fn sort(&mut self) {
        self.rows.rows.sort_unstable_by(|a, b| {
            let key = |row: &Row| (row.resource, row.tenant, row.at_ns);
            key(a).cmp(&key(b)).then(a.value.total_cmp(&b.value))
        });
    }

    /// The resources, each with the number of rows that were left out because they were negative.
    pub fn resources(&self) -> impl Iterator<Item = (&str, u64)> {
        let resources = self.rows.resources.iter().flat_map(|all| &all.found);
        resources.map(|one| (one.name.as_str(), one.negatives))
    }

    /// File and row of the first amount of a resource that was left out because it was negative.
    pub fn first_negative(&self, resource: &str) -> Option<(&Path, u64)> {
        let mut found = self.rows.resources.iter().flat_map(|all| &all.found);
        let found = found.find(|one| one.name == resource)?;
        let (path, row) = found.first_negative.as_ref()?;
        Some((path, *row))
    }

    /// The most frequent distance of two samples of a customer; of [sorted](Self::sort) samples.
    ///
    /// # Errors
    /// There is none, or it is no whole number of seconds; `path` is named there.
    pub fn usual_step_s(&self, resource: &str, path: &Path) -> Result<u32, TraceError> {
        usual_step_s(path, self.of(resource))
    }

    /// What was recorded of a resource, customer by customer; of [sorted](Self::sort) samples.
    pub fn series(&self, resource: &str) -> impl Iterator<Item = SampledSeries<'_>> {
        let chunks = self.of(resource).chunk_by(|a, b| a.tenant == b.tenant);
        chunks.map(|rows| SampledSeries {
            tenant: rows
                .first()
                .and_then(|row| self.rows.tenants.get(row.tenant as usize))
                .map_or("", String::as_str),
            rows,
        })
    }

    fn of(&self, resource: &str) -> &[Row] {
        let Some(number) = self.resources().position(|(name, _)| name == resource) else {
            return &[];
        };
        let rows = &self.rows.rows;
        let first = rows.partition_point(|row| (row.resource as usize) < number);
        let end = rows.partition_point(|row| row.resource as usize <= number);
        rows.get(first..end).unwrap_or_default()
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

// === impl SampledSeries ===

impl SampledSeries<'_> {
    /// The samples, by time and amount.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        self.rows.iter().map(|row| Sample {
            at_ns: row.at_ns,
            amount: row.value,
        })
    }
}
