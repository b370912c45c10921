//! The candidate policy that runs beside the one in force, without effect.
//!
//! The store has its document, so that it goes on after a restart; counts begin anew then, and say from when. They begin anew with each
//! version that comes into force as well: what was
//! counted against another policy is no answer any more.
//!
//! The state is locked only to read, a thousand customers at a time, and nothing is written to it: whatever a gateway is answered is the
//! same with a candidate and without. How it stands is published when a step has been counted, and is there at once for whoever asks: the
//! API
//! does not wait for the thread that counts. To lock what is counted for both was the worse alternative: after a gap a step takes
//! seconds.

use super::Plane;
use super::audit::{Deed, Done};
use super::policies::damaged;
use super::state::State;
use super::sync::usage::Finished;
use crate::auth::Caller;
use crate::buckets::{Counters, POOL_ACCOUNT};
use crate::document::{CheckedPolicy, Format, check};
use crate::dry_run::{
    Counting, DryRunQuery, DryRunView, Expecting, LINES_MOST, Listed, Seen, Treated,
};
use crate::error::ApiError;
use crate::models::{digest_of, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_core::policy::Policy;
use forebay_simulator::pool::what_if::{CUSTOMERS_MOST, Standing};
use forebay_wire::key::CustomerHash;
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keys of single values in the store.
const META_CANDIDATE: &[u8] = b"policy_candidate";
const META_DOCUMENT: &[u8] = b"policy_candidate_document";

/// Customers that are read without giving the lock back.
const AT_ONCE: usize = 1_024;
/// Steps that a second can be told apart in.
const STEP_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// What is known of a candidate.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    digest: String,
    since_unix_ms: u64,
}

/// Where the API finds what is known, and the thread that counts keeps what it has counted.
#[derive(Debug, Default)]
pub(super) struct DryRunDesk {
    /// Locked for a moment only, by everybody.
    shown: Mutex<Option<Arc<Shown>>>,
    /// Locked for as long as a step takes, by whoever counts and nobody else.
    work: Mutex<Option<Work>>,
}

/// A candidate, and how it stands.
#[derive(Debug)]
struct Shown {
    candidate: Arc<Candidate>,
    /// With as many lines as anybody may ask for.
    view: DryRunView,
}

#[derive(Debug)]
struct Candidate {
    header: Header,
    listed: Listed,
    /// It is counted from a step that is closed later than this one: the running one had begun before the candidate came.
    newest_closed: u64,
}

/// What has been counted of a candidate.
#[derive(Debug)]
struct Work {
    candidate: Arc<Candidate>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// For a step that is closed later than this one.
    Waiting(u64),
    Counting(Box<Counting>),
}

// === impl DryRunDesk ===

impl DryRunDesk {
    fn lock_shown(&self) -> MutexGuard<'_, Option<Arc<Shown>>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> Option<Arc<Shown>> {
        self.lock_shown().clone()
    }

    /// Another candidate, of which nothing has been counted yet.
    fn take_up(&self, candidate: Candidate, step_ms: u32) {
        let view = candidate.view(&Progress::Waiting(candidate.newest_closed), step_ms);
        let shown = Shown {
            candidate: Arc::new(candidate),
            view,
        };
        *self.lock_shown() = Some(Arc::new(shown));
    }

    /// Shows how it stands, unless another candidate has come meanwhile, or none is tried any more.
    fn show(&self, work: &Work, step_ms: u32) {
        let candidate = Arc::clone(&work.candidate);
        let view = candidate.view(&work.progress, step_ms);
        let mut shown = self.lock_shown();
        let is_same = |shown: &Arc<Shown>| Arc::ptr_eq(&shown.candidate, &candidate);
        if shown.as_ref().is_some_and(is_same) {
            *shown = Some(Arc::new(Shown { candidate, view }));
        }
    }
}

// === impl Candidate ===

impl Candidate {
    fn new(header: Header, checked: &CheckedPolicy, plane: &Plane, newest_closed: u64) -> Self {
        Self {
            header,
            listed: Listed::new(checked, &plane.keys),
            newest_closed,
        }
    }

