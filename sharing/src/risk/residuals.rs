//! What was not to be expected of usage: the season and known events taken out.
//!
//! Two shops that open at nine are correlated, and nobody learns anything from it: the forecast of both knows. What counts is what they
//! do together beyond that. Level and season are taken from logarithms by medians, so that the spikes which are to be found stay where
//! they are; a profile of means has a part of each spike in it, on every day. An event that was announced is given a level of its own for each of
//! its occurrences, since no two campaigns are equally strong.

use crate::risk::history::{Event, History};
use crate::risk::normal::quantile;

const DAY_S: usize = 86_400;

/// A day has no more slots than these, of five minutes: shorter ones have too few values of their own, and take time.
const MOST_SLOTS: usize = 288;

/// The part of a usual amount that is added before logarithms are taken: half of it gone is no larger surprise than twice of it.
const FLOOR_SHARE: f32 = 0.1;

/// Days of a week that have a profile of their own: from Saturday on.
const WEEKEND: usize = 5;

/// A profile of the day looks this far to both sides, in seconds.
const NEAR_S: usize = 900;

/// A time of day that is known on fewer days has no profile, and what is left beside one of a day or two says how few they were: all who joined in
/// the same week would have it in common. Weekends count by themselves.
const FEWEST_DAYS: usize = 3;

/// Blocks of the week: what a day has beyond those profiles is learned for six hours at a time, from all its steps. To trust a short history less
/// there would leave a part of each Monday in all series, and link everybody with everybody.
const BLOCKS: usize = 28;

/// A level cannot be learned from fewer steps of an event; those steps are not known then.
const SHORTEST_EVENT: usize = 6;

/// A standard deviation over the median distance from the median, for normal values.
const SPREAD: f32 = 1.4826;

/// Standardised residuals of all customers on the history's grid.
#[derive(Clone, Debug)]
pub struct Residuals {
    /// For each customer and step, in robust standard deviations; `NaN` where nothing is known.
    pub(crate) values: Vec<Vec<f32>>,
    /// The same as normal scores, by rank: bounded, so that no single spike makes a correlation. 0 where nothing is known.
    pub(crate) scores: Vec<Vec<f32>>,
}

/// Takes season and known events out of all series.
#[must_use]
pub fn residuals(history: &History) -> Residuals {
    let steps = history.steps();
    let slots = (DAY_S / history.step_s.max(1) as usize).clamp(1, MOST_SLOTS);
    let places: Vec<Place> = (0..steps)
        .map(|step| {
            let second = history.second_of_week(step);
            Place {
                slot: second % DAY_S * slots / DAY_S,
                is_weekend: second / DAY_S >= WEEKEND,
                block: second * BLOCKS / (7 * DAY_S),
            }
        })
        .collect();
    let near = (NEAR_S * slots / DAY_S).min(slots.saturating_sub(1) / 2);
    let season = Season {
        places,
        slots,
        near,
        fewest: FEWEST_DAYS * (DAY_S / history.step_s.max(1) as usize / slots).max(1),
    };
    let values: Vec<Vec<f32>> = history
        .usage
        .iter()
        .enumerate()
        .map(|(customer, usage)| {
            let events: Vec<&Event> = history
                .events
                .iter()
                .filter(|event| event.customers.contains(&customer))
                .collect();
            season.take_out(usage, &events)
        })
        .collect();
    let scores = values.iter().map(|values| normal_scores(values)).collect();
    Residuals { values, scores }
}

/// Where a step lies in the day and in the week.
struct Place {
    slot: usize,
    is_weekend: bool,
    block: usize,
}

struct Season {
    places: Vec<Place>,
    slots: usize,
    near: usize,
    /// Steps that must be known of a slot.
    fewest: usize,
}

// === impl Residuals ===

impl Residuals {
    /// How many customers there are.
    #[must_use]
    pub fn customers(&self) -> usize {
        self.values.len()
    }

    /// A customer's residuals, step by step, in robust standard deviations; `NaN` where nothing is known. Empty for a customer that there is not.
    #[must_use]
    pub fn of(&self, customer: usize) -> &[f32] {
        self.values.get(customer).map_or(&[], Vec::as_slice)
    }

