//! Which account's spike leaves which other account short: spillover, before it happens.
//!
//! Correlation is not spillover. For one account to be short because of another, both must want much at the same time, from the same pool,
//! and the pool must have too little room. So statistics only say which accounts rise together; the score comes from what
//! [`crate::allocate`] and the gateways would do about it, in scenarios of the next steps. In a pool with room for all it is 0, however
//! strongly accounts are correlated.
//!
//! ```text
//!  History ─▶ residuals ─▶ correlation ─┐
//!                │  └─────▶ tails ──────┴▶ Link ─▶ Dependence ─▶ Scenarios ─▶ Pair ─▶ headroom
//!                                            customers, capacity ──▲   (allocate, serve)
//!  who was short, when ──▶ NoisyOr: the same in probabilities that a person can read
//! ```
//!
//! Scenarios are made of moments of the history: accounts that are linked take the ranks that they had at the same moment, accounts that are not
//! take them from moments of their own, and each rank becomes demand by the account's own forecast. A Gaussian copula is the usual choice, and the
//! wrong one here: the further out in the tail, the less its variables have to do with one another, and it does not know who came first.
// An index out of range here is a defect: what comes in is brought to one size at the door, and everything behind it is arithmetic on sizes that
// this module chose itself.
#![allow(clippy::indexing_slicing)]

pub(crate) mod chance;
mod correlation;
mod dependence;
mod discovery;
mod headroom;
mod history;
mod links;
mod matrix;
mod noisy_or;
mod normal;
mod pair;
mod partial;
mod residuals;
mod scenarios;
mod score;
mod serve;
mod tails;

pub use correlation::{Correlations, Lagged, correlate};
pub use dependence::Dependence;
pub use headroom::{Extra, Protect, Rules, add_headroom, headroom};
pub use history::{Event, History};
pub use links::{Link, links};
pub use matrix::Matrix;
pub use noisy_or::{Cause, NoisyOr, Share};
pub use pair::{Interval, Pair, Shares};
pub use partial::partial_correlations;
pub use residuals::{Residuals, residuals};
pub use scenarios::SCENARIOS;
pub use score::{Question, between_labels, largest_pairs};
pub use tails::{Coincidence, Tail};
