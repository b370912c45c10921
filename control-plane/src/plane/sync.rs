//! Answering a sync: count what is reported, say what is new, grant what is free.
//!
//! Order matters. The session decides first whether anything of the request counts. Then reports are taken in, then grants are
//! computed, then everything that changed goes to the journal in one batch; the reply leaves when that is durable.

use super::clock::Now;
use super::directory::Directory;
use super::session::{self, Admission, Refusal};
use super::state::{META_COVERAGE, State};
use super::{Plane, Settings};
use crate::buckets::{Account, Holding, POOL_ACCOUNT};
use crate::error::ApiError;
use crate::history::{Ring, Series, step_at};
use crate::keys::Dialect;
use crate::store::{Batch, Store, StoreError, Table};
use forebay_core::policy::Limits;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{
    CustomerReport, Grant, PROTOCOL, PoolGrant, SyncError, SyncErrorCode, SyncReply, SyncRequest,
    Window,
};
use std::collections::BTreeSet;

/// Grants in one reply: about 250 kB on the wire.
const MAX_GRANTS: usize = 4_096;
/// Floats of usage history in one reply: about 2 MB on the wire.
const MAX_WINDOW_VALUES: usize = 500_000;

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
        let in_history = !is_lump(state, admission, &self.settings, now);
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

    /// Grants make sense to a gateway only when it has the policy that their indexes mean.
    fn add_grants(
        &self,
        state: &mut State,
        request: &SyncRequest,
        dialect: Dialect,
        now: Now,
        reply: &mut SyncReply,
        changed: &mut BTreeSet<CustomerHash>,
    ) {
        let epoch = state.policies.active_epoch();
        if request.policy_epoch_applied != epoch {
            return;
        }
        let Some(session) = &mut state.session else {
            return;
        };
        if session.granted_epoch != epoch {
            session.granted_epoch = epoch;
            session
                .pending
                .extend(state.directory.iter().map(|(hash, _)| hash));
        }
        let mut told = Vec::new();
        while told.len() < MAX_GRANTS
            && let Some(customer) = session.pending.pop_first()
        {
            told.push(customer);
        }
        for customer in &told {
            let Some(limits) = state.limits_of(*customer) else {
                continue;
            };
            let (hash_high, hash_low) = state.directory.spoken(*customer, dialect).parts();
            let Some(account) = state.account(
                *customer,
                &limits,
                now.mono,
                self.settings.max_other_customers,
            ) else {
                continue;
            };
            if account.grant(&limits, now.mono) {
                changed.insert(*customer);
            }
            reply
                .grants
                .extend(grants_of(account, &limits).map(|grant| Grant {
                    hash_high,
                    hash_low,
                    ..grant
                }));
        }
        if let Some(session) = &mut state.session {
            session.inflight = told;
        }
        self.grant_pools(state, now, reply, changed);
    }

    fn grant_pools(
        &self,
        state: &mut State,
        now: Now,
        reply: &mut SyncReply,
        changed: &mut BTreeSet<CustomerHash>,
    ) {
        let Some(limits) = state.limits_of(POOL_ACCOUNT) else {
            return;
        };
        let Some(account) = state.account(POOL_ACCOUNT, &limits, now.mono, 0) else {
            return;
        };
        if account.grant(&limits, now.mono) {
            changed.insert(POOL_ACCOUNT);
        }
        // A resource without a pool has no capacity and gets no grant.
        let grants = grants_of(account, &limits).filter(|grant| grant.local_cap_micro > 0);
        reply.pools = grants
            .map(|grant| PoolGrant {
                resource: grant.resource,
                granted_cum_micro: grant.granted_cum_micro,
                rate_micro_per_s: grant.rate_micro_per_s,
                local_cap_micro: grant.local_cap_micro,
                fallback_rate_micro_per_s: grant.fallback_rate_micro_per_s,
            })
            .collect();
    }

    /// Windows are read from the store when everything before them is durable there, and without the lock.
    fn add_windows(
        &self,
        request: &SyncRequest,
        dialect: Dialect,
        reply: &mut SyncReply,
    ) -> Result<(), StoreError> {
        if request.windows_wanted.is_empty() {
            return Ok(());
        }
        let (filed, resources, coverage, newest) = {
            let state = self.lock();
            let filed = |directory: &Directory| -> Vec<(u64, u64, CustomerHash)> {
                let wanted = request.windows_wanted.iter();
                let parts = wanted.map(|wish| (wish.hash_high, wish.hash_low));
                parts
                    .map(|(high, low)| {
                        (
                            high,
                            low,
                            directory.filed(CustomerHash::from_parts(high, low), dialect),
                        )
                    })
                    .collect()
            };
            let resources = state
                .policies
                .compiled()
                .map_or(0, |policy| policy.resources.len());
            (
                filed(&state.directory),
                resources,
                state.coverage.clone(),
                state.step_now.saturating_sub(1),
            )
        };
        let kept = self.settings.history_steps;
        let steps = if request.window_steps == 0 {
            kept
        } else {
            u64::from(request.window_steps).min(kept)
        };
        let first = newest.saturating_sub(steps.saturating_sub(1));
        let mut left = MAX_WINDOW_VALUES;
        for (hash_high, hash_low, customer) in filed {
            let size = usize::try_from(steps)
                .unwrap_or(usize::MAX)
                .saturating_mul(resources);
            if size > left {
                reply.windows_left = true;
                break;
            }
            left = left.saturating_sub(size);
            for resource in 0..u8::try_from(resources).unwrap_or(0) {
                let usage =
                    Ring::read(&*self.store, Series::new(customer, resource), first, newest)?;
                let (usage, mask) = usage.with_gaps(|step| coverage.observed(step));
                let (resource, step_ms) = (u32::from(resource), self.settings.step_ms);
                reply.windows.push(Window {
                    hash_high,
                    hash_low,
                    resource,
                    step_ms,
                    newest_step: newest,
                    usage,
                    mask,
                });
            }
        }
        Ok(())
    }
}

