//! From samples to one regular grid of a customer, with what had to be mended counted.

use std::collections::BTreeMap;

use forebay_traces::{Join, Sample, SampledSeries};
use serde::{Deserialize, Serialize};

use super::outlier::OutlierRule;

const NS_PER_S: i64 = 1_000_000_000;

/// Usage of a customer, one amount for each step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UsageGrid {
    pub(crate) customer: String,
    pub(crate) start_s: i64,
    pub(crate) step_s: u32,
    /// NaN is a gap; outliers are clipped.
    pub(crate) amounts: Vec<f64>,
    /// What was recorded at the steps that are clipped.
    pub(crate) outliers: BTreeMap<usize, f64>,
    /// What else was measured, one series for each covariate of the resource; NaN is a gap.
    pub(crate) covariates: Vec<Vec<f64>>,
}

/// What was found, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// Steps of all customers.
    pub(crate) steps: u64,
    /// Steps without an amount.
    pub(crate) gaps: u64,
    /// Steps whose amount was clipped.
    pub(crate) outliers: u64,
    /// Rows that say what another row of the same time says; left out.
    pub(crate) duplicates: u64,
    /// Further rows of a step; the step has their mean, or their sum.
    pub(crate) joined: u64,
    /// Rows with a negative amount; left out.
    pub(crate) negatives: u64,
}

// === impl UsageGrid ===

impl UsageGrid {
    /// Samples in the order of time and amount become steps of `step_s`. Fails with the number of steps if there are more than `room`.
    pub(super) fn of(
        series: &SampledSeries<'_>,
        step_s: u32,
        join: Join,
        room: u64,
        counts: &mut Counts,
    ) -> Result<Self, u64> {
        let step_ns = i64::from(step_s).saturating_mul(NS_PER_S);
        let step_of = |sample: &Sample| sample.at_ns.div_euclid(step_ns);
        let first = series.samples().next().map_or(0, |sample| step_of(&sample));
        let last = series.samples().last().map_or(0, |sample| step_of(&sample));
        let steps = last.abs_diff(first).saturating_add(1);
        let len = match usize::try_from(steps) {
            Ok(len) if steps <= room => len,
            _ => return Err(steps),
        };
        let mut sums = vec![0.0; len];
        let mut rows = vec![0_u32; len];
        let mut before: Option<Sample> = None;
        for sample in series.samples() {
            // Bits, since a gap that is said twice is a duplicate, too.
            // What is added up has rows of its own right.
            let is_duplicate = join == Join::Mean
                && before.is_some_and(|before| {
                    before.at_ns == sample.at_ns
                        && before.amount.to_bits() == sample.amount.to_bits()
                });
            before = Some(sample);
            if is_duplicate {
                counts.duplicates += 1;
            } else if !sample.amount.is_nan() {
                let at = step_of(&sample).abs_diff(first) as usize;
                // Samples are in an order of their own: a sum does not depend on that of the source.
                sums[at] += sample.amount;
                rows[at] += 1;
            }
        }
        let amounts: Vec<f64> = sums
            .iter()
            .zip(&rows)
            .map(|(sum, rows)| match rows {
                0 => f64::NAN,
                rows if join == Join::Mean => sum / f64::from(*rows),
                _ => *sum,
            })
            .collect();
        counts.steps += steps;
        counts.gaps += amounts.iter().filter(|amount| amount.is_nan()).count() as u64;
        counts.joined += rows
            .iter()
            .map(|rows| u64::from(rows.saturating_sub(1)))
            .sum::<u64>();
        Ok(Self {
            customer: series.tenant.to_owned(),
            start_s: first.saturating_mul(i64::from(step_s)),
            step_s,
            amounts,
            outliers: BTreeMap::new(),
            covariates: Vec::new(),
        })
    }

    /// No step of nobody, with so many covariates.
    pub(super) fn empty(covariates: usize) -> Self {
        Self {
            customer: String::new(),
            start_s: 0,
            step_s: 1,
            amounts: Vec::new(),
            outliers: BTreeMap::new(),
            covariates: vec![Vec::new(); covariates],
        }
    }

    /// Clips outliers; says how many there are.
    pub(super) fn clip(&mut self, rule: &OutlierRule) -> u64 {
        let fences = rule.fences(&self.amounts);
        for (step, (amount, fence)) in self.amounts.iter_mut().zip(fences).enumerate() {
            if *amount > fence {
                self.outliers.insert(step, *amount);
                *amount = fence;
            }
        }
        self.outliers.len() as u64
    }

    /// The amount of a step before it was clipped.
    pub(crate) fn recorded(&self, step: usize) -> f64 {
        let outlier = self.outliers.get(&step);
        *outlier.unwrap_or(&self.amounts[step])
    }

    pub(crate) fn len(&self) -> usize {
        self.amounts.len()
    }

    /// Unix time at which a step starts.
    pub(crate) fn stamp_s(&self, step: usize) -> i64 {
        let steps = i64::try_from(step).unwrap_or(i64::MAX);
        self.start_s
            .saturating_add(steps.saturating_mul(i64::from(self.step_s)))
    }
}
