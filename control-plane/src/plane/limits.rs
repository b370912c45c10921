//! What each account may be by the policy in force, ready to be looked up: a sync asks for it hundreds of times.

use forebay_core::policy::{Contract, ContractIndex, Limits, Policy, Resource};
use std::sync::Arc;

/// Limits by resource, of each contract and of the pools.
#[derive(Debug)]
pub(super) struct LimitsTable {
    contracts: Vec<Arc<[Limits]>>,
    pools: Arc<[Limits]>,
    unknown: Option<ContractIndex>,
}

// === impl LimitsTable ===

impl LimitsTable {
    pub(super) fn of(policy: &Policy) -> Self {
        let contracts = policy.contracts.iter();
        Self {
            contracts: contracts
                .map(|contract| limits_of_contract(policy, contract))
                .collect(),
            pools: policy.resources.iter().map(limits_of_pool).collect(),
            unknown: policy.unknown_contract(),
        }
    }

    /// Of customers with that contract.
    pub(super) fn contract(&self, contract: ContractIndex) -> Option<Arc<[Limits]>> {
        self.contracts.get(usize::from(contract.0)).map(Arc::clone)
    }

    /// Of customers outside the policy; `None` where they have none.
    pub(super) fn unknown(&self) -> Option<Arc<[Limits]>> {
        self.contract(self.unknown?)
    }

    /// Of the pools.
    pub(super) fn pools(&self) -> Arc<[Limits]> {
        Arc::clone(&self.pools)
    }
}

fn limits_of_contract(policy: &Policy, contract: &Contract) -> Arc<[Limits]> {
    let limits = policy.resources.iter().zip(contract.limits.iter());
    let limits = limits.map(|(resource, limits)| Limits {
        // Where there is no pool to compete for, all of the rate is as good as guaranteed.
        guarantee: match resource.pool {
            Some(_) => limits.guarantee,
            None => limits.rate,
        },
        ..*limits
    });
    limits.collect()
}

fn limits_of_pool(resource: &Resource) -> Limits {
    resource.pool.map_or(Limits::default(), |pool| Limits {
        // A gateway that is cut off goes on with its part of the capacity.
        guarantee: pool.capacity,
        ..Limits::plain(pool.capacity, pool.depth)
    })
}
