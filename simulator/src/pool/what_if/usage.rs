//! Recorded usage: how much each customer asked for in each step, and what of it came in which second.
//!
//! The seconds of a step are made up, by a rate that is drawn anew every ten seconds ([`Arrivals::Bursty`]), and then scaled: all of them together are what was recorded.

use crate::SimulationError;
use crate::pool::Arrivals;
use crate::random::Random;

/// Customers of a comparison.
pub const CUSTOMERS_MOST: usize = 10_000;
/// Seconds of usage.
pub const SECONDS_MOST: u32 = 31 * 86_400;
/// Customers times seconds: about a minute of work.
const CELLS_MOST: u64 = 1_000_000_000;
/// Customers times steps, and customers times the seconds of a step: what must lie in memory.
const STEPS_MOST: u64 = 40_000_000;
/// Customers times cycles.
const CYCLES_MOST: u64 = 4_000_000;
/// Longest step, in seconds.
const STEP_S_MOST: u32 = 3_600;
/// Most that is taken for a number of requests.
pub(super) const AMOUNT_MOST: f64 = 1e12;
/// Whatever else is drawn with the seed is drawn from other forks.
pub(super) const FORK: u64 = 3;

/// Usage of all customers.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    step_s: u32,
    /// `[customer][step]`; NaN is a gap.
    steps: Vec<Vec<f64>>,
    /// Of each customer.
    length: usize,
}

/// Draws the seconds of one step after the other.
pub(super) struct Seconds<'a> {
    usage: &'a Usage,
    randoms: Vec<Random>,
    /// `[second][customer]`
    cells: Vec<f32>,
}

// === impl Usage ===

impl Usage {
    /// Of each customer the amount in each step; NaN, and steps that are missing at the end, are gaps.
    ///
    /// # Errors
    /// When it is too much, or no usage.
    pub fn new(step_s: u32, steps: Vec<Vec<f64>>) -> Result<Self, SimulationError> {
        let length = steps.iter().map(Vec::len).max().unwrap_or(0);
        Self::check(step_s, steps.len(), length)?;
        for (customer, steps) in steps.iter().enumerate() {
            let wrong = |found: &f64| !found.is_nan() && !(0.0..=AMOUNT_MOST).contains(found);
            if let Some(step) = steps.iter().position(wrong) {
                return Err(SimulationError::NotAnAmount {
                    customer: customer + 1,
                    step: step + 1,
                    found: steps.get(step).copied().unwrap_or_default(),
                });
            }
        }
        Ok(Self {
            step_s,
            steps,
            length,
        })
    }

    /// Whether there may be so much, asked before it is read.
    ///
    /// # Errors
    /// When it is too much.
    pub fn check(step_s: u32, customers: usize, steps: usize) -> Result<(), SimulationError> {
        let too_large = |what, found, most, instead| {
            Err(SimulationError::TooLarge {
                what,
                found,
                most,
                instead,
            })
        };
        let shorter = "give a shorter part with --seconds, or fewer customers";
        if !(1..=STEP_S_MOST).contains(&step_s) {
            return Err(SimulationError::Step { step_s });
        }
        if customers > CUSTOMERS_MOST {
            let fewer = "add up those without a contract of their own, or leave some out";
            return too_large("customers", customers as u64, CUSTOMERS_MOST as u64, fewer);
        }
        let seconds = (steps as u64).saturating_mul(u64::from(step_s));
        if seconds > u64::from(SECONDS_MOST) {
            let instead = "give a shorter part with --seconds";
            return too_large("seconds", seconds, u64::from(SECONDS_MOST), instead);
        }
        let customers = customers as u64;
        let cells = customers.saturating_mul(seconds);
        if cells > CELLS_MOST {
            return too_large("customers' seconds", cells, CELLS_MOST, shorter);
        }
        let in_memory = customers.saturating_mul((steps as u64).max(u64::from(step_s)));
        if in_memory > STEPS_MOST {
            return too_large("customers' steps", in_memory, STEPS_MOST, shorter);
        }
        Ok(())
    }

