//! A survey: all usage that the store has, read once, from which the largest customers are kept and all others are added up.
//!
//! What is imported and what an earlier run has written is found no other way. It takes as long as the store is large, so it pauses for as long as it
//! reads, and is repeated seldom: the worker sees to that.

use super::groups::Group;
use super::known::{Alone, Known, OfResource};
use super::tape::{add, amount};
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::history::{CHUNK_STEPS, Chunk, Coverage, Series};
use crate::plane::{Moment, Plane};
use crate::store::{Row, StoreError};
use forebay_wire::key::CustomerHash;
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

/// The largest customers of a resource are those of the last so many milliseconds.
const RANKED_BY_MS: u64 = super::horizon::DAY_MS;
/// Pauses between two pieces of the history are no longer and no shorter: a thread sleeps a while longer than it asked for.
const PAUSE_MOST: Duration = Duration::from_millis(100);
const PAUSE_LEAST: Duration = Duration::from_millis(1);

/// A key of the history: customer, resource, chunk.
const CUSTOMER_BYTES: usize = 16;
const SERIES_BYTES: usize = 17;

/// Customers of a resource by their usage, the smallest first.
type Ranking = BTreeSet<(u64, CustomerHash)>;

struct Survey<'a> {
    known: Known,
    rankings: Vec<Ranking>,
    coverage: &'a Coverage,
    first: u64,
    ranked_steps: usize,
}

/// Leaves as much time to others as reading takes.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    owed: Cell<Duration>,
}

/// Reads everything up to the moment's newest step.
///
/// # Errors
/// When the store cannot be read, or the server stops.
pub(super) fn survey(
    plane: &Plane,
    moment: &Moment,
    series_most: usize,
    contracts_most: usize,
) -> Result<Known, ApiError> {
    let resources = moment.resources.len().max(1);
    let kept = usize::try_from(plane.settings().history_steps).unwrap_or(usize::MAX);
    let coverage = plane.coverage();
    let step_ms = u64::from(plane.settings().step_ms.max(1));
    let mut survey = Survey {
        known: Known {
            newest: moment.newest,
            policy: moment.policy,
            changes: moment.changes,
            kept,
            most: (series_most / resources).max(1),
            grouping: plane.grouping(contracts_most),
            resources: vec![OfResource::default(); moment.resources.len()],
            taken: 0,
            damaged: 0,
        },
        rankings: vec![Ranking::new(); moment.resources.len()],
        coverage: &coverage,
        first: moment
            .newest
            .saturating_sub((kept as u64).saturating_sub(1)),
        ranked_steps: usize::try_from(RANKED_BY_MS.div_ceil(step_ms)).unwrap_or(usize::MAX),
    };
    let is_sound = survey.is_time_sound();
    let pace = Pace::default();
    for piece in 0..Plane::HISTORY_PIECES {
        if plane.is_stopped() {
            return Err(StoreError::Stopped.into());
        }
        pace.after(|| {
            let rows = plane.history_piece(piece)?;
            survey.take(plane, &rows);
            if is_sound {
                plane.sweep(&rows, moment.newest);
            }
            Ok::<(), StoreError>(())
        })?;
    }
    Ok(survey.known)
}

// === impl Pace ===

impl Pace {
    /// Reads something, and makes a pause after it.
    pub(crate) fn after<T>(&self, read: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = read();
        let owed = self.owed.get().saturating_add(began.elapsed());
        if owed < PAUSE_LEAST {
            self.owed.set(owed);
        } else {
            thread::sleep(owed.min(PAUSE_MOST));
            self.owed.take();
        }
        result
    }
}

// === impl Survey ===

