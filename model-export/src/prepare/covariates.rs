//! What else was measured of customers beside their usage: latency, throughput, CPU, memory, network. One column for each, on the grid of the usage.
//!
//! A value belongs to the step that it was measured in and is known when that step has ended, as usage is: a forecast that is made at a step's end may see it, and
//! nobody may see it before. Steps without one are gaps and are never filled: who carries values forward decides how long they are believed, which is for
//! the family to say.

use std::collections::BTreeMap;

use forebay_traces::{Join, SampledSeries, Samples};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::grid::{Counts, UsageGrid};
use super::{AMOUNT_MAX, ResourceGrid, STEPS_MAX};

/// Most covariates of a data set.
pub(super) const COVARIATES_MAX: usize = 16;
/// What their columns' names begin with.
const PREFIX: &str = "cov_";

/// Something that was measured.
pub(crate) struct Covariate {
    pub(super) name: String,
    /// One series, the same for all customers.
    pub(super) is_for_all: bool,
    /// Sorted, of one resource.
    pub(super) samples: Samples,
}

/// What is known of one in a resource's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreparedCovariate {
    /// Customers that have any value.
    pub(crate) customers: u64,
    /// Steps of usage without one.
    pub(crate) gaps: u64,
    /// Rows with a negative value; left out.
    pub(crate) negatives: u64,
}

/// Name of a covariate's column.
pub(crate) fn column_of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Puts all of them on the grids of all resources. Fails with the reason.
pub(super) fn attach(covariates: &[Covariate], grids: &mut [ResourceGrid]) -> Result<(), String> {
    let steps: u64 = grids.iter().map(|grid| grid.counts.steps).sum();
    let all = steps.saturating_mul(1 + covariates.len() as u64);
    if all > STEPS_MAX {
        return Err(format!(
            "{steps} steps of usage and {} covariates are {all} numbers, and a data set has {STEPS_MAX} at most: prepare fewer customers or a shorter time",
            covariates.len()
        ));
    }
    for covariate in covariates {
        for grid in &mut *grids {
            let prepared = covariate.attach(grid)?;
            grid.covariates.insert(covariate.name.clone(), prepared);
        }
    }
    Ok(())
}

/// Adds them to the sum of a data set; nothing where there are none, so that the digest is that of the usage then.
pub(super) fn digest(grids: &[ResourceGrid], sum: &mut Sha256) {
    for grid in grids {
        for (nth, name) in grid.covariates.keys().enumerate() {
            // No resource has such a name.
            let named = format!("covariate:{}:{name}", grid.name);
            sum.update((named.len() as u64).to_le_bytes());
            sum.update(named);
            for value in grid.customers.iter().flat_map(|one| &one.covariates[nth]) {
                let bits = match value.is_nan() {
                    true => u64::MAX,
                    false => value.to_bits(),
                };
                sum.update(bits.to_le_bytes());
            }
        }
    }
}

// === impl Covariate ===

impl Covariate {
    fn attach(&self, grid: &mut ResourceGrid) -> Result<PreparedCovariate, String> {
        let mut prepared = PreparedCovariate {
            negatives: self.samples.resources().map(|(_, count)| count).sum(),
            ..PreparedCovariate::default()
        };
        let all: BTreeMap<&str, SampledSeries<'_>> = self
            .samples
            .series(&self.name)
            .map(|series| (series.tenant, series))
            .collect();
        let common = match self.is_for_all {
            true => all.values().next(),
            false => None,
        };
        for customer in &mut grid.customers {
            let series = common.or_else(|| all.get(customer.customer.as_str()));
            let values = match series {
                Some(series) => self.on_grid_of(customer, series)?,
                None => vec![f64::NAN; customer.len()],
            };
            let known = values.iter().filter(|value| !value.is_nan()).count();
            prepared.customers += u64::from(known > 0);
            prepared.gaps += (values.len() - known) as u64;
            customer.covariates.push(values);
        }
        Ok(prepared)
    }

    fn on_grid_of(
        &self,
        usage: &UsageGrid,
        series: &SampledSeries<'_>,
    ) -> Result<Vec<f64>, String> {
        let mut counts = Counts::default();
        let measured = UsageGrid::of(series, usage.step_s, Join::Mean, STEPS_MAX, &mut counts)
            .map_err(|steps| {
                format!(
                    "the covariate {} spans {steps} steps of {} s: is a time wrong?",
                    self.name, usage.step_s
                )
            })?;
        if measured.amounts.iter().any(|value| *value > AMOUNT_MAX) {
            return Err(format!(
                "a value of the covariate {} is above {AMOUNT_MAX:e}",
                self.name
            ));
        }
        // Both grids begin at whole steps since 1970.
        let ahead_s = usage.start_s - measured.start_s;
        let ahead = ahead_s.div_euclid(i64::from(usage.step_s));
        let value = |step: usize| {
            let at = usize::try_from(ahead.saturating_add(step as i64)).ok()?;
            measured.amounts.get(at).copied()
        };
        let values = (0..usage.len()).map(|step| value(step).unwrap_or(f64::NAN));
        Ok(values.collect())
    }
}
