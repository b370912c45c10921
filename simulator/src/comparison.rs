//! Policies side by side, over seeds: means, and how far they may be off.

use crate::error::SimulationError;
use crate::figures::{COUNT, Figures};
use crate::policies::{MakeCoordinator, PolicyName};
use crate::scenario::{Scenario, Settings};
use crate::trace::Trace;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Student's t for 95 %, two-sided, by degrees of freedom from 1 on; beyond them that of the normal distribution is close.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
const T_95_MANY: f64 = 1.96;

/// One policy with one seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// The policy.
    pub policy: PolicyName,
    /// The seed.
    pub seed: u64,
    /// What came of it.
    pub figures: Figures,
}

/// All runs, by policy and then by seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The runs.
    pub runs: Vec<Run>,
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half of the interval that holds the true mean in 95 of 100 cases; no number with fewer than two seeds.
    pub ci95: f64,
}

// === impl Comparison ===

impl Comparison {
    /// Runs each policy with each seed. All policies get the same requests, homes and faults with a seed.
    ///
    /// # Errors
    /// When a run has no result.
    pub fn new(
        trace: &Trace,
        settings: Settings,
        policies: &[PolicyName],
        seeds: &[u64],
        coordinator: &MakeCoordinator<'_>,
    ) -> Result<Self, SimulationError> {
        let mut runs = Vec::with_capacity(policies.len() * seeds.len());
        for seed in seeds {
            let scenario = Scenario::new(trace, settings, *seed);
            for policy in policies {
                let record = policy.run(&scenario, coordinator);
                let record = record.map_err(|error| SimulationError::Run {
                    policy: *policy,
                    seed: *seed,
                    source: Box::new(error),
                })?;
                runs.push(Run {
                    policy: *policy,
                    seed: *seed,
                    figures: Figures::of(&scenario, &record),
                });
            }
        }
        let place = |policy| policies.iter().position(|other| *other == policy);
        runs.sort_by_key(|run| (place(run.policy), run.seed));
        Ok(Self { runs })
    }

    /// The means of each policy, in the order of the policies.
    #[must_use]
    pub fn means(&self) -> Vec<(PolicyName, [Mean; COUNT])> {
        let of_policy = self.runs.chunk_by(|one, other| one.policy == other.policy);
        of_policy
            .filter_map(|runs| {
                let values: Vec<[f64; COUNT]> =
                    runs.iter().map(|run| run.figures.values()).collect();
                let mean = |figure: usize| {
                    let column = values.iter().filter_map(|row| row.get(figure).copied());
                    Mean::of(&column.collect::<Vec<f64>>())
                };
                Some((runs.first()?.policy, std::array::from_fn(mean)))
            })
            .collect()
    }

    /// Every mean under a name of its own, `POLICY_FIGURE`, and half of its interval under the same with `_ci95`. What does not apply is not there.
    #[must_use]
    pub fn fields(&self) -> BTreeMap<String, f64> {
        let mut fields = BTreeMap::new();
        for (policy, means) in self.means() {
            for (name, mean) in Figures::NAMES.iter().zip(means) {
                if mean.mean.is_finite() {
                    fields.insert(format!("{policy}_{name}"), mean.mean);
                }
                if mean.ci95.is_finite() {
                    fields.insert(format!("{policy}_{name}_ci95"), mean.ci95);
                }
            }
        }
        fields
    }

    /// Every run as a line of a CSV file.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = format!("policy,seed,{}\n", Figures::NAMES.join(","));
        for run in &self.runs {
            // Writing to a string cannot fail.
            let _ = write!(text, "{},{}", run.policy, run.seed);
            for value in run.figures.values() {
                let _ = match value.is_finite() {
                    true => write!(text, ",{value}"),
                    false => write!(text, ","),
                };
            }
            text.push('\n');
        }
        text
    }
}

// === impl Mean ===

impl Mean {
    /// The mean of these, with the interval of Student.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let freedom = values.len().saturating_sub(1);
        let t = match freedom {
            0 => f64::NAN,
            _ => T_95.get(freedom - 1).copied().unwrap_or(T_95_MANY),
        };
        let deviation = (squares / freedom as f64).sqrt();
        Self {
            mean,
            ci95: t * deviation / count.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_interval_of_student() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0]);
        assert!((mean.mean - 2.5).abs() < 1e-12);
        // Standard deviation 1.29099, by 2 for four values, times 3.182.
        assert!((mean.ci95 - 2.0540).abs() < 1e-3, "{mean:?}");
        assert!(Mean::of(&[1.0]).ci95.is_nan());
        assert!(Mean::of(&[2.0; 40]).ci95.abs() < 1e-12);
    }
}
