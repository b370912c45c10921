//! The demand that pools are tried on: public traces where FOREBAY_DATA has them, and generated demand.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use forebay_traces::generator::GeneratorSpec;
use forebay_traces::{Join, ReadOptions, Series, read};

use super::trial::Trace;

/// File, length of a sub-step in seconds, and whether bars are about it.
const FILES: [(&str, usize, bool); 3] = [
    ("servegen_10m", 10, true),
    ("azfunc_1m", 1, true),
    // Five tenants make no pool of sixty customers.
    ("ms_rate_1m", 10, false),
];

/// All that there are.
pub(crate) fn traces() -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    if let Some(folder) = std::env::var_os("FOREBAY_DATA").filter(|folder| !folder.is_empty()) {
        for (name, sub_step_s, has_bars) in FILES {
            let path = Path::new(&folder).join(format!("{name}.parquet"));
            ensure!(
                path.exists(),
                "{} is missing: unset FOREBAY_DATA for generated demand only",
                path.display()
            );
            let mut options = ReadOptions::value("requests");
            options.join = Join::Sum;
            traces.push(trace(name, &read(&path, &options)?, sub_step_s, has_bars)?);
        }
    }
    let spec = GeneratorSpec {
        customers: 150,
        steps: 2 * 1_440,
        step_s: 60,
        median_per_step: 600.0,
        bursts_per_day: 4.0,
        spikes_per_day: 2.0,
        ..GeneratorSpec::default()
    };
    traces.push(trace("generated", &spec.series(), 1, true)?);
    Ok(traces)
}

/// All series on one grid; nothing before and after a tenant's own steps.
fn trace(
    name: &'static str,
    series: &[Series],
    sub_step_s: usize,
    has_bars: bool,
) -> Result<Trace> {
    let step_s = series
        .first()
        .with_context(|| format!("{name} is empty"))?
        .step_s;
    let start = series
        .iter()
        .map(|series| series.start_s)
        .min()
        .unwrap_or(0);
    let end = series
        .iter()
        .map(|series| series.stamp_s(series.len()))
        .max()
        .unwrap_or(0);
    let place = |stamp_s: i64| usize::try_from((stamp_s - start) / i64::from(step_s));
    let steps = place(end)?;
    let mut tenants = Vec::with_capacity(series.len());
    for series in series {
        let mut values = vec![0.0; steps];
        let from = place(series.start_s)?;
        values[from..from + series.len()].copy_from_slice(&series.filled_forward());
        tenants.push(values);
    }
    Ok(Trace {
        name,
        step_s: usize::try_from(step_s)?,
        sub_step_s,
        has_bars,
        tenants,
    })
}
