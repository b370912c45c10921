//! The control plane of Forebay: policies, customers, models, usage history, and the truth about tokens.
//!
//! A library under a thin binary, so that tests run the whole server in their own process.

#![forbid(unsafe_code)]

pub mod alertmanager;
pub mod allocation;
pub mod anomaly;
pub mod api;
pub mod audit;
pub mod auth;
pub mod buckets;
pub mod cli;
mod connections;
pub mod covariates;
pub mod document;
pub mod dry_run;
pub mod error;
mod exposure;
pub mod forecasts;
pub mod history;
pub mod keys;
pub mod models;
mod objects;
mod outflow;
pub mod plane;
pub mod prometheus;
mod quota;
mod replica;
pub mod risk;
pub mod serve;
pub mod simulated;
pub mod store;
pub mod tls;
pub mod training;
