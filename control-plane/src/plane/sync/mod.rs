//! Answering a sync: count what is reported, say what is new, grant what is free.
//!
//! Order matters. The session decides first whether anything of the request counts. Then reports are taken in, then grants are
//! computed, then everything that changed goes to the journal in one batch; the reply leaves when that is durable.

mod grants;
pub(super) mod reports;
mod windows;

use super::Plane;
use super::clock::Now;
use super::session::{self, Admission, Refusal};
use super::state::State;
use crate::error::ApiError;
use crate::keys::Dialect;
use crate::store::{Batch, StoreError};
use forebay_wire::sync::{PROTOCOL, SyncError, SyncErrorCode, SyncReply, SyncRequest};
use reports::{is_lump, take_forecasts, take_reports};

/// A reply, and the HTTP status that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    /// HTTP status.
    pub status: u16,
    /// The reply; its `error` is set if the request was refused.
    pub reply: SyncReply,
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
            // A refused request may still have changed the state: an expired session, a step that ended.
            let receipt = self.journal.submit(batch);
            answer.map(|(reply, dialect)| (reply, dialect, receipt))
        };
        let (mut reply, dialect, receipt) = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => return refused(&request, &refusal),
        };
        if let Err(error) = receipt.durable().await {
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
    ) -> Result<(SyncReply, Dialect), Refusal> {
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
        let hold_us = self.settings.hold_us();
        let admission = session::admit(
            &mut state.session,
            &mut state.tenure,
            request,
            hold_us,
            now.mono,
        )?;
        if admission == Admission::Begins {
            tracing::info!(gateway = %request.gateway_id, incarnation = request.incarnation, "a gateway begins to hold the contract");
        }
        state.syncs = state.syncs.saturating_add(1);
        state.policy_epoch_applied = request.policy_epoch_applied;
        state.gateway_version = request.version.chars().take(64).collect();
        if let Some(status) = &request.model_status {
            state.model_status = Some(status.clone());
        }
        take_forecasts(state, request, dialect);
        state
            .advance_history(&*self.store, batch, &self.settings, now)
            .map_err(unavailable)?;
        let in_history = !is_lump(state, request, admission, &self.settings, now);
        let mut changed = take_reports(state, request, dialect, &self.settings, now, in_history);
        let mut reply = self.reply(state, request, dialect, now);
        self.add_grants(state, request, dialect, now, &mut reply, &mut changed);
        for customer in changed {
            state.save_account(batch, customer);
        }
        if let Some(session) = &mut state.session {
            session.last_reply_at = now.mono;
            session.syncs = session.syncs.saturating_add(1);
        }
        state.save_session(batch);
        Ok((reply, dialect))
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
            model: state.models.release(),
            policy_epoch: epoch,
            step_ms: self.settings.step_ms,
            step_now: state.step_now,
            step_elapsed_ms: u32::try_from(now.unix_ms % u64::from(self.settings.step_ms.max(1)))
                .unwrap_or(0),
            ..SyncReply::default()
        }
    }
}

fn unavailable(error: StoreError) -> Refusal {
    Refusal {
        code: SyncErrorCode::StoreUnavailable,
        error: error.into(),
    }
}

fn refused(request: &SyncRequest, refusal: &Refusal) -> SyncAnswer {
    let message = format!("{}; {}", refusal.error.message, refusal.error.hint);
    tracing::warn!(gateway = %request.gateway_id, code = %refusal.error.code, "refused a sync: {message}");
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
