//! Answering a sync: count what is reported, say what is new, grant what is free.
//!
//! Order matters. The session decides first whether anything of the request counts. Then reports are taken in, then grants are
//! computed, then everything that changed goes to the journal in one batch; the reply leaves when that is durable.

mod allocations;
mod duel;
mod grants;
pub(super) mod reports;
mod steps;
mod trial;
pub(super) mod usage;
mod windows;

use super::Plane;
use super::clock::Now;
use super::export::EndedStep;
use super::fleet::{Admission, Refusal};
use super::rollout::watch_offer;
use super::state::State;
use crate::buckets::{Contract, POOL_ACCOUNT, Roster, SessionNumber};
use crate::error::ApiError;
use crate::keys::Dialect;
use crate::store::{Batch, StoreError};
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{PROTOCOL, SyncError, SyncErrorCode, SyncReply, SyncRequest};
use reports::{is_lump, take_forecasts, take_reports};

pub(super) use allocations::Told;
pub(super) use steps::{Closing, is_set_back};
pub(super) use trial::round_at;

use std::collections::BTreeSet;

/// A reply, and the HTTP status that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    /// HTTP status.
    pub status: u16,
    /// The reply; its `error` is set if the request was refused.
    pub reply: SyncReply,
}

/// What the lock was held for.
struct Answered {
    reply: SyncReply,
    dialect: Dialect,
    /// The steps of usage history that are closed with this sync.
    ended: Vec<EndedStep>,
}

/// Who is being answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    /// The request.
    pub request: &'a SyncRequest,
    /// How it names customers.
    pub dialect: Dialect,
    /// The session that it belongs to.
    pub session: SessionNumber,
    /// When that session synced before.
    pub synced_at: TimeUs,
    /// It has not synced with this server before, or not since its session had ended: its reports may be of any time.
    pub is_new_here: bool,
    /// Who is there.
    pub roster: &'a Roster,
    /// The present.
    pub now: Now,
}

