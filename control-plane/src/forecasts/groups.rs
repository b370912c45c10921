//! Which groups a customer belongs to, and forecasts of groups and members that do not contradict each other.
//!
//! Each group is forecast from its own history, so its interval is that of its own errors. What medians contradict each other by is shared out by how unsure
//! each forecast is: minimum trace reconciliation with a diagonal covariance, as in `forebay_families::reconcile`, which knows one group. A customer is in
//! several here, and groups may overlap in any way; then the shares are the solution of linear equations, one for each group. To reconcile group after
//! group was the worse alternative: each would undo what was done for the one before.

use super::forecast::{LOWER, MEDIAN, Row, UPPER};
use crate::allocation::Rule;
use forebay_core::policy::ContractIndex;
use forebay_wire::key::CustomerHash;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Sweeps over the equations. Their solution decides over who gives way; that medians add up does not depend on it.
const SWEEPS: usize = 40;

/// A group of customers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Group {
    /// All who use the resource.
    All,
    /// Those with contracts of a tier.
    Tier(u8),
    /// Those with a contract.
    Contract(String),
    /// Linked accounts, by the name that the policy gives them, with those of the groups within.
    Linked(String),
    /// Those who are not forecast by themselves.
    Rest,
}

/// A contract, as far as groups depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContractGroups {
    pub(crate) tier: u8,
    /// Its name, if it is a group of its own.
    pub(crate) own: Option<String>,
}

/// Linked accounts, as far as they are forecast together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linked {
    rule: Arc<Rule>,
    /// Which of its groups are groups of their own here.
    own: BTreeSet<usize>,
}

/// The groups of customers by the policy in force: a function from a customer and its contract to groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Grouping {
    /// By row of the contract table.
    pub(crate) contracts: Vec<ContractGroups>,
    /// Where the policy links accounts.
    pub(crate) linked: Option<Linked>,
}

/// A group with its forecast and the places of its members' forecasts.
#[derive(Clone, Debug)]
pub(super) struct Together {
    pub(super) row: Row,
    pub(super) members: Vec<usize>,
}

// === impl Group ===

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Tier(tier) => write!(formatter, "tier:{tier}"),
            Self::Contract(name) => write!(formatter, "contract:{name}"),
            Self::Linked(name) => write!(formatter, "group:{name}"),
            Self::Rest => formatter.write_str("rest"),
        }
    }
}

// === impl Linked ===

impl Linked {
    /// Chooses groups, the largest first and an outer one before those within, so that they add at most so many sums: one for each contract that a group has
    /// members with. Who of all customers is linked, and with which contract, is said by `members`.
    pub(crate) fn choose(
        rule: Arc<Rule>,
        members: impl Iterator<Item = (usize, Option<ContractIndex>)>,
        sums_most: usize,
    ) -> Self {
        let mut sizes = vec![0_usize; rule.groups.len()];
        let mut contracts = vec![BTreeSet::new(); rule.groups.len()];
        for (innermost, contract) in members {
            for group in around(&rule, innermost) {
                if let (Some(size), Some(contracts)) =
                    (sizes.get_mut(group), contracts.get_mut(group))
                {
                    *size = size.saturating_add(1);
                    contracts.insert(contract);
                }
            }
        }
        let mut by_size: Vec<usize> = (0..sizes.len()).collect();
        by_size.sort_by_key(|group| Reverse(sizes.get(*group).copied()));
        let mut left = sums_most;
        let mut own = BTreeSet::new();
        for group in by_size {
            let sums = contracts.get(group).map_or(0, BTreeSet::len);
            if let Some(rest) = left.checked_sub(sums).filter(|_| sums > 0) {
                left = rest;
                own.insert(group);
            }
        }
        Self { rule, own }
    }

    fn of(&self, customer: CustomerHash) -> impl Iterator<Item = Group> {
        let innermost = self.rule.group(customer).into_iter();
        let groups = innermost.flat_map(|innermost| around(&self.rule, innermost));
        let own = groups.filter(|group| self.own.contains(group));
        own.filter_map(|group| self.rule.group_names.get(group).cloned().map(Group::Linked))
    }
}

/// A group and those that it is a part of.
fn around(rule: &Rule, innermost: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(innermost), |group| rule.groups.get(*group)?.parent)
}

// === impl Grouping ===

