//! What each kind of event does to one customer, from the occurrences that are over.
//!
//! The usual demand beside which an occurrence is held is the median of the same phase in the seasons before, other events taken out, times the change
//! of level just before it is felt. Kinds may do different things at different hours (a match at noon and one in the evening), so
//! each hour has a curve of its own, drawn towards that of its kind.

use super::curve::{Curve, Observed};
use super::{Event, FELT_MOST, Felt, middle_s};
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
/// Steps of occurrences that are learned from at once: learning comes again each season, and would take a time that grows with the square of the history's.
const STEPS_LEARNED_MOST: usize = 32_768;
/// Once without what other occurrences did, and once with it.
const PASSES: usize = 2;

/// Curves of kinds, and of kinds at an hour of the day, by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    kinds: BTreeMap<usize, Curve>,
    hours: BTreeMap<usize, Curve>,
}

/// A history, and which events are felt when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) history: &'a History,
    pub(crate) felt: &'a Felt,
}

// === impl Effects ===

impl Effects {
    /// Of occurrences that are no longer felt at the beginning of step `now`, by what lies before that.
    pub(crate) fn learned(scene: Scene<'_>, frame: &Frame, now: usize) -> Self {
        let history = scene.history;
        let agenda = history.agenda();
        let now_s = history.stamp_s(now);
        let mut supposed = BTreeMap::new();
        for (event, (kind, _)) in agenda.events.iter().zip(&agenda.groups) {
            if let Some(factor) = event.factor
                && event.is_known(now_s)
            {
                supposed.insert(*kind, Curve::flat(factor));
            }
        }
        let mut effects = Self {
            kinds: supposed.clone(),
            hours: BTreeMap::new(),
        };
        let floor = FLOOR * history.mean(now) + f64::MIN_POSITIVE;
        let nothing = Curve::default();
        let latest = Self::latest(scene, now);
        for _ in 0..PASSES {
            let mut by_kind: BTreeMap<usize, Observed> = BTreeMap::new();
            let mut by_hour: BTreeMap<usize, (usize, Observed)> = BTreeMap::new();
            for nth in latest.iter().copied() {
                let (event, (kind, hour)) = (&agenda.events[nth], &agenda.groups[nth]);
                let seen = effects.occurrence(scene, frame, now, (nth, event), floor);
                let Some(seen) = seen else { continue };
                by_kind.entry(*kind).or_default().add(&seen);
                let (_, of_hour) = by_hour.entry(*hour).or_insert((*kind, Observed::default()));
                of_hour.add(&seen);
            }
            effects.kinds.clone_from(&supposed);
            effects.hours.clear();
            for (kind, observed) in by_kind {
                let before = supposed.get(&kind).unwrap_or(&nothing);
                effects.kinds.insert(kind, observed.curve(before));
            }
            for (hour, (kind, observed)) in by_hour {
                let before = effects.kinds.get(&kind).unwrap_or(&nothing);
                effects.hours.insert(hour, observed.curve(before));
            }
        }
        effects
    }

    /// The logarithm of how many times the usual demand is at a step, of events that were known at a time.
    pub(crate) fn log_at(&self, scene: Scene<'_>, step: usize, known_by_s: i64) -> f64 {
        self.log(scene, step, known_by_s, None)
    }

    fn log(&self, scene: Scene<'_>, step: usize, known_by_s: i64, without: Option<usize>) -> f64 {
        let felt = scene.felt.at(step);
        if felt.is_empty() {
            return 0.0;
        }
        let agenda = scene.history.agenda();
        let moment_s = middle_s(scene.history, step);
        let others = felt.iter().map(|nth| *nth as usize);
        let known = others
            .filter(|nth| Some(*nth) != without && agenda.events[*nth].is_known(known_by_s))
            .take(FELT_MOST);
        let logs = known.map(|nth| {
            let event = &agenda.events[nth];
            let (kind, hour) = agenda.groups[nth];
            let curve = self.hours.get(&hour).or_else(|| self.kinds.get(&kind));
            match (curve, event.position(moment_s)) {
                (Some(curve), Some(position)) => event.confidence * curve.at(position),
                _ => 0.0,
            }
        });
        logs.sum::<f64>().clamp(-LOG_MAX, LOG_MAX)
    }

