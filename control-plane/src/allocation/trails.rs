//! Demand that was measured, for customers of whom there is no forecast.
//!
//! Of the last closed steps and the pace of this moment: the median is taken to be their mean, but no less than what is asked for now; the 0.9 quantile the
//! largest but one (the largest while there are fewer than five); the 0.99 quantile the largest. Eight steps bear no more than that. A distribution that
//! is fitted to them was the worse alternative: its tail is made up.

use crate::history::Series;
use forebay_sharing::Outlook;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Closed steps that are remembered.
const STEPS_KEPT: usize = 8;
/// Nothing is known any more when the newest of them is older than so many.
const SILENT_STEPS: u64 = 16;
/// Series that are remembered; those beyond it are known by their present pace.
const SERIES_MOST: usize = 400_000;
/// With fewer values the largest is the 0.9 quantile as well.
const VALUES_FOR_SECOND: usize = 5;

/// Usage of one series in closed steps.
#[derive(Clone, Debug, Default)]
struct Trail {
    /// The step in which it was seen first.
    first: u64,
    /// Steps with usage, and their rates in tokens per second, oldest first.
    rates: VecDeque<(u64, f32)>,
}

/// Usage of all series in the last closed steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trails {
    heard: VecDeque<u64>,
    /// The one that was heard of last.
    newest: u64,
    /// Steps that were heard of since the server started.
    ever: usize,
    series: HashMap<Series, Trail>,
}

// === impl Trails ===

impl Trails {
    /// The newest step that was heard of.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether next to nothing is known yet: the server has just started.
    pub(crate) fn is_new(&self) -> bool {
        self.ever < 2
    }

    /// Forgets steps that are long over: no gateway has reported since, and what was asked for then will not be asked for again.
    pub(crate) fn expire(&mut self, now: u64) {
        if self.newest.saturating_add(SILENT_STEPS) < now {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.heard.clear();
        self.series.clear();
    }

    /// Takes in a closed step: rates where they are not zero, in tokens per second.
    pub(crate) fn hear(&mut self, closed: u64, rates: impl Iterator<Item = (Series, f64)>) {
        let newest = self.newest();
        if closed == 0 || closed == newest {
            return;
        }
        if closed < newest {
            // The clock was set back: what was counted under it says nothing of these steps.
            self.forget();
        }
        self.newest = closed;
        self.ever = self.ever.saturating_add(1);
        self.heard.push_back(closed);
        while self.heard.len() > STEPS_KEPT {
            self.heard.pop_front();
        }
        let oldest = self.heard.front().copied().unwrap_or(0);
        for (series, per_s) in rates {
            if self.series.len() >= SERIES_MOST && !self.series.contains_key(&series) {
                continue;
            }
            let trail = self.series.entry(series).or_default();
            if trail.rates.is_empty() {
                trail.first = closed;
            }
            // A rate needs no more than an f32 has.
            trail.rates.push_back((closed, per_s as f32));
        }
        self.series.retain(|_, trail| {
            while trail.rates.front().is_some_and(|(step, _)| *step < oldest) {
                trail.rates.pop_front();
            }
            !trail.rates.is_empty()
        });
    }

    /// What a series has asked for in the newest step that was heard of.
    pub(crate) fn newest_per_s(&self, series: Series) -> f64 {
        let trail = self.series.get(&series);
        let last = trail.and_then(|trail| trail.rates.back());
        last.filter(|(step, _)| *step == self.newest)
            .map_or(0.0, |(_, per_s)| f64::from(*per_s))
    }

    /// What a series has asked for in a step; none where that is not known: nobody has told of the step, or the series was seen first after it.
    pub(crate) fn per_s_in(&self, series: Series, step: u64) -> Option<f64> {
        let trail = self.series.get(&series)?;
        let is_known = step >= trail.first && self.heard.contains(&step);
        is_known.then(|| {
            let found = trail.rates.iter().find(|(at, _)| *at == step);
            found.map_or(0.0, |(_, per_s)| f64::from(*per_s))
        })
    }

    /// What a series will ask for, from what it has asked for and asks for now.
    pub(crate) fn outlook(&self, series: Series, now_per_s: f64) -> Outlook {
        let mut values = vec![now_per_s];
        if let Some(trail) = self.series.get(&series) {
            let steps = self.heard.iter().filter(|step| **step >= trail.first);
            values.extend(steps.map(|step| {
                let found = trail.rates.iter().find(|(at, _)| at == step);
                found.map_or(0.0, |(_, rate)| f64::from(*rate))
            }));
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.sort_by(|one, other| other.total_cmp(one));
        let largest = values.first().copied().unwrap_or(0.0);
        let second = match values.len() < VALUES_FOR_SECOND {
            true => largest,
            false => values.get(1).copied().unwrap_or(largest),
        };
        let median = mean.max(now_per_s);
        Outlook {
            quantiles_per_s: [median, second.max(median), largest],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::key::CustomerHash;

    const SERIES: Series = Series {
        customer: CustomerHash([1; 16]),
        resource: 0,
    };

    fn hear(trails: &mut Trails, step: u64, per_s: f64) {
        trails.hear(step, (per_s > 0.0).then_some((SERIES, per_s)).into_iter());
    }

    #[test]
    fn the_mean_the_largest_but_one_and_the_largest_of_the_last_steps_are_quantiles() {
        let mut trails = Trails::default();
        // Of ten steps the last eight count, quiet ones among them.
        for (number, per_s) in (1..).zip([90, 90, 1, 2, 0, 4, 5, 6, 7, 8]) {
            hear(&mut trails, number, f64::from(per_s));
        }
        let outlook = trails.outlook(SERIES, 3.0);
        assert_eq!(outlook.quantiles_per_s, [4.0, 7.0, 8.0]);
    }

    #[test]
    fn nothing_below_what_is_asked_for_now_is_expected() {
        let mut trails = Trails::default();
        for number in 1..8 {
            hear(&mut trails, number, 1.0);
        }
        let surge = trails.outlook(SERIES, 50.0).quantiles_per_s;
        assert_eq!(surge, [50.0; 3]);
        let unknown = Series::new(CustomerHash([2; 16]), 0);
        assert_eq!(trails.outlook(unknown, 5.0).quantiles_per_s, [5.0; 3]);
    }

    #[test]
    fn whoever_was_silent_for_all_steps_that_are_kept_is_forgotten() {
        let mut trails = Trails::default();
        hear(&mut trails, 1, 1.0);
        for number in 2..=8 {
            hear(&mut trails, number, 0.0);
        }
        assert_eq!(trails.series.len(), 1);
        hear(&mut trails, 9, 0.0);
        assert_eq!(trails.series.len(), 0);
        hear(&mut trails, 10, 5.0);
        trails.expire(26);
        assert_eq!(trails.outlook(SERIES, 0.0).upper_per_s(), 5.0);
        trails.expire(27);
        assert_eq!(trails.outlook(SERIES, 0.0), Outlook::default());
    }
}
