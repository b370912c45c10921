//! Training as the control plane keeps it: the runs that have ended, usage for the trainer to read, and models that come from it.

use super::Plane;
use super::audit::{Deed, Done};
use super::customers::smallest;
use super::models::unwritable;
use super::releases::{Release, ReleaseRequest, Signer};
use super::{ModelView, Origin};
use crate::auth::Caller;
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::history::series_of;
use crate::models::Verdict;
use crate::store::{Batch, Store, StoreError, Table};
use crate::training::{Cause, CovariateFiles, UsageFiles};
use forebay_wire::key::CustomerHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Key of the runs in the store.
const META_TRAINING: &[u8] = b"training";

/// Runs that are remembered.
const RUNS_KEPT: usize = 32;

/// Customers whose history is looked at for it.
const CUSTOMERS_MOST: usize = 50_000;

/// What a training has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainingOutcome {
    /// The model has won its trial and runs as a canary.
    Canary,
    /// It has won its trial and waits in the registry.
    Won,
    /// It has not won its trial, and waits in the registry.
    Lost,
    /// There is no model.
    Failed,
    /// Somebody has ended it.
    Stopped,
}

/// A training that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingRun {
    /// Why it began.
    pub cause: Cause,
    /// When.
    pub started_unix_ms: u64,
    /// When it ended.
    pub ended_unix_ms: u64,
    /// What it has come to.
    pub outcome: TrainingOutcome,
    /// Why, where that must be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// SHA-256 of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How the model fared on usage that it had not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialView>,
}

/// How a model fared on usage that it had not seen, by the trainer's account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialView {
    /// It won in each fold by the margin, on enough data.
    pub wins: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loses_because: Option<String>,
    /// Parts of the time behind its training.
    #[serde(default)]
    pub folds: Vec<FoldView>,
}

/// A part of the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FoldView {
    /// Its first instant.
    pub start: String,
    /// The instant behind its last.
    pub end: String,
    /// Customers that were active in it.
    pub customers: u64,
    /// Weighted quantile loss of the gateway's ensemble with the model.
    pub wql: f64,
    /// And without it.
    pub wql_without: f64,
    /// Share of steps at or below the 0.9 quantile, with the model.
    pub coverage_90: f64,
}

/// What is remembered of trainings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingBook {
    /// When the schedule began.
    #[serde(default)]
    pub since_unix_ms: Option<u64>,
    /// Runs, oldest first. The newest may still be running: it is written down when it begins, as one that has failed, so that one which takes the server down
    /// with it is not begun again and again.
    #[serde(default)]
    pub runs: Vec<TrainingRun>,
}

// === impl TrainingOutcome ===

impl TrainingOutcome {
    /// As in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

// === impl TrainingRun ===

impl TrainingRun {
    /// One that begins, and has come to nothing yet.
    #[must_use]
    pub(crate) fn begun(cause: Cause, started_unix_ms: u64) -> Self {
        Self {
            cause,
            started_unix_ms,
            ended_unix_ms: started_unix_ms,
            outcome: TrainingOutcome::Failed,
            message: "the server ended before it did".to_owned(),
            digest: None,
            trial: None,
        }
    }
}

// === impl TrainingBook ===

impl TrainingBook {
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let Some(row) = store.get(Table::Meta, META_TRAINING)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&row).map_err(|error| StoreError::Damaged {
            what: "training",
            reason: error.to_string(),
        })
    }

    /// Writes down a run, in the place of what was written when it began.
    fn put(&mut self, run: TrainingRun, batch: &mut Batch) -> Result<(), ApiError> {
        let mut book = self.clone();
        let is_same = |last: &TrainingRun| last.started_unix_ms == run.started_unix_ms;
        if book.runs.last().is_some_and(is_same) {
            book.runs.pop();
        }
        book.runs.push(run);
        let surplus = book.runs.len().saturating_sub(RUNS_KEPT);
        book.runs.drain(..surplus);
        self.replace(book, batch)
    }

    fn replace(&mut self, book: Self, batch: &mut Batch) -> Result<(), ApiError> {
        let row = serde_json::to_vec(&book).map_err(|error| unwritable(&error))?;
        batch.put(Table::Meta, META_TRAINING, row);
        *self = book;
        Ok(())
    }
}