    fn view(&self, progress: &Progress, step_ms: u32) -> DryRunView {
        let counting = match progress {
            Progress::Waiting(_) => None,
            Progress::Counting(counting) => Some(counting),
        };
        DryRunView {
            digest: self.header.digest.clone(),
            since_unix_ms: self.header.since_unix_ms,
            customers: self.listed.customers(),
            live: counting.map_or(0, |counting| counting.live),
            counted_from_unix_ms: counting.map(|counting| counting.from_unix_ms),
            steps: counting.map_or(0, |counting| counting.steps),
            step_ms,
            gaps: counting.map_or(0, |counting| counting.gaps),
            compared: counting.map_or(0, |counting| counting.hashes.len()),
            resources: counting
                .map(|counting| counting.resources(LINES_MOST))
                .unwrap_or_default(),
        }
    }
}

/// What the store has.
fn load(store: &dyn Store) -> Result<Option<(Header, CheckedPolicy)>, StoreError> {
    let damaged = |reason: String| StoreError::Damaged {
        what: "candidate policy",
        reason,
    };
    let rows = (
        store.get(Table::Meta, META_CANDIDATE)?,
        store.get(Table::Meta, META_DOCUMENT)?,
    );
    let (Some(header), Some(document)) = rows else {
        return Ok(None);
    };
    let header = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    let text = String::from_utf8(document).map_err(|error| damaged(error.to_string()))?;
    let checked = check(&text, Format::Json).map_err(|faults| damaged(faults.to_string()))?;
    Ok(Some((header, checked)))
}

impl Plane {
    /// Goes on with the candidate that the store has. One that cannot be read any more is left out: nothing depends on it.
    pub(super) fn take_up_candidate(&self) {
        match load(&*self.store) {
            Ok(None) => {}
            Ok(Some((header, checked))) => {
                let candidate = Candidate::new(header, &checked, self, 0);
                self.dry_run.take_up(candidate, self.settings.step_ms);
            }
            Err(error) => tracing::warn!(%error, "the candidate policy is not tried any more"),
        }
    }

    /// Tries a document beside the policy in force, in place of another one that is tried.
    ///
    /// # Errors
    /// When it could not be put in force, or steps of usage say too little of seconds.
    pub async fn try_policy(
        &self,
        by: &Caller,
        text: &str,
        format: Format,
    ) -> Result<DryRunView, ApiError> {
        let checked = self.check_policy(text, format)?;
        self.active_policy()?;
        let step_ms = self.settings.step_ms;
        if !STEP_MS.contains(&step_ms) || !step_ms.is_multiple_of(1_000) {
            let message = format!(
                "steps of usage are {step_ms} ms long, and a dry run needs whole seconds, 1 s to 1 h"
            );
            let hint = "start the server with such a --step-ms and an empty --data directory, or use `forebay simulate --against`";
            return Err(ApiError::conflict("steps_unfit", message, hint));
        }
        let document = serde_json::to_string(&checked.document).map_err(|error| damaged(&error))?;
        let header = Header {
            digest: hex(&digest_of(document.as_bytes())),
            since_unix_ms: self.clock.now().unix_ms,
        };
        let row = serde_json::to_vec(&header).map_err(|error| damaged(&error))?;
        self.make_room(document.len())?;
        let deed = Deed::new(by, "policy.try", format!("sha256:{}", header.digest))
            .with("customers", Some(checked.compiled.customers.len()));
        let newest_closed = self
            .change(deed, |state, batch, _| {
                batch.put(Table::Meta, META_CANDIDATE, row);
                batch.put(Table::Meta, META_DOCUMENT, document);
                Ok(Done::new(state.finished.step, "tried"))
            })
            .await?;
        let candidate = Candidate::new(header, &checked, self, newest_closed);
        self.dry_run.take_up(candidate, step_ms);
        self.dry_run(&DryRunQuery::default())
    }

    /// How the candidate fares.
    ///
    /// # Errors
    /// When there is none.
    pub fn dry_run(&self, query: &DryRunQuery) -> Result<DryRunView, ApiError> {
        let shown = self.dry_run.shown().ok_or_else(no_candidate)?;
        Ok(shown.view.cut(query.lines()))
    }

