//! The scores for programs: `{file: {steps: {deployed, ratio_best_simple, methods: {name: scores}}}}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::group::Group;
use super::promise::Promise;
use super::scenarios::Odds;
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
    /// The same by every step of the test span, of forecasts so many steps ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants_within_interval_by_step: Option<f64>,
    /// wQL with events known / unknown; absent without events.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    odds: Option<Odds>,
    /// All tenants as one; with the largest number of steps only.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Group>,
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

/// `path` is only named in errors.
pub(super) fn text(evaluated: &[Evaluated], path: &Path) -> Result<String, TrainError> {
    let files: BTreeMap<&str, BTreeMap<String, Cell>> = evaluated
        .iter()
        .map(|one| {
            let cells = one
                .tables
                .iter()
                .zip((1..).map(|nth| one.group.filter(|_| nth == one.tables.len())))
                .map(|(table, group)| (table.steps.to_string(), Cell::of(table, group)));
            (one.name.as_str(), cells.collect())
        })
        .collect();
    let text = serde_json::to_string_pretty(&files).map_err(|source| TrainError::Json {
        path: path.to_owned(),
        source,
    })?;
    Ok(text + "\n")
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

// === impl Cell ===

impl Cell {
    fn of(table: &Table, group: Option<Group>) -> Self {
        let methods = table
            .rows
            .iter()
            .map(|(name, score)| (*name, Figures::of(score)));
        Self {
            deployed: DEPLOYED,
            ratio_best_simple: finite(table.ratio()),
            ratio_best_simple_median_tenant: finite(table.median_ratio()),
            events_ratio: table.events_ratio.and_then(finite),
            odds: table.odds,
            group,
            tenants_within_interval: table.of(DEPLOYED).and_then(|score| score.honest),
            tenants_within_interval_by_step: table.promise.map(Promise::share),
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
