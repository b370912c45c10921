//! The scores for programs: `{file: {steps: {deployed, ratio_best_simple, methods: {name: scores}}}}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{DEPLOYED, Evaluated, Table};
use crate::error::TrainError;
use crate::scoring::Score;

#[derive(Serialize)]
struct Cell {
    /// The method that would be deployed.
    deployed: &'static str,
    /// Its wQL / that of the simple method that turned out to be best.
    ratio_best_simple: Option<f64>,
    ratio_best_simple_median_tenant: Option<f64>,
    /// Share of tenants whose coverage of the 0.9 quantile could be by chance what it is; absent where too few points tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants_within_interval: Option<f64>,
    methods: BTreeMap<&'static str, Figures>,
}

/// Absent: it cannot be said, such as an error over a demand of 0.
#[derive(Serialize)]
struct Figures {
    wql: Option<f64>,
    wql_median_tenant: Option<f64>,
    mase: Option<f64>,
    wape: Option<f64>,
    coverage_90: Option<f64>,
    coverage_99: Option<f64>,
}

pub(super) fn write(evaluated: &[Evaluated], path: &Path) -> Result<(), TrainError> {
    let files: BTreeMap<&str, BTreeMap<String, Cell>> = evaluated
        .iter()
        .map(|one| {
            let cells = one
                .tables
                .iter()
                .map(|table| (table.steps.to_string(), Cell::of(table)));
            (one.name.as_str(), cells.collect())
        })
        .collect();
    let text = serde_json::to_string_pretty(&files).map_err(|source| TrainError::Json {
        path: path.to_owned(),
        source,
    })?;
    super::html::write_file(path, &(text + "\n"))
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

// === impl Cell ===

impl Cell {
    fn of(table: &Table) -> Self {
        let methods = table
            .rows
            .iter()
            .map(|(name, score)| (*name, Figures::of(score)));
        Self {
            deployed: DEPLOYED,
            ratio_best_simple: finite(table.ratio()),
            ratio_best_simple_median_tenant: finite(table.median_ratio()),
            tenants_within_interval: table.of(DEPLOYED).and_then(|score| score.honest),
            methods: methods.collect(),
        }
    }
}

// === impl Figures ===

impl Figures {
    fn of(score: &Score) -> Self {
        Self {
            wql: finite(score.wql),
            wql_median_tenant: finite(score.wql_median),
            mase: finite(score.mase),
            wape: finite(score.wape),
            coverage_90: finite(score.coverage_90()),
            coverage_99: finite(score.coverage_99()),
        }
    }
}
