//! Forecasts of a group (linked accounts, a tier, a region) and of its members that do not contradict each other.
//!
//! The group is forecast from its own history, so its quantiles are those of its own errors: summing the members' upper quantiles was the worse
//! alternative, because customers do not all peak at once. What the medians contradict each other by is shared out by how unsure each
//! forecast is (minimum trace reconciliation with a diagonal covariance: Wickramasuriya, Athanasopoulos and Hyndman, JASA 2019).

use crate::Forecasts;
use crate::forecasts::QUANTILES;

const LOWEST: usize = 0;
const MEDIAN: usize = 1;
const UPPER: usize = 2;

/// Moves forecasts of members and of their group so that the members' medians add up to the group's, step by step from `origins` of the group. Distances of
/// quantiles from their median stay what they are, above zero. Steps at which somebody has no forecast are left alone.
pub fn reconcile(group: &mut Forecasts, members: &mut [Forecasts]) {
    for origin in group.origins() {
        let has = |forecasts: &Forecasts| forecasts.origins().contains(&origin);
        if members.is_empty() || !members.iter().all(has) {
            continue;
        }
        let horizons = group.from(origin).len() / QUANTILES.len();
        for horizon in 0..horizons {
            let cells = horizon * QUANTILES.len()..(horizon + 1) * QUANTILES.len();
            let of = |forecasts: &Forecasts| -> [f32; QUANTILES.len()] {
                let mut row = [f32::NAN; QUANTILES.len()];
                row.copy_from_slice(&forecasts.from(origin)[cells.clone()]);
                row
            };
            let mut together = of(group);
            let mut rows: Vec<_> = members.iter().map(of).collect();
            reconcile_row(&mut together, &mut rows);
            group.from_mut(origin)[cells.clone()].copy_from_slice(&together);
            for (member, row) in members.iter_mut().zip(rows) {
                member.from_mut(origin)[cells.clone()].copy_from_slice(&row);
            }
        }
    }
}

/// The same for one step.
fn reconcile_row(group: &mut [f32; QUANTILES.len()], members: &mut [[f32; QUANTILES.len()]]) {
    let all = members.iter().chain([&*group]);
    if all
        .clone()
        .any(|row| row.iter().any(|value| value.is_nan()))
    {
        return;
    }
    let variance = |row: &[f32; QUANTILES.len()]| {
        let width = f64::from(row[UPPER] - row[LOWEST]);
        width * width
    };
    let unsure: f64 = all.map(variance).sum();
    let sum = |members: &[[f32; QUANTILES.len()]]| -> f64 {
        members.iter().map(|row| f64::from(row[MEDIAN])).sum()
    };
    let gap = f64::from(group[MEDIAN]) - sum(members);
    if unsure > 0.0 {
        for row in members.iter_mut() {
            let by = gap * variance(row) / unsure;
            shift(row, by);
        }
    }
    shift(group, sum(members) - f64::from(group[MEDIAN]));
}

fn shift(row: &mut [f32; QUANTILES.len()], by: f64) {
    for value in row {
        *value = (f64::from(*value) + by).max(0.0) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = [f32; QUANTILES.len()]> {
        prop::array::uniform4(0.0..1e4_f32).prop_map(|mut row| {
            row.sort_unstable_by(f32::total_cmp);
            row
        })
    }

    proptest! {
        #[test]
        fn medians_add_up_quantiles_stay_in_order_and_who_is_sure_hardly_moves(
            before in row(),
            members in prop::collection::vec(row(), 1..20),
        ) {
            let (mut group, mut after) = (before, members.clone());
            let sure = [7.0, 7.0, 7.0, 7.0];
            after.push(sure);
            reconcile_row(&mut group, &mut after);
            let sum: f64 = after.iter().map(|row| f64::from(row[MEDIAN])).sum();
            prop_assert!((sum - f64::from(group[MEDIAN])).abs() <= 1e-5 * sum.max(1.0), "{sum} {group:?}");
            prop_assert!(after.iter().chain([&group]).all(|row| row.is_sorted() && row[0] >= 0.0));
            prop_assert_eq!(after.last(), Some(&sure));
        }
    }

    #[test]
    fn the_group_is_less_unsure_than_the_sum_of_its_members_and_stays_so() {
        let mut group = [80.0, 100.0, 120.0, 130.0];
        let mut members = [[20.0, 40.0, 60.0, 70.0], [30.0, 50.0, 70.0, 90.0]];
        reconcile_row(&mut group, &mut members);
        let upper: f32 = members.iter().map(|row| row[UPPER]).sum();
        assert_eq!(group[UPPER] - group[MEDIAN], 20.0);
        assert!(upper > group[UPPER], "{upper}");
        assert_eq!(members[0][MEDIAN] + members[1][MEDIAN], group[MEDIAN]);
    }

    #[test]
    fn a_step_that_somebody_has_no_forecast_of_is_left_alone() {
        let mut group = [1.0, 2.0, 3.0, 4.0];
        let mut members = [[f32::NAN; 4], [5.0, 6.0, 7.0, 8.0]];
        reconcile_row(&mut group, &mut members);
        assert_eq!(
            (group, members[1]),
            ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0])
        );
    }
}
