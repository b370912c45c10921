//! What a study is made from: usage of the largest customers of each pool, read from the store in pieces.
//!
//! Steps shorter than five minutes are brought to five minutes: what links accounts is to be seen there, and two weeks of minutes would take five
//! times the memory and the time. A survey of the forecasts knows the same customers step by step, but also adds up all others, by group, which nobody
//! asks for here.

use super::worker::Limits;
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::forecasts::Pace;
use crate::history::{CHUNK_STEPS, Chunk, Coverage, series_of};
use crate::plane::{Moment, Plane};
use crate::store::{Row, StoreError};
use forebay_core::resource::ResourceIndex;
use forebay_wire::key::CustomerHash;
use std::collections::{BTreeMap, BTreeSet};

/// Steps of a study are at least so long.
const STEP_MS_LEAST: u64 = 300_000;
/// The largest customers are those of the last so many milliseconds.
const RANKED_BY_MS: u64 = 86_400_000;
const SERIES_BYTES: usize = 17;

/// Usage of a pool's largest customers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OfPool {
    /// In ascending order.
    pub(super) customers: Vec<CustomerHash>,
    /// Of each of them, in tokens per second; NaN where nothing is known.
    pub(super) usage: Vec<Vec<f32>>,
}

/// The grid that all usage is brought to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid {
    /// Steps of the history in one.
    pub(super) fold: u64,
    pub(super) step_ms: u64,
    /// Unix time of its beginning.
    pub(super) from_ms: u64,
    pub(super) steps: usize,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) resources: Vec<String>,
    pub(super) grid: Grid,
    pub(super) pools: Vec<(ResourceIndex, OfPool)>,
}

struct Reading<'a> {
    coverage: &'a Coverage,
    grid: Grid,
    /// The first and the last step of the history on it.
    steps: (u64, u64),
    history_step_s: f64,
    most: usize,
    /// By resource.
    pools: BTreeMap<u8, Largest>,
    /// Of one series, step by step.
    tape: Vec<f32>,
}

/// The largest customers so far.
#[derive(Default)]
struct Largest {
    /// By their usage, the smallest first.
    ranking: BTreeSet<(u64, CustomerHash)>,
    tapes: BTreeMap<CustomerHash, Vec<f32>>,
}

// === impl Grid ===

impl Grid {
    /// The whole steps of the grid up to a step of the history. They lie the same whenever one looks.
    pub(super) fn of(newest: u64, step_ms: u32, history_steps: u64) -> Self {
        let step_ms = u64::from(step_ms.max(1));
        let fold = STEP_MS_LEAST.div_ceil(step_ms).max(1);
        let end = newest.saturating_add(1) / fold;
        let steps = (history_steps / fold).min(end);
        Self {
            fold,
            step_ms: fold.saturating_mul(step_ms),
            from_ms: (end - steps).saturating_mul(fold).saturating_mul(step_ms),
            steps: usize::try_from(steps).unwrap_or(0),
        }
    }
}

impl Past {
    /// Reads everything up to the moment's newest step.
    ///
    /// # Errors
    /// When the store cannot be read, or the server stops.
    pub(super) fn read(
        plane: &Plane,
        moment: &Moment,
        pools: &[ResourceIndex],
        limits: Limits,
    ) -> Result<Self, ApiError> {
        let settings = plane.settings();
        let grid = Grid::of(moment.newest, settings.step_ms, settings.history_steps);
        let first = grid.from_ms / u64::from(settings.step_ms.max(1));
        let length = grid.fold.saturating_mul(grid.steps as u64);
        let coverage = plane.coverage();
        let numbers = pools
            .iter()
            .filter_map(|pool| u8::try_from(pool.position()).ok());
        let mut reading = Reading {
            coverage: &coverage,
            grid,
            steps: (first, first.saturating_add(length).saturating_sub(1)),
            history_step_s: f64::from(settings.step_ms.max(1)) / 1e3,
            most: (limits.customers / pools.len().max(1)).max(1),
            pools: numbers.map(|number| (number, Largest::default())).collect(),
            tape: Vec::new(),
        };
        let pace = Pace::default();
        for piece in 0..Plane::HISTORY_PIECES {
            if plane.is_stopped() {
                return Err(StoreError::Stopped.into());
            }
            pace.after(|| {
                let rows = plane.history_piece(piece)?;
                reading.take(&rows);
                Ok::<(), StoreError>(())
            })?;
        }
        let of_pools = reading.pools.into_values().map(|largest| {
            let (customers, usage) = largest.tapes.into_iter().unzip();
            OfPool { customers, usage }
        });
        Ok(Self {
            resources: moment.resources.clone(),
            grid,
            pools: pools.iter().copied().zip(of_pools).collect(),
        })
    }
}

// === impl Reading ===

