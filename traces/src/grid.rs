//! From loose rows to a regular grid per tenant, with the rules of the reference scorer: the step is the most frequent
//! distance of two stamps of one tenant, stamps are floored, rows of one step are joined, what has no row is missing.

use std::collections::HashMap;
use std::path::Path;

use crate::rows::{Row, Rows};
use crate::{Join, ReadOptions, Series, TraceError};

/// A longer series is refused: ten million steps are 19 years of minutes.
const STEPS_MAX: u64 = 10_000_000;
const NS_PER_S: i64 = 1_000_000_000;

pub(crate) fn to_series(
    path: &Path,
    mut rows: Rows,
    options: &ReadOptions,
) -> Result<Vec<Series>, TraceError> {
    if rows.rows.is_empty() {
        return Err(TraceError::Empty {
            path: path.to_owned(),
        });
    }
    // Stable, so that rows of one stamp keep the order of the file and sums do not depend on the sort.
    rows.rows.sort_by_key(|row| (row.tenant, row.at_ns));
    let step_s = match options.step_s {
        Some(step_s) => step_s,
        None => usual_step_s(path, &rows.rows)?,
    };
    let mut series = rows
        .rows
        .chunk_by(|a, b| a.tenant == b.tenant)
        .map(|chunk| one_series(path, &rows.tenants, chunk, step_s, options))
        .collect::<Result<Vec<_>, _>>()?;
    series.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    Ok(series)
}

/// The most frequent positive distance of neighbouring stamps inside a tenant; the shortest of several.
pub(crate) fn usual_step_s(path: &Path, sorted: &[Row]) -> Result<u32, TraceError> {
    let mut counts: HashMap<i64, u64> = HashMap::new();
    for (a, b) in sorted.iter().zip(sorted.iter().skip(1)) {
        let distance_ns = b.at_ns.saturating_sub(a.at_ns);
        let is_one_series = a.tenant == b.tenant && a.resource == b.resource;
        if is_one_series && distance_ns > 0 {
            let count = counts.entry(distance_ns).or_default();
            *count = count.saturating_add(1);
        }
    }
    let usual = counts
        .into_iter()
        .max_by_key(|&(distance_ns, count)| (count, std::cmp::Reverse(distance_ns)));
    let Some((step_ns, _)) = usual else {
        return Err(TraceError::NoStep {
            path: path.to_owned(),
        });
    };
    let whole = step_ns.rem_euclid(NS_PER_S) == 0;
    match u32::try_from(step_ns.div_euclid(NS_PER_S)) {
        Ok(step_s) if whole && step_s > 0 => Ok(step_s),
        _ => Err(TraceError::OddStep {
            path: path.to_owned(),
            step_ns,
        }),
    }
}

fn one_series(
    path: &Path,
    tenants: &[String],
    sorted: &[Row],
    step_s: u32,
    options: &ReadOptions,
) -> Result<Series, TraceError> {
    let step_ns = i64::from(step_s).saturating_mul(NS_PER_S);
    let bucket = |row: &Row| row.at_ns.div_euclid(step_ns);
    let first = sorted.first().map_or(0, bucket);
    let last = sorted.last().map_or(0, bucket);
    let tenant = sorted
        .first()
        .and_then(|row| tenants.get(usize::try_from(row.tenant).ok()?))
        .cloned()
        .unwrap_or_default();
    let steps = last.abs_diff(first).saturating_add(1);
    let (Ok(len), true) = (usize::try_from(steps), steps <= STEPS_MAX) else {
        return Err(TraceError::TooLong {
            path: path.to_owned(),
            tenant,
            steps,
            step_s,
            limit: STEPS_MAX,
        });
    };
    let absent = if options.fill_zero { 0.0 } else { f64::NAN };
    let mut values = vec![absent; len];
    for chunk in sorted.chunk_by(|a, b| bucket(a) == bucket(b)) {
        let at = chunk.first().map_or(0, |row| bucket(row).abs_diff(first));
        if let Some(cell) = usize::try_from(at).ok().and_then(|at| values.get_mut(at)) {
            *cell = joined(chunk, options.join).unwrap_or(absent);
        }
    }
    Ok(Series {
        tenant,
        start_s: first.saturating_mul(i64::from(step_s)),
        step_s,
        values,
    })
}

/// `None` when every row of the step is a gap: a gap joined with nothing stays a gap, also under [`Join::Sum`].
fn joined(rows: &[Row], join: Join) -> Option<f64> {
    let (sum, count) = rows
        .iter()
        .filter(|row| !row.value.is_nan())
        .fold((0.0, 0.0), |(sum, count), row| {
            (sum + row.value, count + 1.0)
        });
    match join {
        _ if count == 0.0 => None,
        Join::Mean => Some(sum / count),
        Join::Sum => Some(sum),
    }
}
