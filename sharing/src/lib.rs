//! How much of a customer's rate, or of a pool's, goes to which gateway.
//!
//! A customer has one contract and many gateways. Every so often its rate is divided anew: each gateway has a [`Claim`], a
//! [`Law`] makes shares of them, and [`to_rates`] turns these into the integers that are granted. Everything is a pure function of
//! its arguments: no clock, no I/O, no chance, no memory but what the gateways hold. It is the one place with floating point
//! in it, and it cannot create tokens: what is granted is bounded in integers, behind it.
//!
//! Our law is [`Forecast`]. The others are what it is measured against: [`EvenSplit`] is what a fleet does without a
//! control plane, [`Reactive`] what a quota server does without a forecast, [`ProportionalShare`] and [`FairShare`] are doorman's.
//!
//! All amounts are tokens per second.
#![forbid(unsafe_code)]

mod claim;
mod even_split;
mod fair_share;
mod forecast;
mod integers;
mod law;
mod proportional_share;
mod reactive;
mod round;
mod water;

pub use claim::Claim;
pub use even_split::EvenSplit;
pub use fair_share::FairShare;
pub use forecast::Forecast;
pub use integers::{to_amounts, to_per_s, to_rates};
pub use law::Law;
pub use proportional_share::ProportionalShare;
pub use reactive::Reactive;
pub use round::Round;
