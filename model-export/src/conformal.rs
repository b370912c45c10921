//! Split-conformal offsets: how far the network's quantiles must be moved so that they cover what they promise on data
//! that they were not trained on.
//!
//! In units of the window's mean usage, because that is what the gateway knows of a customer. The median is not moved:
//! it minimises the error, it promises no coverage.

use forebay_forecast::{Model, ModelError, ModelSpec, SeriesWindow};
use forebay_traces::Series;

/// With fewer errors than this there is no offset.
const ERRORS_MIN: usize = 200;
/// Windows with less usage than this share of the customer's mean are not calibrated on: a division by almost nothing
/// would decide the tail.
const ACTIVE_SHARE_MIN: f32 = 0.2;

/// Offsets `[h * Q + q]` from the forecasts made in `span` (first and last origin) of each series.
pub(crate) fn offsets(
    model: &mut Model,
    series: &[Series],
    span: impl Fn(&Series) -> std::ops::Range<usize>,
) -> Result<Vec<f32>, ModelError> {
    let spec = &model.spec().clone();
    let mut errors = vec![Vec::new(); spec.output_row_len()];
    for one in series {
        collect(model, spec, one, span(one), &mut errors)?;
    }
    let columns = spec.quantiles.len();
    let offsets = errors.iter_mut().enumerate().map(|(i, errors)| {
        let level = spec.quantiles[i % columns];
        if level == 0.5 || errors.len() < ERRORS_MIN {
            return 0.0;
        }
        errors.sort_unstable_by(f32::total_cmp);
        let rank = (f64::from(level) * (errors.len() + 1) as f64).ceil() as usize;
        errors[rank.clamp(1, errors.len()) - 1]
    });
    Ok(offsets.collect())
}

fn collect(
    model: &mut Model,
    spec: &ModelSpec,
    series: &Series,
    span: std::ops::Range<usize>,
    errors: &mut [Vec<f32>],
) -> Result<(), ModelError> {
    let observed: Vec<f64> = series.values[..span.end]
        .iter()
        .copied()
        .filter(|v| !v.is_nan())
        .collect();
    let mean = observed.iter().sum::<f64>() as f32 / observed.len().max(1) as f32;
    let mut window = SeriesWindow::new(spec.history_steps());
    let mut batch = model.batch();
    let mut rows = Vec::new();
    let first_step = series.start_s / i64::from(series.step_s);
    for t in 0..span.end {
        let value = series.values[t];
        window.record(
            first_step + t as i64,
            (!value.is_nan()).then_some(value as f32),
        );
        if t >= span.start {
            let scale = window.mean_of_last(spec.window).unwrap_or(0.0);
            if scale > ACTIVE_SHARE_MIN * mean && batch.push(spec, &window).is_ok() {
                rows.push((t, scale));
            }
        }
        if batch.is_full() || (t + 1 == span.end && !batch.is_empty()) {
            let quantiles = model.run(&batch)?;
            for (row, (t, scale)) in rows.drain(..).enumerate() {
                for (i, forecast) in quantiles.row(row).iter().enumerate() {
                    let ahead = spec.horizons[i / spec.quantiles.len()] as usize;
                    let actual = series.values.get(t + ahead).copied().unwrap_or(f64::NAN) as f32;
                    if !actual.is_nan() {
                        errors[i].push((actual - forecast) / scale);
                    }
                }
            }
            batch.clear();
        }
    }
    Ok(())
}
