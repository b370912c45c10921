//! What a cycle reads of the state.

use super::super::state::State;
use super::super::{Plane, Settings};
use crate::allocation::{Candidate, Gathered, Lately, Rule};
use crate::buckets::{POOL_ACCOUNT, Standing};
use forebay_anomaly::Action;
use forebay_core::fleet::Presence;
use forebay_core::policy::Policy;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_sharing::{Terms, to_per_s};
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// Customers that are read without giving the lock back.
const AT_ONCE: usize = 1_024;

impl Plane {
    /// What the next cycle goes by; none where the policy divides nothing.
    pub(super) fn gather(&self) -> Option<Gathered> {
        let (mut gathered, hashes) = {
            let mut state = self.lock();
            state.allocations.capped_next = Arc::clone(&state.capped);
            let now = self.clock.now().mono;
            let policy = state.policies.compiled()?;
            let rule = Arc::clone(state.policies.sharing()?);
            let (policy_capacity_per_s, capacity_per_s) = capacities(&state, &self.settings, now);
            let names = policy.resources.iter();
            let listed = state.directory.iter().map(|(hash, _)| hash);
            let strangers = state.accounts.keys().copied();
            let has_contract = policy.unknown_contract().is_some();
            let strangers = strangers.filter(|hash| has_contract && state.is_stranger(*hash));
            let hashes: Vec<CustomerHash> = listed.chain(strangers).collect();
            let gathered = Gathered {
                policy: state.policies.active_epoch(),
                rule,
                resources: names.map(|resource| resource.name.clone()).collect(),
                policy_capacity_per_s,
                capacity_per_s,
                candidates: Vec::with_capacity(hashes.len()),
                before: Arc::clone(&state.allocations.book),
                live: live(&state, &self.settings, now),
            };
            (gathered, hashes)
        };
        for hashes in hashes.chunks(AT_ONCE) {
            let state = self.lock();
            // Under another policy groups and contracts mean something else: that one calls for a cycle of its own.
            if state.policies.active_epoch() != gathered.policy {
                drop(state);
                return self.gather();
            }
            let (policy, now) = (state.policies.compiled()?, self.clock.now());
            let candidates = hashes.iter().filter_map(|hash| {
                candidate(
                    &state,
                    policy,
                    &gathered.rule,
                    *hash,
                    (now.mono, now.unix_ms),
                )
            });
            gathered.candidates.extend(candidates);
        }
        Some(gathered)
    }
}

fn candidate(
    state: &State,
    policy: &Policy,
    rule: &Rule,
    hash: CustomerHash,
    (now, unix_ms): (TimeUs, u64),
) -> Option<Candidate> {
    let member = state.directory.get(hash);
    let row = member.map(|member| member.contract);
    let row = row.or(policy.unknown_contract())?;
    let contract = policy.contract(row)?;
    let in_force = member.map(|member| state.directory.in_force(hash, member));
    let lends = rule.lend(row);
    let mut terms = PerResource::default();
    let mut now_per_s = PerResource::default();
    let mut lately: PerResource<Lately> = PerResource::default();
    let account = state.accounts.get(&hash);
    let account = account.filter(|_| state.allocations.are_measured(now));
    for (index, resource) in policy.resource_indexes().zip(&policy.resources) {
        if resource.pool.is_none() {
            continue;
        }
        let limits = contract.limits.at(index);
        let action = match state.capped.contains(&hash) {
            true => Action::CapAtContract,
            false => Action::Flag,
        };
        *terms.at_mut(index) = Terms {
            guarantee_per_s: to_per_s(limits.guarantee),
            rate_per_s: to_per_s(limits.rate),
            ceiling_per_s: to_per_s(action.ceiling(limits.rate, limits.ceiling)),
            lend: *lends.at(index),
        };
        let holdings = account.into_iter();
        let holdings = holdings.flat_map(|account| account.holdings_of(index.position()));
        *now_per_s.at_mut(index) = holdings
            .map(|holding| holding.pace.average_per_s(now))
            .sum();
        let usage = account.and_then(|account| account.holdings.get(index.position()));
        let asked = |step| usage.map_or(0.0, |holding| holding.usage.of(step) as f64 / 1e6);
        *lately.at_mut(index) = Lately {
            running: asked(state.step_now),
            before: asked(state.step_now.saturating_sub(1)),
        };
    }
    Some(Candidate {
        hash,
        is_listed: member.is_some(),
        is_denied: in_force
            .is_some_and(|in_force| in_force.frozen || in_force.ban_until_unix_ms > unix_ms),
        tier: contract.tier,
        priority: contract.priority,
        weight: f64::from(contract.weight),
        group: rule.group(hash),
        terms,
        now_per_s,
        lately,
        has_left: state.allocations.has_left(hash, now),
    })
}

/// Capacities by the policy, and what of them gateways with a live lease can use: one that is cut off may go on with its part for as long as its fallback holds.
pub(super) fn capacities(
    state: &State,
    settings: &Settings,
    now: TimeUs,
) -> (PerResource<f64>, PerResource<f64>) {
    let mut by_policy = PerResource::default();
    let Some(policy) = state.policies.compiled() else {
        return (by_policy, by_policy);
    };
    for (index, resource) in policy.resource_indexes().zip(&policy.resources) {
        let capacity = resource.pool.map(|pool| to_per_s(pool.capacity));
        *by_policy.at_mut(index) = capacity.unwrap_or(0.0);
    }
    let mut there = by_policy;
    let roster = state.fleet.roster(settings.terms(), now);
    let pools = state.accounts.get(&POOL_ACCOUNT);
    for part in pools.into_iter().flat_map(|pools| pools.parts.iter()) {
        if roster.presence(part.session()) != Some(Presence::Lapsed) {
            continue;
        }
        for (index, own) in ResourceIndex::first(part.holdings.len()).zip(&part.holdings) {
            let cut_off = to_per_s(own.share.reserved(Presence::Lapsed).rate);
            let there = there.at_mut(index);
            *there = (*there - cut_off).max(0.0);
        }
    }
    (by_policy, there)
}

/// Sessions whose lease is live, in the order of their gateways.
pub(super) fn live(state: &State, settings: &Settings, now: TimeUs) -> Vec<u64> {
    let terms = settings.terms();
    let sessions = state.fleet.sessions().map(|(_, session)| session);
    let live = sessions
        .filter(|session| session.standing(terms, now) == Standing::Present(Presence::Live));
    live.map(|session| session.number).collect()
}