    /// Numbers of the latest occurrences that are over and were known then, as many as have together not too many steps.
    fn latest(scene: Scene<'_>, now: usize) -> Vec<usize> {
        let history = scene.history;
        let now_s = history.stamp_s(now);
        let mut left = STEPS_LEARNED_MOST;
        let fits = |(nth, event): (usize, &Event)| {
            let felt = event.felt();
            if felt.end > now_s || !event.is_known(now_s) || felt.start < history.start_s {
                return None;
            }
            let steps = history.steps_before(felt.end) - history.steps_before(felt.start);
            // One that is too long does not stand in the way of the short ones before it.
            left = left.checked_sub(steps + 1)?;
            Some(nth)
        };
        let events = scene.history.agenda().events.iter().enumerate();
        let mut latest: Vec<usize> = events.rev().filter_map(fits).collect();
        latest.reverse();
        latest
    }

    /// Where in it each step of an occurrence that is over lies, and how far demand was from the usual, other events left out. `None` if nothing is known
    /// of the usual.
    fn occurrence(
        &self,
        scene: Scene<'_>,
        frame: &Frame,
        now: usize,
        (nth, event): (usize, &Event),
        floor: f64,
    ) -> Option<Vec<(f64, f64)>> {
        let history = scene.history;
        if event.confidence <= 0.0 {
            return None;
        }
        let felt = event.felt();
        let first = history.steps_before(felt.start);
        let end = history.steps_before(felt.end);
        let level_steps = (frame.season / LEVEL_PART).max(LEVEL_STEPS_MIN);
        if first < level_steps {
            return None;
        }
        let clean = |step: usize, without: Option<usize>| {
            let log = self.log(scene, step, history.stamp_s(step + 1), without);
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

    /// The history without what known events did to it, as far as these effects say.
    pub(crate) fn without(&self, scene: Scene<'_>) -> History {
        let history = scene.history;
        let known = history.known().iter().enumerate().map(|(step, value)| {
            if value.is_nan() {
                return *value;
            }
            value / self.log_at(scene, step, history.stamp_s(step + 1)).exp()
        });
        History::new(history.start_s, history.step_s, known.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Agenda;

    #[test]
    fn however_many_and_long_occurrences_are_the_latest_are_learned_from_and_no_more_than_fit() {
        let hour_s = 3_600;
        let event = |starts: i64, hours: i64| Event {
            lead_s: Some(0),
            decay_s: Some(0),
            ..Event::new("sale", starts * hour_s, (starts + hours) * hour_s)
        };
        // One of each hour that takes a hundred, one that takes too many for itself, and one that nobody has told of.
        let many = (0..9_000).map(|nth| event(nth, 100));
        let long = event(5, STEPS_LEARNED_MOST as i64);
        let untold = Event {
            known_s: Some(i64::MAX),
            ..event(1, 200)
        };
        let agenda = Agenda::new(many.chain([long, untold]));
        let steps = 40_000;
        let history = History::new(0, 3_600, vec![1.0; steps]).with_agenda(agenda.into());
        let felt = history.agenda().felt(&history, steps);
        let scene = Scene {
            history: &history,
            felt: &felt,
        };
        let latest = Effects::latest(scene, steps);
        let events = history.agenda().events();
        let all: i64 = latest
            .iter()
            .map(|nth| events[*nth].duration_s() / hour_s)
            .sum();
        assert!((32_000..=STEPS_LEARNED_MOST as i64).contains(&all), "{all}");
        assert_eq!(latest.last(), Some(&(events.len() - 1)));
        assert!(latest.is_sorted());
        // The past is learned from as it was: what came later takes no room.
        let earlier = Effects::latest(scene, 300);
        assert!(
            earlier
                .iter()
                .all(|nth| events[*nth].felt().end <= 300 * hour_s)
        );
        assert_eq!(earlier.len(), 201);
    }
}
