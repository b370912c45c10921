//! From an offered release to a running model: verify, fetch, check, swap.
//!
//! Nothing but a successful swap changes what runs: every way in which an offer can fail leaves the last good model in place and a
//! reason for the operator. Fetching and loading happen in different ticks, and loading is the one piece of work that may exceed a
//! tick's budget.
//!
//! A challenger goes the same way, beside the model that runs and without a word in what runs: it has no epochs to remember, and one that
//! is refused is gone.

use forebay_forecast::{Limits, Model};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use forebay_wire::sync::{ModelRelease, ModelState};
use sha2::{Digest, Sha256};

use super::release::{Refusal, Role, SignedRelease, TrustedKeys};
use crate::host::{CallId, Cas, Host, HttpAnswer};

/// Where the highest epoch that ran is kept beside the ledger: a trap of this VM must not open the door to older releases.
const FLOOR_KEY: &str = "fb/1/model";

/// A fetch that failed is tried again after this long, doubled with each further failure.
const RETRY_US: u64 = 2_000_000;
const RETRY_DOUBLINGS_MOST: u32 = 6;

/// Longest reason that is sent to the control plane.
const REASON_BYTES_MOST: usize = 512;

/// A model that passed every check.
#[derive(Debug)]
pub struct Running {
    /// Epoch of the statement that released it.
    pub epoch: u64,
    /// Digest of its file.
    pub digest: ModelDigest,
    /// The model.
    pub model: Model,
}

/// What the refresh wants from its owner next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Fetch this path.
    Fetch(String),
    /// Call [`ModelRefresh::load`]; it takes long.
    Load,
}

/// The running model, the one before, and the one on its way.
#[derive(Debug)]
pub struct ModelRefresh {
    role: Role,
    keys: TrustedKeys,
    bytes_most: u32,
    floor: u64,
    running: Option<Running>,
    previous: Option<Running>,
    /// Epoch and digest of the newest offer that was decided, so that the same offer in each reply costs nothing.
    decided: Option<(u64, Vec<u8>)>,
    pending: Pending,
    state: ModelState,
    reason: String,
}

#[derive(Debug)]
enum Pending {
    Nothing,
    ToFetch {
        release: SignedRelease,
        not_before_us: u64,
        failures: u32,
    },
    Fetching {
        release: SignedRelease,
        call: CallId,
        sent_at_us: u64,
        failures: u32,
    },
    ToLoad {
        release: SignedRelease,
        file: Vec<u8>,
    },
}

// === impl ModelRefresh ===

impl ModelRefresh {
    /// No model yet. The floor of earlier epochs is read from beside the ledger.
    pub fn new(host: &impl Host, keys: TrustedKeys, bytes_most: u32) -> Self {
        let (floor, _) = floor(host);
        Self {
            // The model that ran when the VM trapped is not in memory any more and must be taken again.
            floor: floor.saturating_sub(1),
            role: Role::InForce,
            ..Self::beside(keys, bytes_most)
        }
    }

    /// No challenger yet.
    #[must_use]
    pub fn beside(keys: TrustedKeys, bytes_most: u32) -> Self {
        Self {
            role: Role::Beside,
            keys,
            bytes_most,
            floor: 0,
            running: None,
            previous: None,
            decided: None,
            pending: Pending::Nothing,
            state: ModelState::None,
            reason: String::new(),
        }
    }

    /// A challenger has to be newer than the model that is in force under this epoch.
    pub fn follow(&mut self, epoch: u64) {
        self.floor = epoch;
    }

    /// Nobody offers a challenger any more. Returns whether there was one, or one on its way.
    pub fn dismiss(&mut self) -> bool {
        let was_there = self.state != ModelState::None;
        self.running = None;
        self.decided = None;
        self.pending = Pending::Nothing;
        self.state = ModelState::None;
        self.reason.clear();
        was_there
    }

