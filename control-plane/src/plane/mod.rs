//! The control plane itself: the state, and everything that changes it.
//!
//! One mutex holds all of the state, and is held only to compute: never over I/O that can wait, never over an await. A change is
//! computed and queued for the journal under the lock, and acknowledged when it is durable. Finer locks were the worse
//! alternative: a sync touches session, accounts, history and policy together, and their order would be a rule to remember.

mod alerts;
mod allocation;
mod anomaly;
mod audit;
mod canary;
mod challenger;
mod clock;
mod covariates;
mod customers;
mod directory;
mod documents;
mod dry_run;
mod export;
mod fleet;
mod forecasts;
mod history;
mod kept;
mod later;
mod limits;
mod load;
mod measurements;
mod models;
mod policies;
mod releases;
mod risk;
mod rollout;
mod score;
mod session;
mod sides;
mod state;
mod status;
mod sync;
mod tally;
mod training;
mod view;

pub use alerts::{AlertView, Alerts, AlertsView, DriftView};
pub use allocation::Allocations;
pub(crate) use allocation::CycleCounts;
pub use audit::{AuditLog, AuditPage};
pub use canary::{CanaryView, Lack, Promotion, Share};
pub use challenger::{ChallengeRequest, ChallengerView, DuelEvidence, Missing, RefusalView};
pub use clock::{Clock, Now};
pub(crate) use covariates::Covariates;
pub use customers::CustomerChange;
pub use directory::{Directory, Member, Override};
pub(crate) use documents::DocumentPlace;
pub use fleet::{Admission, Fleet};
pub(crate) use forecasts::Moment;
pub use history::{ImportedSeries, SeriesView};
pub use models::{ModelView, Origin};
pub use policies::VersionInfo;
pub use releases::{Release, ReleaseRequest, Signer};
pub(crate) use risk::SpilloverAsked;
pub use rollout::RolloutView;
pub use session::{Session, Terms};
pub use state::{Settings, State};
pub use status::{GatewayView, RunningModelView, StatusView};
pub use sync::SyncAnswer;
pub use training::{FoldView, TrainingBook, TrainingOutcome, TrainingRun, TrialView};
pub use view::{CustomerView, ResourceView};

use crate::alertmanager::Notifier;
use crate::error::ApiError;
use crate::forecasts::Desk;
use crate::keys::Keys;
use crate::models::SigningKeyFile;
use crate::prometheus::RemoteWrite;
use crate::store::{Batch, Journal, Receipt, Start, Store, StoreError, mark_clean};
use allocation::Cycles;
use anomaly::Anomalies;
use audit::{Deed, Done};
use documents::Documents;
use dry_run::DryRunDesk;
use forebay_sharing::{Forecast, Law};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A change of no more than this is made without asking whether there is room for it.
const SMALL_BYTES: usize = 64 << 10;
/// Room for changes like syncs that a larger one must leave.
const ROOM_LEFT_BYTES: u64 = 1 << 20;

/// A running control plane.
#[derive(Debug)]
pub struct Plane {
    state: Mutex<State>,
    journal: Journal,
    store: Arc<dyn Store>,
    clock: Clock,
    keys: Keys,
    settings: Settings,
    law: &'static dyn Law,
    start: Start,
    remote_write: Option<RemoteWrite>,
    covariates: Option<Covariates>,
    notifier: Option<Notifier>,
    signing_key: Option<SigningKeyFile>,
    forecasts: Desk,
    cycles: Cycles,
    spillover: crate::risk::Desk,
    anomalies: Anomalies,
    dry_run: DryRunDesk,
    documents: Documents,
}

/// Why a control plane does not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("cannot start the journal's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The store was filled under other settings.
    #[error(
        "usage history in the store has steps of {found_ms} ms, but --step-ms is {given_ms}: start with --step-ms {found_ms}, or with an empty --data directory"
    )]
    StepLength {
        /// What the store has.
        found_ms: u32,
        /// What was given.
        given_ms: u32,
    },
    /// Each name has its place in the store for ever.
    #[error(
        "covariates of this store have had {0} names, and it has no place for another: use one that it knows, or start with an empty --data directory"
    )]
    CovariateNames(usize),
}