impl Grouping {
    /// The groups of a customer that has this contract; `None`: no policy gives it any.
    pub(super) fn of(&self, customer: CustomerHash, contract: Option<ContractIndex>) -> Vec<Group> {
        let mut groups = vec![Group::All];
        let contract = contract.and_then(|contract| self.contracts.get(usize::from(contract.0)));
        if let Some(contract) = contract {
            groups.push(Group::Tier(contract.tier));
            groups.extend(contract.own.clone().map(Group::Contract));
        }
        let linked = self.linked.iter();
        groups.extend(linked.flat_map(|linked| linked.of(customer)));
        groups
    }
}

/// Moves forecasts so that the medians of each group's members add up to that of the group. Distances of quantiles from their median stay what they are, above zero.
pub(super) fn reconcile(members: &mut [Row], groups: &mut [Together]) {
    let variances: Vec<f64> = members.iter().map(variance).collect();
    let gaps: Vec<f64> = groups
        .iter()
        .map(|group| median(&group.row) - sum(members, &group.members))
        .collect();
    // Of each group how much its members give way by, per unit of their variance.
    let mut weights = vec![0.0; groups.len()];
    let mut shifts = vec![0.0; members.len()];
    for _ in 0..SWEEPS {
        for ((group, gap), weight) in groups.iter().zip(&gaps).zip(&mut weights) {
            let own = variance(&group.row);
            let all: f64 = own + of_members(&variances, &group.members).sum::<f64>();
            if all <= 0.0 {
                continue;
            }
            let moved: f64 = of_members(&shifts, &group.members).sum();
            let more = (gap - moved - own * *weight) / all;
            *weight += more;
            for member in &group.members {
                if let (Some(shift), Some(variance)) =
                    (shifts.get_mut(*member), variances.get(*member))
                {
                    *shift += variance * more;
                }
            }
        }
    }
    for (row, by) in members.iter_mut().zip(shifts) {
        shift(row, by);
    }
    for group in groups {
        let by = sum(members, &group.members) - median(&group.row);
        shift(&mut group.row, by);
    }
}

fn median(row: &Row) -> f64 {
    f64::from(row[MEDIAN])
}

fn variance(row: &Row) -> f64 {
    let width = f64::from(row[UPPER] - row[LOWER]);
    width * width
}

fn of_members<'a>(values: &'a [f64], members: &'a [usize]) -> impl Iterator<Item = f64> + 'a {
    members
        .iter()
        .filter_map(|member| values.get(*member).copied())
}

fn sum(rows: &[Row], members: &[usize]) -> f64 {
    members
        .iter()
        .filter_map(|member| rows.get(*member))
        .map(median)
        .sum()
}

