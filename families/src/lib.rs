//! Families of forecasts that need no network, side by side, and what the system makes of them: a mixture, weighed for each customer and
//! step ahead by who was right lately, and calibrated by how often it was right.
//!
//! Why a crate of its own, beside `forecast`: that one runs in the gateway, where a network is a file that came from elsewhere and each microsecond
//! counts. Here models are learned, and forecasts may look a week ahead. It knows no files and no clock: a forecast is a function of a history
//! and a step of it, and nothing after that step can move it, which a test asks of every family.
//!
//! ```text
//!   History ──▶ Family (simple, boosted, ...) ──▶ Forecasts ──▶ Mixture ──▶ Forecasts
//!                  ▲ Learner, from what lies before a step          ▲ Priors, from folds before the test
//! ```
// An index out of range here is a defect that must stop the run, not something to carry on from: histories are checked at the door, and everything
// behind it is arithmetic on sizes that this crate chose itself.
#![allow(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod arima;
mod boosted;
mod boosting;
mod covariates;
mod coverage;
mod errors;
mod events;
mod family;
mod features;
mod forecasts;
mod groups;
mod hannan_rissanen;
mod hedge;
mod history;
mod mixture;
#[cfg(test)]
mod noise;
mod parallel;
mod priors;
mod profile;
mod ridge;
mod scenarios;
mod select;
mod simple;

pub use arima::Arima;
pub use boosted::{Boosting, BoostingWithCovariates};
pub use coverage::{Broken, CoverageMonitor};
pub use events::{Agenda, Event};
pub use family::{Family, Learner};
pub use forecasts::{Forecasts, QUANTILES};
pub use groups::reconcile;
pub use history::{Frame, History};
pub use mixture::{MixtureSettings, mix};
pub use parallel::in_parallel;
pub use priors::Priors;
pub use ridge::{RidgeRegression, RidgeWithCovariates};
pub use scenarios::{CLIMATE, SCENARIOS, Scenarios, brier_score, ranked_probability_score};
pub use select::{Entrant, Race, race};
pub use simple::{SIMPLE, SimpleFamily};

/// Pinball loss of a forecast of the quantile `level` when `actual` came: what the quantile minimises in the mean.
#[must_use]
pub fn pinball(level: f64, forecast: f64, actual: f64) -> f64 {
    let miss = actual - forecast;
    (level * miss).max((level - 1.0) * miss)
}
