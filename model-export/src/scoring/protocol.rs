//! Which series are scored, and from which origins: the rolling-origin protocol of the reference scorer.

use forebay_traces::Series;

/// How series are cut into what may be learned from and what is scored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    /// Steps per season.
    pub(crate) season_steps: usize,
    /// Forecast steps.
    pub(crate) horizons: usize,
    /// Last share of each series that is the test span.
    pub(crate) test_share: f64,
    /// Origins per tenant in the test span.
    pub(crate) origins: usize,
    /// Tenants active in this share of their steps, or less, are not scored.
    pub(crate) min_active: f64,
    /// Nor are series of fewer seasons.
    pub(crate) min_seasons: f64,
}

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
pub(crate) fn select(cut: &Cut, series: Vec<Series>) -> Vec<Scored> {
    series
        .into_iter()
        .filter_map(|one| Scored::new(cut, one))
        .collect()
}

// === impl Cut ===

impl Cut {
    /// Index of the first step of the test span.
    pub(crate) fn test_start(&self, len: usize) -> usize {
        (len as f64 * (1.0 - self.test_share)) as usize
    }
}

// === impl Scored ===

impl Scored {
    fn new(cut: &Cut, series: Series) -> Option<Self> {
        let len = series.len();
        let test_start = cut.test_start(len);
        let active = |values: &[f64]| values.iter().filter(|value| **value > 0.0).count();
        let (before, test) = series.values.split_at(test_start);
        let enough = len as f64 >= cut.min_seasons * cut.season_steps as f64
            && active(test) >= ACTIVE_TEST_STEPS_MIN
            && active(before) >= ACTIVE_TRAINING_STEPS_MIN
            && active(&series.values) as f64 > cut.min_active * len as f64;
        if !enough {
            return None;
        }
        let last = len.checked_sub(cut.horizons + 1)?;
        if last < test_start {
            return None;
        }
        let origins = evenly_spaced(test_start, last, cut.origins);
        Some(Self {
            series,
            origins,
            test_start,
        })
    }

    /// Mean absolute error of the seasonal naive before the test span, where both steps are known.
    pub(crate) fn seasonal_error(&self, cut: &Cut) -> Option<f64> {
        let before = &self.series.values[..self.test_start];
        let later = before.get(cut.season_steps..)?;
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
    let count = count.min(last - first + 1);
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

    fn cut() -> Cut {
        crate::recipe::Recipe::servegen_10m().cut()
    }

    #[test]
    fn origins_begin_at_the_test_span_and_leave_room_for_the_horizon() {
        let series = Series {
            tenant: "a".into(),
            start_s: 0,
            step_s: 600,
            values: vec![1.0; 2016],
        };
        let scored = Scored::new(&cut(), series).unwrap();
        assert_eq!(scored.test_start, 1411);
        assert_eq!(scored.origins.len(), 30);
        assert_eq!(
            (scored.origins[0], scored.origins[1], scored.origins[29]),
            (1411, 1431, 2009)
        );
    }

    #[test]
    fn quiet_and_short_series_are_not_scored() {
        let cut = cut();
        let mut values = vec![0.0; 2016];
        values[..400].fill(1.0);
        let quiet = Series {
            tenant: "a".into(),
            start_s: 0,
            step_s: 600,
            values,
        };
        assert!(Scored::new(&cut, quiet.clone()).is_none());
        let short = Series {
            values: vec![1.0; 500],
            ..quiet
        };
        assert!(Scored::new(&cut, short).is_none());
    }
}
