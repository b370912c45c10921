//! Samples on their way to the means of steps: which of them are news, and what the mean of a step is with each one more.
//!
//! The mean is in the history with each request, so what is acknowledged is durable, and nothing waits for the end of a step. How many samples it is of is only
//! here, for the newest steps of each series: of any other step the mean that is stored counts as one sample. To store the counts was worse, for it
//! would be as much again for what changes a mean a little when a server has restarted within a step or a sender is hours late.

use super::Dropped;
pub(crate) use crate::history::Series;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Steps of a series of which all samples count alike: senders are behind one another by a step or two.
const STEPS_OPEN: usize = 3;
/// Series of senders that are remembered, 40 bytes each.
const SOURCES_MOST: usize = 200_000;
/// Customers times covariates, some 600 bytes each with the chunks that are being written.
const SERIES_MOST: usize = 100_000;

/// What is known of samples that have come.
#[derive(Debug, Default)]
pub(crate) struct Means {
    /// By the series that a sender has: the time of its newest sample.
    sources: HashMap<u64, i64>,
    open: HashMap<Series, SmallVec<[StepSamples; STEPS_OPEN]>>,
    /// The running step, as far as this was told.
    step_now: u64,
    /// The step in which what is idle was forgotten last.
    swept_in: u64,
}

/// Samples of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepSamples {
    pub(crate) step: u64,
    pub(crate) sum: f64,
    pub(crate) count: u32,
}

// === impl Means ===

impl Means {
    /// Says which step runs. True if it is another one than before.
    pub(crate) fn enters(&mut self, step_now: u64) -> bool {
        std::mem::replace(&mut self.step_now, step_now) != step_now
    }

    /// Series of senders that are remembered.
    pub(crate) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Whether there is room for the series of a sender, and what it measures. What has had no sample since a time, and the step of that, makes room.
    pub(crate) fn has_room(&mut self, source: u64, series: Series, idle: (i64, u64)) -> bool {
        let fits = |means: &Self| {
            (means.sources.len() < SOURCES_MOST || means.sources.contains_key(&source))
                && (means.open.len() < SERIES_MOST || means.open.contains_key(&series))
        };
        // Once in a step: whoever sends too many series must not make each of them cost a look at all.
        if !fits(self) && std::mem::replace(&mut self.swept_in, self.step_now) != self.step_now {
            let (idle_since_ms, idle_step) = idle;
            self.sources
                .retain(|_, newest_ms| *newest_ms >= idle_since_ms);
            let is_used = |steps: &SmallVec<[StepSamples; STEPS_OPEN]>| {
                steps.iter().any(|mean| mean.step >= idle_step)
            };
            self.open.retain(|_, steps| is_used(steps));
        }
        fits(self)
    }

    /// Takes note of a sample.
    ///
    /// # Errors
    /// When it is no news.
    pub(crate) fn admit(&mut self, source: u64, at_unix_ms: i64) -> Result<(), Dropped> {
        let newest_ms = self.sources.entry(source).or_insert(i64::MIN);
        match at_unix_ms.cmp(newest_ms) {
            std::cmp::Ordering::Less => Err(Dropped::OutOfOrder),
            std::cmp::Ordering::Equal => Err(Dropped::Duplicate),
            std::cmp::Ordering::Greater => {
                *newest_ms = at_unix_ms;
                Ok(())
            }
        }
    }

    /// Adds samples to those of their step, and gives the mean. `stored` is asked for the mean of a step that is not among the newest: it counts as one
    /// sample. A step that is older than all of them takes the place of none, or one who sends late would make the others' means forget what they are of.
    pub(crate) fn add(
        &mut self,
        series: Series,
        samples: StepSamples,
        stored: impl FnOnce() -> Option<f32>,
    ) -> f32 {
        let steps = self.open.entry(series).or_default();
        if let Some(before) = steps.iter_mut().find(|open| open.step == samples.step) {
            before.add(samples.sum, samples.count);
            return before.mean();
        }
        let mut samples = samples;
        if let Some(stored) = stored() {
            samples.add(f64::from(stored), 1);
        }
        if steps.len() < STEPS_OPEN {
            steps.push(samples);
        } else if let Some(oldest) = steps.iter_mut().min_by_key(|open| open.step)
            && oldest.step < samples.step
        {
            *oldest = samples;
        }
        samples.mean()
    }
}

// === impl StepSamples ===

