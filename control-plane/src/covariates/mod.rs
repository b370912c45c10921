//! What else is measured of customers beside their usage (latency, throughput, CPU, memory, network), as senders of Prometheus' remote write bring it.
//!
//! Each covariate is one series per customer on the steps of the usage history, and lies there beside it: trainings get both. To ask a Prometheus at the
//! time of a training was the worse alternative: it must be reachable just then, keep as much as the history does, and be told apart from others by a query.

mod counts;
mod means;
mod rule;

pub use counts::{Dropped, TakenCounts};
pub(crate) use counts::{DroppedCounts, Tally};
pub(crate) use means::{Means, Series, StepSamples};
pub use rule::{BadRule, Chosen, CovariateOptions, CovariateOptionsError, CovariateRule};