impl Survey<'_> {
    /// Whether gateways have reported in half of the steps that are kept. By a clock that has jumped ahead all of the history would be older than what is kept, and
    /// is not when the clock is put right.
    fn is_time_sound(&self) -> bool {
        let steps = self.first..=self.known.newest;
        let observed = steps.filter(|step| self.coverage.observed(*step)).count();
        observed.saturating_mul(2) >= self.known.kept
    }

    /// Takes in rows of whole customers, by key.
    fn take(&mut self, plane: &Plane, rows: &[Row]) {
        let of_series = |row: &Row| row.0.get(..SERIES_BYTES).map(<[u8]>::to_vec);
        let of_customer = |row: &Row| row.0.first_chunk::<CUSTOMER_BYTES>().copied();
        let mut customers: Vec<CustomerHash> = rows
            .iter()
            .filter_map(of_customer)
            .map(CustomerHash)
            .collect();
        customers.dedup();
        let contracts = plane.contracts_of(&customers);
        let groups: HashMap<CustomerHash, Vec<Group>> = customers
            .iter()
            .zip(contracts)
            .map(|(customer, contract)| (*customer, self.known.grouping.of(*customer, contract)))
            .collect();
        for rows in rows.chunk_by(|one, next| of_series(one) == of_series(next)) {
            let Some(series) = rows.first().and_then(|row| series_of(&row.0)) else {
                continue;
            };
            // Covariates are in the same table, and have higher numbers than resources.
            let is_usage = usize::from(series.resource) < self.known.resources.len();
            if series.customer == POOL_ACCOUNT || !is_usage {
                continue;
            }
            let tape = self.tape(rows);
            let Some(groups) = groups.get(&series.customer) else {
                continue;
            };
            if !tape.is_empty() {
                let groups = groups.clone();
                self.place(series, Alone { tape, groups });
            }
        }
    }

    /// The tape of a series, from where something is known on; a chunk that cannot be read is a gap.
    fn tape(&mut self, rows: &[Row]) -> Vec<f32> {
        let mut damaged = Vec::new();
        let mut tape = vec![f32::NAN; self.known.kept];
        for (key, bytes) in rows {
            let Some(number) = key
                .last_chunk::<8>()
                .map(|number| u64::from_be_bytes(*number))
            else {
                continue;
            };
            let chunk = match Chunk::decode(bytes) {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::debug!(%error, "64 steps of usage are a gap for forecasts");
                    damaged.push(number);
                    continue;
                }
            };
            let start = number.saturating_mul(CHUNK_STEPS);
            let steps = start..start.saturating_add(CHUNK_STEPS);
            for step in steps.filter(|step| (self.first..=self.known.newest).contains(step)) {
                let place = usize::try_from(step.saturating_sub(self.first)).ok();
                let value = place.and_then(|place| tape.get_mut(place));
                if let (Some(value), Some(stored)) = (value, chunk.get(step)) {
                    *value = amount(stored);
                }
            }
        }
        // Near the year 1970, where tests are, there are fewer steps than are kept.
        let steps = self
            .known
            .newest
            .saturating_sub(self.first)
            .saturating_add(1);
        tape.truncate(usize::try_from(steps).unwrap_or(usize::MAX));
        self.known.damaged = self.known.damaged.saturating_add(damaged.len());
        let begun = tape.iter().position(|value| !value.is_nan());
        let Some(begun) = begun else {
            return Vec::new();
        };
        for (value, step) in tape.iter_mut().zip(self.first..).skip(begun) {
            let is_damaged = || damaged.contains(&Chunk::number_of(step));
            if value.is_nan() && self.coverage.observed(step) && !is_damaged() {
                *value = 0.0;
            }
        }
        tape.split_off(begun)
    }

    /// Keeps a series by itself if it is one of the largest, and adds it, or the one that it takes the place of, to the rest.
    fn place(&mut self, series: Series, alone: Alone) {
        let resource = usize::from(series.resource);
        let (Some(ranking), Some(of_resource)) = (
            self.rankings.get_mut(resource),
            self.known.resources.get_mut(resource),
        ) else {
            return;
        };
        let lately = alone.tape.iter().rev().take(self.ranked_steps);
        let usage: f64 = lately
            .filter(|value| !value.is_nan())
            .map(|value| f64::from(*value))
            .sum();
        // Numbers that are not negative are in the order of their bits.
        ranking.insert((usage.to_bits(), series.customer));
        of_resource.alone.insert(series.customer, alone);
        if ranking.len() <= self.known.most {
            return;
        }
        let smallest = ranking.pop_first();
        let smallest = smallest.and_then(|(_, customer)| of_resource.alone.remove(&customer));
        if let Some(Alone { tape, groups }) = smallest {
            add(of_resource.rest.entry(groups).or_default(), &tape);
            of_resource.rest_customers = of_resource.rest_customers.saturating_add(1);
        }
    }
}

fn series_of(key: &[u8]) -> Option<Series> {
    let customer = CustomerHash(*key.first_chunk::<CUSTOMER_BYTES>()?);
    Some(Series::new(customer, *key.get(CUSTOMER_BYTES)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecasts::Grouping;
    use crate::history::chunk_key;

    #[test]
    fn a_chunk_that_cannot_be_read_is_a_gap_although_gateways_reported_and_is_counted() {
        let mut coverage = Coverage::new(256);
        for step in 0..256 {
            coverage.observe(step);
        }
        let mut survey = Survey {
            known: Known {
                newest: 255,
                policy: 0,
                changes: 0,
                kept: 256,
                most: 1,
                grouping: Grouping::default(),
                resources: vec![OfResource::default()],
                taken: 0,
                damaged: 0,
            },
            rankings: vec![Ranking::new()],
            coverage: &coverage,
            first: 0,
            ranked_steps: 1,
        };
        let series = Series::new(CustomerHash([1; 16]), 0);
        let row = |number: u64| {
            let mut chunk = Chunk::default();
            chunk.set(number * CHUNK_STEPS + 1, 5.0);
            (chunk_key(series, number), chunk.encode())
        };
        let damaged = (chunk_key(series, 1), b"damaged".to_vec());
        let tape = survey.tape(&[row(0), damaged, row(2)]);
        let gaps = (1..).zip(&tape).filter(|(_, value)| value.is_nan());
        let gaps: Vec<u64> = gaps.map(|(step, _)| step).collect();
        assert_eq!(gaps, Vec::from_iter(64..128));
        assert_eq!(tape.iter().filter(|value| **value == 5.0).count(), 2);
        assert_eq!((tape.len(), survey.known.damaged), (255, 1));
    }
}
