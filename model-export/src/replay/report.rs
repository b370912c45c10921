//! Tables for people, one flat JSON object for `make`.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_forecast::Method;

use super::{ENSEMBLE, ENSEMBLE_WITHOUT, Evaluation};
use crate::destination::Destination;
use crate::error::TrainError;
use crate::output::{Output, figure};
use crate::scoring::{Score, TABLE_HEAD};

/// Prints the tables and writes the figures to a file. `path` is only named in errors.
pub(crate) fn write(
    evaluations: &[Evaluation],
    path: &Path,
    report: Destination,
    out: &mut Output<'_>,
) -> Result<(), TrainError> {
    let mut figures = BTreeMap::new();
    for evaluation in evaluations {
        print(evaluation, out)?;
        collect(evaluation, &mut figures);
    }
    out.line("\n| figure | value |\n|---|---|")?;
    for (name, value) in &figures {
        out.line(format_args!("| {name} | {} |", figure(*value, 4)))?;
    }
    let text = serde_json::to_string_pretty(&figures).map_err(|source| TrainError::Json {
        path: path.to_owned(),
        source,
    })?;
    report.write((text + "\n").as_bytes())
}

fn print(evaluation: &Evaluation, out: &mut Output<'_>) -> Result<(), TrainError> {
    for (steps, rows) in &evaluation.tables {
        let (tenants, points) = rows
            .first()
            .map_or((0, 0), |(_, score)| (score.tenants, score.points));
        out.line(format_args!(
            "\n### {} - steps 1..{steps}, {tenants} tenants, {points} scored points\n{TABLE_HEAD}",
            evaluation.recipe.name
        ))?;
        for (name, score) in rows {
            out.line(format_args!("| {name} | {} |", score.cells()))?;
        }
    }
    Ok(())
}

fn collect(evaluation: &Evaluation, figures: &mut BTreeMap<String, f64>) {
    let name = &evaluation.recipe.name;
    let Some((_, rows)) = evaluation.tables.last() else {
        return;
    };
    let find = |wanted: &str| {
        rows.iter()
            .find(|(method, _)| method == wanted)
            .map(|(_, score)| score)
    };
    let best_simple = |pick: fn(&Score) -> f64| {
        let scores = Method::ALL
            .into_iter()
            .filter_map(|method| find(method.name()));
        scores.map(pick).fold(f64::NAN, f64::min)
    };
    let (Some(with), Some(without)) = (find(ENSEMBLE), find(ENSEMBLE_WITHOUT)) else {
        return;
    };
    let mut add = |suffix: &str, value: f64| {
        figures.insert(format!("{name}{suffix}"), value);
    };
    add("", with.wql / best_simple(|s| s.wql));
    add(
        "_median_tenant",
        with.wql_median / best_simple(|s| s.wql_median),
    );
    add("_wql", with.wql);
    add("_coverage_90", with.coverage_90());
    add("_coverage_99", with.coverage_99());
    add("_network_gain", with.wql / without.wql);
    if name == "servegen_10m" {
        figures.insert("network_gain".into(), with.wql / without.wql);
    }
}
