//! What a request reports: counters into accounts, demand into the running step of the usage history.

use super::super::clock::Now;
use super::super::fleet::Admission;
use super::super::session::Session;
use super::super::state::{Settings, State};
use super::Caller;
use crate::buckets::{Cause, Contract, POOL_ACCOUNT, Told};
use crate::history::Series;
use crate::keys::Dialect;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{CustomerForecast, CustomerReport, SyncRequest};
use std::collections::BTreeSet;

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
        Admission::Continues | Admission::Lapsed => state
            .fleet
            .session(&request.gateway_id)
            .is_some_and(is_late),
        // It has counted since its first sync, which somebody else answered, or we before its session ended.
        Admission::Begins | Admission::Returns { .. } => request.sequence > 1,
    }
}

/// Whose reports are taken in, and how.
struct Intake<'a> {
    caller: &'a Caller<'a>,
    settings: &'a Settings,
    in_history: bool,
    is_lump: bool,
    is_of_unknown_age: bool,
    is_dry_run: bool,
    /// Those whose accounts changed.
    changed: &'a mut BTreeSet<CustomerHash>,
}

/// What a report brought.
struct Taken {
    /// New demand, in micro-tokens, as far as the contract admits it.
    demand: u64,
    /// Whether a grant may change what the gateway has.
    is_due: bool,
}

/// Takes the reports in; returns who may be granted something else for what was reported. Those whose accounts changed are added to `changed`.
pub(super) fn take_reports(
    state: &mut State,
    caller: &Caller<'_>,
    settings: &Settings,
    in_history: bool,
    changed: &mut BTreeSet<CustomerHash>,
) -> BTreeSet<CustomerHash> {
    let request = caller.request;
    let mut due = BTreeSet::new();
    let mut asked: Vec<u64> = Vec::new();
    let mut intake = Intake {
        caller,
        settings,
        in_history,
        is_lump: !in_history,
        // Of a lump of a session that has synced here before the time is known.
        is_of_unknown_age: caller.is_new_here,
        is_dry_run: state
            .policies
            .compiled()
            .is_some_and(|policy| policy.dry_run),
        changed,
    };
    for report in &request.customers {
        let customer = state.directory.filed(
            CustomerHash::from_parts(report.hash_high, report.hash_low),
            caller.dialect,
        );
        if customer == POOL_ACCOUNT {
            continue;
        }
        if let Some(taken) = take_report(state, customer, report, 0, &mut intake) {
            if taken.is_due {
                due.insert(customer);
            }
            add(&mut asked, report.resource, taken.demand);
        }
    }
    intake.in_history = false;
    for pool in &request.pools {
        let report = CustomerReport {
            resource: pool.resource,
            demand_micro: pool.drawn_micro,
            admitted_micro: pool.drawn_micro,
            balance_micro: pool.balance_micro,
            granted_seen_micro: pool.granted_seen_micro,
            reply_applied: pool.reply_applied,
            ..CustomerReport::default()
        };
        // Requests that the pool denied draw nothing from it: what it is asked for is what its customers ask for.
        let by_customers = asked.get(pool.resource as usize).copied().unwrap_or(0);
        take_report(state, POOL_ACCOUNT, &report, by_customers, &mut intake);
    }
    due
}

fn add(asked: &mut Vec<u64>, resource: u32, demand: u64) {
    let resource = resource as usize;
    if asked.len() <= resource {
        asked.resize(resource.saturating_add(1), 0);
    }
    if let Some(sum) = asked.get_mut(resource) {
        *sum = sum.saturating_add(demand);
    }
}

/// Forecasts are kept for customers that have an account, so their number is bounded as well.
pub(super) fn take_forecasts(state: &mut State, request: &SyncRequest, dialect: Dialect) {
    let is_forecast = |forecast: &&CustomerForecast| {
        let rates = [
            forecast.low_per_s,
            forecast.median_per_s,
            forecast.high_per_s,
        ];
        rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0)
    };
    for forecast in request.forecasts.iter().filter(is_forecast) {
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

/// Takes in a report of a customer that has asked for `asked` at least, in micro-tokens. Returns what it adds to the demand on the pool;
/// `None` if nothing is known of such a customer.
fn take_report(
    state: &mut State,
    customer: CustomerHash,
    report: &CustomerReport,
    asked: u64,
    intake: &mut Intake<'_>,
) -> Option<Taken> {
    let caller = intake.caller;
    let (limits, is_listed) = state.standing_of(customer)?;
    let is_exempt = state.directory.is_exempt(customer);
    let rate = limits.get(report.resource as usize)?.rate;
    let step_now = state.step_now;
    let account = state.account(
        customer,
        &limits,
        caller.now.mono,
        intake.settings.max_other_customers,
    )?;
    let contract = Contract {
        customer,
        limits: &limits,
        expected_per_s: &[],
        roster: caller.roster,
    };
    let told = Told {
        report,
        since: caller.synced_at,
        asked,
        is_lump: intake.is_lump,
        is_of_unknown_age: intake.is_of_unknown_age,
        is_listed,
        is_limited: customer != POOL_ACCOUNT && !is_exempt && !intake.is_dry_run,
    };
    let news = account.report(&contract, caller.session, &told);
    let stranded = account.take_stranded();
    if intake.in_history && news.demand > 0 {
        let resource = report.resource as usize;
        account.count(caller.session, resource, step_now, &news);
        state.active.insert(customer);
    }
    // Of pools nobody buys tokens.
    if customer != POOL_ACCOUNT {
        state.stranded.add(Cause::Partition, stranded);
        state.stranded.add(Cause::GrantOverlap, news.unfit);
    }
    if let Some((cause, amount)) = news.over_admitted {
        state.over_admitted.add(cause, amount);
    }
    // The gateway has not applied what it was sent: send it again.
    if news.is_behind
        && customer != POOL_ACCOUNT
        && let Some(session) = state.fleet.numbered(caller.session)
    {
        session.pending.insert(customer);
    }
    if news.is_changed {
        intake.changed.insert(customer);
    } else {
        state.save_later(customer, caller.now.mono);
    }
    // More than its contract a customer is not admitted, however much it asks for.
    let window_us = caller.now.mono.since(caller.synced_at);
    let (most, _) = rate.over(window_us, 0);
    Some(Taken {
        demand: news.demand.min(most.get().unsigned_abs()),
        is_due: news.is_due,
    })
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a forecast needs no more than a float has
pub(super) fn tokens(micro: u64) -> f32 {
    (micro as f64 / 1e6) as f32
}
