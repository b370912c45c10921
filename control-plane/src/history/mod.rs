//! Usage history: tokens asked for per customer, resource and step.
//!
//! The forecaster needs the last day or week of a customer that it has never seen, so the server keeps it. Series are cut into
//! chunks of 64 steps, one value of the store each, in a ring: opening a chunk deletes the one that has fallen out of the
//! retention. A value per step was the worse alternative (a thousand times the keys), one value per series as well (all of it
//! rewritten at each step).
//!
//! A step counts as observed for every customer once a gateway has synced within it that had synced a step before at most; what is not stored
//! is then a zero, not a gap. A report that comes later is of other steps as well and is not stored, so it must not make a zero either. Steps
//! without a report in time are gaps.

mod chunk;
mod coverage;
mod ring;

pub use chunk::{CHUNK_STEPS, Chunk};
pub use coverage::Coverage;
pub use ring::{ChunkId, Ring, Series, Usage};

use forebay_wire::key::CustomerHash;

/// Largest number of steps that can be kept: two weeks of minutes.
pub const MAX_STEPS: u64 = 20_160;

/// Most that a chunk takes in the store, with its key.
pub const CHUNK_BYTES: usize = 320;

/// A key in the store: customer, resource, chunk.
const KEY_BYTES: usize = 25;

/// The key of a chunk in the store: series first, so that a series is one range.
#[must_use]
pub fn chunk_key(series: Series, chunk: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY_BYTES);
    key.extend_from_slice(&series.customer.0);
    key.push(series.resource);
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// The series that a key in the store is of.
#[must_use]
pub fn series_of(key: &[u8]) -> Option<Series> {
    let (customer, rest) = key.split_first_chunk()?;
    Some(Series::new(CustomerHash(*customer), *rest.first()?))
}

/// The number of the step that is running at a wall-clock time.
#[must_use]
pub fn step_at(unix_ms: u64, step_ms: u32) -> u64 {
    unix_ms.checked_div(u64::from(step_ms)).unwrap_or(0)
}

impl Series {
    /// The series of a customer and resource.
    #[must_use]
    pub fn new(customer: CustomerHash, resource: u8) -> Self {
        Self { customer, resource }
    }
}

#[cfg(test)]
mod tests;
