//! What is forecast of one series for one horizon: a function of its tape, and of nothing behind its end.
//!
//! The simple families of `forebay-families` and their mixture, whose weights and calibration are learned from the last windows anew each time. To keep what was learned and to
//! go on with it was the worse alternative: it would have to be stored, and to fit windows that end with another step each time. Families with something to learn first
//! (ridge, ARIMA, boosting) are not among them: they cost a training, and docs/internals/forecasting.md says what they would be worth.

use super::horizon::{LEARNED, Plan};
use super::tape::Windows;
use forebay_families::{Family, QUANTILES};
use forebay_families::{Forecasts, History, MixtureSettings, Priors, SIMPLE, Scenarios, mix};

pub(super) const LEVELS: usize = QUANTILES.len();
/// Places among the quantiles.
pub(super) const LOWER: usize = 0;
pub(super) const MEDIAN: usize = 1;
pub(super) const UPPER: usize = 2;

/// Quantiles of a rate in tokens per second, ascending.
pub(super) type Row = [f32; LEVELS];

/// A forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Made {
    /// Of the mean rate within the horizon.
    pub(super) mean: Row,
    /// Of the rate of its peak step.
    pub(super) peak: Row,
    /// Bounds between low, normal, high and spiking mean rates; `None` where too little is known, or nothing changes.
    pub(super) scenarios: Option<Scenarios>,
}

// === impl Made ===

impl Made {
    /// From a tape; `None` if too little of it is known.
    pub(super) fn of(tape: &[f64], plan: &Plan) -> Option<Self> {
        let windows = Windows::of(tape, plan);
        if windows.known() < plan.windows_least() {
            return None;
        }
        let lately = windows.means.len().saturating_sub(2 * LEARNED);
        let scenarios = windows.means.get(lately..).and_then(Scenarios::of);
        Some(Self {
            mean: quantiles(windows.means, plan)?,
            peak: quantiles(windows.peaks, plan)?,
            scenarios,
        })
    }

    /// The same with another mean, above which the peak stays.
    pub(super) fn with_mean(self, mean: Row) -> Self {
        let mut peak = self.peak;
        for (peak, mean) in peak.iter_mut().zip(mean) {
            *peak = peak.max(mean);
        }
        Self { mean, peak, ..self }
    }
}

/// Quantiles of the window that begins when the last one has ended.
fn quantiles(windows: Vec<f64>, plan: &Plan) -> Option<Row> {
    if windows.iter().all(|rate| rate.is_nan() || *rate == 0.0) {
        return Some([0.0; LEVELS]);
    }
    let last = windows.len().checked_sub(1)?;
    let origins = last.saturating_sub(LEARNED)..=last;
    // Simple families look at no clock.
    let history = History::new(0, 1, windows);
    let forecasts = SIMPLE.map(|family| family.forecast(&history, &plan.frame, origins.clone()));
    let families: Vec<Option<&Forecasts>> = forecasts.iter().map(Option::as_ref).collect();
    let settings = MixtureSettings::default();
    let mixed = mix(
        &history,
        &plan.frame,
        &families,
        &Priors::equal(),
        &settings,
    )?;
    let row = Row::try_from(mixed.of(last, plan.parts)).ok()?;
    row.iter().all(|rate| rate.is_finite()).then_some(row)
}

#[cfg(test)]
mod tests {
    use super::super::horizon::HORIZONS;
    use super::*;
    use proptest::prelude::*;

    fn hour() -> Plan {
        HORIZONS[3].plan(300_000, 4_032).unwrap()
    }

    /// A day of five-minute steps, over and over.
    fn daily(steps: usize) -> Vec<f64> {
        let of = |step: usize| if step % 288 < 144 { 3_000.0 } else { 30_000.0 };
        (0..steps).map(of).collect()
    }

    #[test]
    fn a_change_that_comes_each_day_at_the_same_time_is_foreseen() {
        let plan = hour();
        // The next step is the first of the busy half of the day.
        let made = Made::of(&daily(288 * 7 + 144), &plan).unwrap();
        assert!((90.0..=110.0).contains(&made.mean[MEDIAN]), "{made:?}");
        let made = Made::of(&daily(288 * 7 + 72), &plan).unwrap();
        assert!((9.0..=11.0).contains(&made.mean[MEDIAN]), "{made:?}");
    }

    #[test]
    fn too_little_history_gives_no_forecast_and_silence_one_of_zeros() {
        let plan = hour();
        let least = plan.steps_least();
        assert_eq!(Made::of(&daily(least - 1), &plan), None);
        assert!(Made::of(&daily(least), &plan).is_some());
        let silent = Made::of(&vec![0.0; least], &plan).unwrap();
        assert_eq!((silent.mean, silent.scenarios), ([0.0; LEVELS], None));
        assert_eq!(Made::of(&vec![f64::NAN; 4_000], &plan), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is in the history: quantiles are in order, finite, and the peak is no lower than the mean.
        #[test]
        fn no_history_makes_a_forecast_that_is_none(
            values in prop::collection::vec(
                prop_oneof![Just(0.0), Just(f64::NAN), 0.0..100.0_f64, Just(1e12), Just(f64::from(f32::MAX))], 0..400,
            ),
        ) {
            let plan = hour();
            if let Some(made) = Made::of(&values, &plan) {
                let made = made.with_mean(made.mean);
                for row in [made.mean, made.peak] {
                    prop_assert!(row.is_sorted() && row[0] >= 0.0 && row[3].is_finite(), "{made:?}");
                }
                prop_assert!(made.mean.iter().zip(made.peak).all(|(mean, peak)| peak >= *mean));
            }
        }
    }
}
