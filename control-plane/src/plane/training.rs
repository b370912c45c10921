//! Training as the control plane keeps it: the runs that have ended, usage for the trainer to read, and models that come from it.

use super::Plane;
use super::audit::{Deed, Done};
use super::models::unwritable;
use super::releases::{Release, ReleaseRequest, Signer};
use super::{ModelView, Origin};
use crate::auth::Caller;
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::models::Verdict;
use crate::store::{Batch, Store, StoreError, Table};
use crate::training::{Cause, UsageFiles};
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

/// The runs that have ended, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TrainingBook(Vec<TrainingRun>);

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
            message: String::new(),
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
        let runs = serde_json::from_slice(&row).map_err(|error| StoreError::Damaged {
            what: "training",
            reason: error.to_string(),
        })?;
        Ok(Self(runs))
    }

    fn add(&mut self, run: TrainingRun, batch: &mut Batch) -> Result<(), ApiError> {
        let mut runs = self.0.clone();
        runs.push(run);
        let surplus = runs.len().saturating_sub(RUNS_KEPT);
        runs.drain(..surplus);
        let row = serde_json::to_vec(&runs).map_err(|error| unwritable(&error))?;
        batch.put(Table::Meta, META_TRAINING, row);
        self.0 = runs;
        Ok(())
    }
}

impl Plane {
    /// The trainings that have ended, oldest first.
    #[must_use]
    pub fn training_runs(&self) -> Vec<TrainingRun> {
        self.lock().training.0.clone()
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
        let deed = Deed::new(by, "training.begin", "a model").with("resource", resource);
        self.note(deed, "begins").await
    }

    /// Writes down that the server begins a training by itself.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) async fn training_due(&self, cause: Cause) -> Result<(), ApiError> {
        let deed = Deed::of_the_server("training.begin", "a model");
        self.note(deed.with("cause", Some(cause.name())), "begins")
            .await
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
            state.training.add(run, batch)?;
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

    /// Writes usage of a resource into files of a folder, as the trainer reads it: all that is kept of customers that have used anything, until
    /// there is enough of it. Customers are hashes there too. Takes seconds: call it on a thread that may block.
    ///
    /// # Errors
    /// When there is no usage, the store cannot be read, or the folder cannot be written.
    pub(crate) fn write_history(
        &self,
        folder: &Path,
        resource: &str,
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
        let known = self.customers_to_learn_from();
        for customer in &known {
            self.add_usage(&mut files, *customer, resource)?;
        }
        if !files.is_full() {
            // What was imported may be of customers that no gateway has reported on yet, and no policy names.
            for customer in self.customers_of_the_history(known)? {
                self.add_usage(&mut files, customer, resource)?;
            }
        }
        let files = files.finish().map_err(unwritten)?;
        if files.is_empty() {
            let message = format!("there is no usage of {resource} in the history");
            let hint = "wait for gateways to report some, or bring some along: `forebay history import FILE`";
            return Err(ApiError::conflict("no_usage", message, hint));
        }
        Ok(files)
    }

    fn add_usage(
        &self,
        files: &mut UsageFiles,
        customer: CustomerHash,
        resource: &str,
    ) -> Result<(), ApiError> {
        if files.is_full() {
            return Ok(());
        }
        let series = self.export_history(&format!("hash:{customer}"), Some(resource), None)?;
        files.add(&series).map_err(unwritten)
    }

    /// Those that gateways have reported on, then those of the policy, each by hash: a hash says nothing about its customer, so the first of them are as
    /// good a sample as any, and the same ones each time.
    fn customers_to_learn_from(&self) -> Vec<CustomerHash> {
        let state = self.lock();
        let mut seen: Vec<CustomerHash> = state.accounts.keys().copied().collect();
        seen.retain(|hash| *hash != POOL_ACCOUNT);
        let unseen = state.directory.iter().map(|(hash, _)| hash);
        let unseen: Vec<CustomerHash> = unseen
            .filter(|hash| !state.accounts.contains_key(hash))
            .collect();
        drop(state);
        seen.sort_unstable();
        let mut unseen = unseen;
        unseen.sort_unstable();
        seen.extend(unseen);
        seen.truncate(CUSTOMERS_MOST);
        seen
    }

    /// Those that have a history, but for the ones that are known.
    fn customers_of_the_history(
        &self,
        known: Vec<CustomerHash>,
    ) -> Result<BTreeSet<CustomerHash>, ApiError> {
        let known: HashSet<CustomerHash> = known.into_iter().collect();
        let mut found = BTreeSet::new();
        self.store.visit(Table::History, &mut |key, _| {
            if let Some(hash) = key.first_chunk::<16>().map(|hash| CustomerHash(*hash))
                && !known.contains(&hash)
                && found.len() < CUSTOMERS_MOST
            {
                found.insert(hash);
            }
            Ok(())
        })?;
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
