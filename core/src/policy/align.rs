//! Keeping contract indexes stable from one policy to the next.
//!
//! Ledger entries point into the contract table by index, and pages are rewritten some time after the policy blob. If a new
//! policy shuffled the table, customers would be judged by each other's contracts in between. So a contract keeps the
//! row that its name had, and a name that has gone leaves its row in place until no entry can point to it any more.

use std::collections::BTreeMap;

use super::{Contract, ContractIndex, Policy, Unknown};

impl Policy {
    /// Gives each contract the row that its name has in `previous`; new contracts follow behind, and contracts that the new
    /// policy no longer has stay in their rows, with nobody assigned to them. Returns where each row went:
    /// row `i` of the old order is now row `moved[i]`.
    ///
    /// If the table would grow above its bound, the rows of vanished contracts are reused.
    pub fn keep_indexes_of(&mut self, previous: &Policy) -> Vec<ContractIndex> {
        self.keep_indexes_within(previous, crate::limits::MAX_CONTRACTS)
    }

    /// The same with a lower bound, for a table that must stay small. A policy that needs more rows than that itself gets them.
    pub fn keep_indexes_within(
        &mut self,
        previous: &Policy,
        rows_most: usize,
    ) -> Vec<ContractIndex> {
        let mut rows: Vec<Option<Contract>> = previous.contracts.iter().map(|_| None).collect();
        let incoming = core::mem::take(&mut self.contracts);
        let mut moved = vec![ContractIndex(0); incoming.len()];
        let by_name = rows_by_name(previous);
        let mut newcomers = Vec::new();
        for (row, contract) in incoming.into_iter().enumerate() {
            let kept = by_name.get(contract.name.as_str());
            match kept.and_then(|old_row| rows.get_mut(*old_row).map(|place| (*old_row, place))) {
                Some((old_row, place)) => {
                    *place = Some(contract);
                    set(&mut moved, row, old_row);
                }
                None => newcomers.push((row, contract)),
            }
        }
        place_newcomers(&mut rows, newcomers, &mut moved, rows_most);
        self.contracts = rows
            .into_iter()
            .zip(
                previous
                    .contracts
                    .iter()
                    .map(Some)
                    .chain(core::iter::repeat(None)),
            )
            .filter_map(|(row, old)| row.or_else(|| old.cloned()))
            .collect();
        self.unknown = match self.unknown {
            Unknown::Deny => Unknown::Deny,
            Unknown::DefaultContract(contract) => {
                Unknown::DefaultContract(follow(&moved, contract))
            }
            Unknown::Commons {
                contract,
                prefix_len_v4,
                prefix_len_v6,
            } => Unknown::Commons {
                contract: follow(&moved, contract),
                prefix_len_v4,
                prefix_len_v6,
            },
        };
        moved
    }
}

fn rows_by_name(policy: &Policy) -> BTreeMap<&str, usize> {
    let mut rows = BTreeMap::new();
    for (row, contract) in policy.contracts.iter().enumerate() {
        rows.insert(contract.name.as_str(), row);
    }
    rows
}

fn place_newcomers(
    rows: &mut Vec<Option<Contract>>,
    newcomers: Vec<(usize, Contract)>,
    moved: &mut [ContractIndex],
    rows_most: usize,
) {
    let overflow = rows.len().saturating_add(newcomers.len()) > rows_most;
    let mut free = 0;
    for (row, contract) in newcomers {
        let vacant = overflow
            .then(|| rows.iter().skip(free).position(Option::is_none))
            .flatten();
        if let Some(place) = vacant.map(|offset| free.saturating_add(offset))
            && let Some(slot) = rows.get_mut(place)
        {
            *slot = Some(contract);
            set(moved, row, place);
            free = place;
        } else {
            set(moved, row, rows.len());
            rows.push(Some(contract));
        }
    }
}

fn set(moved: &mut [ContractIndex], row: usize, place: usize) {
    if let Some(slot) = moved.get_mut(row) {
        *slot = ContractIndex(u16::try_from(place).unwrap_or(u16::MAX));
    }
}

fn follow(moved: &[ContractIndex], contract: ContractIndex) -> ContractIndex {
    moved
        .get(usize::from(contract.0))
        .copied()
        .unwrap_or(contract)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Resource, ShadowRule, Tier};
    use crate::resource::PerResource;

    fn policy(names: &[&str], unknown: Unknown) -> Policy {
        let contract = |name: &&str| Contract {
            name: (*name).to_owned(),
            tier: Tier::One,
            priority: 0,
            weight: 1,
            limits: PerResource::default(),
        };
        Policy {
            epoch: 1,
            dry_run: false,
            resources: vec![Resource {
                name: "requests".to_owned(),
                pool: None,
            }],
            contracts: names.iter().map(contract).collect(),
            unknown,
            shadow: ShadowRule::default(),
        }
    }

    #[test]
    fn contracts_keep_their_rows_whatever_order_the_new_policy_has() {
        let old = policy(&["bronze", "gold", "silver"], Unknown::Deny);
        let mut new = policy(
            &["silver", "copper", "gold"],
            Unknown::DefaultContract(ContractIndex(0)),
        );
        let moved = new.keep_indexes_of(&old);
        let names: Vec<_> = new
            .contracts
            .iter()
            .map(|contract| contract.name.as_str())
            .collect();
        assert_eq!(names, ["bronze", "gold", "silver", "copper"]);
        assert_eq!(
            moved,
            [ContractIndex(2), ContractIndex(3), ContractIndex(1)]
        );
        assert_eq!(new.unknown, Unknown::DefaultContract(ContractIndex(2)));
        assert_eq!(new.check(), Ok(()));
    }

    #[test]
    fn a_table_that_must_stay_small_reuses_the_rows_of_vanished_contracts() {
        let old = policy(&["bronze", "gold", "silver"], Unknown::Deny);
        let mut new = policy(&["copper", "gold", "iron", "tin"], Unknown::Deny);
        let moved = new.keep_indexes_within(&old, 3);
        let names: Vec<_> = new
            .contracts
            .iter()
            .map(|contract| contract.name.as_str())
            .collect();
        assert_eq!(names, ["copper", "gold", "iron", "tin"]);
        assert_eq!(moved, [0, 1, 2, 3].map(ContractIndex));
    }
}
