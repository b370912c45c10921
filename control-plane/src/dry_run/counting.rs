//! Counts of a dry run: both policies step by step, and what gateways have counted in the same steps.
//!
//! Resources are counted apart, as if a request asked for one of them only: a step of usage history does not say which tokens were asked
//! for together.

use super::listed::Listed;
use super::side::Reading;
use crate::allocation::Trails;
use crate::allocation::{Rule, expected};
use crate::buckets::Counters;
use crate::forecasts::Book as Forecasts;
use crate::history::Series;
use forebay_core::policy::{ContractIndex, Policy};
use forebay_core::resource::ResourceIndex;
use forebay_sharing::Outlook;
use forebay_simulator::SimulationError;
use forebay_simulator::pool::what_if::{Standing, Stepwise};
use forebay_wire::key::CustomerHash;
use hashbrown::HashMap;
use std::sync::Arc;

/// What falls within a step is made up, and the same in each run.
const SEED: u64 = 1;
/// Steps without a report are run for this time at most, in seconds: after that all buckets are taken to be as full as they get.
const GAP_S_MOST: u64 = 3_600;
const MICRO_PER_TOKEN: f64 = 1e6;

/// How a customer is treated under a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Treated {
    /// Row of its contract.
    pub(crate) row: Option<ContractIndex>,
    /// Its innermost group of linked accounts.
    pub(crate) group: Option<usize>,
    pub(crate) standing: Standing,
}

/// What is known of a customer when a step has been closed.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) hash: CustomerHash,
    /// Under the policy in force, and under the candidate.
    pub(crate) treated: [Treated; 2],
    /// What gateways have counted since ever, by resource.
    pub(crate) totals: Vec<Counters>,
}

/// What gateways have counted in the steps that were compared, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    pub(crate) asked: f64,
    pub(crate) admitted: f64,
    pub(crate) denied: f64,
}

/// What a step goes by that is expected of customers.
pub(crate) struct Expecting<'a> {
    pub(crate) forecasts: &'a Forecasts,
    pub(crate) trails: &'a Trails,
    pub(crate) now_unix_ms: u64,
}

/// A resource.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: String,
    index: ResourceIndex,
    pub(crate) both: Stepwise,
    /// What was expected of the step that runs.
    outlooks: [Vec<Outlook>; 2],
    /// What had been counted when the comparison began.
    baselines: Vec<Counters>,
    pub(crate) counted: Vec<Counted>,
    /// What those asked for who came when there was no room for them.
    pub(crate) left_out: f64,
}

/// Counts since a moment.
#[derive(Debug)]
pub(crate) struct Counting {
    /// Version of the policy in force.
    pub(crate) live: u64,
    live_policy: Policy,
    live_rule: Option<Arc<Rule>>,
    pub(crate) from_unix_ms: u64,
    pub(crate) step_ms: u32,
    /// The step that was counted last.
    pub(crate) last_step: u64,
    pub(crate) steps: u64,
    /// Steps in which no gateway has reported.
    pub(crate) gaps: u64,
    places: HashMap<CustomerHash, usize>,
    pub(crate) hashes: Vec<CustomerHash>,
    pub(crate) lanes: Vec<Lane>,
}

// === impl Counting ===

impl Counting {
    /// Begins behind a step that has been closed. Nobody takes part yet.
    ///
    /// # Errors
    /// When steps are too short or too long.
    pub(crate) fn begin(
        (live, live_policy, live_rule): (u64, Policy, Option<Arc<Rule>>),
        candidate: &Listed,
        (step, step_ms): (u64, u32),
        now_unix_ms: u64,
    ) -> Result<Self, SimulationError> {
        let step_s = step_ms / 1_000;
        let mut lanes = Vec::new();
        for (index, resource) in live_policy.resource_indexes().zip(&live_policy.resources) {
            let of_live = Reading {
                policy: &live_policy,
                rule: live_rule.as_deref(),
                resource: index,
            };
            let of_candidate = Reading {
                policy: &candidate.policy,
                rule: candidate.rule.as_ref(),
                resource: index,
            };
            lanes.push(Lane {
                name: resource.name.clone(),
                index,
                both: Stepwise::new([of_live.side(), of_candidate.side()], step_s, SEED)?,
                outlooks: Default::default(),
                baselines: Vec::new(),
                counted: Vec::new(),
                left_out: 0.0,
            });
        }
        Ok(Self {
            live,
            live_policy,
            live_rule,
            from_unix_ms: now_unix_ms,
            step_ms,
            last_step: step,
            steps: 0,
            gaps: 0,
            places: HashMap::new(),
            hashes: Vec::new(),
            lanes,
        })
    }