    /// Those of some customers, in their order: a matrix of all is as large as the square of their number.
    #[must_use]
    pub fn part(&self, customers: &[usize]) -> Self {
        let chosen = |all: &[Vec<f32>]| {
            let chosen = customers.iter().filter_map(|customer| all.get(*customer));
            chosen.cloned().collect()
        };
        Self {
            values: chosen(&self.values),
            scores: chosen(&self.scores),
        }
    }

    /// How many steps the grid has.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }
}

// === impl Season ===

impl Season {
    fn take_out(&self, usage: &[f32], events: &[&Event]) -> Vec<f32> {
        let steps = self.places.len();
        let is_known = |value: &f32| value.is_finite() && *value >= 0.0;
        let mut positive: Vec<f32> = usage
            .iter()
            .copied()
            .filter(|value| is_known(value) && *value > 0.0)
            .collect();
        let floor = median(&mut positive) * FLOOR_SHARE;
        let mut rest = vec![f32::NAN; steps];
        if floor > 0.0 {
            for (rest, usage) in rest.iter_mut().zip(usage) {
                if is_known(usage) {
                    *rest = (usage + floor).ln();
                }
            }
        }
        let in_event: Vec<bool> = (0..steps)
            .map(|step| {
                let on = |event: &&Event| event.is_on.get(step).copied().unwrap_or(false);
                events.iter().any(on)
            })
            .collect();
        self.take_out_day(&mut rest, &in_event, false);
        self.take_out_day(&mut rest, &in_event, true);
        self.take_out_week(&mut rest, &in_event);
        level_events(&mut rest, &in_event);
        standardise(&mut rest, &in_event);
        rest
    }

    fn take_out_day(&self, rest: &mut [f32], in_event: &[bool], of_weekends: bool) {
        let mut of_slot = vec![Vec::new(); self.slots];
        for (place, value) in usual(&self.places, rest, in_event) {
            if place.is_weekend == of_weekends {
                of_slot[place.slot].push(value);
            }
        }
        let mut pool = Vec::new();
        let profile: Vec<f32> = (0..self.slots)
            .map(|slot| {
                if of_slot[slot].len() < self.fewest {
                    return f32::NAN;
                }
                pool.clear();
                for off in 0..=2 * self.near {
                    let other = (slot + self.slots + off - self.near) % self.slots;
                    pool.extend_from_slice(&of_slot[other]);
                }
                median(&mut pool)
            })
            .collect();
        for (place, value) in self.places.iter().zip(rest) {
            if place.is_weekend == of_weekends {
                *value -= profile[place.slot];
            }
        }
    }

    fn take_out_week(&self, rest: &mut [f32], in_event: &[bool]) {
        let mut of_block = vec![Vec::new(); BLOCKS];
        for (place, value) in usual(&self.places, rest, in_event) {
            of_block[place.block].push(value);
        }
        let profile: Vec<f32> = of_block.iter_mut().map(|values| median(values)).collect();
        for (place, value) in self.places.iter().zip(rest) {
            *value -= profile[place.block];
        }
    }
}

/// Known values outside of events.
fn usual<'a>(
    places: &'a [Place],
    rest: &'a [f32],
    in_event: &'a [bool],
) -> impl Iterator<Item = (&'a Place, f32)> {
    places
        .iter()
        .zip(rest)
        .zip(in_event)
        .filter(|((_, value), in_event)| !value.is_nan() && !**in_event)
        .map(|((place, value), _)| (place, *value))
}

/// Takes from each occurrence of an event its own median.
fn level_events(rest: &mut [f32], in_event: &[bool]) {
    let mut from = 0;
    for run in in_event.chunk_by(PartialEq::eq) {
        let to = from + run.len();
        if run[0] {
            let mut known: Vec<f32> = rest[from..to]
                .iter()
                .copied()
                .filter(|value| !value.is_nan())
                .collect();
            let level = if known.len() < SHORTEST_EVENT {
                f32::NAN
            } else {
                median(&mut known)
            };
            for value in &mut rest[from..to] {
                *value -= level;
            }
        }
        from = to;
    }
}

/// Divides by the spread outside of events. A series that never moves says nothing.
fn standardise(rest: &mut [f32], in_event: &[bool]) {
    let mut known: Vec<f32> = rest
        .iter()
        .zip(in_event)
        .filter(|(value, in_event)| !value.is_nan() && !**in_event)
        .map(|(value, _)| value.abs())
        .collect();
    let spread = median(&mut known) * SPREAD;
    let mean = known.iter().sum::<f32>() / known.len().max(1) as f32;
    let spread = if spread > 1e-6 { spread } else { mean };
    for value in rest {
        *value = if spread > 1e-6 {
            *value / spread
        } else {
            f32::NAN
        };
    }
}

