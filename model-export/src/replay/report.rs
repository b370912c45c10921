//! Tables for people, one flat JSON object for `make`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forebay_forecast::Method;

use super::{ENSEMBLE, ENSEMBLE_WITHOUT, Evaluation};
use crate::error::TrainError;
use crate::scoring::Score;

/// Prints the tables and writes the figures to `out`.
pub(crate) fn write(evaluations: &[Evaluation], out: &Path) -> Result<(), TrainError> {
    let mut figures = BTreeMap::new();
    for evaluation in evaluations {
        print(evaluation);
        collect(evaluation, &mut figures);
    }
    println!("\n| figure | value |\n|---|---|");
    for (name, value) in &figures {
        println!("| {name} | {value:.4} |");
    }
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).map_err(|source| TrainError::Io {
            path: folder.to_owned(),
            source,
        })?;
    }
    let text = serde_json::to_string_pretty(&figures).map_err(|source| TrainError::Json {
        path: out.to_owned(),
        source,
    })?;
    fs::write(out, text + "\n").map_err(|source| TrainError::Io {
        path: out.to_owned(),
        source,
    })
}

fn print(evaluation: &Evaluation) {
    for (steps, rows) in &evaluation.tables {
        let (tenants, points) = rows
            .first()
            .map_or((0, 0), |(_, score)| (score.tenants, score.points));
        println!(
            "\n### {} - steps 1..{steps}, {tenants} tenants, {points} scored points",
            evaluation.recipe.name
        );
        println!(
            "| method | MASE | WAPE | WAPE med. tenant | wQL | wQL med. tenant | cov q0.9 % | cov q0.99 % |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (name, s) in rows {
            println!(
                "| {name} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.1} | {:.1} |",
                s.mase,
                s.wape,
                s.wape_median,
                s.wql,
                s.wql_median,
                100.0 * s.coverage_90(),
                100.0 * s.coverage_99()
            );
        }
    }
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
    let mut figure = |suffix: &str, value: f64| {
        figures.insert(format!("{name}{suffix}"), value);
    };
    figure("", with.wql / best_simple(|s| s.wql));
    figure(
        "_median_tenant",
        with.wql_median / best_simple(|s| s.wql_median),
    );
    figure("_wql", with.wql);
    figure("_coverage_90", with.coverage_90());
    figure("_coverage_99", with.coverage_99());
    figure("_network_gain", with.wql / without.wql);
    if name == "servegen_10m" {
        figures.insert("network_gain".into(), with.wql / without.wql);
    }
}