    /// How many customers there are.
    #[must_use]
    pub const fn customers(&self) -> usize {
        self.steps.len()
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.length as u64 * u64::from(self.step_s)
    }

    /// Whether nobody has asked for anything.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.steps.iter().flatten().any(|amount| *amount > 0.0)
    }

    /// `[customer][cycle]`: what was asked for, in tokens per second. A cycle that lies in gaps alone is NaN.
    ///
    /// # Errors
    /// When there are too many cycles.
    pub fn per_cycle(&self, cycle_s: u32) -> Result<Vec<Vec<f64>>, SimulationError> {
        let cycle_s = u64::from(cycle_s.max(1));
        let cycles = self.seconds().div_ceil(cycle_s);
        let found = cycles.saturating_mul(self.customers() as u64);
        if found > CYCLES_MOST {
            return Err(SimulationError::TooLarge {
                what: "customers' cycles",
                found,
                most: CYCLES_MOST,
                instead: "give a shorter part with --seconds, or a longer sharing.interval_ms",
            });
        }
        let step_s = u64::from(self.step_s);
        let of_cycle = |steps: &[f64], cycle: u64| {
            let (from, to) = (cycle * cycle_s, (cycle + 1) * cycle_s);
            let (mut sum, mut known_s) = (0.0, 0.0);
            for step in from / step_s..to.div_ceil(step_s) {
                let amount = usize::try_from(step).ok().and_then(|step| steps.get(step));
                let Some(amount) = amount.filter(|amount| !amount.is_nan()) else {
                    continue;
                };
                let begins = (step * step_s).max(from);
                let ends = ((step + 1) * step_s).min(to);
                let seconds = ends.saturating_sub(begins) as f64;
                sum += amount / step_s as f64 * seconds;
                known_s += seconds;
            }
            sum / known_s
        };
        let all = self.steps.iter();
        Ok(all
            .map(|steps| (0..cycles).map(|cycle| of_cycle(steps, cycle)).collect())
            .collect())
    }

    /// Its seconds, the same for the same seed.
    pub(super) fn drawn(&self, seed: u64) -> Seconds<'_> {
        let random = Random::new(seed).fork(FORK);
        Seconds {
            usage: self,
            randoms: (0..self.customers() as u64)
                .map(|customer| random.fork(customer))
                .collect(),
            cells: vec![0.0; self.customers() * self.step_s as usize],
        }
    }

    /// How many steps there are.
    pub(super) const fn steps(&self) -> usize {
        self.length
    }
}

// === impl Seconds ===

impl Seconds<'_> {
    /// The seconds of a step, each with what every customer asks for.
    pub(super) fn of_step(&mut self, step: usize) -> impl Iterator<Item = &[f32]> {
        let customers = self.usage.customers().max(1);
        let step_s = self.usage.step_s as usize;
        let all = self.usage.steps.iter().zip(&mut self.randoms);
        for (customer, (steps, random)) in all.enumerate() {
            let amount = steps.get(step).copied().unwrap_or(f64::NAN);
            let seconds = spread(amount, step_s, random);
            let column = self.cells.iter_mut().skip(customer).step_by(customers);
            for (cell, second) in column.zip(seconds) {
                *cell = second;
            }
        }
        self.cells.chunks_exact(customers)
    }
}

/// The seconds of a step in which a customer asks for so much.
pub(super) fn spread(amount: f64, step_s: usize, random: &mut Random) -> Vec<f32> {
    if amount.is_nan() || amount <= 0.0 {
        return vec![0.0; step_s];
    }
    if step_s == 1 {
        return vec![amount as f32];
    }
    let per_minute = amount / step_s as f64 * 60.0;
    let minutes = vec![per_minute; step_s.div_ceil(60)];
    let mut seconds = Arrivals::Bursty.of_sub_steps(&minutes, 1, random);
    seconds.truncate(step_s);
    let sum: f64 = seconds.iter().map(|second| f64::from(*second)).sum();
    if sum > 0.0 {
        for second in &mut seconds {
            *second = (f64::from(*second) * amount / sum) as f32;
        }
    } else if let Some(second) = seconds.get_mut(random.below(step_s)) {
        *second = amount as f32;
    }
    seconds
}