impl StepSamples {
    pub(crate) fn add(&mut self, sum: f64, count: u32) {
        self.sum += sum;
        self.count = self.count.saturating_add(count);
    }

    fn mean(self) -> f32 {
        #[allow(clippy::cast_possible_truncation)]
        // what is learned from needs no more than an f32 has
        let mean = (self.sum / f64::from(self.count.max(1))) as f32;
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::key::CustomerHash;

    fn series(number: usize) -> Series {
        Series::new(CustomerHash((number as u128).to_le_bytes()), 192)
    }

    #[test]
    fn a_sample_counts_once_and_only_if_it_is_newer_than_those_of_its_series() {
        let mut means = Means::default();
        let admitted: Vec<_> = [(1, 5), (1, 5), (1, 4), (2, 4), (1, 6)]
            .map(|(source, at)| means.admit(source, at))
            .to_vec();
        let expected = [
            Ok(()),
            Err(Dropped::Duplicate),
            Err(Dropped::OutOfOrder),
            Ok(()),
            Ok(()),
        ];
        assert_eq!(admitted, expected);
        assert_eq!(means.sources(), 2);
    }

    fn one(step: u64, value: f64) -> StepSamples {
        StepSamples {
            step,
            sum: value,
            count: 1,
        }
    }

    #[test]
    fn the_mean_is_of_all_samples_of_the_step_whatever_steps_come_between() {
        let mut means = Means::default();
        let unasked = || panic!("it is among the newest");
        let none = || None;
        assert_eq!(means.add(series(1), one(10, 1.0), none), 1.0);
        assert_eq!(means.add(series(1), one(11, 7.0), none), 7.0);
        assert_eq!(means.add(series(1), one(10, 2.0), unasked), 1.5);
        assert_eq!(means.add(series(1), one(10, 6.0), unasked), 3.0);
        assert_eq!(means.add(series(1), one(11, 8.0), unasked), 7.5);
        // Of a step that nothing is known of here, what is stored counts as one.
        assert_eq!(means.add(series(2), one(10, 2.0), || Some(4.0)), 3.0);
    }

    #[test]
    fn late_samples_take_no_room_from_newer_steps_and_newer_steps_take_it_from_older_ones() {
        let open = |means: &Means| {
            let steps = means.open[&series(1)].iter();
            let mut steps: Vec<u64> = steps.map(|open| open.step).collect();
            steps.sort_unstable();
            steps
        };
        let mut means = Means::default();
        for step in [99, 98, 97, 96, 5, 96] {
            means.add(series(1), one(step, 1.0), || Some(1.0));
        }
        assert_eq!(open(&means), [97, 98, 99]);
        let late = StepSamples {
            step: 5,
            sum: 12.0,
            count: 3,
        };
        assert_eq!(means.add(series(1), late, || Some(8.0)), 5.0);
        assert_eq!(open(&means), [97, 98, 99]);
        means.add(series(1), one(100, 1.0), || None);
        assert_eq!(open(&means), [98, 99, 100]);
    }

    #[test]
    fn what_is_idle_makes_room_and_what_is_not_does_not() {
        let mut means = Means::default();
        means.enters(5);
        for source in 0..SOURCES_MOST as u64 {
            assert!(means.has_room(source, series(0), (100, 1)));
            means
                .admit(source, if source % 2 == 0 { 99 } else { 100 })
                .unwrap();
        }
        let newcomer = SOURCES_MOST as u64;
        assert!(means.has_room(newcomer, series(0), (100, 1)));
        assert_eq!(means.sources(), SOURCES_MOST / 2);
        for source in 0..SOURCES_MOST as u64 {
            let _whether = means.admit(source, 100);
        }
        assert!(
            !means.has_room(newcomer, series(0), (101, 1)),
            "once in a step"
        );
        assert!(means.enters(6));
        assert!(
            !means.has_room(newcomer, series(0), (100, 1)),
            "none is idle"
        );
        assert!(means.has_room(7, series(0), (100, 1)), "it has a place");
    }

    #[test]
    fn customers_times_covariates_are_bounded_too() {
        let mut means = Means::default();
        means.enters(5);
        for number in 0..SERIES_MOST {
            assert!(means.has_room(1, series(number), (0, 5)));
            means.add(series(number), one(5, 1.0), || None);
        }
        assert!(!means.has_room(1, series(SERIES_MOST), (0, 5)));
        means.enters(6);
        assert!(means.has_room(1, series(SERIES_MOST), (0, 6)));
        assert!(means.open.is_empty());
    }
}