    /// The model that runs.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// The model that runs, to run it.
    pub fn running_mut(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// How the newest offer fared, and why.
    #[must_use]
    pub fn state(&self) -> (ModelState, &str) {
        (self.state, &self.reason)
    }

    /// Epoch of the newest offer that was decided; 0 before the first.
    #[must_use]
    pub fn offered_epoch(&self) -> u64 {
        self.decided.as_ref().map_or(0, |(epoch, _)| *epoch)
    }

    /// Takes note of the release that a sync reply names. One of the file that runs already is in force at once: swapping it for itself
    /// would throw away what the ensemble has learned.
    ///
    /// # Errors
    /// The offer was refused; the first time it is seen, later the same offer is silently ignored.
    pub fn offer(
        &mut self,
        host: &impl Host,
        offer: &ModelRelease,
        now_us: u64,
    ) -> Result<(), Refusal> {
        let seen = self
            .decided
            .as_ref()
            .is_some_and(|(epoch, digest)| *epoch == offer.epoch && *digest == offer.digest);
        if seen {
            return Ok(());
        }
        self.decided = Some((offer.epoch, offer.digest.clone()));
        let verified =
            SignedRelease::verify(offer, self.role, &self.keys, self.floor, self.bytes_most);
        let release = match verified {
            Ok(release) => release,
            Err(refusal) => return Err(self.refuse(refusal)),
        };
        self.reason.clear();
        let statement = release.statement;
        if let Some(running) = &mut self.running
            && running.digest == statement.digest
        {
            running.epoch = statement.epoch;
            self.pending = Pending::Nothing;
            self.state = ModelState::Running;
            self.put_in_force(host, statement.epoch);
            return Ok(());
        }
        self.state = ModelState::Fetching;
        self.pending = Pending::ToFetch {
            release,
            not_before_us: now_us,
            failures: 0,
        };
        Ok(())
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self, now_us: u64) -> Step {
        match &self.pending {
            Pending::ToFetch {
                release,
                not_before_us,
                ..
            } if now_us >= *not_before_us => {
                if self.holds_previous(release) {
                    Step::Load
                } else {
                    Step::Fetch(release.path.clone())
                }
            }
            Pending::ToLoad { .. } => Step::Load,
            _ => Step::Rest,
        }
    }

    /// Notes that the fetch was started, or could not be (`None`).
    pub fn fetching(&mut self, call: Option<CallId>, now_us: u64) {
        self.pending = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::ToFetch {
                release, failures, ..
            } => match call {
                Some(call) => Pending::Fetching {
                    release,
                    call,
                    sent_at_us: now_us,
                    failures,
                },
                None => retry(release, failures, now_us),
            },
            other => other,
        };
    }

