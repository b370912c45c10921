//! What flows back into the ledger: chunks that are returned, and differences between estimate and actual cost.
//!
//! Tokens are moved, never copied: what a chunk still holds goes back up to the caps, what it owes is charged in full, and its
//! counts are added once. A difference is always charged, even into debt, because the cost has been incurred. A chunk that comes so
//! late that the ledger has forgotten it brings its counts only: the buckets have filled in its place, and with its tokens on top
//! a customer could have more than its burst at once.

use crate::amount::Micro;
use crate::chunk::{Amounts, Chunk, ChunkHolding, Payer};
use crate::draw::Conditions;
use crate::ledger::Entry;
use crate::outstanding::Outstanding;
use crate::pool::{PoolChange, Pools};
use crate::resource::PerResource;
use crate::resource::ResourceIndex;
use crate::time::TimeUs;

/// Returns a chunk. Entry and pools must be up to date. Without an entry (it was removed) the contract tokens and the
/// counts are lost, but pool tokens still go back: they are everyone's.
pub fn fold(
    conditions: &Conditions<'_>,
    pools: &mut Pools,
    entry: Option<&mut Entry>,
    chunk: &Chunk,
) -> PerResource<PoolChange> {
    let mut changes = PerResource::<PoolChange>::default();
    if chunk.is_settled() {
        return changes;
    }
    let drawn_at = chunk.drawn_at.unwrap_or(conditions.now);
    let now = entry
        .as_ref()
        .map_or(pools.at, |entry| pools.at.max(entry.at));
    let is_late = Outstanding::has_forgotten(drawn_at, now);
    for resource in conditions.policy.resource_indexes() {
        let back = chunk.holdings.at(resource);
        let change = changes.at_mut(resource);
        *change = PoolChange {
            taken: Micro::ZERO.minus(returned(back, is_late)),
            settled: back.drawn,
            settled_drawn_at: drawn_at,
            spent: back.spent,
            ..PoolChange::default()
        };
        if chunk.exempt {
            pools.take_of_exempt(resource, change.taken, conditions.policy, change);
        }
    }
    if let Some(entry) = entry {
        fold_entry(conditions, entry, chunk, drawn_at, is_late, &mut changes);
    }
    pools.apply(&changes, conditions.policy, &conditions.lease);
    changes
}

/// Charges a difference that no chunk could pay; negative amounts are given back to whoever has paid. Entry and pools must be up to
/// date.
pub fn charge(
    conditions: &Conditions<'_>,
    pools: &mut Pools,
    entry: &mut Entry,
    difference: &Amounts,
    payer: Payer,
) -> PerResource<PoolChange> {
    let mut changes = PerResource::<PoolChange>::default();
    for resource in conditions.policy.resource_indexes() {
        let difference = *difference.at(resource);
        let change = changes.at_mut(resource);
        change.taken = difference;
        change.spent = difference;
        // An exempt customer pays nothing, so it gets nothing back either.
        if entry.flags.exempt {
            pools.take_of_exempt(resource, difference, conditions.policy, change);
        } else {
            // A debt is the contract's: an allowance in debt would be out of sight of everything that looks at debts.
            let payer = if difference > Micro::ZERO {
                Payer::Contract
            } else {
                payer
            };
            let amount = Micro::ZERO.minus(difference);
            put(conditions, entry, resource, amount, payer);
        }
        entry
            .holdings
            .at_mut(resource)
            .count_admitted(difference, Micro::ZERO);
    }
    pools.apply(&changes, conditions.policy, &conditions.lease);
    changes
}

fn fold_entry(
    conditions: &Conditions<'_>,
    entry: &mut Entry,
    chunk: &Chunk,
    drawn_at: TimeUs,
    is_late: bool,
    changes: &mut PerResource<PoolChange>,
) {
    for resource in conditions.policy.resource_indexes() {
        let back = chunk.holdings.at(resource);
        let holding = entry.holdings.at_mut(resource);
        holding.outstanding.settle(back.drawn, drawn_at, entry.at);
        holding.count_admitted(back.spent, back.deviation);
        holding.count_denied(back.denied);
        if back.deviation > Micro::ZERO && entry.flags.predicted {
            entry.deviations.mark();
        }
        let before = holding.protected();
        if conditions.policy.shadow.enabled && !is_late {
            let depth = holding.shadow_depth();
            holding.shadow.put(back.claimed.at_least_zero(), depth);
        }
        changes.at_mut(resource).protected_paid = before.minus(holding.protected());
        // Whether the customer paid for the chunk was settled when it was drawn, not by what the policy says of it now.
        if !chunk.exempt {
            let amount = returned(back, is_late);
            put(conditions, entry, resource, amount, Payer::Contract);
        }
    }
}

/// What a chunk brings back of one resource; negative if it owes. What settlements gave back never counted as lying in it.
fn returned(back: &ChunkHolding, is_late: bool) -> Micro {
    let tokens = if is_late {
        back.tokens().min(Micro::ZERO)
    } else {
        back.tokens()
    };
    tokens.plus(back.refund)
}

fn put(
    conditions: &Conditions<'_>,
    entry: &mut Entry,
    resource: ResourceIndex,
    amount: Micro,
    payer: Payer,
) {
    match payer {
        Payer::Contract => entry.put(resource, amount, conditions.policy, &conditions.lease),
        Payer::Allowance => {
            let Some(contract) = conditions.policy.contract(entry.contract) else {
                return;
            };
            let part = entry.part(resource, contract.limits.at(resource), &conditions.lease);
            // What there is no room for is an allowance that would have overflowed.
            let _ = entry
                .holdings
                .at_mut(resource)
                .borrow
                .put(amount, part.borrow_limit);
        }
    }
}
