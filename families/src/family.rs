//! What every family can do, and how those that learn come to be.

use crate::{Forecasts, Frame, History};
use std::ops::RangeInclusive;

/// A way to forecast.
pub trait Family: Send + Sync + std::fmt::Debug {
    /// Name in tables.
    fn name(&self) -> &'static str;

    /// Forecasts from the ends of these steps. What comes after a step must not move the forecasts from it. Rows are NaN where the
    /// history is too short; `None` where it is for all of them.
    fn forecast(
        &self,
        history: &History,
        frame: &Frame,
        origins: RangeInclusive<usize>,
    ) -> Option<Forecasts>;
}

/// A family with something to learn first.
pub trait Learner: Send + Sync + std::fmt::Debug {
    /// Name in tables.
    fn name(&self) -> &'static str;

    /// Learns from the first `ends[i]` steps of each history: nothing later is looked at, as input or as target. The same input gives the
    /// same family. `None` when there is too little to learn from.
    fn learn(
        &self,
        histories: &[History],
        ends: &[usize],
        frame: &Frame,
    ) -> Option<Box<dyn Family>>;
}
