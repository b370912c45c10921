//! What a reply grants: its part of each account that was touched, and of the pools.
//!
//! A grant is told until the gateway is known to have it: `pending` holds who is to be told, `inflight` who was told in the newest
//! reply. An account is divided when a gateway reports about it or is to be told; for gateways whose parts should change then
//! it is `due` at their next sync.

use super::super::Plane;
use super::super::state::State;
use super::Caller;
use crate::buckets::{Cause, Contract, Granted, POOL_ACCOUNT, Part};
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{Grant, PoolGrant, SyncReply};
use std::collections::BTreeSet;

/// Grants in one reply: about 250 kB on the wire.
const MAX_GRANTS: usize = 4_096;

/// When a gateway should sync again that has to confirm what it gives up.
const SOON_MS: u32 = 50;

/// A gateway that waits for it should sync this long after that confirmation is due.
const ROUND_TRIP_MS: u32 = 30;

/// What is being answered.
struct Outgoing<'a> {
    reply: &'a mut SyncReply,
    /// Whose accounts have changed.
    changed: &'a mut BTreeSet<CustomerHash>,
    /// Whose grants the reply tells.
    told: Vec<CustomerHash>,
    /// When the gateway should sync again, if that is before its usual time.
    again_at: Option<TimeUs>,
}

impl Plane {
    /// Grants make sense to a gateway only when it has the policy that their indexes mean. `reported` are those of whom it has
    /// reported something that grants may follow from.
    pub(super) fn add_grants(
        &self,
        state: &mut State,
        caller: &Caller<'_>,
        reported: BTreeSet<CustomerHash>,
        reply: &mut SyncReply,
        changed: &mut BTreeSet<CustomerHash>,
    ) {
        let epoch = state.policies.active_epoch();
        let id = caller.request.gateway_id.as_str();
        let Some(session) = state.fleet.session_mut(id) else {
            return;
        };
        reply.report_all = session.report_all_until.is_some();
        if caller.request.policy_epoch_applied != epoch {
            // Without grants it cannot be told what it may do.
            if session.lapsed.is_some() {
                reply.lease_ttl_ms = 0;
            }
            return;
        }
        let is_new_epoch = session.granted_epoch != epoch;
        session.granted_epoch = epoch;
        if is_new_epoch {
            {
                let State {
                    directory, fleet, ..
                } = state;
                if let Some(session) = fleet.session_mut(id) {
                    session
                        .pending
                        .extend(directory.iter().map(|(hash, _)| hash));
                }
            }
            // The gateway has installed the whole list, so it has dropped whoever is not on it.
            changed.extend(take_back_from_dropped(state, caller));
        }
        let (mut pending, mut due) = match state.fleet.session_mut(id) {
            Some(session) => (
                std::mem::take(&mut session.pending),
                std::mem::take(&mut session.due),
            ),
            None => return,
        };
        due.extend(reported);
        let mut outgoing = Outgoing {
            reply,
            changed,
            told: Vec::new(),
            again_at: None,
        };
        while outgoing.told.len() < MAX_GRANTS
            && let Some(customer) = pending.pop_first()
        {
            due.remove(&customer);
            self.grant_to(state, caller, customer, true, &mut outgoing);
        }
        while outgoing.told.len() < MAX_GRANTS
            && let Some(customer) = due.pop_first()
        {
            self.grant_to(state, caller, customer, false, &mut outgoing);
        }
        let mut again_at = outgoing.again_at;
        outgoing.reply.grants_left = !pending.is_empty() || !due.is_empty();
        if let Some(session) = state.fleet.session_mut(id) {
            session.pending.append(&mut pending);
            session.due.append(&mut due);
            session.inflight = outgoing.told;
        }
        let granted = self.grant_pools(state, caller, reply, changed);
        again_at = earlier(again_at, self.again_at(caller, &granted));
        if let Some(session) = state.fleet.session_mut(id)
            && !session.may_lease()
        {
            reply.lease_ttl_ms = 0;
        }
        if let Some(again_at) = again_at {
            let wait_ms = again_at.since(caller.now.mono) / 1_000;
            reply.early_sync_ms = u32::try_from(wait_ms).unwrap_or(u32::MAX).max(SOON_MS);
        }
    }

    /// When the caller should sync again after such a grant: to confirm what it gives up, or to get what others do.
    fn again_at(&self, caller: &Caller<'_>, granted: &Granted) -> Option<TimeUs> {
        let now = caller.now.mono;
        let after_ms = |at: TimeUs, ms: u32| at.plus_us(u64::from(ms).saturating_mul(1_000));
        let confirms_at = granted.is_giving_up.then(|| after_ms(now, SOON_MS));
        let awaited = granted.awaited.unwrap_or_default();
        let told_next_at = awaited
            .heard_at
            .map(|at| after_ms(at, self.settings.sync_interval_ms));
        // One that is overdue may come at any time: nobody should ask for it again and again.
        let gets_at = |told_at: Option<TimeUs>| {
            told_at
                .map(|at| after_ms(at, SOON_MS + ROUND_TRIP_MS))
                .filter(|at| *at > now)
        };
        let gets_at = earlier(gets_at(awaited.told_at), gets_at(told_next_at));
        earlier(confirms_at, gets_at)
    }

