//! The list, by what it is about.

mod bad_config;
mod bucket;
mod cost;
mod denial;
mod headers;
mod keys;
mod policy;
mod pool;
mod rules;
mod settle;

use crate::case::Case;

/// A rate at which nothing comes back while a case runs, however busy the machine is.
const STILL: f64 = 0.01;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        bucket::cases(),
        cost::cases(),
        settle::cases(),
        rules::cases(),
        keys::cases(),
        policy::cases(),
        pool::cases(),
        headers::cases(),
        denial::cases(),
        bad_config::cases(),
    ]
    .concat()
}
