//! Scores by the rules of the reference scorer (`score.py` beside the data): which series, from which origins, by which figures.

mod metrics;
mod protocol;

pub(crate) use metrics::{Score, TABLE_HEAD, score};
pub(crate) use protocol::{Cut, Scored, select};
