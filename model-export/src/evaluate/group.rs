//! All tenants of a data set as one group: what its own forecast is worth, made coherent with the members' ones, beside the sum of theirs.
//!
//! The group's demand is known where nearly all of it is: the few members that are not known at a step are supposed to have their usual part of it. To know it
//! only where everybody is known was the worse alternative: of three hundred tenants with a gap in a hundred steps somebody is missing nearly always.

use forebay_families::{Forecasts, History, MixtureSettings, QUANTILES, pinball, race, reconcile};
use serde::Serialize;
use std::sync::Arc;

use super::learners;
use crate::dataset::DataSet;
use crate::output::figure;
use crate::scoring::Scored;

const MEDIAN: usize = 1;
const UPPER: usize = 2;
/// Part of the usual demand whose members must be known at a step.
const KNOWN_DEMAND_MIN: f64 = 0.9;
/// Part of the steps at which the group must be.
const KNOWN_STEPS_MIN: f64 = 0.9;

/// Scores of the group's demand over all steps ahead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Group {
    /// wQL of the group's own forecast.
    wql: f64,
    /// The same after members and group were made coherent.
    wql_coherent: f64,
    /// Of the sum of the members' quantiles.
    wql_sum: f64,
    /// Share of actuals at or below the 0.9 quantile, of each.
    coverage_90: f64,
    coverage_90_coherent: f64,
    coverage_90_sum: f64,
    /// wQL of the members, and after they were made coherent.
    wql_members: f64,
    wql_members_coherent: f64,
    /// Largest distance between the group's median and the sum of its members', as a part of it, after reconciliation.
    incoherence: f64,
}

// === impl Group ===

impl Group {
    /// `None` for a single tenant, or where the tenants' grids differ; why not, where too little is known of the group.
    pub(super) fn of(
        data_set: &DataSet,
        scored: &[Scored],
        deployed: &[Option<Forecasts>],
    ) -> Option<Result<Self, String>> {
        let (first, others) = scored.split_first()?;
        let grid = |one: &Scored| (one.series.start_s, one.series.len(), one.test_start);
        if others.is_empty() || others.iter().any(|one| grid(one) != grid(first)) {
            return None;
        }
        let histories: Vec<History> = scored.iter().map(history_of).collect();
        let sums = sums(&histories, first.test_start);
        let known = sums.iter().filter(|sum| !sum.is_nan()).count();
        if (known as f64) < KNOWN_STEPS_MIN * sums.len() as f64 {
            return Some(Err(format!(
                "group of all: not scored, since members with {:.0} % of the usual demand are known at {known} of {} steps only",
                100.0 * KNOWN_DEMAND_MIN,
                sums.len()
            )));
        }
        let total = History::new(first.series.start_s, first.series.step_s, sums)
            .with_agenda(Arc::new(data_set.common_agenda()));
        let race = race(
            std::slice::from_ref(&total),
            &data_set.frame,
            &[first.test_start],
            &learners(),
            &MixtureSettings::default(),
        );
        let own = race.deployed.into_iter().next()??;
        let members: Option<Vec<Forecasts>> = deployed.iter().cloned().collect();
        let members = members?;
        let mut coherent = own.clone();
        let mut coherent_members = members.clone();
        reconcile(&mut coherent, &mut coherent_members);

        let steps = || {
            let horizons = 1..=data_set.cut.horizons;
            let origins = first.origins.iter();
            origins.flat_map(move |origin| horizons.clone().map(move |step| (*origin, step)))
        };
        let summed = |origin: usize, step: usize| -> Vec<f64> {
            let of_level = |level: usize| {
                let rows = members
                    .iter()
                    .map(|one| f64::from(one.of(origin, step)[level]));
                rows.sum()
            };
            (0..QUANTILES.len()).map(of_level).collect()
        };
        let row = |forecasts: &Forecasts, origin: usize, step: usize| -> Vec<f64> {
            forecasts
                .of(origin, step)
                .iter()
                .map(|value| f64::from(*value))
                .collect()
        };
        let of_group = |rows: &dyn Fn(usize, usize) -> Vec<f64>| {
            scored_rows(
                steps().map(|(origin, step)| (rows(origin, step), total.known()[origin + step])),
            )
        };
        let (wql, coverage_90) = of_group(&|origin, step| row(&own, origin, step));
        let (wql_coherent, coverage_90_coherent) =
            of_group(&|origin, step| row(&coherent, origin, step));
        let (wql_sum, coverage_90_sum) = of_group(&summed);
        let of_members = |all: &[Forecasts]| {
            let cells = histories.iter().zip(all).flat_map(|(history, forecasts)| {
                steps().map(move |(origin, step)| {
                    (row(forecasts, origin, step), history.known()[origin + step])
                })
            });
            scored_rows(cells).0
        };
        let incoherence = steps().map(|(origin, step)| {
            let median = f64::from(coherent.of(origin, step)[MEDIAN]);
            let members = coherent_members
                .iter()
                .map(|one| f64::from(one.of(origin, step)[MEDIAN]));
            let members: f64 = members.sum();
            (members - median).abs() / median.max(members).max(f64::MIN_POSITIVE)
        });
        let group = Self {
            wql,
            wql_coherent,
            wql_sum,
            coverage_90,
            coverage_90_coherent,
            coverage_90_sum,
            wql_members: of_members(&members),
            wql_members_coherent: of_members(&coherent_members),
            incoherence: incoherence.fold(0.0, f64::max),
        };
        // Without any demand in the test span there is nothing to be right about.
        Some(
            match group.figures().iter().all(|figure| figure.is_finite()) {
                true => Ok(group),
                false => Err(
                    "group of all: not scored, since it has no demand that is known and forecast"
                        .to_owned(),
                ),
            },
        )
    }