impl Reading<'_> {
    /// Takes in rows of whole customers, by key.
    fn take(&mut self, rows: &[Row]) {
        let of_series = |row: &Row| row.0.get(..SERIES_BYTES).map(<[u8]>::to_vec);
        for rows in rows.chunk_by(|one, next| of_series(one) == of_series(next)) {
            let Some(series) = rows.first().and_then(|row| series_of(&row.0)) else {
                continue;
            };
            // Covariates and resources that are not divided are in the same table.
            if series.customer == POOL_ACCOUNT || !self.pools.contains_key(&series.resource) {
                continue;
            }
            if let Some(tape) = self.tape_of(rows) {
                self.place(series.resource, series.customer, tape);
            }
        }
    }

    /// Usage on the grid; none where nothing is known. A chunk that cannot be read is a gap.
    fn tape_of(&mut self, rows: &[Row]) -> Option<Vec<f32>> {
        let (first, last) = self.steps;
        let steps = usize::try_from(last.saturating_sub(first).saturating_add(1)).ok()?;
        self.tape.clear();
        self.tape.resize(steps, f32::NAN);
        for (key, bytes) in rows {
            let number = key
                .last_chunk::<8>()
                .map(|number| u64::from_be_bytes(*number));
            let (Some(number), Ok(chunk)) = (number, Chunk::decode(bytes)) else {
                continue;
            };
            let start = number.saturating_mul(CHUNK_STEPS);
            for step in (start..start.saturating_add(CHUNK_STEPS))
                .filter(|step| (first..=last).contains(step))
            {
                let place = usize::try_from(step.saturating_sub(first)).ok();
                let value = place.and_then(|place| self.tape.get_mut(place));
                if let (Some(value), Some(stored)) = (value, chunk.get(step)) {
                    // What is negative or no number is none that anybody used.
                    *value = if stored >= 0.0 && stored.is_finite() {
                        stored
                    } else {
                        f32::NAN
                    };
                }
            }
        }
        let begun = self.tape.iter().position(|value| !value.is_nan())?;
        for (value, step) in self.tape.iter_mut().zip(first..).skip(begun) {
            if value.is_nan() && self.coverage.observed(step) {
                *value = 0.0;
            }
        }
        let fold = usize::try_from(self.grid.fold).unwrap_or(usize::MAX).max(1);
        let step_s = self.history_step_s;
        Some(
            self.tape
                .chunks(fold)
                .map(|steps| mean_per_s(steps, step_s))
                .collect(),
        )
    }

    /// Keeps a tape if it is one of the largest.
    fn place(&mut self, resource: u8, customer: CustomerHash, tape: Vec<f32>) {
        let Some(largest) = self.pools.get_mut(&resource) else {
            return;
        };
        let ranked = usize::try_from(RANKED_BY_MS / self.grid.step_ms.max(1)).unwrap_or(usize::MAX);
        let lately = tape
            .iter()
            .rev()
            .take(ranked.max(1))
            .filter(|value| !value.is_nan());
        let usage: f64 = lately.map(|value| f64::from(*value)).sum();
        // Numbers that are not negative are in the order of their bits.
        largest.ranking.insert((usage.to_bits(), customer));
        largest.tapes.insert(customer, tape);
        if largest.ranking.len() > self.most
            && let Some((_, smallest)) = largest.ranking.pop_first()
        {
            largest.tapes.remove(&smallest);
        }
    }
}

/// The mean rate of steps of which half are known.
fn mean_per_s(steps: &[f32], step_s: f64) -> f32 {
    let known = steps.iter().filter(|value| !value.is_nan());
    let (sum, count) = known.fold((0.0_f64, 0_usize), |(sum, count), value| {
        (sum + f64::from(*value), count.saturating_add(1))
    });
    if count == 0 || count.saturating_mul(2) < steps.len() {
        return f32::NAN;
    }
    (sum / count as f64 / step_s) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_lies_the_same_whenever_one_looks_and_has_whole_steps_only() {
        // Minutes, of which five are one step; step 1 003 is the fourth of its five.
        let grid = Grid::of(1_003, 60_000, 20_160);
        assert_eq!((grid.fold, grid.step_ms, grid.steps), (5, 300_000, 200));
        assert_eq!(grid.from_ms, 0);
        let (one, next) = (Grid::of(30_003, 60_000, 100), Grid::of(30_004, 60_000, 100));
        assert_eq!((one.steps, next.steps), (20, 20));
        assert_eq!(next.from_ms - one.from_ms, 300_000, "one step is whole now");
        assert_eq!(one.from_ms % 300_000, 0);
        // Steps that are longer stay as they are.
        let grid = Grid::of(99, 3_600_000, 336);
        assert_eq!((grid.fold, grid.step_ms, grid.steps), (1, 3_600_000, 100));
    }

    #[test]
    fn a_step_of_which_less_than_half_is_known_is_a_gap() {
        assert!(mean_per_s(&[f32::NAN, 6.0, f32::NAN], 60.0).is_nan());
        assert_eq!(mean_per_s(&[f32::NAN, 6.0, 12.0], 60.0), 0.15);
        assert_eq!(mean_per_s(&[0.0, 0.0], 60.0), 0.0);
    }
}
