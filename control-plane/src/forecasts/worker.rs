//! Who makes forecasts, and when: each time that a step is closed, those whose horizon has moved on far enough.
//!
//! Looking and publishing are done by whoever calls, who may wait for locks; between the two is arithmetic on what is known, which takes no lock and may
//! give way to all other threads.

use super::book::{Book, Tally};
use super::cells::{Cell, Cells, Subject};
use super::groups::Group;
use super::horizon::{HORIZONS, Lack, Plan};
use super::known::{Known, News};
use super::pass::Pass;
use super::score::Score;
use super::survey::{Pace, survey};
use super::tape::rates;
use crate::error::ApiError;
use crate::plane::{Moment, Plane};
use crate::store::StoreError;
use forebay_core::time::TimeUs;
use std::collections::BTreeMap;

/// Surveys and passes take at most this part of the time.
const SURVEYS_PART: u64 = 10;
const PASSES_PART: u64 = 4;
/// Who is large is found out anew after so long.
const SURVEY_EVERY_US: u64 = 3_600_000_000;

/// How much is forecast at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Customers that are forecast by themselves, of all resources together: the largest. All others are one more group.
    pub series: usize,
    /// Contracts that are groups: those that most customers have. And sums that groups of linked accounts add to those of contracts.
    pub contracts: usize,
}

/// The worker.
#[derive(Debug)]
pub struct Worker {
    limits: Limits,
    known: Option<Known>,
    resources: Vec<String>,
    plans: Vec<Result<Plan, Lack>>,
    /// When each horizon was forecast last: the newest step that was known then.
    made_at: [Option<u64>; HORIZONS.len()],
    lacks: [Option<Lack>; HORIZONS.len()],
    cells: Cells,
    /// Forecasts that wait for their outcome, by horizon, subject and resource.
    pending: BTreeMap<(usize, Subject, u8), Cell>,
    /// By resource, horizon, and whether they are of groups.
    scores: BTreeMap<(u8, usize, bool), Score>,
    survey_from: TimeUs,
    surveyed_at: TimeUs,
    pass_from: TimeUs,
    pass_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 1_000,
            contracts: 64,
        }
    }
}

// === impl Worker ===