    fn figures(&self) -> [f64; 9] {
        [
            self.wql,
            self.wql_coherent,
            self.wql_sum,
            self.coverage_90,
            self.coverage_90_coherent,
            self.coverage_90_sum,
            self.wql_members,
            self.wql_members_coherent,
            self.incoherence,
        ]
    }

    pub(super) fn said(&self) -> String {
        format!(
            "group of all: wQL {} alone, {} coherent, {} by summing quantiles; q0.9 covers {}, {}, {} %; members {} alone, {} coherent; medians differ by {:.1e}",
            figure(self.wql, 4),
            figure(self.wql_coherent, 4),
            figure(self.wql_sum, 4),
            figure(100.0 * self.coverage_90, 1),
            figure(100.0 * self.coverage_90_coherent, 1),
            figure(100.0 * self.coverage_90_sum, 1),
            figure(self.wql_members, 4),
            figure(self.wql_members_coherent, 4),
            self.incoherence
        )
    }
}

/// Demand of all at each step, by that of those who are known there and by their part of the demand before the test; NaN where that part is too small.
fn sums(histories: &[History], test_start: usize) -> Vec<f64> {
    let usual: Vec<f64> = histories
        .iter()
        .map(|one| one.mean(test_start).max(f64::MIN_POSITIVE))
        .collect();
    let all: f64 = usual.iter().sum();
    let steps = histories.first().map_or(0, History::len);
    let sum_at = |step: usize| {
        let values = histories.iter().map(|one| one.known()[step]);
        let known = values.zip(&usual).filter(|(value, _)| !value.is_nan());
        let (sum, part) = known.fold((0.0, 0.0), |(sum, part), (value, usual)| {
            (sum + value, part + usual)
        });
        match part >= KNOWN_DEMAND_MIN * all {
            true => sum * all / part,
            false => f64::NAN,
        }
    };
    (0..steps).map(sum_at).collect()
}

fn history_of(one: &Scored) -> History {
    History::new(
        one.series.start_s,
        one.series.step_s,
        one.series.values.clone(),
    )
}

/// wQL of rows of quantiles beside what came, and the share of it at or below the 0.9 quantile.
fn scored_rows(rows: impl Iterator<Item = (Vec<f64>, f64)>) -> (f64, f64) {
    let (mut loss, mut demand, mut covered, mut count) = (0.0, 0.0, 0.0, 0.0);
    for (row, actual) in rows {
        if actual.is_nan() || row[0].is_nan() {
            continue;
        }
        let losses = QUANTILES.iter().zip(&row);
        loss += losses
            .map(|(level, value)| pinball(*level, *value, actual))
            .sum::<f64>();
        demand += actual;
        covered += f64::from(u8::from(actual <= row[UPPER]));
        count += 1.0;
    }
    (
        2.0 * loss / QUANTILES.len() as f64 / demand,
        covered / count,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Entries, Found};
    use crate::scoring;
    use std::fmt::Write as _;
    use std::fs;

    const HOURS: usize = 240;

    /// The group of so many tenants with a shape of the day; `demand` says what one adds at an hour, NaN is a gap.
    fn group(tenants: usize, demand: impl Fn(usize, usize) -> f64) -> Result<Group, String> {
        let mut csv = String::from("tenant,timestamp,requests\n");
        for tenant in 0..tenants {
            for hour in 0..HOURS {
                let stamp = 1_700_000_000 + 3_600 * hour;
                let amount = demand(tenant, hour);
                let amount = if amount.is_nan() {
                    String::new()
                } else {
                    amount.to_string()
                };
                let _ = writeln!(csv, "t{tenant},{stamp},{amount}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.csv");
        fs::write(&path, csv).unwrap();
        let Found::DataSet(mut data_set) = Entries::load(None).unwrap().read(&path).unwrap() else {
            panic!("no data set");
        };
        let scored = scoring::select(&data_set.cut, std::mem::take(&mut data_set.series));
        assert_eq!(scored.len(), tenants);
        let histories: Vec<History> = scored.iter().map(history_of).collect();
        let starts: Vec<usize> = scored.iter().map(|one| one.test_start).collect();
        let settings = MixtureSettings::default();
        let race = race(&histories, &data_set.frame, &starts, &[], &settings);
        Group::of(&data_set, &scored, &race.deployed).unwrap()
    }

    fn shape(tenant: usize, hour: usize) -> f64 {
        (10 + tenant % 7) as f64 + (hour * 5 % 24) as f64
    }

    /// Another hour for each tenant; the edges of the grid are everybody's.
    fn is_gap(tenant: usize, hour: usize, every: usize) -> bool {
        (hour * 31 + tenant * 17).is_multiple_of(every) && hour > 0 && hour + 1 < HOURS
    }

    #[test]
    fn a_gap_of_each_member_now_and_then_hides_nothing_of_the_group() {
        let gappy = |tenant, hour| match is_gap(tenant, hour, 50) {
            true => f64::NAN,
            false => shape(tenant, hour),
        };
        let (whole, found) = (group(60, shape).unwrap(), group(60, gappy).unwrap());
        assert!(
            (found.wql - whole.wql).abs() < 0.02,
            "{found:?} instead of {whole:?}"
        );
        assert!(found.figures().iter().all(|figure| figure.is_finite()));
    }

    #[test]
    fn a_group_of_which_too_little_is_known_is_not_scored_and_that_is_said() {
        let half = |tenant, hour| match is_gap(tenant, hour, 2) {
            true => f64::NAN,
            false => shape(tenant, hour),
        };
        assert!(group(6, half).is_err_and(|said| said.contains("steps only")));
    }
}