impl Plane {
    /// What is remembered of trainings.
    #[must_use]
    pub fn trainings(&self) -> TrainingBook {
        self.lock().training.clone()
    }

    /// Writes down when the schedule began.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_scheduled(&self, since_unix_ms: u64) -> Result<(), ApiError> {
        let deed = Deed::of_the_server("training.schedule", "trainings");
        self.change(deed, |state, batch, _| {
            let book = TrainingBook {
                since_unix_ms: Some(since_unix_ms),
                ..state.training.clone()
            };
            state.training.replace(book, batch)?;
            Ok(Done::new((), "begins to count"))
        })
        .await
    }

    /// Writes down that somebody has asked for a training.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_asked(
        &self,
        by: &Caller,
        resource: Option<&str>,
    ) -> Result<(), ApiError> {
        let deed = Deed::new(by, "training.ask", "a model").with("resource", resource);
        self.note(deed, "begins").await
    }

    /// Writes down that somebody ends a training.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_stopped(&self, by: &Caller) -> Result<(), ApiError> {
        let deed = Deed::new(by, "training.stop", "the training");
        self.note(deed, "ends").await
    }

    async fn note(&self, deed: Deed, outcome: &str) -> Result<(), ApiError> {
        self.change(deed, |_, _, _| Ok(Done::new((), outcome)))
            .await
    }

    /// Writes down that a training begins.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_begins(&self, run: TrainingRun) -> Result<(), ApiError> {
        let deed = Deed::of_the_server("training.begin", "a model");
        let deed = deed.with("cause", Some(run.cause.name()));
        self.change(deed, |state, batch, _| {
            state.training.put(run, batch)?;
            Ok(Done::new((), "begins"))
        })
        .await
    }

    /// Writes down how a training has ended.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_ends(&self, run: TrainingRun) -> Result<(), ApiError> {
        let object = run.digest.clone().unwrap_or_else(|| "no model".to_owned());
        let deed =
            Deed::of_the_server("training.end", object).with("cause", Some(run.cause.name()));
        self.change(deed, |state, batch, _| {
            let outcome = match run.message.as_str() {
                "" => run.outcome.name().to_owned(),
                message => format!("{}: {message}", run.outcome.name()),
            };
            state.training.put(run, batch)?;
            Ok(Done::new((), outcome))
        })
        .await
    }

    /// Keeps a model of the trainer's that the sandbox has accepted, with its card.
    ///
    /// # Errors
    /// When the card cannot be, the registry is full, or the store cannot be written.
    pub(crate) async fn add_trained_model(
        &self,
        file: Vec<u8>,
        verdict: Verdict,
        origin: Origin,
    ) -> Result<ModelView, ApiError> {
        let deed = |object: String| Deed::of_the_server("model.upload", object);
        self.keep_model(deed, file, verdict, Some(origin)).await
    }

    /// Lets a model of the trainer's run.
    ///
    /// # Errors
    /// As [`Self::release_model`].
    pub(crate) async fn release_trained_model(
        &self,
        request: ReleaseRequest,
        signer: Signer<'_>,
    ) -> Result<Release, ApiError> {
        if self.lock().models.challenger.is_some() {
            let message = "a challenger runs, and the release would end it";
            let hint = "activate the model when it is over: `forebay model challenger`";
            return Err(ApiError::conflict("challenger_runs", message, hint));
        }
        let deed = request.deed_of_the_server();
        self.release_as(deed, request, signer).await
    }

    /// The resource of that name, or the policy's first.
    ///
    /// # Errors
    /// When there is none of that name, or no policy.
    pub(crate) fn resource_name(&self, name: Option<&str>) -> Result<String, ApiError> {
        let state = self.lock();
        let resources = state.policies.compiled().map(|policy| &policy.resources);
        let first = resources.and_then(|resources| resources.first());
        let name = name.or(first.map(|resource| resource.name.as_str()));
        super::customers::resource_index(&state, name)?;
        Ok(name.unwrap_or_default().to_owned())
    }

    /// Writes usage of a resource, and covariates, into files of a folder, as the trainer reads it: all that is kept of customers that have used anything,
    /// until there is enough of it. Gives the files that the trainer must be told of. Customers are hashes there too. Takes seconds: call it on a thread that may block.
    ///
    /// # Errors
    /// When there is no usage, the store cannot be read, or the folder cannot be written.
    pub(crate) fn write_history(
        &self,
        folder: &Path,
        resource: &str,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Vec<PathBuf>, ApiError> {
        if !self.settings.step_ms.is_multiple_of(1_000) {
            let message = format!(
                "steps of {} ms cannot be learned from: the trainer reads whole seconds",
                self.settings.step_ms
            );
            let hint = "start a server with another --step-ms";
            return Err(ApiError::invalid("odd_step", message, hint));
        }
        let mut files = UsageFiles::new(folder);
        let mut measured = CovariateFiles::new(folder);
        let known = self.customers_to_learn_from();
        for customer in &known {
            self.add_usage(&mut files, &mut measured, *customer, resource, is_wanted)?;
        }
        if !files.is_full() {
            // What was imported may be of customers that no gateway has reported on yet, and no policy names.
            for customer in self.customers_of_the_history(resource, &known)? {
                self.add_usage(&mut files, &mut measured, customer, resource, is_wanted)?;
            }
        }
        let files = files.finish().map_err(unwritten)?;
        if files.is_empty() {
            let message = format!("there is no usage of {resource} in the history");
            let hint = "wait for gateways to report some, or bring some along: `forebay history import FILE`";
            return Err(ApiError::conflict("no_usage", message, hint));
        }
        let described = measured.finish(&files).map_err(unwritten)?;
        Ok(described.map_or(files, |described| vec![described]))
    }

    fn add_usage(
        &self,
        files: &mut UsageFiles,
        measured: &mut CovariateFiles,
        customer: CustomerHash,
        resource: &str,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), ApiError> {
        if files.is_full() {
            return Ok(());
        }
        // A server that ends waits for this thread.
        if self.lock().is_stopped || !is_wanted() {
            return Err(StoreError::Stopped.into());
        }
        let key = format!("hash:{customer}");
        let series = self.export_history(&key, Some(resource), None)?;
        if !files.add(series).map_err(unwritten)? {
            return Ok(());
        }
        for covariate in self.covariate_names() {
            let series = self.export_covariate(&key, covariate, None)?;
            measured.add(series).map_err(unwritten)?;
        }
        Ok(())
    }

    /// Those that gateways have reported on, then those of the policy, each by hash: a hash says nothing about its customer, so the first of them are as
    /// good a sample as any, and the same ones each time.
    fn customers_to_learn_from(&self) -> Vec<CustomerHash> {
        let state = self.lock();
        let seen = state.accounts.keys().copied();
        let seen = smallest(seen.filter(|hash| *hash != POOL_ACCOUNT), CUSTOMERS_MOST);
        let unseen = state.directory.iter().map(|(hash, _)| hash);
        let unseen = unseen.filter(|hash| !state.accounts.contains_key(hash));
        let unseen = smallest(unseen, CUSTOMERS_MOST - seen.len());
        seen.into_iter().chain(unseen).collect()
    }

    /// Those that have a history of the resource, but for the ones that are known.
    fn customers_of_the_history(
        &self,
        resource: &str,
        known: &[CustomerHash],
    ) -> Result<BTreeSet<CustomerHash>, ApiError> {
        let resource = super::customers::resource_index(&self.lock(), Some(resource))?;
        let known: HashSet<&CustomerHash> = known.iter().collect();
        let mut found = BTreeSet::new();
        for piece in 0..Self::HISTORY_PIECES {
            if found.len() >= CUSTOMERS_MOST {
                break;
            }
            for (key, _) in self.history_piece(piece)? {
                if let Some(series) = series_of(&key)
                    && usize::from(series.resource) == resource
                    && !known.contains(&series.customer)
                {
                    found.insert(series.customer);
                }
            }
        }
        Ok(found)
    }
}

fn unwritten(error: std::io::Error) -> ApiError {
    let message = format!("usage cannot be written for the trainer: {error}");
    let hint = "make room in the folder for temporary files (TMPDIR)";
    ApiError::new(
        axum::http::StatusCode::INSUFFICIENT_STORAGE,
        "no_room",
        message,
        hint,
    )
}
