//! A sign's own past in this customer: on how many days it was as high as now.
//!
//! What is compared is the fourth highest score of the last eight steps, so a single step decides nothing; of each day its highest is kept, for
//! four weeks. The p-value is that of conformal prediction: one and the number of days that were as high, over one and their
//! number. It holds for any distribution as long as it does not matter in which order the days come, which is nearly so.
//!
//! All scores of all steps in a histogram were the worse alternative. Steps of a burst belong together, so those p-values are wrong by far where a
//! customer comes in bursts; and what grows slowly over hours was its own past before it was ever above it.

use serde::{Deserialize, Serialize};

/// Days that are remembered.
pub(crate) const DAYS: usize = 28;
/// Of so many the highest does not count: an attack that was not found must not be what all others are held against.
const DAYS_MANY: u8 = 14;
/// As long as there are fewer, the highest may well be exceeded by chance: it is taken for this much higher, two fifths more z.
const FEW_DAYS: f64 = 0.35;
/// The last steps that count, and which of their scores does.
const LAST: usize = 8;
const NTH: usize = 4;
/// No score is higher: a z of 60.
pub(crate) const SCORE_MOST: f64 = 4.110_873_864_173_311;

/// How high a sign was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Past {
    days: [Score; DAYS],
    known: u8,
    next: u8,
    /// `None`: it was not seen today, or nothing of today is usual.
    today: Option<Score>,
    last: [Score; LAST],
}

/// A score from 0 to [`SCORE_MOST`] in 255 parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Score(u8);

// === impl Past ===

impl Past {
    /// Takes the score of a step; what counts.
    pub(crate) fn observe(&mut self, score: Score) -> Score {
        self.last.rotate_left(1);
        if let Some(last) = self.last.last_mut() {
            *last = score;
        }
        let mut sorted = self.last;
        sorted.sort_unstable();
        sorted.get(LAST - NTH).copied().unwrap_or_default()
    }

    /// What counted in a step belongs to this day.
    pub(crate) fn learn(&mut self, score: Score) {
        self.today = self.today.max(Some(score));
    }

    /// The day is over. `is_known`: it is one to remember. A day of which nothing was learned is none: it would lower the bar.
    pub(crate) fn end_day(&mut self, is_known: bool) {
        let Some(today) = self.today.take().filter(|_| is_known) else {
            return;
        };
        if let Some(day) = self.days.get_mut(usize::from(self.next)) {
            *day = today;
        }
        self.next = (self.next + 1) % DAYS as u8;
        self.known = (self.known + 1).min(DAYS as u8);
    }

    /// The p-value of a score.
    pub(crate) fn p(&self, score: Score) -> f64 {
        let days = self.days.iter().take(usize::from(self.known));
        let as_high = days.filter(|day| **day >= score).count();
        (1.0 + as_high as f64) / (1.0 + f64::from(self.known))
    }

    /// The highest that is remembered; of many days the second highest.
    pub(crate) fn highest(&self) -> f64 {
        let (mut first, mut second) = (Score::default(), Score::default());
        for day in self.days {
            second = second.max(day.min(first));
            first = first.max(day);
        }
        match self.known < DAYS_MANY {
            true => first.value(),
            false => second.value(),
        }
    }

    /// What a score is held against: of few days, some more than the highest.
    pub(crate) fn bar(&self) -> f64 {
        let more = if self.known < DAYS_MANY {
            FEW_DAYS
        } else {
            0.0
        };
        self.highest() + more
    }
}

// === impl Score ===

impl Score {
    /// What a z is as a score. By logarithms, because a z of what is far away says how regular a customer was and hardly how bad it is.
    pub(crate) fn of(z: f64) -> Self {
        let share = z.max(0.0).ln_1p() / SCORE_MOST;
        Self((share * 255.0).round().min(255.0) as u8)
    }

    pub(crate) fn value(self) -> f64 {
        f64::from(self.0) * SCORE_MOST / 255.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against plain lists of the same.
        #[test]
        fn what_counts_is_the_fourth_highest_of_eight_and_the_bar_is_the_highest_of_its_days(
            days in prop::collection::vec(prop::collection::vec(0.0..90.0_f64, 1..12), 1..40),
        ) {
            let (mut past, mut all, mut highest) = (Past::default(), Vec::new(), Vec::new());
            for day in &days {
                let mut of_day = Score::default();
                for z in day {
                    all.push(Score::of(*z));
                    let counts = past.observe(Score::of(*z));
                    let mut last = all[all.len().saturating_sub(8)..].to_vec();
                    last.sort_unstable();
                    let expected = last.len().checked_sub(4).map_or(Score::default(), |place| last[place]);
                    prop_assert_eq!(counts, expected);
                    past.learn(counts);
                    of_day = of_day.max(counts);
                }
                past.end_day(true);
                highest.push(of_day);
                let mut known = highest[highest.len().saturating_sub(28)..].to_vec();
                known.sort_unstable();
                let bar = match known.len() {
                    ..14 => known[known.len() - 1].value() + 0.35,
                    _ => known[known.len() - 2].value(),
                };
                prop_assert_eq!(past.bar(), bar);
                let as_high = known.iter().filter(|score| **score >= of_day).count();
                let p = (1.0 + as_high as f64) / (1.0 + known.len() as f64);
                prop_assert_eq!(past.p(of_day), p);
            }
        }
    }

    #[test]
    fn a_day_that_is_not_to_be_remembered_is_not() {
        let mut past = Past::default();
        past.learn(Score::of(9.0));
        past.end_day(false);
        assert_eq!(past, Past::default());
    }

    #[test]
    fn weeks_of_which_nothing_was_learned_lower_no_bar() {
        let mut past = Past::default();
        past.learn(Score::of(9.0));
        past.end_day(true);
        let before = past;
        (0..2 * DAYS).for_each(|_| past.end_day(true));
        assert_eq!(past, before);
    }
}
