//! Two policies side by side on usage that is still being measured: one step after the other, with customers that come in between.
//!
//! What is kept is bounded by the number of customers, however long it goes on. To keep the usage and to run it anew each time was the
//! worse alternative: a question on the
//! second day would cost a thousand times as much as one in the first minutes.

use super::outcome::Outcome;
use super::run::Run;
use super::side::{Member, Side};
use super::usage::{AMOUNT_MOST, FORK, Usage, spread};
use crate::SimulationError;
use crate::random::Random;
use forebay_sharing::Outlook;

/// Two policies, as far as they have come.
#[derive(Clone, Debug)]
pub struct Stepwise {
    sides: [Side; 2],
    runs: [Run; 2],
    step_s: u32,
    at_s: u64,
    random: Random,
    /// One for each customer.
    randoms: Vec<Random>,
    /// `[second][customer]`
    cells: Vec<f32>,
}

/// How a customer is treated in the step that comes, whatever its buckets hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Denied whatever it asks for.
    pub is_refused: bool,
    /// Admitted whatever it asks for.
    pub is_exempt: bool,
}

// === impl Stepwise ===

impl Stepwise {
    /// Two policies on steps of so many seconds.
    ///
    /// # Errors
    /// When steps are too short or too long, or there are too many customers.
    pub fn new(sides: [Side; 2], step_s: u32, seed: u64) -> Result<Self, SimulationError> {
        let count = sides.each_ref().map(|side| side.members.len());
        Usage::check(step_s, count.into_iter().max().unwrap_or(0), 1)?;
        let random = Random::new(seed).fork(FORK);
        Ok(Self {
            runs: sides.each_ref().map(Run::new),
            sides,
            step_s,
            at_s: 0,
            randoms: (0..count[0] as u64)
                .map(|customer| random.fork(customer))
                .collect(),
            random,
            cells: Vec::new(),
        })
    }

    /// Has room for another customer, with what each of both policies has for it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, members: [Member; 2]) -> Result<(), SimulationError> {
        let count = self.randoms.len();
        Usage::check(self.step_s, count.saturating_add(1), 1)?;
        self.randoms.push(self.random.fork(count as u64));
        let both = self.sides.iter_mut().zip(&mut self.runs);
        for ((side, run), member) in both.zip(members) {
            run.add(&member);
            side.members.push(member);
        }
        Ok(())
    }

    /// How a customer is treated from now on under each policy.
    pub fn treat(&mut self, customer: usize, standings: [Standing; 2]) {
        for (side, standing) in self.sides.iter_mut().zip(standings) {
            if let Some(member) = side.members.get_mut(customer) {
                member.is_exempt = standing.is_exempt;
                member.refused_until_s = match standing.is_refused {
                    true => u64::MAX,
                    false => 0,
                };
            }
        }
    }

    /// Goes on by a step in which each customer has asked for so many tokens; those that are not named, and what is no amount, count as
    /// nothing. `outlooks`: for each policy what was
    /// expected of each customer before the step, for cycles that begin in it. A loan counts for the whole cycle as soon as that begins.
    pub fn step(&mut self, asked: &[f64], outlooks: [&[Outlook]; 2]) {
        let customers = self.randoms.len();
        if customers == 0 {
            self.at_s = self.at_s.saturating_add(u64::from(self.step_s));
            return;
        }
        let step_s = self.step_s as usize;
        self.cells.clear();
        self.cells.resize(customers.saturating_mul(step_s), 0.0);
        for (customer, random) in self.randoms.iter_mut().enumerate() {
            let amount = asked.get(customer).copied();
            let amount = amount.filter(|amount| (0.0..=AMOUNT_MOST).contains(amount));
            let column = self.cells.iter_mut().skip(customer).step_by(customers);
            for (cell, second) in column.zip(spread(amount.unwrap_or(0.0), step_s, random)) {
                *cell = second;
            }
        }
        for asked in self.cells.chunks_exact(customers) {
            let both = self.sides.iter().zip(&mut self.runs);
            for ((side, run), outlooks) in both.zip(outlooks) {
                if side.begins_cycle(self.at_s) {
                    run.begin_cycle(side, self.at_s, side.cycle_s(), outlooks);
                }
                run.second(side, self.at_s, asked);
            }
            self.at_s = self.at_s.saturating_add(1);
        }
    }

    /// What has become of everybody up to now, under each policy.
    #[must_use]
    pub fn outcomes(&self) -> [Outcome; 2] {
        self.runs.each_ref().map(Run::outcome)
    }

    /// How many customers there are.
    #[must_use]
    pub const fn customers(&self) -> usize {
        self.randoms.len()
    }

    /// Seconds from one cycle to the next under each policy.
    #[must_use]
    pub fn cycles_s(&self) -> [u32; 2] {
        self.sides.each_ref().map(|side| side.cycle_s.max(1))
    }
}
