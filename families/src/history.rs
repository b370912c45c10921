//! What is known of one customer's demand, and what all forecasts of a data set have in common.

use crate::Agenda;
use std::sync::Arc;

/// Steps and seasons of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Steps per season: a day, in most data.
    pub season: usize,
    /// Steps of a longer season, such as a week.
    pub long_season: Option<usize>,
    /// Steps that are forecast: 1 to this.
    pub horizons: usize,
    /// Steps whose errors make the simple families' quantiles.
    pub error_rows: usize,
}

/// The demand of one customer on a regular grid.
#[derive(Clone, Debug)]
pub struct History {
    /// Unix time of the first step's start, in seconds.
    pub start_s: i64,
    /// Length of a step, in seconds.
    pub step_s: u32,
    known: Vec<f64>,
    filled: Vec<f64>,
    agenda: Arc<Agenda>,
    covariates: Arc<Vec<Vec<f64>>>,
}

// === impl History ===

impl History {
    /// Demand per step, oldest first; NaN is a gap.
    #[must_use]
    pub fn new(start_s: i64, step_s: u32, known: Vec<f64>) -> Self {
        let mut last = 0.0;
        let filled = known
            .iter()
            .map(|value| {
                if !value.is_nan() {
                    last = *value;
                }
                last
            })
            .collect();
        Self {
            start_s,
            step_s,
            known,
            filled,
            agenda: Arc::default(),
            covariates: Arc::default(),
        }
    }

    /// The same demand, with what was known to come.
    #[must_use]
    pub fn with_agenda(self, agenda: Arc<Agenda>) -> Self {
        Self { agenda, ..self }
    }

    /// What was known to come, and is.
    #[must_use]
    pub fn agenda(&self) -> &Agenda {
        &self.agenda
    }

    /// The same demand, with what else was measured in each step, such as latency: one series for each covariate, from the first step on; NaN is a gap.
    #[must_use]
    pub fn with_covariates(self, covariates: Arc<Vec<Vec<f64>>>) -> Self {
        Self { covariates, ..self }
    }

    /// What else was measured: of a step it is known when the step has ended, as demand is.
    #[must_use]
    pub fn covariates(&self) -> &Arc<Vec<Vec<f64>>> {
        &self.covariates
    }

    /// Demand per step; NaN is a gap.
    #[must_use]
    pub fn known(&self) -> &[f64] {
        &self.known
    }

    /// The same, with gaps carried forward, and 0 before the first value: what a forecaster that runs live sees.
    #[must_use]
    pub fn filled(&self) -> &[f64] {
        &self.filled
    }

    /// Steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True without a single step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Unix time at which a step begins, in seconds.
    #[must_use]
    pub fn stamp_s(&self, step: usize) -> i64 {
        self.start_s + step as i64 * i64::from(self.step_s)
    }

    /// Steps that have ended by a Unix time in seconds.
    #[must_use]
    pub fn steps_before(&self, unix_s: i64) -> usize {
        let steps = (unix_s - self.start_s).div_euclid(i64::from(self.step_s.max(1)));
        usize::try_from(steps).unwrap_or(0).min(self.len())
    }

    /// Mean demand of the first steps, gaps left out.
    #[must_use]
    pub fn mean(&self, steps: usize) -> f64 {
        let known = self.known[..steps].iter().filter(|value| !value.is_nan());
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / f64::max(count, 1.0)
    }
}