impl Plane {
    /// Answers a sync.
    pub async fn sync(&self, request: SyncRequest) -> SyncAnswer {
        let outcome = {
            let mut state = self.lock();
            let now = self.clock.now();
            let mut batch = Batch::default();
            let answer = self.answer(&mut state, &mut batch, &request, now);
            if answer.is_err() {
                state.syncs_refused = state.syncs_refused.saturating_add(1);
            }
            state.submitted = state.submitted.saturating_add(1);
            let number = state.submitted;
            let answer = answer.map(
                |Answered {
                     reply,
                     dialect,
                     ended,
                 }| {
                    state
                        .ended
                        .extend(ended.into_iter().map(|ended| (number, ended)));
                    (reply, dialect)
                },
            );
            // An empty batch says nothing of those before it.
            let tells_of = (!batch.is_empty() && !state.ended.is_empty()).then_some(number);
            // A refused request may still have changed the state: an expired session, a step that ended.
            let receipt = self.journal.submit(batch);
            answer.map(|(reply, dialect)| (reply, dialect, receipt, tells_of))
        };
        let (mut reply, dialect, receipt, tells_of) = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => return refused(&request, &refusal),
        };
        let saved = receipt.durable().await;
        if let Some(number) = tells_of {
            self.export_ended(number, &saved);
        }
        if let Err(error) = saved {
            return refused(
                &request,
                &Refusal {
                    code: SyncErrorCode::StoreUnavailable,
                    error: error.into(),
                },
            );
        }
        if let Err(error) = self.add_windows(&request, dialect, &mut reply) {
            return refused(
                &request,
                &Refusal {
                    code: SyncErrorCode::StoreUnavailable,
                    error: error.into(),
                },
            );
        }
        SyncAnswer { status: 200, reply }
    }

    fn answer(
        &self,
        state: &mut State,
        batch: &mut Batch,
        request: &SyncRequest,
        now: Now,
    ) -> Result<Answered, Refusal> {
        if state.is_stopped {
            return Err(unavailable(StoreError::Stopped));
        }
        let dialect = self.understand(request)?;
        if state.policies.compiled().is_none() {
            let error = ApiError::conflict(
                "no_policy",
                "no policy has been applied yet",
                "run `forebay policy apply FILE`",
            );
            return Err(Refusal {
                code: SyncErrorCode::NoPolicy,
                error,
            });
        }
        let id = request.gateway_id.as_str();
        let terms = self.settings.terms();
        for ended in state.fleet.expire(terms, now.mono) {
            tracing::info!(gateway = %ended, "a gateway was silent for so long that what it held is taken back");
            state.save_gateway(batch, &ended);
        }
        let admission = state.fleet.admit(request, terms, now.mono)?;
        state.syncs = state.syncs.saturating_add(1);
        match admission {
            Admission::Begins => {
                tracing::info!(gateway = %id, incarnation = request.incarnation, "a gateway begins to take part");
            }
            Admission::Returns { .. } => {
                tracing::info!(gateway = %id, "a gateway that was given up is back")
            }
            Admission::Continues | Admission::Lapsed => {}
        }
        let (number, synced_at, is_new_here, lost) = {
            let Some(session) = state.fleet.session_mut(id) else {
                return Err(unavailable(StoreError::Stopped));
            };
            session.policy_epoch_applied = request.policy_epoch_applied;
            session.policy_offer.hear(request);
            session.version = request.version.chars().take(64).collect();
            if let Some(status) = &request.model_status {
                session.hear_forecaster(status);
            }
            let lost = session.hear(request.reply_applied);
            session.sequence = request.sequence;
            let is_new_here = session.syncs == 0 || matches!(admission, Admission::Returns { .. });
            (session.number, session.last_reply_at, is_new_here, lost)
        };
        take_forecasts(state, request, dialect);
        let in_history = !is_lump(state, request, admission, &self.settings, now);
        let ended = state
            .advance_history(&*self.store, batch, &self.settings, in_history, now)
            .map_err(unavailable)?;
        let mut changed = BTreeSet::new();
        for customer in lost {
            if let Some(account) = state.accounts.get_mut(&customer) {
                account.lost(number);
            }
        }
        if admission == Admission::Lapsed {
            changed.extend(lower(state, number));
        }
        // From here on its lease counts as live again: what it may be working with has been lowered to what it has in any case.
        if let Some(session) = state.fleet.session_mut(id) {
            session.last_reply_at = now.mono;
            session.syncs = session.syncs.saturating_add(1);
        }
        let roster = state.fleet.roster(terms, now.mono);
        if let Admission::Returns { ended_at } = admission {
            changed.extend(forget(state, number, ended_at, &roster));
        }
        let caller = Caller {
            request,
            dialect,
            session: number,
            synced_at,
            is_new_here,
            roster: &roster,
            now,
        };
        let due = take_reports(state, &caller, &self.settings, in_history, &mut changed);
        self.watch_canary(state, batch, id, now);
        self.watch_alerts(state, now);
        state.alerts.save_sometimes(batch);
        self.watch_challenger(state, batch, id, now);
        watch_offer(state, id);
        let mut reply = self.reply(state, request, dialect, now);
        if let Some(session) = state.fleet.session_mut(id) {
            let delta = reply.policy.as_ref();
            session.policy_offer.told(delta, request.sequence);
        }
        self.add_grants(state, &caller, due, &mut reply, &mut changed);
        usage::add_step_usage(state, &caller, &mut reply);
        allocations::add_allocations(state, &caller, &mut reply);
        for customer in changed {
            state.save_grants(batch, customer, now.mono);
        }
        state.save_some(batch, now.mono);
        state.ring.seal_some(batch, self.journal.progress());
        state.save_gateway(batch, id);
        Ok(Answered {
            reply,
            dialect,
            ended,
        })
    }

    fn understand(&self, request: &SyncRequest) -> Result<Dialect, Refusal> {
        if request.protocol != PROTOCOL {
            let message = format!(
                "the gateway speaks sync protocol {}, this server speaks {PROTOCOL}",
                request.protocol
            );
            let error = ApiError::invalid(
                "protocol_version",
                message,
                "run plugin and server of the same release",
            )
            .at("protocol");
            return Err(Refusal {
                code: SyncErrorCode::ProtocolVersion,
                error,
            });
        }
        self.keys.dialect(request.key_fingerprint).ok_or_else(|| {
            let message = format!(
                "the gateway hashes customer keys under the secret {:016x}, this server under {:016x}: no customer would be recognised",
                request.key_fingerprint,
                self.keys.fingerprint()
            );
            let hint = "set FOREBAY_KEY_HASH_SECRET to the same 32 hexadecimal digits for both";
            let error = ApiError::conflict("key_secret_mismatch", message, hint).at("key_fingerprint");
            Refusal { code: SyncErrorCode::KeySecretMismatch, error }
        })
    }

    fn reply(&self, state: &State, request: &SyncRequest, dialect: Dialect, now: Now) -> SyncReply {
        let epoch = state.policies.active_epoch();
        SyncReply {
            sequence: request.sequence,
            sent_at_us: request.sent_at_us,
            server_time_ms: now.unix_ms,
            policy: state.directory.delta(
                epoch,
                state.policies.encoded(),
                request.policy_epoch_seen,
                request.policy_cursor,
                dialect,
            ),
            lease_ttl_ms: self.settings.lease_ttl_ms,
            fallback_ttl_ms: self.settings.fallback_ttl_ms,
            sync_interval_ms: self.settings.sync_interval_ms,
            model: state.models.offer(&request.gateway_id),
            challenger: state.models.challenge(),
            policy_epoch: epoch,
            step_ms: self.settings.step_ms,
            step_now: state.step_now,
            step_elapsed_ms: u32::try_from(now.unix_ms % u64::from(self.settings.step_ms.max(1)))
                .unwrap_or(0),
            ..SyncReply::default()
        }
    }
}

