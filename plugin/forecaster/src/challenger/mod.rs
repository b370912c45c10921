//! Another model beside the one that runs: what it would have forecast, and how good that would have been.
//!
//! It decides nothing. It forecasts a bounded sample of the series, once per step, in one batch that waits until everything else is done,
//! and both models are judged by exactly the same customers and steps. A canary needs a second gateway, and lets a share of the traffic
//! feel a bad model; this needs neither, and costs one batch per step and a model's memory.

mod duel;
mod sample;

pub use duel::{Duel, Pace, Unfit};
pub use sample::SAMPLE_MOST;
