//! How much of one rate goes to which gateway: a customer's contract, or a pool.
//!
//! Each gateway has a [`Claim`], a [`Law`] makes shares of them, and [`to_rates`] turns these into the integers that are granted.
//!
//! Our law is [`Forecast`]. The others are what it is measured against: [`EvenSplit`] is what a fleet does without a
//! control plane, [`Reactive`] what a quota server does without a forecast, [`ProportionalShare`] and [`FairShare`] are doorman's.

mod claim;
mod even_split;
mod fair_share;
mod forecast;
mod integers;
mod law;
mod proportional_share;
mod reactive;
mod round;

pub use claim::Claim;
pub use even_split::EvenSplit;
pub use fair_share::FairShare;
pub use forecast::Forecast;
pub use integers::{to_amounts, to_per_s, to_rates};
pub use law::Law;
pub use proportional_share::ProportionalShare;
pub use reactive::Reactive;
pub use round::Round;
