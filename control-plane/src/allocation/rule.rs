//! What the policy says of sharing, as cycles ask for it: by row of the contract table in force, and by the hash of a customer.
//!
//! The policy crate compiles it in the order of the document. Rows of contracts move when a policy replaces another, and the directory knows
//! customers by hash only, so both are looked up once, when the policy comes.

use super::tuning::TuningRule;
use crate::keys::Keys;
use forebay_core::policy::ContractIndex;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_policy::{CompiledCustomer, CompiledEvent, Sharing, Spillover};
use forebay_sharing::priority::Prioritize;
use forebay_sharing::{Group, Lend, Settings, to_per_s};
use forebay_wire::key::CustomerHash;
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// The sharing of the policy in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// From one cycle to the next, in milliseconds.
    pub(crate) interval_ms: u32,
    pub(crate) settings: Settings,
    /// How priorities move; none where they stay.
    pub(crate) prioritize: Option<Prioritize>,
    /// Which other values are tried; none where all cycles go by `settings`.
    pub(crate) tuning: Option<TuningRule>,
    /// When there is room before a spike; none where nobody is scored.
    pub(crate) spillover: Option<Spillover>,
    /// Events that were announced.
    pub(crate) occasions: Vec<Occasion>,
    /// Linked accounts; a group lies behind the one that it is a part of.
    pub(crate) groups: Vec<Group>,
    /// Their names.
    pub(crate) group_names: Vec<String>,
    group_of: HashMap<CustomerHash, usize>,
    /// By row of the contract table in force.
    lends: HashMap<ContractIndex, PerResource<Lend>>,
}

/// An event that was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occasion {
    pub(crate) from_unix_ms: u64,
    /// Not in it.
    pub(crate) until_unix_ms: u64,
    /// Whose customers it moves; none: all.
    pub(crate) contracts: Option<BTreeSet<ContractIndex>>,
}

// === impl Occasion ===

impl Occasion {
    fn of(event: &CompiledEvent, moved: &[ContractIndex]) -> Self {
        Self {
            from_unix_ms: event.from_unix_ms,
            until_unix_ms: event.until_unix_ms,
            contracts: event.contracts.as_ref().map(|rows| {
                let rows = rows.iter().filter_map(|row| moved.get(*row));
                rows.copied().collect()
            }),
        }
    }
}

// === impl Rule ===

impl Rule {
    /// Of a policy whose contracts went to the rows `moved`.
    pub(crate) fn of(
        sharing: &Sharing,
        customers: &[CompiledCustomer],
        moved: &[ContractIndex],
        keys: &Keys,
    ) -> Self {
        let members = customers.iter().zip(&sharing.group_of);
        let group_of = members.filter_map(|(customer, group)| Some((customer, (*group)?)));
        let lends = moved.iter().zip(&sharing.lend_limits);
        let lends = lends.map(|(row, limits)| {
            let mut lends = PerResource::default();
            for (resource, limit) in ResourceIndex::first(limits.iter().len()).zip(limits.iter()) {
                *lends.at_mut(resource) = match limit {
                    None => Lend::Auto,
                    Some(limit) if limit.get() == 0 => Lend::Never,
                    Some(limit) => Lend::UpTo(to_per_s(*limit)),
                };
            }
            (*row, lends)
        });
        let groups = sharing.groups.iter().map(|group| {
            let mut cap_per_s = PerResource::default();
            for (resource, cap) in
                ResourceIndex::first(group.cap.iter().len()).zip(group.cap.iter())
            {
                *cap_per_s.at_mut(resource) = cap.map(to_per_s);
            }
            Group {
                parent: group.parent,
                cap_per_s,
            }
        });
        Self {
            interval_ms: sharing.interval_ms,
            settings: Settings {
                quantiles: sharing.quantiles,
                reserve_share: sharing.reserve_share,
                with_credits: sharing.with_credits,
                interval_s: f64::from(sharing.interval_ms) / 1e3,
                ..Settings::default()
            },
            prioritize: sharing.prioritize.map(|prioritize| Prioritize {
                most: prioritize.most,
                error_budget: prioritize.error_budget,
                half_life_ms: u64::from(prioritize.half_life_ms),
            }),
            tuning: sharing.tuning.as_ref().map(TuningRule::of),
            spillover: sharing.spillover,
            occasions: sharing
                .events
                .iter()
                .map(|event| Occasion::of(event, moved))
                .collect(),
            groups: groups.collect(),
            group_names: sharing
                .groups
                .iter()
                .map(|group| group.name.clone())
                .collect(),
            group_of: group_of
                .map(|(customer, group)| (keys.hash(&customer.key), group))
                .collect(),
            lends: lends.collect(),
        }
    }

    /// The innermost group of a customer.
    pub(crate) fn group(&self, customer: CustomerHash) -> Option<usize> {
        self.group_of.get(&customer).copied()
    }

    /// Linked accounts, each with the innermost group that it belongs to.
    pub(crate) fn members(&self) -> impl Iterator<Item = (CustomerHash, usize)> {
        let members = self.group_of.iter();
        members.map(|(customer, group)| (*customer, *group))
    }

    /// How much may be lent of the guarantees of a contract.
    pub(crate) fn lend(&self, contract: ContractIndex) -> PerResource<Lend> {
        self.lends.get(&contract).copied().unwrap_or_default()
    }

    /// How long an allocation holds: two cycles may be missed and half of one be late.
    pub(crate) fn ttl_ms(&self) -> u32 {
        ttl_ms(self.interval_ms)
    }
}

/// Of an interval.
pub(super) fn ttl_ms(interval_ms: u32) -> u32 {
    interval_ms.saturating_mul(5) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, check};

    #[test]
    fn lend_limits_go_with_the_rows_of_contracts_and_groups_with_the_hashes_of_customers() {
        let text = r#"{
            "version": 1, "sharing": {"interval_ms": 60000}, "groups": {"team": {"cap_per_s": {"requests": 50}}},
            "resources": {"requests": {"capacity_per_s": 100}},
            "contracts": {
                "a": {"limits": {"requests": {"rate_per_s": 9, "burst": 9, "guarantee_per_s": 5, "lend_limit_per_s": 0}}},
                "b": {"limits": {"requests": {"rate_per_s": 9, "burst": 9, "guarantee_per_s": 5, "lend_limit_per_s": 2}}},
                "c": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}}
            },
            "customers": [{"key": "acme", "contract": "a"}, {"key": "bolt", "contract": "b", "group": "team"}]
        }"#;
        let checked = check(text, Format::Json).unwrap();
        let keys = Keys::new(None, None).unwrap();
        let moved = [2, 0, 1].map(ContractIndex);
        let sharing = checked.sharing.unwrap();
        let rule = Rule::of(&sharing, &checked.compiled.customers, &moved, &keys);
        let lend = |row| *rule.lend(ContractIndex(row)).at(ResourceIndex::FIRST);
        assert_eq!(
            [lend(2), lend(0), lend(1)],
            [Lend::Never, Lend::UpTo(2.0), Lend::Auto]
        );
        assert_eq!(rule.group(keys.hash("bolt")), Some(0));
        assert_eq!(rule.group(keys.hash("acme")), None);
        assert_eq!(
            rule.groups[0].cap_per_s.at(ResourceIndex::FIRST),
            &Some(50.0)
        );
        assert_eq!(rule.ttl_ms(), 150_000);
    }
}
