//! Whether the 0.9 quantile keeps its promise at every hour of the day.

use forebay_families::{CoverageMonitor, Forecasts};

use crate::scoring::Scored;

const LEVEL: f64 = 0.9;
/// Number of that quantile.
const UPPER: usize = 2;
const HOUR_S: i64 = 3_600;
const HOURS: i64 = 24;

/// A line for people: how many tenants' promise is broken at some hour, and where it is worst. One step ahead, all steps of the test span.
pub(super) fn said(scored: &[Scored], deployed: &[Option<Forecasts>]) -> String {
    let (mut tenants, mut worst) = (0, None::<(f64, usize, &str)>);
    for (one, forecasts) in scored.iter().zip(deployed) {
        let Some(forecasts) = forecasts else { continue };
        let series = &one.series;
        let mut monitor = CoverageMonitor::new(LEVEL);
        for step in one.test_start + 1..series.len() {
            let (actual, row) = (series.values[step], forecasts.of(step - 1, 1));
            if actual.is_nan() || row[UPPER].is_nan() {
                continue;
            }
            let hours = series.stamp_s(step).div_euclid(HOUR_S);
            let (day, hour) = (hours.div_euclid(HOURS), hours.rem_euclid(HOURS));
            // Quantiles have single precision.
            let is_covered = actual as f32 <= row[UPPER];
            monitor.observe(day, usize::try_from(hour).unwrap_or(0), is_covered);
        }
        let broken = monitor.broken();
        tenants += usize::from(!broken.is_empty());
        for one_hour in broken {
            if worst.is_none_or(|(covered, _, _)| one_hour.covered < covered) {
                worst = Some((one_hour.covered, one_hour.hour, &series.tenant));
            }
        }
    }
    let worst = worst.map_or(String::new(), |(covered, hour, tenant)| {
        format!(
            "; worst: {:.0} % at {hour} h UTC, tenant {tenant}",
            100.0 * covered
        )
    });
    format!(
        "q0.9 one step ahead covers too little at some hour of the day for {tenants} of {} tenants (by chance: at most about one in twenty){worst}",
        scored.len()
    )
}
