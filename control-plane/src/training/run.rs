//! The task that trains: it waits for a reason, runs the trainer on the usage history, and brings what it has made into the registry.

use super::desk::{Asked, Desk, Stage, TrainingView};
use super::job::{Job, JobError};
use super::options::Chosen;
use super::schedule::{Cause, Past};
use super::trial;
use crate::api::Server;
use crate::error::ApiError;
use crate::models::{SandboxError, hex};
use crate::plane::{
    Origin, ReleaseRequest, Signer, TrainingBook, TrainingOutcome, TrainingRun, TrialView,
};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

/// How often the schedule is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Folders of runs, each with the number of its server's process.
const FOLDER_PREFIX: &str = "forebay-training-";
/// Names in the folder of a run.
const SET: &str = "set";
const MODEL: &str = "trained.onnx";
const CARD: &str = "trained.card.json";
/// A larger file of the trainer's is none of ours.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Training, as a server has it.
#[derive(Debug)]
pub struct Training {
    chosen: Chosen,
    desk: Arc<Desk>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Why a run ended without a model in the registry.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("the trainer's folder: {0}")]
    Folder(#[from] std::io::Error),
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the trainer left no {0} that can be read: {1}")]
    Result(&'static str, String),
    #[error("the forecaster refuses the model: {0}")]
    Refused(String),
    #[error("stopped by {0}")]
    Stopped(String),
    #[error("the server ends")]
    ServerEnds,
}

/// One run.
struct Run {
    server: Weak<Server>,
    desk: Arc<Desk>,
    chosen: Chosen,
    /// The trainer, while there is one.
    job: tokio::sync::Mutex<Option<Job>>,
    folder: Arc<TempDir>,
}

// === impl Training ===

impl Training {
    /// What the options say, before there is a server to do it for.
    #[must_use]
    pub fn new(chosen: Chosen) -> Self {
        Self {
            chosen,
            desk: Arc::default(),
            task: Mutex::default(),
        }
    }

    /// Waits for reasons from now on, for as long as the server is there.
    pub fn begin(&self, server: &Arc<Server>, background: &Handle) {
        let task = background.spawn(wait(
            Arc::downgrade(server),
            Arc::clone(&self.desk),
            self.chosen.clone(),
        ));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Where word is left.
    ///
    /// # Errors
    /// When this server has no trainer.
    pub(crate) fn desk(&self) -> Result<&Desk, ApiError> {
        let Err(reason) = self.chosen.program.check() else {
            return Ok(&self.desk);
        };
        let message = format!("this server cannot train: {reason}");
        let hint = "build forebay-train and start the server with --trainer FILE";
        Err(ApiError::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "no_trainer",
            message,
            hint,
        ))
    }

    /// At a glance.
    pub(crate) fn view(&self, book: TrainingBook) -> TrainingView {
        let schedule = self.chosen.schedule;
        let running = self.desk.running();
        let next_unix_ms = schedule.next_unix_ms(past_of(&book));
        let is_over = |run: &TrainingRun| {
            let started = running.as_ref().map(|running| running.started_unix_ms);
            started != Some(run.started_unix_ms)
        };
        TrainingView {
            next_unix_ms,
            on_drift: schedule.on_drift,
            runs: book.runs.into_iter().rev().filter(is_over).collect(),
            running,
        }
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            // With it goes the trainer's process.
            task.abort();
        }
    }
}

fn past_of(book: &TrainingBook) -> Past {
    let has_failed = |run: &&TrainingRun| run.outcome == TrainingOutcome::Failed;
    let done = book.runs.iter().rev().find(|run| !has_failed(run));
    Past {
        since_unix_ms: book.since_unix_ms,
        done_unix_ms: done.map(|run| run.started_unix_ms),
        failed_unix_ms: book
            .runs
            .last()
            .filter(has_failed)
            .map(|run| run.started_unix_ms),
    }
}

/// What is left of runs whose server was killed: usage of customers.
fn remove_left_folders() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let of_process = name.to_str().and_then(|name| {
            let number = name.strip_prefix(FOLDER_PREFIX)?.split('-').next()?;
            number.parse::<u32>().ok()
        });
        // One of our number is that of a process before us, since we have not begun.
        let is_left = of_process.is_some_and(|number| {
            number == std::process::id() || !Path::new("/proc").join(number.to_string()).exists()
        });
        if is_left && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(folder = %entry.path().display(), %error, "what a training has left cannot be deleted");
        }
    }
}

