//! How good the odds of a quiet, usual, busy or spiking step are, beside those of one who knows what is usual only.

use forebay_families::{CLIMATE, Forecasts, Scenarios, brier_score, ranked_probability_score};
use serde::Serialize;

use crate::dataset::DataSet;
use crate::scoring::Scored;

/// Mean scores of all tenants, origins and steps ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Odds {
    /// Ranked probability score.
    rps: f64,
    /// The same of who knows only what is usual.
    rps_usual: f64,
    brier: f64,
    brier_usual: f64,
}

// === impl Odds ===

impl Odds {
    /// Of the steps `1..=steps` ahead; `None` if no tenant's demand has an order of sizes.
    pub(super) fn of(
        data_set: &DataSet,
        scored: &[Scored],
        deployed: &[Option<Forecasts>],
        steps: usize,
    ) -> Option<Self> {
        let (mut sum, mut count) = (Self::default(), 0.0);
        for (one, forecasts) in scored.iter().zip(deployed) {
            let Some(forecasts) = forecasts else { continue };
            let values = &one.series.values;
            for origin in &one.origins {
                // What is usual is known by then.
                let window = data_set.frame.error_rows.max(data_set.frame.season);
                let recent = &values[(origin + 1).saturating_sub(window)..=*origin];
                let Some(scenarios) = Scenarios::of(recent) else {
                    continue;
                };
                for step in 1..=steps {
                    let row = forecasts.of(*origin, step);
                    let actual = values[origin + step];
                    if actual.is_nan() || row[0].is_nan() {
                        continue;
                    }
                    let (came, odds) = (scenarios.class(actual), scenarios.probabilities(row));
                    sum.rps += ranked_probability_score(&odds, came);
                    sum.rps_usual += ranked_probability_score(&CLIMATE, came);
                    sum.brier += brier_score(&odds, came);
                    sum.brier_usual += brier_score(&CLIMATE, came);
                    count += 1.0;
                }
            }
        }
        (count > 0.0).then(|| Self {
            rps: sum.rps / count,
            rps_usual: sum.rps_usual / count,
            brier: sum.brier / count,
            brier_usual: sum.brier_usual / count,
        })
    }

    pub(super) fn said(&self) -> String {
        format!(
            "odds of low, normal, high, spike: RPS {:.4} (usual {:.4}), Brier {:.3} ({:.3})",
            self.rps, self.rps_usual, self.brier, self.brier_usual
        )
    }
}
