//! What operators are told of forecasts, models and customers: which conditions hold, since when, and what to do about them.
//!
//! Once in each step of usage history the control plane says what has matured ([`Round`]). A [`Watch`] makes of the rounds which alerts
//! are pending, firing or resolved. All of it is a function of what was watched before and of the round: no clock, no I/O, and a bounded
//! size, however many models and gateways come and go.
//!
//! | alert | says | judged by |
//! |---|---|---|
//! | [`Kind::ForecastLoss`] | a model loses far more than it used to in a resource | its own slow reference, by the hour of the day |
//! | [`Kind::ForecastCoverage`] | its 0.9 quantile is exceeded too often | a binomial interval, as wide as blocks of rounds vary |
//! | [`Kind::ForecastDrift`] | its loss has moved to another level | CUSUM and Page-Hinkley (`forebay_forecast::drift`) |
//! | [`Kind::GatewayForecasts`] | one gateway loses far more than the others by the same model | the median of the others |
//! | [`Kind::ModelRefused`], [`Kind::ModelMissing`] | a gateway refused its model, or has none | what it says |
//! | [`Kind::CanaryTakenBack`] | a canary was taken back | the releases |
//! | [`Kind::CustomerUnusual`] | a customer behaves as it never did | `forebay_anomaly` |
//!
//! A crate and not a module of the control plane: what is wrong with forecasts is settled by arithmetic that has to be run over years of
//! synthetic rounds, which nobody does with a server around it. Rules in Prometheus over `/metrics` were the worse alternative: sums that
//! begin anew when a gateway swaps its model, a reference by the hour, and intervals for values that depend on one another cannot be said there.
#![forbid(unsafe_code)]

mod alert;
mod change;
mod coverage;
mod level;
mod memory;
mod moments;
mod peers;
mod reference;
mod round;
mod series;
mod stage;
mod sustained;
mod watch;
mod words;

pub use alert::{Alert, Key, Kind, Severity};
pub use memory::Memory;
pub use round::{
    GatewayRound, Losses, ModelRound, RESOURCES_MOST, Refusal, Round, Sums, UnusualCustomer,
};
pub use stage::{Patience, Reading, Stage};
pub use watch::{FoundDrift, Watch};
