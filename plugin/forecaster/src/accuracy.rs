//! How good the forecasts were, over all customers, in two kinds of numbers that go to the control plane.
//!
//! Pinball loss is what the models are trained on; coverage says whether the quantile keeps its promise. [`Accuracy`] fades, so that a bad
//! day shows and is forgotten. [`Score`] does not: it is for comparing models, and a difference of two sums is what happened between them.

use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_forecast::pinball;
use forebay_wire::sync::{ForecastScore, ResourceScore};

use crate::series::Forecast;

/// Share of the sums that is kept per matured forecast: about the last thousand count.
const KEPT: f64 = 0.999;

/// The quantile by which models are compared, whatever a policy asks for: gateways with different policies must be comparable too.
pub const SCORED_QUANTILE: f32 = 0.9;

/// Sums over all that has matured since the running model took over. Tokens of different resources are of different sizes, so each has sums of
/// its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    matured: u64,
    covered: u64,
    /// `None` before the first of the resource.
    resources: PerResource<Option<Sums>>,
}

/// Sums in tokens of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    loss: f64,
    usage: f64,
}

/// Discounted sums over matured forecasts.
#[derive(Clone, Debug)]
pub struct Accuracy {
    quantile: f32,
    loss: f64,
    usage: f64,
    covered: f64,
    count: f64,
}

// === impl Score ===

impl Score {
    /// A step is over for which `high` was forecast as the [`SCORED_QUANTILE`], and it is known what the fleet has used in it.
    pub fn matured(&mut self, resource: ResourceIndex, high: f32, usage: f32) {
        let loss = f64::from(pinball(SCORED_QUANTILE, high, usage));
        if !loss.is_finite() {
            return;
        }
        self.matured = self.matured.saturating_add(1);
        self.covered = self.covered.saturating_add(u64::from(usage <= high));
        let sums = self.resources.at_mut(resource).get_or_insert_default();
        sums.loss += loss;
        sums.usage += f64::from(usage);
    }

    /// What the control plane is told; nothing before the first forecast has matured.
    #[must_use]
    pub fn to_wire(&self) -> Option<ForecastScore> {
        let known = || (0..).zip(self.resources.iter());
        let known = || known().filter_map(|(resource, sums)| Some((resource, (*sums)?)));
        (self.matured > 0).then(|| ForecastScore {
            matured: self.matured,
            covered: self.covered,
            loss: known().map(|(_, sums)| sums.loss).sum(),
            usage: known().map(|(_, sums)| sums.usage).sum(),
            resources: known()
                .map(|(resource, sums)| ResourceScore {
                    resource,
                    loss: sums.loss,
                    usage: sums.usage,
                })
                .collect(),
        })
    }
}

// === impl Accuracy ===

impl Accuracy {
    /// Nothing has matured yet. `quantile` is the one that refills shadow buckets.
    #[must_use]
    pub fn new(quantile: f32) -> Self {
        Self {
            quantile,
            loss: 0.0,
            usage: 0.0,
            covered: 0.0,
            count: 0.0,
        }
    }

    /// The quantile that is judged from now on.
    pub fn set_quantile(&mut self, quantile: f32) {
        self.quantile = quantile;
    }

    /// The step that `forecast` was made for is over.
    pub fn matured(&mut self, forecast: &Forecast, usage: f32) {
        let loss = f64::from(pinball(self.quantile, forecast.claim, usage));
        if !loss.is_finite() {
            return;
        }
        let covered = if usage <= forecast.claim { 1.0 } else { 0.0 };
        self.loss = KEPT * self.loss + loss;
        self.usage = KEPT * self.usage + f64::from(usage);
        self.covered = KEPT * self.covered + covered;
        self.count = KEPT * self.count + 1.0;
    }

    /// Mean pinball loss divided by mean usage, in millionths.
    #[must_use]
    pub fn pinball_ppm(&self) -> u64 {
        ppm(self.loss, self.usage)
    }

    /// Share of steps whose usage was at or below the forecast, in millionths.
    #[must_use]
    pub fn coverage_ppm(&self) -> u64 {
        ppm(self.covered, self.count)
    }
}

/// A cast from float saturates and takes NaN to 0.
fn ppm(part: f64, whole: f64) -> u64 {
    if whole > 0.0 {
        (part / whole * 1e6) as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use forebay_forecast::Source;

    use super::*;

    #[test]
    fn the_score_is_the_sum_of_what_has_matured_and_of_nothing_else() {
        let (first, third) = (ResourceIndex::FIRST, ResourceIndex::new(2).unwrap());
        let mut score = Score::default();
        assert_eq!(score.to_wire(), None);
        score.matured(first, 10.0, 20.0);
        score.matured(first, 10.0, 10.0);
        score.matured(first, 10.0, f32::INFINITY);
        score.matured(third, 0.0, 1e6);
        let said = score.to_wire().unwrap();
        assert_eq!((said.matured, said.covered), (3, 1));
        let [requests, bytes] = said.resources[..] else {
            panic!("{said:?}");
        };
        assert!((requests.loss - 9.0).abs() < 1e-5, "{requests:?}");
        assert_eq!((requests.resource, requests.usage), (0, 30.0));
        assert!((bytes.loss / 9e5 - 1.0).abs() < 1e-5, "{bytes:?}");
        assert_eq!((bytes.resource, bytes.usage), (2, 1e6));
        assert_eq!(
            said.usage, 1_000_030.0,
            "for servers that know no resources"
        );
        assert_eq!(said.loss, requests.loss + bytes.loss);
    }

    #[test]
    fn coverage_is_the_share_of_steps_at_or_below_the_forecast() {
        let mut accuracy = Accuracy::new(0.9);
        let forecast = Forecast {
            step: 0,
            low: 1.0,
            median: 5.0,
            high: 10.0,
            claim: 10.0,
            source: Source::Fallback,
        };
        for step in 0..5_000_u16 {
            accuracy.matured(&forecast, if step % 10 == 0 { 20.0 } else { 10.0 });
        }
        assert!(
            accuracy.coverage_ppm().abs_diff(900_000) < 5_000,
            "{}",
            accuracy.coverage_ppm()
        );
        // One step in ten is 10 above: a loss of 0.9 x 10 there, over a mean usage of 11.
        assert!(
            accuracy.pinball_ppm().abs_diff(81_818) < 2_000,
            "{}",
            accuracy.pinball_ppm()
        );
    }
}
