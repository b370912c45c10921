//! Training samples: what the network would have seen at every step of every series, and what came after.
//!
//! The inputs are laid out by the `forecast` crate's own batch, the code that runs in the gateway, so training cannot
//! drift away from it.

use forebay_forecast::{Batch, ModelSpec, SeriesWindow};
use forebay_traces::Series;

use crate::tape::Matrix;

/// How strongly large customers count. 0 = every customer the same (the median customer), 1 = every token the same
/// (the pooled score).
const SIZE_EXPONENT: f64 = 0.5;
/// A series needs this many steps with usage to be learned from.
const ACTIVE_STEPS_MIN: usize = 20;

/// Samples of many series, laid out as the network's inputs.
pub(crate) struct Samples {
    window: usize,
    horizons: usize,
    calendar_columns: usize,
    usage: Vec<f32>,
    mask: Vec<f32>,
    season: Vec<f32>,
    season_mask: Vec<f32>,
    calendar: Vec<f32>,
    /// Usage of the forecast steps; 0 where it is a gap.
    target: Vec<f32>,
    /// Weight of each forecast step in the loss: 0 for a gap.
    weight: Vec<f32>,
    /// When the first and the last forecast step of each sample begin, in Unix seconds.
    target_s: Vec<(i64, i64)>,
}

/// Some samples as matrices.
pub(crate) struct Minibatch {
    pub(crate) usage: Matrix,
    pub(crate) mask: Matrix,
    pub(crate) season: Matrix,
    pub(crate) season_mask: Matrix,
    pub(crate) calendar: Matrix,
    pub(crate) target: Matrix,
    pub(crate) weight: Matrix,
}

// === impl Samples ===

impl Samples {
    /// Samples of the first `end(series)` steps of every series: nothing later is looked at, as input or as target.
    pub(crate) fn new(series: &[Series], spec: &ModelSpec, end: impl Fn(&Series) -> usize) -> Self {
        let mut samples = Self {
            window: spec.window,
            horizons: spec.horizons.len(),
            calendar_columns: spec.calendar_features.len(),
            usage: Vec::new(),
            mask: Vec::new(),
            season: Vec::new(),
            season_mask: Vec::new(),
            calendar: Vec::new(),
            target: Vec::new(),
            weight: Vec::new(),
            target_s: Vec::new(),
        };
        let cut: Vec<(&Series, &[f64], f64)> = series
            .iter()
            .filter_map(|one| {
                let known = &one.values[..end(one)];
                let active = known.iter().filter(|value| **value > 0.0).count();
                let observed = known.iter().filter(|value| !value.is_nan());
                let mean = observed.clone().sum::<f64>() / observed.count().max(1) as f64;
                (active >= ACTIVE_STEPS_MIN).then_some((one, known, mean))
            })
            .collect();
        let typical = cut.iter().map(|(_, _, mean)| mean).sum::<f64>() / cut.len().max(1) as f64;
        for (one, known, mean) in cut {
            // The loss is divided by the customer's mean, then weighed by its size.
            let weight = (mean / typical).powf(SIZE_EXPONENT) / mean;
            samples.add(one, known, spec, weight as f32);
        }
        samples
    }

    fn add(&mut self, series: &Series, known: &[f64], spec: &ModelSpec, weight: f32) {
        let first_step = series.start_s / i64::from(series.step_s);
        let mut window = SeriesWindow::new(spec.history_steps());
        let mut batch = Batch::new(spec, 1);
        for (t, value) in known.iter().enumerate() {
            let observed = (!value.is_nan()).then_some(*value as f32);
            window.record(first_step + t as i64, observed);
            let future = &known[t + 1..known.len().min(t + 1 + self.horizons)];
            if t + 1 < self.window || future.len() < self.horizons {
                continue;
            }
            batch.clear();
            if batch.push(spec, &window).is_err() {
                continue;
            }
            self.usage.extend_from_slice(batch.usage());
            self.mask.extend_from_slice(batch.mask());
            self.season.extend(batch.past().iter().step_by(2));
            self.season_mask
                .extend(batch.past().iter().skip(1).step_by(2));
            let calendar = batch.calendar();
            self.calendar
                .extend_from_slice(&calendar[calendar.len() - self.calendar_columns..]);
            for value in future {
                let gap = value.is_nan();
                self.target.push(if gap { 0.0 } else { *value as f32 });
                self.weight.push(if gap { 0.0 } else { weight });
            }
            self.target_s
                .push((series.stamp_s(t + 1), series.stamp_s(t + self.horizons)));
        }
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.target_s.len()
    }