/// A gateway is back after its lease: all of its rates go down to the fallback rates, and it must be told so.
fn lower(state: &mut State, number: SessionNumber) -> Vec<CustomerHash> {
    let lowered: Vec<CustomerHash> = state
        .accounts
        .iter_mut()
        .filter_map(|(customer, account)| account.lapse(number).then_some(*customer))
        .collect();
    if let Some(session) = state.fleet.numbered(number) {
        // Pools are told with each reply.
        let customers = lowered.iter().filter(|hash| **hash != POOL_ACCOUNT);
        session.pending.extend(customers.copied());
    }
    lowered
}

/// A gateway is back after its session had ended: what it held has refilled here since then.
fn forget(
    state: &mut State,
    number: SessionNumber,
    ended_at: TimeUs,
    roster: &Roster,
) -> Vec<CustomerHash> {
    let with_part = state.accounts.iter();
    let customers: Vec<CustomerHash> = with_part
        .filter(|(_, account)| account.part(number).is_some())
        .map(|(customer, _)| *customer)
        .collect();
    let forgotten = customers.into_iter().filter(|customer| {
        let limits = state.limits_of(*customer).unwrap_or_default();
        let contract = Contract {
            customer: *customer,
            limits: &limits,
            expected_per_s: &[],
            roster,
        };
        state
            .accounts
            .get_mut(customer)
            .is_some_and(|account| account.forget(&contract, number, ended_at))
    });
    forgotten.collect()
}

fn unavailable(error: StoreError) -> Refusal {
    Refusal {
        code: SyncErrorCode::StoreUnavailable,
        error: error.into(),
    }
}

/// So much of a gateway's name goes into the log.
const MAX_NAME_CHARS: usize = 128;

fn refused(request: &SyncRequest, refusal: &Refusal) -> SyncAnswer {
    let message = format!("{}; {}", refusal.error.message, refusal.error.hint);
    // Anything may stand in the name of a gateway that is refused.
    let start: String = request.gateway_id.chars().take(MAX_NAME_CHARS).collect();
    tracing::warn!(gateway = %start.escape_debug(), code = %refusal.error.code, "refused a sync: {message}");
    let error = Some(SyncError {
        code: refusal.code.into(),
        message,
    });
    let reply = SyncReply {
        sequence: request.sequence,
        sent_at_us: request.sent_at_us,
        error,
        ..SyncReply::default()
    };
    SyncAnswer {
        status: refusal.error.status,
        reply,
    }
}