async fn wait(server: Weak<Server>, desk: Arc<Desk>, chosen: Chosen) {
    while let Some(here) = server.upgrade() {
        let asked = desk.take_asked();
        let cause = match asked {
            Some(_) => Some(Cause::Asked),
            None => due(&here, &chosen).await,
        };
        drop(here);
        if let Some(cause) = cause {
            train(&server, &desk, &chosen, cause, asked).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = desk.word.notified() => {}
        }
    }
}

/// Why to begin without being asked, if there is a reason.
async fn due(here: &Server, chosen: &Chosen) -> Option<Cause> {
    let now = here.plane.now().unix_ms;
    let book = here.plane.trainings();
    if chosen.schedule.every_ms.is_some() && book.since_unix_ms.is_none() {
        // A server that restarts does not begin to count anew.
        if let Err(error) = here.plane.training_scheduled(now).await {
            tracing::warn!(%error, "the beginning of the schedule of trainings cannot be written down");
        }
        return None;
    }
    let drift = here.plane.drift_since(0).map(|drift| drift.found_unix_ms);
    chosen.schedule.due(now, past_of(&book), drift)
}

async fn train(
    server: &Weak<Server>,
    desk: &Arc<Desk>,
    chosen: &Chosen,
    cause: Cause,
    asked: Option<Asked>,
) {
    let Some(here) = server.upgrade() else {
        return;
    };
    let started_unix_ms = here.plane.now().unix_ms;
    desk.begins(cause, started_unix_ms);
    let mut run = TrainingRun::begun(cause, started_unix_ms);
    if let Err(error) = here.plane.training_begins(run.clone()).await {
        tracing::warn!(%error, "no training: its beginning cannot be written down");
        desk.ends();
        drop(here);
        // Not at once again: what is wrong with the store is not over in a moment.
        tokio::time::sleep(LOOK_EVERY * 60).await;
        return;
    }
    drop(here);
    run.message.clear();
    let resource = asked.and_then(|asked| asked.resource);
    let result = match folder().await {
        Ok(folder) => {
            let work = Run {
                server: server.clone(),
                desk: Arc::clone(desk),
                chosen: chosen.clone(),
                job: tokio::sync::Mutex::default(),
                folder: Arc::new(folder),
            };
            let result = tokio::select! {
                result = work.go(&mut run, resource) => result,
                by = stopped(desk) => Err(RunError::Stopped(by)),
            };
            work.end().await;
            result
        }
        Err(error) => Err(error.into()),
    };
    let Some(here) = server.upgrade() else {
        return;
    };
    if let Err(error) = result {
        run.outcome = match error {
            RunError::Stopped(_) => TrainingOutcome::Stopped,
            _ => TrainingOutcome::Failed,
        };
        run.message = error.to_string();
    }
    run.ended_unix_ms = here.plane.now().unix_ms;
    tracing::info!(
        outcome = run.outcome.name(),
        because = run.message,
        "a training has ended"
    );
    if let Err(error) = here.plane.training_ends(run).await {
        tracing::warn!(%error, "the end of a training cannot be written down");
    }
    desk.ends();
}

static LEFT: Once = Once::new();

