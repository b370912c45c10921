//! What a request reports: counters into accounts, demand into the running step of the usage history.

use super::super::clock::Now;
use super::super::session::{Admission, Session};
use super::super::state::{META_COVERAGE, Settings, State};
use crate::buckets::{Holding, POOL_ACCOUNT};
use crate::history::{Series, step_at};
use crate::keys::Dialect;
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{CustomerReport, SyncRequest};
use std::collections::BTreeSet;

/// A clock that is corrected while it runs goes back by less than this: the running step then lasts until the clock is there again.
const SET_BACK_STEPS: u64 = 3;

/// Whether a step is so far in the future of the wall clock's that the clock must have been set back since.
pub(in crate::plane) fn is_set_back(from: u64, to: u64) -> bool {
    from > to.saturating_add(SET_BACK_STEPS)
}

/// After a time without syncs the counters bring the demand of all of it at once. It is charged, but as the usage of one step it
/// would be an outlier that never was: those steps are gaps.
pub(super) fn is_lump(
    state: &State,
    request: &SyncRequest,
    admission: Admission,
    settings: &Settings,
    now: Now,
) -> bool {
    let step_us = u64::from(settings.step_ms).saturating_mul(1_000);
    let is_late =
        |session: &Session| session.syncs == 0 || now.mono.since(session.last_reply_at) > step_us;
    match admission {
        Admission::Continues => state.session.as_ref().is_some_and(is_late),
        // It has counted since its first sync, which somebody else answered, or we before its session ended.
        Admission::Begins => request.sequence > 1,
    }
}

/// Takes the reports in; returns whose accounts changed.
pub(super) fn take_reports(
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
pub(super) fn take_forecasts(state: &mut State, request: &SyncRequest, dialect: Dialect) {
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
    let is_other = customer != POOL_ACCOUNT && state.directory.get(customer).is_none();
    let Some(account) = state.account(customer, &limits, now.mono, settings.max_other_customers)
    else {
        return false;
    };
    // The bucket of a customer outside the policy is the gateway's own: nothing of it is here, even if the policy lists it later.
    account.granted |= is_other;
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
    let behind = holding.moved_cum()
        != report
            .granted_seen_micro
            .wrapping_add_signed(report.adjust_seen_micro);
    let is_changed = before != *holding;
    if demand > 0 {
        state.active.insert(customer);
    }
    // The gateway has not applied what it was sent: send it again.
    if behind
        && !is_other
        && customer != POOL_ACCOUNT
        && let Some(session) = &mut state.session
    {
        session.pending.insert(customer);
    }
    is_changed
}

impl State {
    /// Moves the running step on: what was asked for in the finished one goes to the history.
    ///
    /// The step follows the wall clock back as well once that was set back by more than [`SET_BACK_STEPS`]: a clock that was a year
    /// ahead for a moment would stop the history for a year otherwise. What was counted under the wrong clock since the last step
    /// ended is dropped, and the steps from the new one on count as not observed, since they are still to come.
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
        } else if is_set_back(self.step_now, step) {
            tracing::warn!(
                from = self.step_now,
                to = step,
                "the wall clock was set back, and the steps of usage history with it"
            );
            self.active.clear();
            self.step_now = step;
            self.coverage.rewind(step);
            self.ring.forget_idle(step);
        }
        if self.coverage.observe(self.step_now) {
            batch.put(Table::Meta, META_COVERAGE, self.coverage.encode());
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a forecast needs no more than a float has
fn tokens(holding: &Holding) -> f32 {
    (holding.step_demand as f64 / 1e6) as f32
}
