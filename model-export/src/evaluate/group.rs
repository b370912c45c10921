//! All tenants of a data set as one group: what its own forecast is worth, made coherent with the members' ones, beside the sum of theirs.

use forebay_families::{Forecasts, History, MixtureSettings, QUANTILES, pinball, race, reconcile};
use serde::Serialize;
use std::sync::Arc;

use super::learners;
use crate::dataset::DataSet;
use crate::scoring::Scored;

const MEDIAN: usize = 1;
const UPPER: usize = 2;

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
    /// `None` for a single tenant, or where the tenants' grids differ.
    pub(super) fn of(
        data_set: &DataSet,
        scored: &[Scored],
        deployed: &[Option<Forecasts>],
    ) -> Option<Self> {
        let (first, others) = scored.split_first()?;
        let grid = |one: &Scored| (one.series.start_s, one.series.len(), one.test_start);
        if others.is_empty() || others.iter().any(|one| grid(one) != grid(first)) {
            return None;
        }
        let histories: Vec<History> = scored.iter().map(history_of).collect();
        // Unknown where anybody's is.
        let sum_at = |step: usize| histories.iter().map(|one| one.known()[step]).sum();
        let total = History::new(
            first.series.start_s,
            first.series.step_s,
            (0..first.series.len()).map(sum_at).collect(),
        )
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
        let sums = |origin: usize, step: usize| -> Vec<f64> {
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
        let (wql_sum, coverage_90_sum) = of_group(&sums);
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
            (members.sum::<f64>() - median).abs() / median.max(f64::MIN_POSITIVE)
        });
        Some(Self {
            wql,
            wql_coherent,
            wql_sum,
            coverage_90,
            coverage_90_coherent,
            coverage_90_sum,
            wql_members: of_members(&members),
            wql_members_coherent: of_members(&coherent_members),
            incoherence: incoherence.fold(0.0, f64::max),
        })
    }

    pub(super) fn said(&self) -> String {
        format!(
            "group of all: wQL {:.4} alone, {:.4} coherent, {:.4} by summing quantiles; q0.9 covers {:.1}, {:.1}, {:.1} %; members {:.4} alone, {:.4} coherent; medians differ by {:.1e}",
            self.wql,
            self.wql_coherent,
            self.wql_sum,
            100.0 * self.coverage_90,
            100.0 * self.coverage_90_coherent,
            100.0 * self.coverage_90_sum,
            self.wql_members,
            self.wql_members_coherent,
            self.incoherence
        )
    }
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