/// After a time without syncs the counters bring the demand of all of it at once. It is charged, but as the usage of one step it
/// would be an outlier that never was: those steps are gaps.
fn is_lump(state: &State, admission: Admission, settings: &Settings, now: Now) -> bool {
    let step_us = u64::from(settings.step_ms).saturating_mul(1_000);
    let is_late = |session: &session::Session| {
        session.syncs == 0 || now.mono.since(session.last_reply_at) > step_us
    };
    admission == Admission::Continues && state.session.as_ref().is_some_and(is_late)
}

/// Takes the reports in; returns whose accounts changed.
fn take_reports(
    state: &mut State,
    request: &SyncRequest,
    dialect: Dialect,
    settings: &Settings,
    now: Now,
    in_history: bool,
) -> BTreeSet<CustomerHash> {
    let mut changed = BTreeSet::new();
    for report in &request.customers {
        let customer = state.directory.filed(
            CustomerHash::from_parts(report.hash_high, report.hash_low),
            dialect,
        );
        if customer != POOL_ACCOUNT
            && take_report(state, customer, report, settings, now, in_history)
        {
            changed.insert(customer);
        }
    }
    for pool in &request.pools {
        let report = CustomerReport {
            resource: pool.resource,
            demand_micro: pool.drawn_micro,
            admitted_micro: pool.drawn_micro,
            balance_micro: pool.balance_micro,
            ..CustomerReport::default()
        };
        if take_report(state, POOL_ACCOUNT, &report, settings, now, false) {
            changed.insert(POOL_ACCOUNT);
        }
    }
    changed
}

