//! Which groups a customer belongs to, and forecasts of groups and members that do not contradict each other.
//!
//! Each group is forecast from its own history, so its interval is that of its own errors. What medians contradict each other by is shared out by how unsure
//! each forecast is: minimum trace reconciliation with a diagonal covariance, as in `forebay_families::reconcile`, which knows one group. A customer is in
//! several here, and groups may overlap in any way; then the shares are the solution of linear equations, one for each group. To reconcile group after
//! group was the worse alternative: each would undo what was done for the one before.

use super::forecast::{LOWER, MEDIAN, Row, UPPER};
use forebay_core::policy::ContractIndex;
use std::fmt;

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

/// The groups of customers by the policy in force: a function from a contract to groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grouping {
    /// By row of the contract table.
    pub(crate) contracts: Vec<ContractGroups>,
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
            Self::Rest => formatter.write_str("rest"),
        }
    }
}

// === impl Grouping ===

impl Grouping {
    /// The groups of whoever has this contract; `None`: no policy gives the customer any.
    pub(super) fn of(&self, contract: Option<ContractIndex>) -> Vec<Group> {
        let mut groups = vec![Group::All];
        let contract = contract.and_then(|contract| self.contracts.get(usize::from(contract.0)));
        if let Some(contract) = contract {
            groups.push(Group::Tier(contract.tier));
            groups.extend(contract.own.clone().map(Group::Contract));
        }
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
        };
        let names = |contract: Option<u16>| -> Vec<String> {
            let groups = grouping.of(contract.map(ContractIndex));
            groups.iter().map(Group::to_string).collect()
        };
        assert_eq!(names(Some(0)), ["all", "tier:1", "contract:gold"]);
        assert_eq!(names(Some(1)), ["all", "tier:3"]);
        assert_eq!(names(Some(9)), ["all"]);
        assert_eq!(names(None), ["all"]);
    }
}