/// The median, or 0 of nothing. Changes the order of values.
fn median(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Ranks as quantiles of the normal distribution (van der Waerden); equal values have one score.
fn normal_scores(values: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len())
        .filter(|step| !values[*step].is_nan())
        .collect();
    order.sort_unstable_by(|left, right| values[*left].total_cmp(&values[*right]));
    let mut scores = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|left, right| values[*left] == values[*right]) {
        let rank = before as f64 + equal.len() as f64 / 2.0;
        let score = quantile(rank / order.len() as f64) as f32;
        for step in equal {
            scores[*step] = score;
        }
        before += equal.len();
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_S: u32 = 3600;

    /// Two weeks of hours: a day's wave times what a weekday is.
    fn usage(step: usize) -> f32 {
        let wave = 1.0 + 0.5 * (step as f32 / 24.0 * std::f32::consts::TAU).sin();
        let week = if step / 24 % 7 < 5 { 1.0 } else { 0.4 };
        let noise = 1.0 + 0.02 * ((step * 7919) % 13) as f32 / 13.0;
        100.0 * wave * week * noise
    }

    fn of(usage: Vec<f32>, events: &[Event]) -> Vec<f32> {
        let history = History {
            step_s: STEP_S,
            first_s: 0,
            usage: &[usage],
            events,
        };
        residuals(&history).values.remove(0)
    }

    #[test]
    fn a_spike_is_left_when_the_season_is_gone() {
        let mut all: Vec<f32> = (0..28 * 24).map(usage).collect();
        all[250] *= 2.0;
        let rest = of(all, &[]);
        let largest = (0..rest.len()).max_by(|left, right| rest[*left].total_cmp(&rest[*right]));
        assert_eq!(largest, Some(250));
        let before: f32 = (0..28 * 24).map(|step| usage(step).ln()).sum::<f32>() / 672.0;
        let spread = |values: &dyn Fn(usize) -> f32| {
            (0..672).map(|step| values(step).powi(2)).sum::<f32>() / 672.0
        };
        assert!(spread(&|step| usage(step).ln() - before) > 0.1);
        assert!(rest[250] > 5.0, "{}", rest[250]);
    }

    #[test]
    fn what_is_not_known_stays_unknown_and_moves_nothing_else() {
        let whole: Vec<f32> = (0..28 * 24).map(usage).collect();
        let mut gaps = whole.clone();
        gaps[100..110].fill(f32::NAN);
        gaps[300] = -1.0;
        gaps[301] = f32::INFINITY;
        let (whole, gaps) = (of(whole, &[]), of(gaps, &[]));
        for step in 0..whole.len() {
            let is_gap = (100..110).contains(&step) || (300..302).contains(&step);
            assert_eq!(gaps[step].is_nan(), is_gap, "{step}");
            if !is_gap {
                assert!((gaps[step] - whole[step]).abs() < 1.0, "{step}");
            }
        }
    }

    #[test]
    fn an_event_that_was_announced_is_no_surprise() {
        let campaign = |step: usize| (400..412).contains(&step) || (552..564).contains(&step);
        let event = Event {
            customers: vec![0],
            is_on: (0..672).map(campaign).collect(),
        };
        let lift = |step: usize| if step < 450 { 3.0 } else { 5.0 };
        let raised: Vec<f32> = (0..672)
            .map(|step| usage(step) * if campaign(step) { lift(step) } else { 1.0 })
            .collect();
        let mean_in_event = |rest: &[f32]| {
            let steps = (0..672).filter(|step| campaign(*step));
            steps.map(|step| rest[step]).sum::<f32>() / 24.0
        };
        let unknown = mean_in_event(&of(raised.clone(), &[]));
        let known = mean_in_event(&of(raised, &[event]));
        assert!(unknown > 5.0, "{unknown}");
        assert!(known.abs() < 1.0, "{known}");
    }

    #[test]
    fn a_series_that_never_moves_says_nothing() {
        assert!(of(vec![5.0; 672], &[]).iter().all(|value| value.is_nan()));
        assert!(of(vec![0.0; 672], &[]).iter().all(|value| value.is_nan()));
    }
}