    /// Divides the account of a customer and grants the caller its part.
    fn grant_to(
        &self,
        state: &mut State,
        caller: &Caller<'_>,
        customer: CustomerHash,
        must_tell: bool,
        outgoing: &mut Outgoing<'_>,
    ) {
        // If it left the policy while it waited, the gateway has no entry that could take a grant.
        let Some((limits, true)) = state.standing_of(customer) else {
            return;
        };
        let is_adopted = state
            .fleet
            .numbered(caller.session)
            .is_some_and(|session| session.is_adopted);
        let expected_per_s = state.expected_per_s(customer, limits.len());
        let (hash_high, hash_low) = state.directory.spoken(customer, caller.dialect).parts();
        let Some(account) = state.account(
            customer,
            &limits,
            caller.now.mono,
            self.settings.max_other_customers,
        ) else {
            return;
        };
        // What it was moved is not known before it has reported it.
        if is_adopted && account.part(caller.session).is_none_or(Part::is_unknown) {
            return;
        }
        let contract = Contract {
            customer,
            limits: &limits,
            expected_per_s: &expected_per_s,
            roster: caller.roster,
        };
        let granted = account.grant(&contract, self.law, caller.session, caller.request.sequence);
        let stranded = account.take_stranded();
        if granted.must_save {
            outgoing.changed.insert(customer);
        }
        let has_part = account.part(caller.session).is_some();
        let is_told = has_part && (must_tell || granted.is_changed);
        if is_told {
            account.told(caller.session, caller.request.sequence);
            outgoing.told.push(customer);
            outgoing.changed.insert(customer);
            let grants = account.part(caller.session).into_iter().flat_map(grants_of);
            outgoing.reply.grants.extend(grants.map(|grant| Grant {
                hash_high,
                hash_low,
                ..grant
            }));
        }
        outgoing.again_at = earlier(outgoing.again_at, self.again_at(caller, &granted));
        state.stranded.add(Cause::Partition, stranded);
        tell_others(state, customer, &granted);
    }

    fn grant_pools(
        &self,
        state: &mut State,
        caller: &Caller<'_>,
        reply: &mut SyncReply,
        changed: &mut BTreeSet<CustomerHash>,
    ) -> Granted {
        let Some(limits) = state.limits_of(POOL_ACCOUNT) else {
            return Granted::default();
        };
        let is_adopted = state
            .fleet
            .numbered(caller.session)
            .is_some_and(|session| session.is_adopted);
        let Some(account) = state.account(POOL_ACCOUNT, &limits, caller.now.mono, 0) else {
            return Granted::default();
        };
        if is_adopted && account.part(caller.session).is_none_or(Part::is_unknown) {
            return Granted::default();
        }
        let contract = Contract {
            customer: POOL_ACCOUNT,
            limits: &limits,
            expected_per_s: &[],
            roster: caller.roster,
        };
        let granted = account.grant(&contract, self.law, caller.session, caller.request.sequence);
        // Pools are told with each reply.
        account.told(caller.session, caller.request.sequence);
        if granted.is_changed || granted.must_save {
            changed.insert(POOL_ACCOUNT);
        }
        let grants = account.part(caller.session).into_iter().flat_map(grants_of);
        // A resource without a pool has no capacity and gets no grant.
        let has_pool = |grant: &Grant| {
            let limits = limits.get(grant.resource as usize);
            limits.is_some_and(|limits| *limits != Limits::default())
        };
        reply.pools = grants
            .filter(has_pool)
            .map(|grant| PoolGrant {
                resource: grant.resource,
                granted_cum_micro: grant.granted_cum_micro,
                rate_micro_per_s: grant.rate_micro_per_s,
                local_cap_micro: grant.local_cap_micro,
                fallback_rate_micro_per_s: grant.fallback_rate_micro_per_s,
            })
            .collect();
        granted
    }
}

/// The first of two times.
fn earlier(one: Option<TimeUs>, other: Option<TimeUs>) -> Option<TimeUs> {
    one.into_iter().chain(other).min()
}

/// For those whose parts should change the account is due with their next sync.
fn tell_others(state: &mut State, customer: CustomerHash, granted: &Granted) {
    for other in &granted.others {
        if let Some(session) = state.fleet.numbered(*other) {
            session.due.insert(customer);
        }
    }
}

fn take_back_from_dropped(state: &mut State, caller: &Caller<'_>) -> Vec<CustomerHash> {
    let dropped: Vec<CustomerHash> = state
        .accounts
        .iter()
        .filter(|(customer, account)| {
            state.is_stranger(**customer) && account.part(caller.session).is_some()
        })
        .map(|(customer, _)| *customer)
        .collect();
    let State {
        accounts, stranded, ..
    } = state;
    dropped
        .into_iter()
        .filter(|customer| {
            let account = accounts.get_mut(customer);
            let lost = account.and_then(|account| account.take_back(caller.session, caller.roster));
            stranded.add(Cause::Eviction, lost.unwrap_or_default());
            lost.is_some()
        })
        .collect()
}

/// The standing grants of a part.
fn grants_of(part: &Part) -> impl Iterator<Item = Grant> {
    part.holdings
        .iter()
        .zip(0_u32..)
        .map(|(holding, resource)| {
            let grant = holding.share.to_grant();
            Grant {
                hash_high: 0,
                hash_low: 0,
                resource,
                granted_cum_micro: grant.granted_cum,
                adjust_cum_micro: grant.adjust_cum,
                base_cum_micro: grant.base_cum,
                rate_micro_per_s: grant.terms.rate.get(),
                local_cap_micro: grant.terms.cap.get().unsigned_abs(),
                fallback_rate_micro_per_s: grant.terms.fallback_rate.get(),
            }
        })
}
