//! Who behaves as it never did: a leaked key, scraping, credential stuffing, a client that runs away.
//!
//! Once in each step of usage history the control plane says of each customer what it asked for and what it was denied ([`Step`]). A
//! [`Watch`] makes [`Signs`] of it, lays them beside those of its [`Peers`], and gives a [`Verdict`]. All of it is a function of what was
//! observed before and of the step: no clock, no I/O, a state of at most 512 bytes for a customer, and the same work in each step.
//!
//! | sign | says | judged by |
//! |---|---|---|
//! | [`Sign::Burst`], [`Sign::Rise`], [`Sign::Level`] | more than is usual at this hour, over 5, 20 and 180 minutes | robust z |
//! | [`Sign::Forecast`] | more than the forecast's upper quantile | robust z |
//! | [`Sign::Denied`] | more of it than usual is denied by the contract | leaky CUSUM of the share |
//! | [`Sign::Keys`] | more gateways or distinct keys behind it than usual | robust z |
//!
//! No sign has a threshold of its own: each is held against its own past in this customer (`past.rs`), so what is usual for a customer
//! that comes in bursts is not evidence. What no distribution can break is how often a customer is flagged (`budget.rs`).
//!
//! A crate and not a module of the control plane, for the reason of `forebay-alerts`: how often this cries wolf is found out by weeks of
//! fleets, which nobody does with a server around it. It is not part of that crate, because alerts are about forecasts and models, and their
//! state is one per model; this is one per customer, and a hundred thousand of them.
#![forbid(unsafe_code)]

mod budget;
mod crowd;
mod customer;
mod denied;
mod pace;
mod past;
mod robust;
mod season;
mod signs;
mod step;
mod verdict;
mod words;

pub use crowd::{Around, Peers};
pub use customer::{Customer, Watch};
pub use signs::{Sign, Signs};
pub use step::Step;
pub use verdict::{Action, Evidence, Kind, Rule, Verdict};
