//! Which series are scored, and from which origins: the rolling-origin protocol of the reference scorer.

use forebay_traces::Series;

use crate::recipe::Recipe;

/// A series shorter than this many seasons is not scored.
const SEASONS_MIN: usize = 4;
/// Steps with usage that a series needs in its test span, and before it.
const ACTIVE_TEST_STEPS_MIN: usize = 10;
const ACTIVE_TRAINING_STEPS_MIN: usize = 20;

/// A series that is scored.
pub(crate) struct Scored {
    /// The series, gaps as NaN.
    pub(crate) series: Series,
    /// Steps from whose end a forecast is made; all in the test span.
    pub(crate) origins: Vec<usize>,
    /// First step of the test span.
    pub(crate) test_start: usize,
}

/// The series that are long and active enough.
pub(crate) fn select(recipe: &Recipe, series: Vec<Series>) -> Vec<Scored> {
    series
        .into_iter()
        .filter_map(|one| Scored::new(recipe, one))
        .collect()
}

// === impl Scored ===

impl Scored {
    fn new(recipe: &Recipe, series: Series) -> Option<Self> {
        let len = series.len();
        let test_start = recipe.test_start(len);
        let active = |values: &[f64]| values.iter().filter(|value| **value > 0.0).count();
        let (before, test) = series.values.split_at(test_start);
        let enough = len >= SEASONS_MIN * recipe.season_steps
            && active(test) >= ACTIVE_TEST_STEPS_MIN
            && active(before) >= ACTIVE_TRAINING_STEPS_MIN
            && active(&series.values) as f64 > recipe.min_active * len as f64;
        if !enough {
            return None;
        }
        let last = len.checked_sub(recipe.horizons + 1)?;
        let origins = evenly_spaced(test_start, last, recipe.origins);
        Some(Self {
            series,
            origins,
            test_start,
        })
    }

    /// Mean absolute error of the seasonal naive before the test span, where both steps are known.
    pub(crate) fn seasonal_error(&self, recipe: &Recipe) -> Option<f64> {
        let before = &self.series.values[..self.test_start];
        let later = before.get(recipe.season_steps..)?;
        let errors = later
            .iter()
            .zip(before)
            .map(|(now, then)| (now - then).abs());
        let known = errors.filter(|error| !error.is_nan());
        let (sum, count) = known.fold((0.0, 0_usize), |(sum, count), error| {
            (sum + error, count + 1)
        });
        (count > 0).then(|| sum / count as f64)
    }
}

/// `count` whole numbers from `first` to `last`, evenly spaced, rounded down, each once.
fn evenly_spaced(first: usize, last: usize, count: usize) -> Vec<usize> {
    if last <= first || count < 2 {
        return vec![first.min(last)];
    }
    let distance = (last - first) as f64 / (count - 1) as f64;
    let mut origins: Vec<usize> = (0..count)
        .map(|i| (first as f64 + i as f64 * distance) as usize)
        .map(|origin| origin.min(last))
        .collect();
    origins[count - 1] = last;
    origins.dedup();
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_begin_at_the_test_span_and_leave_room_for_the_horizon() {
        let series = Series {
            tenant: "a".into(),
            start_s: 0,
            step_s: 600,
            values: vec![1.0; 2016],
        };
        let scored = Scored::new(&Recipe::servegen_10m(), series).unwrap();
        assert_eq!(scored.test_start, 1411);
        assert_eq!(scored.origins.len(), 30);
        assert_eq!(
            (scored.origins[0], scored.origins[1], scored.origins[29]),
            (1411, 1431, 2009)
        );
    }

    #[test]
    fn quiet_and_short_series_are_not_scored() {
        let recipe = Recipe::servegen_10m();
        let mut values = vec![0.0; 2016];
        values[..400].fill(1.0);
        let quiet = Series {
            tenant: "a".into(),
            start_s: 0,
            step_s: 600,
            values,
        };
        assert!(Scored::new(&recipe, quiet.clone()).is_none());
        let short = Series {
            values: vec![1.0; 500],
            ..quiet
        };
        assert!(Scored::new(&recipe, short).is_none());
    }
}
