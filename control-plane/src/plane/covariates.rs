//! Covariates: where they lie in the history, and the way from there to whoever learns from them.
//!
//! They lie in the history's table and ring, where a series is a customer and a number: resources have the first ones, covariates the last. So they are kept
//! as long as usage is, and sealed as it is. Which covariate has which number is in the store: one that is given up and taken up again finds what it has.

use super::measurements::Writing;
use super::{Plane, SeriesView, StartError};
use crate::covariates::{Chosen, Series, TakenCounts, Tally};
use crate::error::ApiError;
use crate::history::{Ring, step_at};
use crate::store::{Batch, Store, StoreError, Table};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Numbers of covariates, by name.
const META_COVARIATES: &[u8] = b"covariates";
/// The first number of a covariate. A policy has four resources at most.
const FIRST_NUMBER: u8 = 192;
/// Requests that are read and kept at once, each some tens of MB at most, and how long others wait for their turn.
const REQUESTS_AT_ONCE: usize = 4;
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// What is kept, and what has become of samples.
#[derive(Debug)]
pub(crate) struct Covariates {
    pub(super) chosen: Chosen,
    /// In the order of the options.
    pub(super) numbers: Vec<u8>,
    pub(super) hashes: RandomState,
    pub(super) tally: Tally,
    writing: Mutex<Writing>,
    turns: Arc<Semaphore>,
}

// === impl Covariates ===

impl Covariates {
    fn new(store: &dyn Store, chosen: Chosen) -> Result<(Self, Batch), StartError> {
        let mut book: BTreeMap<String, u8> = match store.get(Table::Meta, META_COVARIATES)? {
            Some(row) => serde_json::from_slice(&row).map_err(|error| damaged(&error))?,
            None => BTreeMap::new(),
        };
        let mut numbers = Vec::new();
        for name in chosen.names() {
            let free = || {
                let mut all = FIRST_NUMBER..=u8::MAX;
                all.find(|number| book.values().all(|taken| taken != number))
            };
            let number = book.get(name).copied().or_else(free);
            let number = number.ok_or(StartError::CovariateNames(book.len()))?;
            book.insert(name.to_owned(), number);
            numbers.push(number);
        }
        let row = serde_json::to_vec(&book).map_err(|error| damaged(&error))?;
        let mut batch = Batch::default();
        batch.put(Table::Meta, META_COVARIATES, row);
        let covariates = Self {
            chosen,
            numbers,
            hashes: RandomState::new(),
            tally: Tally::default(),
            writing: Mutex::default(),
            turns: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
        };
        Ok((covariates, batch))
    }

    /// The right to write samples. Whoever has it may wait for the store, and for the state's lock; never the other way round.
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Plane ===

impl Plane {
    /// Keeps covariates from now on.
    ///
    /// # Errors
    /// When the store cannot be read, or has had too many of other names.
    pub fn measuring(mut self, chosen: Chosen) -> Result<Self, StartError> {
        let (covariates, batch) = Covariates::new(&*self.store, chosen)?;
        // Nothing is written under a number before this is.
        drop(self.journal.submit(batch));
        self.covariates = Some(covariates);
        Ok(self)
    }

    /// Names of the covariates that are kept.
    pub(crate) fn covariate_names(&self) -> impl Iterator<Item = &str> {
        let covariates = self.covariates.iter();
        covariates.flat_map(|covariates| covariates.chosen.names())
    }

    /// What has become of samples, if any are taken.
    #[must_use]
    pub fn measured(&self) -> Option<TakenCounts> {
        let covariates = self.covariates.as_ref()?;
        let series = self.lock().means.sources();
        Some(covariates.tally.counts(series))
    }

    pub(super) fn covariates(&self) -> Result<&Covariates, ApiError> {
        self.covariates.as_ref().ok_or_else(|| {
            let message = "this server keeps no covariates";
            let hint = "start it with --covariate NAME=METRIC";
            ApiError::not_found("no_covariates", message, hint)
        })
    }

    /// Whether covariates are kept at all.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn check_measuring(&self) -> Result<(), ApiError> {
        self.covariates().map(drop)
    }

    /// Waits until few enough requests are read. The turn belongs to the work and not to who waits for it: a sender that hangs up ends no work.
    pub(crate) async fn turn_to_measure(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let turns = Arc::clone(&self.covariates()?.turns);
        let turn = timeout(TURN_WITHIN, turns.acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            busy(format!(
                "{REQUESTS_AT_ONCE} requests of senders are read at once"
            ))
        })
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse_measurements(&self) {
        if let Some(covariates) = &self.covariates {
            covariates.tally.refuse();
        }
    }

    /// Exports what was measured of a customer. What was not is a gap, and never a zero.
    ///
    /// # Errors
    /// When there is no such covariate, or the store cannot be read.
    pub fn export_covariate(
        &self,
        key: &str,
        covariate: &str,
        steps: Option<u64>,
    ) -> Result<SeriesView, ApiError> {
        let customer = self.hash_of(key)?;
        let covariates = self.covariates()?;
        let mut known = covariates.chosen.names().zip(&covariates.numbers);
        let Some((_, number)) = known.find(|(name, _)| *name == covariate) else {
            let names = Vec::from_iter(covariates.chosen.names());
            let hint = format!("name one of: {}", names.join(", "));
            let message = format!("there is no covariate `{covariate}`");
            return Err(ApiError::not_found("no_such_covariate", message, hint).at("covariate"));
        };
        let newest = step_at(self.clock.now().unix_ms, self.settings.step_ms).saturating_sub(1);
        let most = self.settings.history_steps;
        let first = newest.saturating_sub(steps.unwrap_or(most).clamp(1, most).saturating_sub(1));
        let series = Series::new(customer, *number);
        let measured = Ring::read(&*self.store, series, first, newest)?;
        Ok(SeriesView {
            key: format!("hash:{customer}"),
            resource: covariate.to_owned(),
            step_ms: self.settings.step_ms,
            newest_step: newest,
            usage: measured.values,
        })
    }
}

/// Says that a request may come again.
pub(super) fn busy(message: String) -> ApiError {
    let hint = "send it again; fewer and larger requests at once are read sooner";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, hint)
}

fn damaged(error: &serde_json::Error) -> StoreError {
    StoreError::Damaged {
        what: "covariates",
        reason: error.to_string(),
    }
}
