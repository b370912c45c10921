//! What is due, and when: a study each hour, scores after cycles.
//!
//! Looking and publishing are done by whoever calls, who may wait for locks; between the two is arithmetic on what was read, which takes no lock and may
//! give way to all other threads.

use super::desk::Board;
use super::headroom::Headroom;
use super::past::Past;
use super::scores::Scores;
use super::study::Study;
use crate::allocation::{Book, Occasion};
use crate::error::ApiError;
use crate::plane::{Moment, Plane, SpilloverAsked};
use forebay_core::policy::ContractIndex;
use forebay_core::resource::ResourceIndex;
use forebay_core::time::TimeUs;
use forebay_policy::Spillover;
use std::sync::Arc;
use std::time::Instant;

/// A study is made anew after so long.
const STUDY_EVERY_US: u64 = 3_600_000_000;
/// And takes at most this part of the time, whatever calls for it.
const STUDIES_PART: u64 = 10;
/// Pairs are scored at most so often.
const SCORE_EVERY_US: u64 = 60_000_000;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Customers that are studied, of all pools together: the largest. All others are the rest of their tier.
    pub customers: usize,
}

/// The worker.
#[derive(Debug, Default)]
pub struct Worker {
    limits: Limits,
    study: Option<Arc<Study>>,
    lack: Option<String>,
    scores: Arc<Scores>,
    /// What the last study was of, whatever came of it, and when.
    tried: Option<(Subject, TimeUs)>,
    study_from: TimeUs,
    /// When pairs were scored last; none after a new study.
    scored_at: Option<TimeUs>,
}

/// What calls for another study if it is another one.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    resources: Vec<String>,
    pools: Vec<ResourceIndex>,
    occasions: Vec<Occasion>,
    changes: u64,
}

/// What is to be reckoned.
#[derive(Debug)]
pub(super) enum Due {
    Study {
        past: Past,
        occasions: Vec<Occasion>,
        contracts: Vec<Vec<Option<ContractIndex>>>,
        read_us: u64,
    },
    Scores {
        study: Arc<Study>,
        book: Arc<Book>,
        rule: Spillover,
        before: Arc<Headroom>,
        now_unix_ms: u64,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Reckoned {
    /// None where the history is too short.
    Study(Option<Study>),
    Scores(Scores),
}

impl Default for Limits {
    fn default() -> Self {
        Self { customers: 1_000 }
    }
}

// === impl Worker ===

impl Worker {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Does all that is due: what the thread does, at once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn look(&mut self, plane: &Plane) -> Result<(), ApiError> {
        while let Some(due) = self.gather(plane)? {
            let reckoned = due.reckon();
            self.publish(plane, reckoned);
        }
        Ok(())
    }

    /// Reads what is due, if anything is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn gather(&mut self, plane: &Plane) -> Result<Option<Due>, ApiError> {
        if plane.is_stopped() {
            return Ok(None);
        }
        let Some(asked) = plane.spillover_asked() else {
            self.end(plane);
            return Ok(None);
        };
        let Some(moment) = plane.moment() else {
            return Ok(None);
        };
        let now = plane.now().mono;
        let subject = Subject {
            resources: moment.resources.clone(),
            pools: asked.pools.clone(),
            occasions: asked.occasions.clone(),
            changes: moment.changes,
        };
        if self.wants_study(&subject, now) {
            return self.read(plane, &moment, subject).map(Some);
        }
        Ok(self.wanted_scores(asked, plane))
    }

    /// Nobody asks any more.
    fn end(&mut self, plane: &Plane) {
        if self.tried.is_some() {
            *self = Self::new(self.limits);
            plane.spillover_desk().publish(Board::default());
        }
    }

    fn wants_study(&self, subject: &Subject, now: TimeUs) -> bool {
        let is_old =
            |(tried, at): &(Subject, TimeUs)| tried != subject || now.since(*at) > STUDY_EVERY_US;
        now >= self.study_from && self.tried.as_ref().is_none_or(is_old)
    }

    fn read(&mut self, plane: &Plane, moment: &Moment, subject: Subject) -> Result<Due, ApiError> {
        let (began, started) = (Instant::now(), plane.now().mono);
        let past = Past::read(plane, moment, &subject.pools, self.limits);
        let read_us = micros(began);
        // One that fails is tried again no sooner.
        self.study_from = started.plus_us(read_us.saturating_mul(STUDIES_PART));
        let past = past?;
        let pools = past.pools.iter();
        let contracts = pools.map(|(_, pool)| plane.contracts_of(&pool.customers));
        let due = Due::Study {
            contracts: contracts.collect(),
            occasions: subject.occasions.clone(),
            past,
            read_us,
        };
        self.tried = Some((subject, started));
        Ok(due)
    }

    fn wanted_scores(&self, asked: SpilloverAsked, plane: &Plane) -> Option<Due> {
        let study = self.study.as_ref()?;
        let (book, now) = (asked.book, plane.now());
        let is_of_policy = book.policy == asked.policy && book.resources == study.resources;
        if book.number == 0 || !is_of_policy {
            return None;
        }
        // Another policy may give headroom to others, or none, and is not waited for.
        let is_new = self.scored_at.is_none() || self.scores.headroom.policy != asked.policy;
        let is_time = |at: TimeUs| now.mono.since(at) >= SCORE_EVERY_US;
        let is_due = book.number != self.scores.cycle && self.scored_at.is_none_or(is_time);
        (is_new || is_due).then(|| Due::Scores {
            study: Arc::clone(study),
            book,
            rule: asked.rule,
            before: Arc::clone(&self.scores.headroom),
            now_unix_ms: now.unix_ms,
        })
    }

    /// Shows what came of it to those who ask.
    pub(super) fn publish(&mut self, plane: &Plane, reckoned: Reckoned) {
        let now = plane.now().mono;
        match reckoned {
            Reckoned::Study(study) => {
                let took_us = study.as_ref().map_or(0, |study| study.took_us);
                self.study_from = self
                    .study_from
                    .max(now.plus_us(took_us.saturating_mul(STUDIES_PART)));
                self.lack = study.is_none().then(|| {
                    "the usage history is too short: a time of day must be known on three weekdays, or weekend days, before what is left beside the season says anything".to_owned()
                });
                self.study = study.map(Arc::new);
                self.scored_at = None;
                if self.study.is_none() {
                    self.scores = Arc::default();
                }
            }
            Reckoned::Scores(scores) => {
                self.scores = Arc::new(scores);
                self.scored_at = Some(now);
            }
        }
        plane.spillover_desk().publish(Board {
            study: self.study.clone(),
            scores: Arc::clone(&self.scores),
            lack: self.lack.clone(),
        });
    }
}

// === impl Due ===

impl Due {
    /// Does it. Takes no lock.
    pub(super) fn reckon(self) -> Reckoned {
        let began = Instant::now();
        match self {
            Self::Study {
                past,
                occasions,
                contracts,
                read_us,
            } => {
                let mut study = Study::of(past, &occasions, &contracts);
                if let Some(study) = &mut study {
                    study.took_us = read_us.saturating_add(micros(began));
                }
                Reckoned::Study(study)
            }
            Self::Scores {
                study,
                book,
                rule,
                before,
                now_unix_ms,
            } => {
                let mut scores = Scores::of(&study, &book, &rule, &before, now_unix_ms);
                scores.took_us = micros(began);
                Reckoned::Scores(scores)
            }
        }
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