fn shift(row: &mut Row, by: f64) {
    for value in row {
        *value = (f64::from(*value) + by).max(0.0) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_families::Forecasts;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Row> {
        prop::array::uniform4(0.0..1e4_f32).prop_map(|mut row| {
            row.sort_unstable_by(f32::total_cmp);
            row
        })
    }

    fn table(row: Row) -> Forecasts {
        let mut table = Forecasts::none(&(0..=0), 1);
        table.from_mut(0).copy_from_slice(&row);
        table
    }

    proptest! {
        /// Members are in groups that overlap in any way.
        #[test]
        fn medians_add_up_in_every_group_and_quantiles_stay_in_order(
            members in prop::collection::vec((row(), any::<u8>()), 1..20),
            of_groups in prop::collection::vec(row(), 1..5),
        ) {
            let mut rows: Vec<Row> = members.iter().map(|(row, _)| *row).collect();
            let mut groups: Vec<Together> = of_groups.iter().enumerate().map(|(group, row)| {
                let is_in = |place: &usize| members[*place].1 & (1 << group) != 0;
                Together { row: *row, members: (0..members.len()).filter(is_in).collect() }
            }).collect();
            reconcile(&mut rows, &mut groups);
            for group in &groups {
                let sum: f64 = group.members.iter().map(|member| f64::from(rows[*member][MEDIAN])).sum();
                prop_assert!((sum - f64::from(group.row[MEDIAN])).abs() <= 1e-5 * sum.max(1.0), "{sum} {group:?}");
            }
            let all = rows.iter().chain(groups.iter().map(|group| &group.row));
            prop_assert!(all.clone().all(|row| row.is_sorted() && row[0] >= 0.0));
        }

        #[test]
        fn one_group_gives_way_as_the_families_say(
            group in row(), members in prop::collection::vec(row(), 1..8),
        ) {
            let mut rows = members.clone();
            let mut groups = [Together { row: group, members: (0..members.len()).collect() }];
            reconcile(&mut rows, &mut groups);
            let (mut table_of_group, mut tables) = (table(group), Vec::from_iter(members.into_iter().map(table)));
            forebay_families::reconcile(&mut table_of_group, &mut tables);
            for (row, table) in rows.iter().zip(&tables) {
                for (ours, theirs) in row.iter().zip(table.of(0, 1)) {
                    prop_assert!((ours - theirs).abs() <= 1e-2, "{ours} {theirs}");
                }
            }
        }
    }

    #[test]
    fn a_group_keeps_its_own_interval_which_is_no_sum() {
        let mut rows = [[20.0, 40.0, 60.0, 70.0], [30.0, 50.0, 70.0, 90.0]];
        let mut groups = [Together {
            row: [80.0, 100.0, 110.0, 130.0],
            members: vec![0, 1],
        }];
        reconcile(&mut rows, &mut groups);
        let upper: f32 = rows.iter().map(|row| row[UPPER]).sum();
        let [group] = groups;
        assert!((group.row[UPPER] - group.row[MEDIAN] - 10.0).abs() < 1e-3);
        assert!(upper > group.row[UPPER] + 20.0, "{upper} {group:?}");
    }

    #[test]
    fn whoever_has_a_contract_is_in_its_tier_and_in_its_group_if_that_has_one() {
        let contract = |tier, own: Option<&str>| ContractGroups {
            tier,
            own: own.map(str::to_owned),
        };
        let grouping = Grouping {
            contracts: vec![contract(1, Some("gold")), contract(3, None)],
            linked: None,
        };
        let names = |contract: Option<u16>| -> Vec<String> {
            let groups = grouping.of(CustomerHash([1; 16]), contract.map(ContractIndex));
            groups.iter().map(Group::to_string).collect()
        };
        assert_eq!(names(Some(0)), ["all", "tier:1", "contract:gold"]);
        assert_eq!(names(Some(1)), ["all", "tier:3"]);
        assert_eq!(names(Some(9)), ["all"]);
        assert_eq!(names(None), ["all"]);
    }

    /// A policy whose groups `b` and `c` are parts of `a`; `d` is by itself. Outer ones come first: their numbers are 0 (`a`), 1 (`d`), 2 and 3.
    fn rule() -> Arc<Rule> {
        let document = r#"{
            "version": 1, "unknown": {"action": "deny"},
            "resources": {"requests": {"capacity_per_s": 1000}}, "sharing": {},
            "groups": {"a": {}, "b": {"parent": "a"}, "c": {"parent": "a"}, "d": {}},
            "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 1, "burst": 1}}}},
            "customers": [
                {"key": "a", "contract": "gold", "group": "a"}, {"key": "b", "contract": "gold", "group": "b"},
                {"key": "c", "contract": "gold", "group": "c"}, {"key": "d", "contract": "gold", "group": "d"}
            ]
        }"#;
        let document = serde_json::from_str(document).unwrap();
        let compiled = forebay_policy::compile(&document).unwrap();
        let sharing = forebay_policy::sharing(&document, &compiled).unwrap();
        let keys = crate::keys::Keys::new(None, None).unwrap();
        let moved = [ContractIndex(0)];
        Arc::new(Rule::of(
            &sharing.unwrap(),
            &compiled.customers,
            &moved,
            &keys,
        ))
    }

    #[test]
    fn linked_accounts_are_in_their_group_and_those_around_it_as_far_as_there_is_room() {
        let rule = rule();
        let names = |sums_most: usize| -> Vec<Vec<String>> {
            let contracts = [ContractIndex(0), ContractIndex(1)];
            // In each group somebody with either contract.
            let members = rule
                .members()
                .flat_map(|(_, group)| contracts.map(|one| (group, Some(one))));
            let linked = Linked::choose(Arc::clone(&rule), members, sums_most);
            let grouping = Grouping {
                contracts: Vec::new(),
                linked: Some(linked),
            };
            let mut members: Vec<(CustomerHash, usize)> = rule.members().collect();
            members.sort_by_key(|(_, group)| *group);
            let of = |(customer, _): &(CustomerHash, usize)| {
                let groups = grouping.of(*customer, None).into_iter().skip(1);
                groups.map(|group| group.to_string()).collect()
            };
            members.iter().map(of).collect()
        };
        let all: [&[&str]; 4] = [
            &["group:a"],
            &["group:d"],
            &["group:b", "group:a"],
            &["group:c", "group:a"],
        ];
        assert_eq!(names(8), all);
        // Each adds a sum for each of two contracts.
        let outer: [&[&str]; 4] = [&["group:a"], &[], &["group:a"], &["group:a"]];
        assert_eq!(names(3), outer);
        assert_eq!(names(1), [const { Vec::<String>::new() }; 4]);
    }
}
