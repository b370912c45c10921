//! What a reply grants: everything that is free here, to the one gateway there is.
//!
//! A grant is told until the gateway is known to have it: `pending` holds who is to be told, `inflight` who was told in the
//! newest reply.

use super::super::Plane;
use super::super::clock::Now;
use super::super::state::State;
use crate::buckets::{Account, POOL_ACCOUNT};
use crate::keys::Dialect;
use forebay_core::policy::Limits;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{Grant, PoolGrant, SyncReply, SyncRequest};
use std::collections::BTreeSet;

/// Grants in one reply: about 250 kB on the wire.
const MAX_GRANTS: usize = 4_096;

impl Plane {
    /// Grants make sense to a gateway only when it has the policy that their indexes mean.
    pub(super) fn add_grants(
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
            // The gateway has installed the whole list, so it has dropped whoever is not on it.
            changed.extend(take_back_from_dropped(state, now));
        }
        let Some(session) = &mut state.session else {
            return;
        };
        let mut told = Vec::new();
        while told.len() < MAX_GRANTS
            && let Some(customer) = session.pending.pop_first()
        {
            told.push(customer);
        }
        for customer in &told {
            // It left the policy while it waited: the gateway has no entry that could take a grant.
            if state.directory.get(*customer).is_none() {
                continue;
            }
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
}

fn take_back_from_dropped(state: &mut State, now: Now) -> Vec<CustomerHash> {
    let State {
        accounts,
        directory,
        tenure,
        ..
    } = state;
    let dropped = accounts
        .iter_mut()
        .filter(|(customer, account)| {
            **customer != POOL_ACCOUNT
                && account.generation == tenure.generation
                && directory.get(**customer).is_none()
        })
        .filter_map(|(customer, account)| account.take_back(now.mono).then_some(*customer));
    dropped.collect()
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
            base_cum_micro: holding.base_cum,
            rate_micro_per_s: limits.rate.get(),
            local_cap_micro: limits.burst.get().unsigned_abs(),
            fallback_rate_micro_per_s: limits.rate.get(),
        })
}
