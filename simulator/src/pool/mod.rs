//! One pool under the demand of many customers: who is admitted what when it is divided this way or that.
//!
//! A fleet ([`crate::Comparison`]) shows what it costs that many gateways share a contract; here stands what many contracts make of one
//! capacity. There is one gateway, sub-steps of seconds in place of single requests, and weeks in place of minutes. Requests one by one
//! were the alternative: a week of them takes a thousand times as long, and no policy here looks at a single one.
//!
//! In the order in which it is made: a [`Market`] (customers, contracts, demand by the minute), a [`Demand`] (what of it the contracts let
//! through in each sub-step, the same for all policies), a [`Plan`] (what each customer is allocated in each cycle, from what is known
//! then), and [`run()`] (who is admitted what). [`run_tuned`] makes both cycle by cycle, so that what came of one can move the next. Forecasts are given to it, so that whoever makes them need not be known here.
//!
//! Those markets are made up. [`what_if`] has the contracts of two policies and recorded usage in their place.

mod aimd;
mod arrivals;
mod central;
mod claims;
mod demand;
mod fair;
mod figures;
mod guard;
mod leases;
mod market;
mod plan;
mod run;
#[cfg(test)]
mod tests;
mod tuned;
pub mod what_if;

pub use arrivals::Arrivals;
pub use demand::Demand;
pub use figures::PoolFigures;
pub use market::{Buyer, Market, Spike};
pub use plan::{Plan, Rule, Scheme, View};
pub use run::{CentralName, Decider, Mechanism, run};
pub use tuned::{Ask, run_tuned};

/// Seconds from one allocation to the next.
pub const CYCLE_S: usize = 300;
/// Minutes of a cycle.
const CYCLE_MINUTES: usize = CYCLE_S / 60;
/// Less than this is rounding, in requests.
const ROUNDING: f64 = 1e-4;