impl Worker {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            known: None,
            resources: Vec::new(),
            plans: Vec::new(),
            made_at: [None; HORIZONS.len()],
            lacks: [const { None }; HORIZONS.len()],
            cells: Cells::new(),
            pending: BTreeMap::new(),
            scores: BTreeMap::new(),
            survey_from: TimeUs(0),
            surveyed_at: TimeUs(0),
            pass_from: TimeUs(0),
            pass_us: 0,
        }
    }

    /// Looks, forecasts what is due, and publishes it: all that the thread does, at once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn look(&mut self, plane: &Plane) -> Result<(), ApiError> {
        if let Some(due) = self.gather(plane)?
            && let Some(pass) = self.forecast(&due, &|| true)
        {
            self.publish(plane, pass);
        }
        Ok(())
    }

    /// Takes in what is new. Returns the horizons that are due, if any is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn gather(&mut self, plane: &Plane) -> Result<Option<Vec<usize>>, ApiError> {
        if self.plans.is_empty() {
            self.plan(plane);
        }
        if self.plans.iter().all(Result::is_err) {
            return Ok(None);
        }
        let Some(moment) = plane.moment() else {
            return Ok(None);
        };
        let now = plane.now().mono;
        let is_surveyed = self.wants_survey(&moment, now);
        if is_surveyed {
            self.survey(plane, &moment)?;
        }
        let Some(known) = &mut self.known else {
            return Ok(None);
        };
        if known.is_far_behind(moment.newest) {
            // The next survey finds out how things stand.
            return Ok(None);
        }
        let is_behind = known.newest < moment.newest
            || known.newest == moment.newest && known.lacks(moment.closed());
        if is_surveyed || is_behind {
            let (coverage, closed) = (plane.coverage(), moment.closed_step());
            let pace = Pace::default();
            known.go_on(&News {
                newest: moment.newest,
                closed: &closed,
                observed: &|step| coverage.observed(step),
                read: &|series, from, to| match plane.is_stopped() {
                    true => Err(StoreError::Stopped),
                    false => pace.after(|| plane.usage_from_store(series, from, to)),
                },
                contracts: &|customers| plane.contracts_of(customers),
            })?;
            self.mature();
        }
        if now < self.pass_from {
            return Ok(None);
        }
        let due = (0..HORIZONS.len()).filter(|horizon| self.is_due(*horizon, moment.newest));
        let due: Vec<usize> = due.collect();
        Ok((!due.is_empty()).then_some(due))
    }

    /// Finds out which horizons can be forecast at all, and says so.
    fn plan(&mut self, plane: &Plane) {
        let settings = plane.settings();
        let horizons = HORIZONS.iter();
        let plans = horizons.map(|horizon| horizon.plan(settings.step_ms, settings.history_steps));
        self.plans = plans.collect();
        plane.forecast_desk().publish(Book {
            lacks: self.lacks(),
            ..Book::default()
        });
    }

    fn lacks(&self) -> [Option<String>; HORIZONS.len()] {
        let mut lacks = self.plans.iter().zip(&self.lacks).map(|lacks| match lacks {
            (Err(lack), _) | (Ok(_), Some(lack)) => Some(lack.to_string()),
            (Ok(_), None) => None,
        });
        std::array::from_fn(|_| lacks.next().flatten())
    }

    fn wants_survey(&self, moment: &Moment, now: TimeUs) -> bool {
        if now < self.survey_from {
            return false;
        }
        self.known.as_ref().is_none_or(|known| {
            known.policy != moment.policy
                || known.changes != moment.changes
                || moment.newest < known.newest
                || known.is_far_behind(moment.newest)
                || now.since(self.surveyed_at) > SURVEY_EVERY_US
        })
    }

    fn survey(&mut self, plane: &Plane, moment: &Moment) -> Result<(), ApiError> {
        let began = plane.now().mono;
        let limits = self.limits;
        let surveyed = survey(plane, moment, limits.series, limits.contracts);
        let ended = plane.now().mono;
        let pause = ended.since(began).saturating_mul(SURVEYS_PART);
        self.survey_from = ended.plus_us(pause);
        let surveyed = surveyed?;
        self.surveyed_at = ended;
        // Others may be in a group than those whose outcome was forecast.
        let before = self.known.replace(surveyed);
        let is_policy_new = before
            .as_ref()
            .is_none_or(|before| before.policy != moment.policy);
        let is_set_back = before.is_some_and(|before| moment.newest < before.newest);
        self.pending
            .retain(|(_, subject, _), _| !(is_set_back || is_policy_new && subject.is_group()));
        self.resources.clone_from(&moment.resources);
        self.made_at = [None; HORIZONS.len()];
        Ok(())
    }

    fn is_due(&self, horizon: usize, newest: u64) -> bool {
        let Some(Ok(plan)) = self.plans.get(horizon) else {
            return false;
        };
        let made_at = self.made_at.get(horizon).copied().flatten();
        made_at.is_none_or(|made_at| newest >= made_at.saturating_add(plan.every_steps))
    }

    /// Scores the forecasts whose horizon is over.
    fn mature(&mut self) {
        let (Some(known), plans) = (&self.known, &self.plans) else {
            return;
        };
        let scores = &mut self.scores;
        self.pending.retain(|(horizon, subject, resource), cell| {
            let Some(Ok(plan)) = plans.get(*horizon) else {
                return false;
            };
            let end = cell.made_at.saturating_add(plan.steps as u64);
            if end > known.newest {
                return true;
            }
            let usage = known.usage_of(subject, *resource, cell.made_at, end);
            let score = scores
                .entry((*resource, *horizon, subject.is_group()))
                .or_default();
            match rates(&usage, plan.step_s()) {
                Some((mean, peak)) => score.take(&cell.made, mean, peak),
                None => score.miss(),
            }
            false
        });
    }

    /// Forecasts horizons. `None` if nobody wants them any more.
    pub(super) fn forecast(&self, due: &[usize], is_wanted: &dyn Fn() -> bool) -> Option<Pass> {
        let known = self.known.as_ref()?;
        let plans = due
            .iter()
            .filter_map(|horizon| Some((*horizon, self.plans.get(*horizon)?.as_ref().ok()?)));
        Pass::of(known, due, &plans.collect::<Vec<_>>(), is_wanted)
    }

    /// Makes forecasts known.
    pub(super) fn publish(&mut self, plane: &Plane, pass: Pass) {
        self.take(&pass);
        let Some(known) = &self.known else {
            return;
        };
        let tallies = self
            .scores
            .iter()
            .map(|((resource, horizon, is_group), score)| Tally {
                resource: self
                    .resources
                    .get(usize::from(*resource))
                    .cloned()
                    .unwrap_or_default(),
                horizon: HORIZONS.get(*horizon).map_or("", |horizon| horizon.name),
                of: if *is_group { "groups" } else { "customers" },
                score: *score,
            });
        let resources = known.resources.iter();
        plane.forecast_desk().publish(Book {
            newest: Some(pass.at),
            resources: self.resources.clone(),
            cells: self.cells.clone(),
            lacks: self.lacks(),
            tallies: tallies.collect(),
            series: resources.clone().map(|of| of.alone.len()).sum(),
            rest_series: resources.map(|of| of.rest_customers).sum(),
            damaged_chunks: known.damaged,
            pass_ms: self.pass_us / 1_000,
        });
    }

    /// Notes how long a pass has taken, from one moment to another.
    pub(super) fn took(&mut self, from: TimeUs, to: TimeUs) {
        self.pass_us = to.since(from);
        let pause = self.pass_us.saturating_mul(PASSES_PART.saturating_sub(1));
        self.pass_from = to.plus_us(pause);
    }

    fn take(&mut self, pass: &Pass) {
        for horizon in &pass.due {
            for cells in self.cells.values_mut() {
                if let Some(cell) = cells.get_mut(*horizon) {
                    *cell = None;
                }
            }
            if let (Some(made_at), Some(lack), Some(Ok(plan))) = (
                self.made_at.get_mut(*horizon),
                self.lacks.get_mut(*horizon),
                self.plans.get(*horizon),
            ) {
                *made_at = Some(pass.at);
                let is_made = pass.made.iter().any(|made| made.has(*horizon));
                *lack = (!is_made).then(|| Lack::TooFewYet {
                    needed: plan.steps_least(),
                    known: pass.steps_known,
                });
            }
        }
        for (of_resource, resource) in pass.made.iter().zip(0..) {
            for (horizon, made) in &of_resource.by_horizon {
                for (subject, made) in made {
                    let cell = Cell {
                        made_at: pass.at,
                        made: *made,
                    };
                    let cells = self.cells.entry((subject.clone(), resource)).or_default();
                    if let Some(place) = cells.get_mut(*horizon) {
                        *place = Some(cell);
                    }
                    // Who is in the rest changes all the time.
                    if *subject != Subject::Group(Group::Rest) {
                        let pending = (*horizon, subject.clone(), resource);
                        self.pending.entry(pending).or_insert(cell);
                    }
                }
            }
        }
        self.cells
            .retain(|_, cells| cells.iter().any(Option::is_some));
    }
}
