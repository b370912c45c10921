//! Families forecast as if there were no events; what those will do is put on top.

use super::effects::{Effects, without};
use crate::forecasts::QUANTILES;
use crate::{Family, Forecasts, Frame, History};
use std::ops::RangeInclusive;

/// Effects are learned anew after so many steps, or a season.
const STEPS_MIN: usize = 24;

/// The forecasts of a family that knows what is to come. As [`Family::forecast`].
pub(crate) fn forecast(
    family: &dyn Family,
    history: &History,
    frame: &Frame,
    origins: RangeInclusive<usize>,
) -> Option<Forecasts> {
    if history.agenda().is_empty() {
        return family.forecast(history, frame, origins);
    }
    let mut all: Option<Forecasts> = None;
    for first in origins.clone().step_by(frame.season.max(STEPS_MIN)) {
        let last = (first + frame.season.max(STEPS_MIN) - 1).min(*origins.end());
        let effects = Effects::learned(history, frame, first);
        let mut some = family.forecast(&without(&effects, history), frame, first..=last)?;
        for origin in first..=last {
            let now_s = history.stamp_s(origin + 1);
            let cells = some.from_mut(origin).chunks_mut(QUANTILES.len());
            for (cells, horizon) in cells.zip(1..) {
                let factor = effects.log_at(history, origin + horizon, now_s).exp() as f32;
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

/// A history without what events did to it, by what was known when step `now` began: what a family learns from.
pub(crate) fn cleaned(history: &History, frame: &Frame, now: usize) -> History {
    if history.agenda().is_empty() {
        return history.clone();
    }
    without(&Effects::learned(history, frame, now), history)
}
