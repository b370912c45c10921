//! Drawings for the report, as SVG inside the page: no script, no library, nothing to load.

use std::fmt::Write;

use forebay_families::{Forecasts, QUANTILES};

use crate::scoring::{Cut, Scored};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
const MARGIN: f64 = 8.0;
/// Fans that are drawn of a tenant, and most steps that they show.
const FANS: usize = 12;
const STEPS_MAX: usize = 288;

/// Demand of a tenant at the end of its test span, and forecasts from some steps of it.
pub(super) struct Fan {
    pub(super) tenant: String,
    usage: Vec<f64>,
    /// Step of origin, and quantiles of the steps after it.
    fans: Vec<(usize, Vec<[f64; QUANTILES.len()]>)>,
}

/// Where values are on the drawing.
struct Axes {
    steps: usize,
    most: f64,
}

// === impl Fan ===

impl Fan {
    pub(super) fn of(scored: &Scored, forecasts: &Forecasts, cut: &Cut) -> Self {
        let len = scored.series.len();
        let first = len.saturating_sub(STEPS_MAX).max(scored.test_start);
        let count = len - first;
        let every = (count / FANS).max(cut.horizons).max(1);
        let fans = (first..len - cut.horizons).step_by(every).map(|origin| {
            let rows = (1..=cut.horizons).map(|horizon| {
                let row = forecasts.of(origin, horizon);
                std::array::from_fn(|level| f64::from(row[level]))
            });
            (origin - first, rows.collect())
        });
        Self {
            tenant: scored.series.tenant.clone(),
            usage: scored.series.values[first..].to_vec(),
            fans: fans.collect(),
        }
    }

    /// Demand as a line; of each fan the band from the 0.1 to the 0.9 quantile, the median, and the 0.99 quantile dotted.
    pub(super) fn draw(&self) -> String {
        let known = self.usage.iter().copied().filter(|value| value.is_finite());
        let upper = self
            .fans
            .iter()
            .flat_map(|(_, rows)| rows.iter().map(|row| row[2]));
        let most = known
            .chain(upper)
            .fold(0.0, f64::max)
            .max(f64::MIN_POSITIVE);
        let axes = Axes {
            steps: self.usage.len(),
            most,
        };
        let mut svg = axes.begin();
        for (origin, rows) in &self.fans {
            let of = |level: usize| -> Vec<(usize, f64)> {
                let steps = rows.iter().enumerate();
                steps
                    .map(|(step, row)| (origin + 1 + step, row[level]))
                    .collect()
            };
            let back = of(0).into_iter().rev();
            let band: Vec<(usize, f64)> = of(2).into_iter().chain(back).collect();
            axes.shape(&mut svg, "polygon", "band", &band);
            axes.shape(&mut svg, "polyline", "median", &of(1));
            axes.shape(&mut svg, "polyline", "upper", &of(3));
        }
        let usage: Vec<(usize, f64)> = self.usage.iter().copied().enumerate().collect();
        for known in usage.split(|(_, value)| value.is_nan()) {
            axes.shape(&mut svg, "polyline", "usage", known);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Share of actuals at or below each quantile against what was promised.
pub(super) fn calibration(coverage: &[f64]) -> String {
    let mut svg = String::from(
        "<svg viewBox=\"0 0 120 120\" width=\"120\" height=\"120\"><polyline class=\"promise\" points=\"10,110 110,10\"/>",
    );
    for (level, covered) in QUANTILES.iter().zip(coverage) {
        let (x, y) = (10.0 + 100.0 * level, 110.0 - 100.0 * covered);
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{level}: {covered:.3}</title></circle>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

// === impl Axes ===

impl Axes {
    fn begin(&self) -> String {
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\">\n")
    }

    fn shape(&self, svg: &mut String, kind: &str, class: &str, points: &[(usize, f64)]) {
        if points.iter().any(|(_, value)| !value.is_finite()) || points.is_empty() {
            return;
        }
        let _ = write!(svg, "<{kind} class=\"{class}\" points=\"");
        for (step, value) in points {
            let x = MARGIN + (WIDTH - 2.0 * MARGIN) * *step as f64 / self.steps.max(1) as f64;
            let part = (value / self.most).min(1.0);
            let y = HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * part;
            let _ = write!(svg, "{x:.1},{y:.1} ");
        }
        svg.push_str("\"/>\n");
    }
}
