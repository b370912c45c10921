//! Families forecast as if there were no events; what those will do is put on top.

use super::Felt;
use super::effects::{Effects, Scene};
use crate::forecasts::QUANTILES;
use crate::{Family, Forecasts, Frame, History};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

/// Effects are learned anew after so many steps, or a season.
const STEPS_MIN: usize = 24;

/// One customer's history with what is known to come, and what was learned of it so far: all families ask for the same.
#[derive(Debug)]
pub(crate) struct Foresight<'a> {
    history: &'a History,
    frame: &'a Frame,
    felt: Felt,
    /// By the step at whose beginning they were learned.
    effects: Mutex<BTreeMap<usize, Arc<Effects>>>,
}

// === impl Foresight ===

impl<'a> Foresight<'a> {
    pub(crate) fn new(history: &'a History, frame: &'a Frame) -> Self {
        let steps = history.len() + frame.horizons;
        Self {
            history,
            frame,
            felt: history.agenda().felt(history, steps),
            effects: Mutex::default(),
        }
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            history: self.history,
            felt: &self.felt,
        }
    }

    fn effects(&self, now: usize) -> Arc<Effects> {
        // Nothing under this lock can be left half done.
        let mut known = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = || Arc::new(Effects::learned(self.scene(), self.frame, now));
        Arc::clone(known.entry(now).or_insert_with(learned))
    }

    /// The forecasts of a family that knows what is to come. As [`Family::forecast`].
    pub(crate) fn forecast(
        &self,
        family: &dyn Family,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts> {
        let (history, frame) = (self.history, self.frame);
        if history.agenda().is_empty() {
            return family.forecast(history, frame, origins);
        }
        let steps = frame.season.max(STEPS_MIN);
        let mut all: Option<Forecasts> = None;
        for first in origins.clone().step_by(steps) {
            let last = (first + steps - 1).min(*origins.end());
            let effects = self.effects(first);
            let cleaned = self.without(&effects);
            let mut some = family.forecast(&cleaned, frame, first..=last)?;
            for origin in first..=last {
                let now_s = history.stamp_s(origin + 1);
                let cells = some.from_mut(origin).chunks_mut(QUANTILES.len());
                for (cells, horizon) in cells.zip(1..) {
                    let log = effects.log_at(self.scene(), origin + horizon, now_s);
                    let factor = log.exp() as f32;
                    cells.iter_mut().for_each(|cell| *cell *= factor);
                }
            }
            match all.as_mut() {
                None => all = Some(some),
                Some(all) => all.append(&some),
            }
        }
        all
    }

    /// The history without what events did to it, by what was known when step `now` began: what a family learns from.
    pub(crate) fn cleaned(&self, now: usize) -> History {
        if self.history.agenda().is_empty() {
            return self.history.clone();
        }
        self.without(&self.effects(now))
    }

    /// What else was measured stays as it was: how latency answers to events is for families to see.
    fn without(&self, effects: &Effects) -> History {
        let covariates = Arc::clone(self.history.covariates());
        effects.without(self.scene()).with_covariates(covariates)
    }
}
