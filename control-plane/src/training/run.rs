//! The task that trains: it waits for a reason, runs the trainer on the usage history, and brings what it has made into the registry.

use super::desk::{Asked, Desk, Stage, TrainingView};
use super::job::JobError;
use super::options::Chosen;
use super::schedule::{Cause, Last};
use crate::api::Server;
use crate::error::ApiError;
use crate::models::{SandboxError, hex};
use crate::plane::{Origin, ReleaseRequest, Signer, TrainingOutcome, TrainingRun, TrialView};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

/// How often the schedule is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
    since_unix_ms: std::sync::atomic::AtomicU64,
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
    folder: tempfile::TempDir,
}

// === impl Training ===

impl Training {
    /// What the options say, before there is a server to do it for.
    #[must_use]
    pub fn new(chosen: Chosen) -> Self {
        Self {
            chosen,
            desk: Arc::default(),
            task: std::sync::Mutex::default(),
            since_unix_ms: 0.into(),
        }
    }

    /// Waits for reasons from now on, for as long as the server is there.
    pub fn begin(&self, server: &Arc<Server>, background: &Handle) {
        let now = server.plane.now().unix_ms;
        self.since_unix_ms
            .store(now, std::sync::atomic::Ordering::Relaxed);
        let task = background.spawn(wait(
            Arc::downgrade(server),
            Arc::clone(&self.desk),
            self.chosen.clone(),
            now,
        ));
        *self
            .task
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(task);
    }

    /// Where word is left.
    ///
    /// # Errors
    /// When this server has no trainer.
    pub(crate) fn desk(&self) -> Result<&Desk, ApiError> {
        if self.chosen.program.is_there() {
            return Ok(&self.desk);
        }
        let message = format!("there is no trainer at {}", self.chosen.program.0.display());
        let hint = "build forebay-train and start the server with --trainer FILE";
        Err(ApiError::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "no_trainer",
            message,
            hint,
        ))
    }

    /// At a glance. `runs` are those that have ended, oldest first.
    pub(crate) fn view(&self, runs: Vec<TrainingRun>) -> TrainingView {
        let since = self
            .since_unix_ms
            .load(std::sync::atomic::Ordering::Relaxed);
        let schedule = self.chosen.schedule;
        TrainingView {
            running: self.desk.running(),
            next_unix_ms: schedule.next_unix_ms(since, runs.last().map(last_of)),
            on_drift: schedule.on_drift,
            runs: runs.into_iter().rev().collect(),
        }
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let task = self
            .task
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(task) = task.take() {
            // With it goes the trainer's process.
            task.abort();
        }
    }
}

fn last_of(run: &TrainingRun) -> Last {
    Last {
        started_unix_ms: run.started_unix_ms,
        has_failed: run.outcome == TrainingOutcome::Failed,
    }
}

async fn wait(server: Weak<Server>, desk: Arc<Desk>, chosen: Chosen, since_unix_ms: u64) {
    loop {
        let Some(here) = server.upgrade() else {
            return;
        };
        let now = here.plane.now().unix_ms;
        let asked = desk.take_asked();
        let cause = match asked {
            Some(_) => Some(Cause::Asked),
            None => {
                let last = here.plane.training_runs().last().map(last_of);
                let drift = here.plane.drift_since(0).map(|drift| drift.found_unix_ms);
                chosen.schedule.due(now, since_unix_ms, last, drift)
            }
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
    // What somebody has asked for is on record already.
    if asked.is_none()
        && let Err(error) = here.plane.training_due(cause).await
    {
        tracing::warn!(%error, "no training: its beginning cannot be written down");
        desk.ends();
        // Not at once again: what is wrong with the store is not over in a moment.
        tokio::time::sleep(LOOK_EVERY * 60).await;
        return;
    }
    let resource = asked.and_then(|asked| asked.resource);
    drop(here);
    let result = match tempfile::Builder::new()
        .prefix("forebay-training-")
        .tempdir()
    {
        Ok(folder) => {
            let work = Run {
                server: server.clone(),
                desk: Arc::clone(desk),
                chosen: chosen.clone(),
                folder,
            };
            tokio::select! {
                result = work.go(&mut run, resource) => result,
                by = stopped(desk) => Err(RunError::Stopped(by)),
            }
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
        let (server, folder) = (self.server()?, self.folder.path().to_owned());
        let read = spawn_blocking(move || {
            let resource = server.plane.resource_name(resource.as_deref())?;
            let files = server.plane.write_history(&folder, &resource)?;
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
        let heard = |told| self.desk.hears(told);
        let program = &self.chosen.program;
        let ended = program.run(arguments, self.folder.path(), self.chosen.limits, heard);
        Ok(ended.await?)
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