    /// Numbers of the samples whose targets all lie before the instant, and of those whose targets all lie after it.
    /// Samples across the border belong to neither.
    pub(crate) fn split(&self, unix_s: i64) -> (Vec<usize>, Vec<usize>) {
        let choose = |keep: &dyn Fn(&(i64, i64)) -> bool| {
            (0..self.len())
                .filter(|i| keep(&self.target_s[*i]))
                .collect()
        };
        (
            choose(&|(_, last)| *last < unix_s),
            choose(&|(first, _)| *first >= unix_s),
        )
    }

    /// The chosen samples side by side; targets and weights are repeated for each of `quantiles` quantiles.
    pub(crate) fn minibatch(&self, chosen: &[usize], quantiles: usize) -> Minibatch {
        let gather = |cells: &[f32], columns: usize| {
            Matrix::from_fn(chosen.len(), columns, |row, column| {
                cells[chosen[row] * columns + column]
            })
        };
        let repeat = |cells: &[f32]| {
            Matrix::from_fn(chosen.len(), self.horizons * quantiles, |row, column| {
                cells[chosen[row] * self.horizons + column / quantiles]
            })
        };
        Minibatch {
            usage: gather(&self.usage, self.window),
            mask: gather(&self.mask, self.window),
            season: gather(&self.season, self.window),
            season_mask: gather(&self.season_mask, self.window),
            calendar: gather(&self.calendar, self.calendar_columns),
            target: repeat(&self.target),
            weight: repeat(&self.weight),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_traces::generator::GeneratorSpec;

    use super::*;
    use crate::fit::spec;
    use crate::recipe::Recipe;

    fn series() -> Vec<Series> {
        let generator = GeneratorSpec {
            customers: 3,
            steps: 400,
            ..GeneratorSpec::default()
        };
        generator.series()
    }

    #[test]
    fn what_comes_after_the_cut_changes_nothing() {
        let (known, spec) = (series(), spec(&Recipe::generated(), 600));
        let mut other = known.clone();
        for one in &mut other {
            one.values[300..]
                .iter_mut()
                .for_each(|value| *value = 7.0 * *value + 100.0);
        }
        let a = Samples::new(&known, &spec, |_| 300);
        let b = Samples::new(&other, &spec, |_| 300);
        assert!(a.len() > 0);
        assert_eq!(a.usage, b.usage);
        assert_eq!(a.season, b.season);
        assert_eq!(a.target, b.target);
        assert_eq!(a.weight, b.weight);
    }

    #[test]
    fn a_gap_is_masked_in_the_inputs_and_weightless_in_the_targets() {
        let (mut known, spec) = (series(), spec(&Recipe::generated(), 600));
        known.truncate(1);
        known[0].values[100] = f64::NAN;
        let samples = Samples::new(&known, &spec, |one| one.len());
        // The first sample is taken at the end of the first full window.
        let first = spec.window - 1;
        let at = |t: usize| t - first;
        assert_eq!(samples.mask[at(100) * spec.window + spec.window - 1], 0.0);
        assert_eq!(samples.weight[at(99) * samples.horizons], 0.0);
        assert!(samples.weight[at(99) * samples.horizons + 1] > 0.0);
    }

    #[test]
    fn no_target_of_one_part_lies_in_the_other() {
        let (known, spec) = (series(), spec(&Recipe::generated(), 600));
        let samples = Samples::new(&known, &spec, |one| one.len());
        let border = known[0].stamp_s(200);
        let (before, after) = samples.split(border);
        assert!(before.iter().all(|i| samples.target_s[*i].1 < border));
        assert!(after.iter().all(|i| samples.target_s[*i].0 >= border));
        // The samples across the border: one less than the horizon, for each series.
        assert_eq!(
            samples.len() - before.len() - after.len(),
            3 * (samples.horizons - 1)
        );
    }
}