/// A new folder for a run, when what others have left is gone.
async fn folder() -> std::io::Result<TempDir> {
    let made = spawn_blocking(|| {
        // Once: what has our number afterwards is ours.
        LEFT.call_once(remove_left_folders);
        let prefix = format!("{FOLDER_PREFIX}{}-", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempdir()
    });
    made.await.map_err(std::io::Error::from)?
}

/// Who has stopped it.
async fn stopped(desk: &Desk) -> String {
    loop {
        if let Some(by) = desk.stopped_by() {
            return format!("{} {}", by.role.name(), by.fingerprint);
        }
        desk.word.notified().await;
    }
}

// === impl Run ===

impl Run {
    fn server(&self) -> Result<Arc<Server>, RunError> {
        self.server.upgrade().ok_or(RunError::ServerEnds)
    }

    async fn go(&self, run: &mut TrainingRun, resource: Option<String>) -> Result<(), RunError> {
        let (files, resource) = self.read_history(resource).await?;
        self.desk.enters(Stage::Preparing);
        self.prepare(&files).await?;
        self.desk.enters(Stage::Training);
        self.fit(&resource).await?;
        self.desk.enters(Stage::Registering);
        let digest = self.register(run).await?;
        let wins = run.trial.as_ref().is_some_and(|trial| trial.wins);
        run.outcome = match (wins, self.chosen.canary) {
            (false, _) => TrainingOutcome::Lost,
            (true, None) => TrainingOutcome::Won,
            (true, Some(_)) => match self.try_out(digest).await {
                Ok(()) => TrainingOutcome::Canary,
                Err(error) => {
                    run.message = format!("it won, and no canary has begun: {error}");
                    TrainingOutcome::Won
                }
            },
        };
        Ok(())
    }

    /// Writes usage into files, on a thread that may block.
    async fn read_history(
        &self,
        resource: Option<String>,
    ) -> Result<(Vec<PathBuf>, String), RunError> {
        // Whoever has stopped the run has dropped its folder.
        let (server, folder) = (self.server()?, Arc::downgrade(&self.folder));
        let place = self.folder.path().to_owned();
        let read = spawn_blocking(move || {
            let is_wanted = || folder.strong_count() > 0;
            let resource = server.plane.resource_name(resource.as_deref())?;
            let files = server.plane.write_history(&place, &resource, &is_wanted)?;
            Ok::<_, ApiError>((files, resource))
        });
        Ok(read.await.map_err(std::io::Error::from)??)
    }

    async fn prepare(&self, files: &[PathBuf]) -> Result<(), RunError> {
        let mut arguments: Vec<&OsStr> = vec!["prepare".as_ref()];
        arguments.extend(files.iter().map(|file| file.as_os_str()));
        arguments.extend(["--out", SET].map(OsStr::new));
        self.run_trainer(&arguments).await
    }

    async fn fit(&self, resource: &str) -> Result<(), RunError> {
        let arguments = [
            "train",
            "--set",
            SET,
            "--resource",
            resource,
            "--out",
            MODEL,
        ];
        let mut arguments: Vec<&OsStr> = arguments.map(OsStr::new).to_vec();
        arguments.push("--json-progress".as_ref());
        self.run_trainer(&arguments).await
    }

    async fn run_trainer(&self, arguments: &[&OsStr]) -> Result<(), RunError> {
        let Chosen {
            program,
            keeper,
            limits,
            ..
        } = &self.chosen;
        let mut place = self.job.lock().await;
        let job = Job::start(program, keeper, arguments, self.folder.path(), *limits)?;
        let heard = |told| self.desk.hears(told);
        place.insert(job).wait(heard).await?;
        *place = None;
        Ok(())
    }

    /// Ends the trainer of a run that is given up, before its folder is deleted.
    async fn end(&self) {
        if let Some(job) = &mut *self.job.lock().await {
            job.end().await;
        }
    }

    /// Brings the model and what is known of it into the registry.
    async fn register(&self, run: &mut TrainingRun) -> Result<ModelDigest, RunError> {
        let file = read_bounded(&self.folder.path().join(MODEL))
            .map_err(|error| RunError::Result("model", error.to_string()))?;
        let card = read_bounded(&self.folder.path().join(CARD))
            .map_err(|error| RunError::Result("card", error.to_string()))?;
        let card: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&card)
            .map_err(|error| RunError::Result("card", error.to_string()))?;
        let trial = card.get("trial").cloned().unwrap_or_default();
        let trial: TrialView = serde_json::from_value(trial)
            .map_err(|error| RunError::Result("card with a trial", error.to_string()))?;
        let trial = trial::checked(trial)
            .map_err(|error| RunError::Result("card with a trial", error.to_string()))?;
        let server = self.server()?;
        let judge = Arc::clone(&server);
        let judged = spawn_blocking(move || {
            let verdict = judge.sandbox.check(&file)?;
            Ok::<_, SandboxError>((file, verdict))
        });
        let (file, verdict) = judged.await.map_err(std::io::Error::from)??;
        if !verdict.ok {
            return Err(RunError::Refused(verdict.message));
        }
        run.message = trial.loses_because.clone().unwrap_or_default();
        run.trial = Some(trial);
        let digest = crate::models::digest_of(&file);
        let origin = Origin {
            parent: None,
            data_digest: None,
            card: Some(card),
        };
        server
            .plane
            .add_trained_model(file, verdict, origin)
            .await?;
        run.digest = Some(hex(&digest));
        Ok(digest)
    }

    /// Lets it run at a share of the gateways.
    async fn try_out(&self, digest: ModelDigest) -> Result<(), RunError> {
        let server = self.server()?;
        let request = ReleaseRequest {
            digest: Some(digest),
            kind: ReleaseKind::Release,
            signed: None,
            share: self.chosen.canary,
        };
        let signer = Signer {
            key: server.signing_key.as_ref(),
            public_key: server.public_key,
        };
        server.plane.release_trained_model(request, signer).await?;
        Ok(())
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has {length} bytes")));
    }
    std::fs::read(path)
}
