//! A candidate policy, compiled, with its customers by hash, as the state has those of the policy in force.

use super::counting::Treated;
use crate::allocation::Rule;
use crate::document::CheckedPolicy;
use crate::keys::Keys;
use crate::plane::Override;
use forebay_core::policy::{ContractIndex, Policy};
use forebay_simulator::pool::what_if::Standing;
use forebay_wire::key::CustomerHash;
use hashbrown::HashMap;

/// A candidate policy.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) policy: Policy,
    pub(crate) rule: Option<Rule>,
    customers: HashMap<CustomerHash, Customer>,
}

/// A customer that it lists.
#[derive(Clone, Copy, Debug)]
struct Customer {
    contract: ContractIndex,
    ban_until_unix_ms: u64,
    exempt: bool,
    frozen: bool,
}

// === impl Listed ===

impl Listed {
    pub(crate) fn new(checked: &CheckedPolicy, keys: &Keys) -> Self {
        let policy = checked.compiled.policy.clone();
        let rows = (0..=u16::MAX).map(ContractIndex);
        let rows: Vec<ContractIndex> = rows.take(policy.contracts.len()).collect();
        let customers = &checked.compiled.customers;
        let sharing = checked.sharing.as_ref();
        Self {
            rule: sharing.map(|sharing| Rule::of(sharing, customers, &rows, keys)),
            policy,
            customers: customers
                .iter()
                .map(|customer| {
                    let of = Customer {
                        contract: customer.contract,
                        ban_until_unix_ms: customer.ban_until_unix_ms,
                        exempt: customer.exempt,
                        frozen: customer.frozen,
                    };
                    (keys.hash(&customer.key), of)
                })
                .collect(),
        }
    }

    /// How many customers it lists.
    pub(crate) fn customers(&self) -> usize {
        self.customers.len()
    }

    /// Those that have a guarantee of anything.
    pub(crate) fn guaranteed(&self) -> impl Iterator<Item = CustomerHash> {
        let has_one = |contract: ContractIndex| {
            let row = self.policy.contract(contract);
            row.is_some_and(|row| row.limits.iter().any(|limits| limits.guarantee.get() > 0))
        };
        let customers = self.customers.iter();
        customers
            .filter(move |(_, customer)| has_one(customer.contract))
            .map(|(hash, _)| *hash)
    }

    /// How a customer would be treated, the operator's word before the policy's.
    pub(crate) fn treats(&self, hash: CustomerHash, said: Override, now_unix_ms: u64) -> Treated {
        let customer = self.customers.get(&hash);
        let row = customer.map(|customer| customer.contract);
        let row = row.or(self.policy.unknown_contract());
        let ban = customer.map_or(0, |customer| customer.ban_until_unix_ms);
        let is_frozen = said
            .frozen
            .unwrap_or(customer.is_some_and(|customer| customer.frozen));
        let is_exempt = said
            .exempt
            .unwrap_or(customer.is_some_and(|customer| customer.exempt));
        let is_banned = said.ban_until_unix_ms.unwrap_or(ban) > now_unix_ms;
        Treated {
            row,
            group: self.rule.as_ref().and_then(|rule| rule.group(hash)),
            standing: Standing {
                is_refused: is_banned || is_frozen || row.is_none(),
                is_exempt,
            },
        }
    }
}