    /// Ends it, and says how it stood.
    ///
    /// # Errors
    /// When there is none.
    pub async fn end_dry_run(&self, by: &Caller) -> Result<DryRunView, ApiError> {
        let view = self.dry_run(&DryRunQuery::default())?;
        let deed = Deed::new(by, "policy.try_end", format!("sha256:{}", view.digest));
        self.change(deed, |_, batch: &mut Batch, _| {
            batch.delete(Table::Meta, META_CANDIDATE);
            batch.delete(Table::Meta, META_DOCUMENT);
            Ok(Done::new((), "ended"))
        })
        .await?;
        *self.dry_run.lock_shown() = None;
        Ok(view)
    }

    /// Counts the step that was closed last, if it has not been. Takes seconds after a gap, in which how it stands can be asked for all
    /// the same.
    pub fn count_dry_run(&self) {
        let mut work = self
            .dry_run
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = self.dry_run.shown() else {
            *work = None;
            return;
        };
        let mut current = match work.take() {
            Some(current) if Arc::ptr_eq(&current.candidate, &shown.candidate) => current,
            _ => Work {
                candidate: Arc::clone(&shown.candidate),
                progress: Progress::Waiting(shown.candidate.newest_closed),
            },
        };
        drop(shown);
        if self.count_candidate(&mut current) {
            self.dry_run.show(&current, self.settings.step_ms);
        }
        *work = Some(current);
    }

    /// Whether there is news.
    fn count_candidate(&self, work: &mut Work) -> bool {
        self.hear_step();
        let (finished, live) = {
            let state = self.lock();
            (Arc::clone(&state.finished), state.policies.active_epoch())
        };
        let listed = &work.candidate.listed;
        match &mut work.progress {
            Progress::Waiting(seen) if *seen == finished.step => return false,
            Progress::Waiting(_) => {}
            Progress::Counting(counting)
                if counting.live != live || finished.step < counting.last_step =>
            {
                work.progress = Progress::Waiting(finished.step);
                return true;
            }
            Progress::Counting(counting) if counting.last_step == finished.step => return false,
            Progress::Counting(counting) => {
                self.count_step(counting, listed, &finished);
                return true;
            }
        }
        match self.begin_counting(listed, &finished) {
            Ok(Some(counting)) => work.progress = Progress::Counting(Box::new(counting)),
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "the candidate policy cannot be compared");
                work.progress = Progress::Waiting(finished.step);
            }
        }
        true
    }

    /// Begins behind a step that has been closed, with those who have asked for anything up to now, and those who can lend. None if
    /// another policy comes into force meanwhile.
    fn begin_counting(
        &self,
        listed: &Listed,
        finished: &Finished,
    ) -> Result<Option<Counting>, forebay_simulator::SimulationError> {
        let (policy, rule, members, accounts) = {
            let state = self.lock();
            let Some(policy) = state.policies.compiled() else {
                return Ok(None);
            };
            let members: Vec<CustomerHash> = state.directory.iter().map(|(hash, _)| hash).collect();
            let accounts: Vec<CustomerHash> = state.accounts.keys().copied().collect();
            let rule = state.policies.sharing().cloned();
            (policy.clone(), rule, members, accounts)
        };
        let mut chosen = Chosen::default();
        chosen.add(finished.usage.iter().map(|usage| usage.customer));
        for hashes in members.chunks(AT_ONCE) {
            let state = self.lock();
            if state.policies.active_epoch() != policy.epoch {
                return Ok(None);
            }
            let hashes = hashes.iter().copied();
            chosen.add(hashes.filter(|hash| has_guarantee(&state, &policy, *hash)));
        }
        chosen.add(listed.guaranteed());
        for hashes in accounts.chunks(AT_ONCE) {
            let state = self.lock();
            let hashes = hashes.iter().copied();
            chosen.add(hashes.filter(|hash| has_asked(&state, *hash)));
        }
        let now_unix_ms = self.clock.now().unix_ms;
        let live = (policy.epoch, policy, rule);
        let steps = (finished.step, self.settings.step_ms);
        let mut counting = Counting::begin(live, listed, steps, now_unix_ms)?;
        for seen in self.see(listed, &chosen.hashes) {
            counting.add(&seen, listed, true);
        }
        self.expect(&mut counting);
        Ok(Some(counting))
    }

    fn count_step(&self, counting: &mut Counting, listed: &Listed, finished: &Finished) {
        let newcomers = finished.usage.iter().map(|usage| usage.customer);
        let mut known = HashSet::new();
        let newcomers: Vec<CustomerHash> = newcomers
            .filter(|hash| !counting.knows(*hash) && known.insert(*hash))
            .take(CUSTOMERS_MOST.saturating_sub(counting.hashes.len()))
            .collect();
        for seen in self.see(listed, &newcomers) {
            counting.add(&seen, listed, false);
        }
        let seen = self.see(listed, &counting.hashes);
        let usage = finished.usage.iter();
        let usage = usage.map(|usage| {
            let tokens = usage.demand as f64 / 1e6;
            (usage.customer, usage.resource, tokens)
        });
        counting.count(finished.step, usage, &seen);
        self.expect(counting);
    }

    fn expect(&self, counting: &mut Counting) {
        let forecasts = self.forecast_book();
        let trails = self.cycles.trails();
        let trails = trails.lock().unwrap_or_else(PoisonError::into_inner);
        counting.expect(&Expecting {
            forecasts: &forecasts,
            trails: &trails,
            now_unix_ms: self.clock.now().unix_ms,
        });
    }

    /// What is known of these customers at this moment.
    fn see(&self, listed: &Listed, hashes: &[CustomerHash]) -> Vec<Seen> {
        let mut all = Vec::with_capacity(hashes.len());
        for hashes in hashes.chunks(AT_ONCE) {
            let state = self.lock();
            let unix_ms = self.clock.now().unix_ms;
            all.extend(hashes.iter().map(|hash| Seen {
                hash: *hash,
                treated: [
                    treated(&state, *hash, unix_ms),
                    listed.treats(*hash, state.directory.override_of(*hash), unix_ms),
                ],
                totals: totals(&state, *hash),
            }));
        }
        all
    }
}

