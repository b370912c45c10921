//! Whether each tenant's 0.9 quantile keeps its promise, judged by one outcome for each step of the test span.
//!
//! The scorer's own points, all steps ahead of some origins, suppose that the steps of one forecast are independent, which they are not: a constant factor on each
//! tenant's quantile that makes it right exactly, chosen afterwards, leaves a third of tenants outside the interval there. So the farthest step is judged alone, from all origins.

use forebay_families::Forecasts;

use crate::recipe::QUANTILES;
use crate::scoring::Scored;

const NINE_TENTHS: usize = 2;
/// Outcomes from which on a tenant is judged.
const OUTCOMES_MIN: usize = 200;
/// Standard deviations that hold 95 % of a normal distribution.
const TWO_SIDED_95: f64 = 1.96;
/// Forecasts have single precision.
const SLACK_PART: f64 = 2e-7;

/// How many tenants were judged, and of how many coverage lies in the 95 % binomial interval around 0.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    judged: usize,
    kept: usize,
}

// === impl Promise ===

impl Promise {
    /// Of forecasts so many steps ahead; `None` if no tenant has enough outcomes.
    pub(super) fn of(
        scored: &[Scored],
        deployed: &[Option<Forecasts>],
        steps: usize,
    ) -> Option<Self> {
        let mut promise = Self { judged: 0, kept: 0 };
        for (one, forecasts) in scored.iter().zip(deployed) {
            let Some(forecasts) = forecasts else { continue };
            let values = &one.series.values;
            let (mut outcomes, mut covered) = (0_usize, 0_usize);
            for origin in one.test_start..values.len().saturating_sub(steps) {
                let actual = values[origin + steps];
                let forecast = f64::from(forecasts.of(origin, steps)[NINE_TENTHS]);
                if actual.is_nan() || forecast.is_nan() {
                    continue;
                }
                outcomes += 1;
                covered += usize::from(actual * (1.0 - SLACK_PART) <= forecast);
            }
            if outcomes >= OUTCOMES_MIN {
                promise.judged += 1;
                promise.kept += usize::from(is_within(covered, outcomes));
            }
        }
        (promise.judged > 0).then_some(promise)
    }

    pub(super) fn share(self) -> f64 {
        self.kept as f64 / self.judged as f64
    }

    pub(super) fn said(self) -> String {
        format!(
            "by every step, the farthest ahead: {} of {} tenants within it",
            self.kept, self.judged
        )
    }
}

fn is_within(covered: usize, outcomes: usize) -> bool {
    let level = f64::from(QUANTILES[NINE_TENTHS]);
    let deviation = (level * (1.0 - level) / outcomes as f64).sqrt();
    (covered as f64 / outcomes as f64 - level).abs() <= TWO_SIDED_95 * deviation
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_traces::Series;

    /// A tenant whose outcomes are above the quantile, 1, every so manieth time.
    fn tenant(every: usize, steps: usize) -> (Scored, Option<Forecasts>) {
        let value = |step: usize| if step.is_multiple_of(every) { 2.0 } else { 0.5 };
        let scored = Scored {
            series: Series {
                tenant: every.to_string(),
                start_s: 0,
                step_s: 60,
                values: (0..steps).map(value).collect(),
            },
            origins: Vec::new(),
            test_start: 20,
        };
        let mut forecasts = Forecasts::none(&(20..=steps - 1), 3);
        for origin in 20..steps {
            forecasts.from_mut(origin).fill(1.0);
        }
        (scored, Some(forecasts))
    }

    #[test]
    fn who_is_covered_as_often_as_promised_keeps_it_and_who_is_too_short_is_not_judged() {
        let all = [
            tenant(10, 1_020),
            tenant(5, 1_020),
            tenant(40, 1_020),
            tenant(10, 200),
        ];
        let (scored, deployed): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let promise = Promise::of(&scored, &deployed, 3).unwrap();
        assert_eq!((promise.kept, promise.judged), (1, 3));
        assert_eq!(Promise::of(&scored[3..], &deployed[3..], 3), None);
    }
}
