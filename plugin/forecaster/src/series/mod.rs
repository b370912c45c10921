//! Usage per customer, resource and step, and what was learned from it.

mod fleet;
#[cfg(test)]
mod fleet_tests;
mod one;
mod table;

pub use one::{Counters, Due, Forecast, Observed, Series};
pub use table::{SeriesKey, SeriesTable, SlotId};
