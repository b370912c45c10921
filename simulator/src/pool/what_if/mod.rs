//! What if another policy had been in force: recorded usage against two policies, side by side.
//!
//! Both see the same requests in the same seconds, and the same forecasts where their cycles are as long. What differs is the policies' alone: contracts, guarantees,
//! tiers, the pool and how it is divided. Replaying only the newer one and comparing it with what was recorded was the alternative: then the model's own
//! errors would be read as effects of the policy.
//!
//! [`compare`] runs a whole record, [`Stepwise`] goes on with each step that is measured; both are the same seconds of the same model.
//!
//! The contract pays for what is admitted and nothing else, as gateways have it. [`super::Demand`] lets it pay for what the pool denies, too, because there one
//! market is divided in many ways; here contracts differ, so that nothing would be gained.

mod allowance;
mod loans;
mod outcome;
mod run;
mod side;
mod stepwise;
mod usage;

#[cfg(test)]
mod tests;

pub use outcome::{Loan, Outcome, Tally};
pub use run::{Told, compare};
pub use side::{Division, Member, Pool, Side};
pub use stepwise::{Standing, Stepwise};
pub use usage::{CUSTOMERS_MOST, SECONDS_MOST, Usage};