    /// Whether a customer takes part.
    pub(crate) fn knows(&self, customer: CustomerHash) -> bool {
        self.places.contains_key(&customer)
    }

    /// Has a customer take part, if there is room. `is_old`: what was counted of it before is of the time before the comparison.
    pub(crate) fn add(&mut self, seen: &Seen, candidate: &Listed, is_old: bool) {
        if self.knows(seen.hash) {
            return;
        }
        let place = self.hashes.len();
        let [live, other] = seen.treated;
        for lane in &mut self.lanes {
            let of_live = Reading {
                policy: &self.live_policy,
                rule: self.live_rule.as_deref(),
                resource: lane.index,
            };
            let of_candidate = Reading {
                policy: &candidate.policy,
                rule: candidate.rule.as_ref(),
                resource: lane.index,
            };
            let members = [
                of_live.member(live.row, live.group),
                of_candidate.member(other.row, other.group),
            ];
            // All lanes have as many customers, so that the first one says it for all.
            if lane.both.add(members).is_err() {
                return;
            }
            let totals = seen.totals.get(lane.index.position()).copied();
            let baseline = totals.filter(|_| is_old).unwrap_or_default();
            lane.baselines.push(baseline);
            lane.counted.push(Counted::default());
        }
        self.places.insert(seen.hash, place);
        self.hashes.push(seen.hash);
    }

    /// Counts a step that has been closed, with what each customer asked for in it, by resource, in tokens, and what is known of everybody
    /// who takes part.
    pub(crate) fn count(
        &mut self,
        step: u64,
        usage: impl Iterator<Item = (CustomerHash, usize, f64)>,
        seen: &[Seen],
    ) {
        for seen in seen {
            if let Some(place) = self.places.get(&seen.hash) {
                let standings = seen.treated.map(|treated| treated.standing);
                for lane in &mut self.lanes {
                    lane.both.treat(*place, standings);
                    lane.note(*place, &seen.totals);
                }
            }
        }
        let missed = step.saturating_sub(self.last_step).saturating_sub(1);
        self.gaps = self.gaps.saturating_add(missed);
        let step_s = u64::from(self.step_ms / 1_000).max(1);
        for _ in 0..missed.min(GAP_S_MOST / step_s) {
            for lane in &mut self.lanes {
                lane.step(&[]);
            }
        }
        let mut asked = vec![vec![0.0; self.hashes.len()]; self.lanes.len()];
        for (customer, resource, tokens) in usage {
            let place = self.places.get(&customer);
            let Some(lane) = self.lanes.get_mut(resource) else {
                continue;
            };
            match place.and_then(|place| asked.get_mut(resource)?.get_mut(*place)) {
                Some(cell) => *cell = tokens,
                None => lane.left_out += tokens,
            }
        }
        for (lane, asked) in self.lanes.iter_mut().zip(&asked) {
            lane.step(asked);
        }
        self.steps = self.steps.saturating_add(1);
        self.last_step = step;
    }

    /// What is expected of the step that comes. Nothing of it is known yet.
    pub(crate) fn expect(&mut self, expecting: &Expecting<'_>) {
        for (lane, index) in self.lanes.iter_mut().zip(0_u8..) {
            let cycles_s = lane.both.cycles_s();
            let of = |cycle_s: u32| -> Vec<Outlook> {
                let interval_ms = u64::from(cycle_s).saturating_mul(1_000);
                let hashes = self.hashes.iter();
                hashes
                    .map(|hash| {
                        let series = Series::new(*hash, index);
                        let now_per_s = expecting.trails.newest_per_s(series);
                        let forecast = expecting.forecasts.mean_of(
                            *hash,
                            index,
                            interval_ms,
                            (self.step_ms, expecting.now_unix_ms),
                        );
                        expected(forecast, expecting.trails, series, now_per_s)
                    })
                    .collect()
            };
            let [live_s, other_s] = cycles_s;
            let live = of(live_s);
            let other = match other_s == live_s {
                true => live.clone(),
                false => of(other_s),
            };
            lane.outlooks = [live, other];
        }
    }
}

// === impl Lane ===

impl Lane {
    fn step(&mut self, asked: &[f64]) {
        let [live, other] = &self.outlooks;
        self.both.step(asked, [live, other]);
    }

    fn note(&mut self, place: usize, totals: &[Counters]) {
        let places = self.counted.get_mut(place).zip(self.baselines.get(place));
        if let (Some((counted, baseline)), Some(totals)) =
            (places, totals.get(self.index.position()))
        {
            let since = totals.less(*baseline);
            let tokens = |micro: u64| micro as f64 / MICRO_PER_TOKEN;
            *counted = Counted {
                asked: tokens(since.demand),
                admitted: tokens(since.admitted),
                denied: tokens(since.denied),
            };
        }
    }
}