/// Forecasts are kept for customers that have an account, so their number is bounded as well.
fn take_forecasts(state: &mut State, request: &SyncRequest, dialect: Dialect) {
    for forecast in &request.forecasts {
        let customer = state.directory.filed(
            CustomerHash::from_parts(forecast.hash_high, forecast.hash_low),
            dialect,
        );
        let is_known = state
            .accounts
            .get(&customer)
            .is_some_and(|account| account.holdings.len() > forecast.resource as usize);
        if is_known && let Ok(resource) = u8::try_from(forecast.resource) {
            state
                .forecasts
                .insert(Series::new(customer, resource), *forecast);
        }
    }
}

fn take_report(
    state: &mut State,
    customer: CustomerHash,
    report: &CustomerReport,
    settings: &Settings,
    now: Now,
    in_history: bool,
) -> bool {
    let Some(limits) = state.limits_of(customer) else {
        return false;
    };
    let step_now = state.step_now;
    let Some(account) = state.account(customer, &limits, now.mono, settings.max_other_customers)
    else {
        return false;
    };
    let Some(holding) = account.holdings.get_mut(report.resource as usize) else {
        return false;
    };
    let before = *holding;
    let demand = holding.report(report);
    let demand = if in_history { demand } else { 0 };
    if demand > 0 {
        holding.step_demand = if holding.step == step_now {
            holding.step_demand.saturating_add(demand)
        } else {
            demand
        };
        holding.step = step_now;
    }
    // A ledger may keep one sum of grants and adjustments, so only the sums are compared.
    let moved = holding.granted_cum.wrapping_add_signed(holding.adjust_cum);
    let behind = moved
        != report
            .granted_seen_micro
            .wrapping_add_signed(report.adjust_seen_micro);
    let is_changed = before != *holding;
    if demand > 0 {
        state.active.insert(customer);
    }
    // The gateway has not applied what it was sent: send it again.
    if behind
        && customer != POOL_ACCOUNT
        && let Some(session) = &mut state.session
    {
        session.pending.insert(customer);
    }
    is_changed
}

impl State {
    /// Moves the running step on: what was asked for in the finished one goes to the history.
    pub(super) fn advance_history(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        settings: &Settings,
        now: Now,
    ) -> Result<(), StoreError> {
        let step = step_at(now.unix_ms, settings.step_ms);
        if step > self.step_now {
            let finished = self.step_now;
            for customer in std::mem::take(&mut self.active) {
                let Some(account) = self.accounts.get(&customer) else {
                    continue;
                };
                for (resource, holding) in account.holdings.iter().enumerate() {
                    if holding.step == finished && holding.step_demand > 0 {
                        let series =
                            Series::new(customer, u8::try_from(resource).unwrap_or(u8::MAX));
                        self.ring
                            .set(store, batch, series, finished, tokens(holding))?;
                    }
                }
            }
            self.step_now = step;
            self.ring.forget_idle(step);
        }
        if self.coverage.observe(self.step_now) {
            batch.put(Table::Meta, META_COVERAGE, self.coverage.encode());
        }
        Ok(())
    }
}

/// The standing grants of an account: the whole contract, and the same as fallback, because nobody else can be given any of it
/// before the fallback has ended.
fn grants_of<'a>(
    account: &'a Account,
    limits: &'a [Limits],
) -> impl Iterator<Item = Grant> + use<'a> {
    account
        .holdings
        .iter()
        .zip(limits)
        .zip(0_u32..)
        .map(|((holding, limits), resource)| Grant {
            hash_high: 0,
            hash_low: 0,
            resource,
            granted_cum_micro: holding.granted_cum,
            adjust_cum_micro: holding.adjust_cum,
            rate_micro_per_s: limits.rate.get(),
            local_cap_micro: limits.burst.get().unsigned_abs(),
            fallback_rate_micro_per_s: limits.rate.get(),
        })
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a forecast needs no more than a float has
fn tokens(holding: &Holding) -> f32 {
    (holding.step_demand as f64 / 1e6) as f32
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