/// Those who take part, each once, and no more than may.
#[derive(Debug, Default)]
struct Chosen {
    known: HashSet<CustomerHash>,
    hashes: Vec<CustomerHash>,
}

// === impl Chosen ===

impl Chosen {
    fn add(&mut self, hashes: impl Iterator<Item = CustomerHash>) {
        for hash in hashes {
            if self.hashes.len() >= CUSTOMERS_MOST {
                return;
            }
            if self.known.insert(hash) {
                self.hashes.push(hash);
            }
        }
    }
}

fn has_guarantee(state: &State, policy: &Policy, hash: CustomerHash) -> bool {
    let row = state.directory.get(hash);
    let row = row.and_then(|member| policy.contract(member.contract));
    row.is_some_and(|row| row.limits.iter().any(|limits| limits.guarantee.get() > 0))
}

fn has_asked(state: &State, hash: CustomerHash) -> bool {
    let account = state.accounts.get(&hash);
    hash != POOL_ACCOUNT
        && account.is_some_and(|account| {
            let mut resources = 0..account.holdings.len();
            resources.any(|resource| account.totals(resource).demand > 0)
        })
}

/// Under the policy in force.
fn treated(state: &State, hash: CustomerHash, unix_ms: u64) -> Treated {
    let policy = state.policies.compiled();
    let member = state.directory.get(hash);
    let row = member.map(|member| member.contract);
    let row = row.or_else(|| policy.and_then(|policy| policy.unknown_contract()));
    let in_force = member.map(|member| state.directory.in_force(hash, member));
    let is_denied =
        in_force.is_some_and(|in_force| in_force.frozen || in_force.ban_until_unix_ms > unix_ms);
    Treated {
        row,
        group: state.policies.sharing().and_then(|rule| rule.group(hash)),
        standing: Standing {
            is_refused: is_denied || row.is_none(),
            is_exempt: in_force.is_some_and(|in_force| in_force.exempt),
        },
    }
}

fn totals(state: &State, hash: CustomerHash) -> Vec<Counters> {
    let account = state.accounts.get(&hash);
    account.map_or_else(Vec::new, |account| {
        let resources = 0..account.holdings.len();
        resources.map(|resource| account.totals(resource)).collect()
    })
}

fn no_candidate() -> ApiError {
    ApiError::not_found(
        "no_candidate",
        "no policy is tried",
        "`forebay policy try FILE` begins with one",
    )
}
