//! What each kind of event does to one customer, from the occurrences that are over.
//!
//! The usual demand beside which an occurrence is held is the median of the same phase in the seasons before, other events taken out, times the change
//! of level just before it is felt. Kinds may do different things at different hours (a match at noon and one in the evening), so
//! each hour has a profile of its own, drawn towards that of its kind.

use super::profile::{Observed, Profile};
use super::{Agenda, Event, middle_s};
use crate::{Frame, History};
use std::collections::BTreeMap;

/// Seasons before whose median is usual.
const SEASONS: usize = 7;
/// Part of a season over which the level before an event is taken, and the least steps of it.
const LEVEL_PART: usize = 12;
const LEVEL_STEPS_MIN: usize = 4;
/// Demand this small, as a part of the mean, is not told apart from zero.
const FLOOR: f64 = 0.02;
/// Bound of the logarithm of all events' effect at once.
const LOG_MAX: f64 = 3.0;
/// Once without what other occurrences did, and once with it.
const PASSES: usize = 2;

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;

/// Profiles of kinds, and of kinds at an hour of the day.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    kinds: BTreeMap<String, Profile>,
    hours: BTreeMap<(String, i64), Profile>,
}

/// What can be said of an event beside its kind.
fn hour_of(event: &Event) -> i64 {
    event.starts_s.rem_euclid(DAY_S) / HOUR_S
}

// === impl Effects ===

impl Effects {
    /// Of occurrences that are no longer felt at the beginning of step `now`, by what lies before that.
    pub(crate) fn learned(history: &History, frame: &Frame, now: usize) -> Self {
        let agenda = history.agenda();
        let mut effects = Self::default();
        let known = agenda.events().iter();
        for event in known.filter(|event| event.is_known(history.stamp_s(now))) {
            if let Some(factor) = event.factor {
                effects
                    .kinds
                    .insert(event.kind.clone(), Profile::flat(factor));
            }
        }
        let supposed = effects.kinds.clone();
        let floor = FLOOR * history.mean(now) + f64::MIN_POSITIVE;
        for _ in 0..PASSES {
            let mut by_kind: BTreeMap<String, Observed> = BTreeMap::new();
            let mut by_hour: BTreeMap<(String, i64), Observed> = BTreeMap::new();
            for (nth, event) in agenda.events().iter().enumerate() {
                let Some(seen) = effects.occurrence(history, frame, now, (nth, event), floor)
                else {
                    continue;
                };
                by_kind.entry(event.kind.clone()).or_default().add(&seen);
                by_hour
                    .entry((event.kind.clone(), hour_of(event)))
                    .or_default()
                    .add(&seen);
            }
            let nothing = Profile::default();
            effects = Self {
                kinds: supposed.clone(),
                hours: BTreeMap::new(),
            };
            for (kind, observed) in by_kind {
                let before = supposed.get(&kind).unwrap_or(&nothing);
                effects.kinds.insert(kind, observed.profile(before));
            }
            for ((kind, hour), observed) in by_hour {
                let before = effects.kinds.get(&kind).unwrap_or(&nothing);
                let profile = observed.profile(before);
                effects.hours.insert((kind, hour), profile);
            }
        }
        effects
    }

    /// The logarithm of how many times the usual demand is at a step, of events that were known at a time.
    pub(crate) fn log_at(&self, history: &History, step: usize, known_by_s: i64) -> f64 {
        self.log(history, step, known_by_s, None)
    }

    fn log(&self, history: &History, step: usize, known_by_s: i64, without: Option<usize>) -> f64 {
        let felt = history.agenda().felt(middle_s(history, step));
        let sum: f64 = felt
            .filter(|(nth, event, _)| Some(*nth) != without && event.is_known(known_by_s))
            .map(|(_, event, position)| event.confidence * self.of(event, position))
            .sum();
        sum.clamp(-LOG_MAX, LOG_MAX)
    }

    fn of(&self, event: &Event, position: f64) -> f64 {
        let by_hour = self.hours.get(&(event.kind.clone(), hour_of(event)));
        let profile = by_hour.or_else(|| self.kinds.get(&event.kind));
        profile.map_or(0.0, |profile| profile.at(position))
    }

    /// Where in it each step of an occurrence lies, and how far demand was from the usual, other events left out. `None` if it is not over, or if nothing
    /// is known of the usual.
    fn occurrence(
        &self,
        history: &History,
        frame: &Frame,
        now: usize,
        (nth, event): (usize, &Event),
        floor: f64,
    ) -> Option<Vec<(f64, f64)>> {
        let felt_from_s = event.starts_s - event.lead_s();
        let felt_until_s = event.ends_s + event.decay_s();
        let first = history.steps_before(felt_from_s);
        let end = history.steps_before(felt_until_s);
        let now_s = history.stamp_s(now);
        let is_over = felt_until_s <= now_s && event.is_known(now_s);
        let level_steps = (frame.season / LEVEL_PART).max(LEVEL_STEPS_MIN);
        if !is_over
            || felt_from_s < history.start_s
            || first < level_steps
            || event.confidence <= 0.0
        {
            return None;
        }
        let clean = |step: usize, without: Option<usize>| {
            let log = self.log(history, step, history.stamp_s(step + 1), without);
            history.known()[step] / log.exp()
        };
        let usual = |step: usize| {
            let mut before: Vec<f64> = (1..=SEASONS)
                .filter_map(|seasons| step.checked_sub(seasons * frame.season))
                .map(|step| clean(step, None))
                .filter(|value| !value.is_nan())
                .collect();
            before.sort_unstable_by(f64::total_cmp);
            before.get(before.len() / 2).copied()
        };
        let (mut is, mut was) = (floor, floor);
        for step in first - level_steps..first {
            if let (value, Some(usual)) = (clean(step, Some(nth)), usual(step))
                && !value.is_nan()
            {
                is += value;
                was += usual;
            }
        }
        let seen: Vec<(f64, f64)> = (first..end.min(now))
            .filter_map(|step| {
                let position = event.position(middle_s(history, step))?;
                let expected = usual(step)? * is / was;
                let value = clean(step, Some(nth));
                let log = ((value + floor) / (expected + floor)).ln();
                log.is_finite()
                    .then_some((position, log.clamp(-LOG_MAX, LOG_MAX)))
            })
            .collect();
        (!seen.is_empty()).then_some(seen)
    }
}

/// A history without what known events did to it, as far as these effects say.
pub(crate) fn without(effects: &Effects, history: &History) -> History {
    let agenda: &Agenda = history.agenda();
    let known = history.known().iter().enumerate().map(|(step, value)| {
        if value.is_nan() || agenda.is_empty() {
            return *value;
        }
        value
            / effects
                .log_at(history, step, history.stamp_s(step + 1))
                .exp()
    });
    History::new(history.start_s, history.step_s, known.collect())
}