    /// Tries a fetch again that the host will not answer any more, this long after it was sent. Returns whether there was one.
    pub fn give_up_lost(&mut self, now_us: u64, lost_after_us: u64) -> bool {
        let is_lost = matches!(&self.pending, Pending::Fetching { sent_at_us, .. }
            if now_us.saturating_sub(*sent_at_us) > lost_after_us);
        if !is_lost {
            return false;
        }
        self.pending = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Fetching {
                release, failures, ..
            } => retry(release, failures, now_us),
            other => other,
        };
        self.reason = reason(&Refusal::Fetch { status: 0 });
        true
    }

    /// Takes the answer to a fetch. `None` when the call is not ours.
    pub fn fetched(
        &mut self,
        call: CallId,
        answer: &mut HttpAnswer,
        now_us: u64,
    ) -> Option<Result<(), Refusal>> {
        if !matches!(&self.pending, Pending::Fetching { call: ours, .. } if *ours == call) {
            return None;
        }
        let Pending::Fetching {
            release, failures, ..
        } = std::mem::replace(&mut self.pending, Pending::Nothing)
        else {
            return None;
        };
        if answer.status != 200 {
            self.pending = retry(release, failures, now_us);
            let refusal = Refusal::Fetch {
                status: answer.status,
            };
            self.reason = reason(&refusal);
            return Some(Err(refusal));
        }
        if answer.body.len() > usize::try_from(self.bytes_most).unwrap_or(usize::MAX) {
            let bytes = u64::try_from(answer.body.len()).unwrap_or(u64::MAX);
            return Some(Err(self.refuse(Refusal::TooLarge {
                bytes,
                most: u64::from(self.bytes_most),
            })));
        }
        self.pending = Pending::ToLoad {
            release,
            file: std::mem::take(&mut answer.body),
        };
        Some(Ok(()))
    }

    /// Checks the fetched file and swaps it in. Returns the epoch that runs now.
    ///
    /// # Errors
    /// Why the file was refused; the model that ran before runs on.
    pub fn load(
        &mut self,
        host: &impl Host,
        limits: &Limits,
        batch_rows: usize,
    ) -> Result<u64, Refusal> {
        let (release, model) = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::ToLoad { release, file } => match check(&release, &file, limits, batch_rows) {
                Ok(model) => (release, model),
                Err(refusal) => return Err(self.refuse(refusal)),
            },
            Pending::ToFetch { release, .. } => match self.previous.take() {
                Some(previous) => (release, previous.model),
                None => return Err(self.refuse(Refusal::Fetch { status: 0 })),
            },
            other => {
                self.pending = other;
                return Ok(self.floor);
            }
        };
        let epoch = release.statement.epoch;
        let before = self.running.replace(Running {
            epoch,
            digest: release.statement.digest,
            model,
        });
        self.previous = before.filter(|_| self.role == Role::InForce);
        self.state = ModelState::Running;
        self.reason.clear();
        self.put_in_force(host, epoch);
        Ok(epoch)
    }

    /// From now on older epochs are refused, unless nothing is decided by the model.
    fn put_in_force(&mut self, host: &impl Host, epoch: u64) {
        if self.role == Role::InForce {
            self.floor = epoch;
            raise_floor(host, epoch);
        }
    }

    /// The running model failed while running: none runs until the next release.
    pub fn withdraw(&mut self, failure: &str) {
        self.running = None;
        self.state = ModelState::Refused;
        self.reason = shortened(failure.to_owned());
    }

    /// A roll-back to the model that ran before this one needs no download.
    fn holds_previous(&self, release: &SignedRelease) -> bool {
        release.statement.kind == ReleaseKind::RollBack
            && self
                .previous
                .as_ref()
                .is_some_and(|previous| previous.digest == release.statement.digest)
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.state = ModelState::Refused;
        self.reason = reason(&refusal);
        self.pending = Pending::Nothing;
        if self.role == Role::Beside {
            // The one before is not what is to be compared any more.
            self.running = None;
        }
        refusal
    }
}

/// The highest epoch that ran on this gateway, and the number to write another one with.
fn floor(host: &impl Host) -> (u64, Option<Cas>) {
    match host.shared_data(FLOOR_KEY) {
        Some((bytes, cas)) => {
            let epoch = bytes.first_chunk::<8>();
            (
                epoch.map_or(0, |epoch| u64::from_le_bytes(*epoch)),
                Some(cas),
            )
        }
        None => (0, None),
    }
}

/// Loading takes so long that another VM may lead by now, with a newer model: the floor never sinks. A refused write weakens it after a
/// trap; the signature still has to hold.
fn raise_floor(host: &impl Host, epoch: u64) {
    let (before, cas) = floor(host);
    if epoch > before {
        let _refused = host.set_shared_data(FLOOR_KEY, &epoch.to_le_bytes(), cas);
    }
}

fn check(
    release: &SignedRelease,
    file: &[u8],
    limits: &Limits,
    batch_rows: usize,
) -> Result<Model, Refusal> {
    if Sha256::digest(file).as_slice() != release.statement.digest {
        return Err(Refusal::Digest);
    }
    Ok(Model::load(file, limits, batch_rows)?)
}

fn retry(release: SignedRelease, failures: u32, now_us: u64) -> Pending {
    let wait_us = RETRY_US.saturating_mul(1_u64 << failures.min(RETRY_DOUBLINGS_MOST));
    Pending::ToFetch {
        release,
        not_before_us: now_us.saturating_add(wait_us),
        failures: failures.saturating_add(1),
    }
}

fn reason(refusal: &Refusal) -> String {
    shortened(refusal.to_string())
}

fn shortened(mut text: String) -> String {
    let mut end = text.len().min(REASON_BYTES_MOST);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.truncate(end);
    text
}
