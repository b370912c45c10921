//! What the running training shows of itself, and where somebody who wants one, or none, leaves word.

use super::lines::Told;
use super::schedule::Cause;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::plane::TrainingRun;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Where a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Usage is read from the history.
    Reading,
    /// The trainer makes a data set of it.
    Preparing,
    /// The trainer learns, and tries what it has made.
    Training,
    /// The sandbox judges the model, and the registry takes it.
    Registering,
}

/// A training that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningView {
    /// Why it began.
    pub cause: Cause,
    /// When.
    pub started_unix_ms: u64,
    /// Where it is.
    pub stage: Stage,
    /// How far that is.
    #[serde(flatten)]
    pub told: Told,
}

/// Training at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingView {
    /// The one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningView>,
    /// When the clock begins the next one, if it ever does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_unix_ms: Option<u64>,
    /// Whether drift begins one.
    pub on_drift: bool,
    /// Those that have ended, newest first.
    pub runs: Vec<TrainingRun>,
}

/// Somebody's wish.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) resource: Option<String>,
}

/// The desk.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<DeskState>,
    /// Somebody has left word.
    pub(super) word: Notify,
}

#[derive(Debug, Default)]
struct DeskState {
    asked: Option<Asked>,
    running: Option<RunningView>,
    /// Who wants the running one to end.
    stopped_by: Option<Caller>,
}

// === impl Desk ===

impl Desk {
    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a training, on a resource if one is named.
    ///
    /// # Errors
    /// When one runs or was asked for already.
    pub fn ask(&self, resource: Option<String>) -> Result<(), ApiError> {
        let mut state = self.lock();
        if state.running.is_some() || state.asked.is_some() {
            let hint = "wait for its end, or stop it: `forebay model train --stop`";
            return Err(ApiError::conflict(
                "training_runs",
                "a training runs already",
                hint,
            ));
        }
        state.asked = Some(Asked { resource });
        drop(state);
        self.word.notify_one();
        Ok(())
    }

    /// Ends the training that runs, or the wish for one.
    ///
    /// # Errors
    /// When there is neither.
    pub fn stop(&self, by: Caller) -> Result<(), ApiError> {
        let mut state = self.lock();
        let was_asked = state.asked.take().is_some();
        if let Some(running) = &state.running {
            if running.stage == Stage::Registering {
                let hint = "it ends in a moment; `forebay model rollback` takes a model back";
                let message = "the model is on its way into the registry";
                return Err(ApiError::conflict("training_registers", message, hint));
            }
            state.stopped_by = Some(by);
        } else if !was_asked {
            let hint = "`forebay model training` shows what runs";
            return Err(ApiError::conflict(
                "no_training_runs",
                "no training runs",
                hint,
            ));
        }
        drop(state);
        self.word.notify_one();
        Ok(())
    }

    /// The one that runs, or is about to.
    #[must_use]
    pub fn running(&self) -> Option<RunningView> {
        self.lock().running.clone()
    }

    pub(super) fn take_asked(&self) -> Option<Asked> {
        self.lock().asked.take()
    }

    pub(super) fn stopped_by(&self) -> Option<Caller> {
        self.lock().stopped_by.clone()
    }

    pub(super) fn begins(&self, cause: Cause, now_unix_ms: u64) {
        let mut state = self.lock();
        state.stopped_by = None;
        state.running = Some(RunningView {
            cause,
            started_unix_ms: now_unix_ms,
            stage: Stage::Reading,
            told: Told::default(),
        });
    }

    pub(super) fn enters(&self, stage: Stage) {
        if let Some(running) = &mut self.lock().running {
            (running.stage, running.told) = (stage, Told::default());
        }
    }

    pub(super) fn hears(&self, told: Told) {
        if let Some(running) = &mut self.lock().running {
            // A line without a message leaves the last one standing.
            let message = match told.message.is_empty() {
                true => std::mem::take(&mut running.told.message),
                false => told.message,
            };
            running.told = Told { message, ..told };
        }
    }

    pub(super) fn ends(&self) {
        let mut state = self.lock();
        (state.running, state.stopped_by) = (None, None);
    }
}