impl Plane {
    /// Brings the control plane up from what the store holds.
    ///
    /// # Errors
    /// When the store cannot be used, or holds what this program did not write.
    pub fn start(
        store: Arc<dyn Store>,
        keys: Keys,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let (mut state, start) = load::load(&*store, &keys, &settings, clock.now())?;
        let anomalies = Anomalies::load(&*store, settings.step_ms)?;
        state.capped = Arc::new(anomalies.book().capped());
        let journal = Journal::start(Arc::clone(&store))?;
        let plane = Self {
            state: Mutex::new(state),
            journal,
            store,
            clock,
            keys,
            settings,
            law: &Forecast,
            start,
            remote_write: None,
            covariates: None,
            notifier: None,
            signing_key: None,
            forecasts: Desk::default(),
            cycles: Cycles::default(),
            spillover: crate::risk::Desk::default(),
            anomalies,
            dry_run: DryRunDesk::default(),
            documents: Documents::default(),
        };
        plane.take_up_candidate();
        Ok(plane)
    }

    /// Divides contracts by another law than ours, so that a simulation can compare them.
    #[must_use]
    pub fn divided_by(mut self, law: &'static dyn Law) -> Self {
        self.law = law;
        self
    }

    /// Sends the usage of each step that ends from now on.
    #[must_use]
    pub fn exported_by(mut self, remote_write: RemoteWrite) -> Self {
        self.remote_write = Some(remote_write);
        self
    }

    /// Marks a clean stop, after which the next start trusts every balance.
    ///
    /// # Errors
    /// When the mark cannot be made durable.
    pub async fn stop(&self) -> Result<(), StoreError> {
        if let Err(error) = self.watch_customers().await
            && !self.is_stopped()
        {
            tracing::warn!(%error, "the last step is missing from what is known of customers");
        }
        self.save_all_ways();
        let mut batch = Batch::default();
        let (receipt, number) = {
            let mut state = self.lock();
            state.is_stopped = true;
            state.submitted = state.submitted.saturating_add(1);
            let number = state.submitted;
            match state.close(&*self.store, &mut batch, true) {
                Ok(ended) => state.ended.extend(ended.map(|ended| (number, ended))),
                Err(error) => {
                    tracing::warn!(%error, "the usage of the last step is missing from the history in part");
                }
            }
            state.save_accounts(&mut batch);
            state.alerts.save(&mut batch);
            mark_clean(&mut batch);
            (self.journal.submit(batch), number)
        };
        let saved = receipt.durable().await;
        self.export_ended(number, &saved);
        if let Some(remote_write) = &self.remote_write {
            remote_write.finish().await;
        }
        if let Some(notifier) = &self.notifier {
            notifier.finish().await;
        }
        saved
    }

    /// The settings it runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// A change that panicked half-way would have left the process: panics are denied by lint, so the state behind a poisoned
    /// lock is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before a change is made whose rows may have so many bytes. They are in the store twice for a while: as they arrived, and where
    /// they belong.
    fn make_room(&self, row_bytes: usize) -> Result<(), StoreError> {
        if row_bytes <= SMALL_BYTES {
            return Ok(());
        }
        let twice = (row_bytes as u64).saturating_mul(2);
        self.store.make_room(twice.saturating_add(ROOM_LEFT_BYTES))
    }

    /// Computes a change under the lock, with its record in the audit log, and waits until both are durable.
    async fn change<T>(
        &self,
        deed: Deed,
        work: impl FnOnce(&mut State, &mut Batch, Now) -> Result<Done<T>, ApiError>,
    ) -> Result<T, ApiError> {
        let (value, receipt): (T, Receipt) = {
            let mut state = self.lock();
            if state.is_stopped {
                return Err(StoreError::Stopped.into());
            }
            let mut batch = Batch::default();
            let now = self.clock.now();
            let done = work(&mut state, &mut batch, now)?;
            let keep = self.settings.audit_keep;
            state
                .audit
                .append(&mut batch, deed, done.outcome, now, keep);
            (done.value, self.journal.submit(batch))
        };
        receipt.durable().await?;
        Ok(value)
    }
}
