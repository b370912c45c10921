//! What of a finished step leaves by remote write, and when.
//!
//! Values that are not zero, and one zero behind the last of them. Zeros say nothing to a sum over time, and most customers ask for
//! nothing in most steps; but a database goes on to show the last value of a series for some minutes, so the end of a demand must be
//! said once. Sending all of them was the worse alternative: a hundred times the samples for customers who came once.

use super::Plane;
use super::sync::usage::Finished;
use crate::buckets::POOL_ACCOUNT;
use crate::prometheus::{Counts, DropReason, Sample, StepSamples};
use crate::store::StoreError;
use hashbrown::HashSet;
use std::sync::Arc;

/// A step that has ended, and the one that ended before it in this run.
#[derive(Debug)]
pub struct EndedStep {
    pub(super) before: Arc<Finished>,
    pub(super) finished: Arc<Finished>,
}

/// Steps that wait until the store has them. While it is away they are hours; then the oldest are given up.
const MAX_ENDED: usize = 1_024;

impl Plane {
    /// Hands steps to remote write that are in the store now: all that ended with this batch or one before it. Called without the lock.
    ///
    /// They wait in the state and not in the request that ended them: its client may hang up, and a batch that could not be written is
    /// written with the next one. A replica that has lost the lead finds that out here, and whoever leads now sends the step itself.
    pub(super) fn export_ended(&self, number: u64, saved: &Result<(), StoreError>) {
        let mut lost = Vec::new();
        let (ready, resources) = {
            let mut state = self.lock();
            let excess = state.ended.len().saturating_sub(MAX_ENDED);
            lost.extend(state.ended.drain(..excess));
            let ready: Vec<(u64, EndedStep)> = match saved {
                Ok(()) => {
                    let ready = state.ended.partition_point(|(batch, _)| *batch <= number);
                    state.ended.drain(..ready).collect()
                }
                Err(StoreError::Fenced | StoreError::Stopped) => {
                    lost.extend(state.ended.drain(..));
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            let resources = state.policies.compiled().map(|policy| {
                let names = policy.resources.iter();
                names.map(|resource| resource.name.clone()).collect()
            });
            let resources: Arc<[String]> = resources.unwrap_or_default();
            (ready, resources)
        };
        let Some(remote_write) = &self.remote_write else {
            return;
        };
        for (_, ended) in lost {
            remote_write.count_dropped(DropReason::NotSaved, ended.samples().len());
        }
        let step_ms = self.settings.step_ms;
        for (_, ended) in ready {
            let next = ended.finished.step.saturating_add(1);
            remote_write.offer(StepSamples {
                ended_unix_ms: i64::try_from(next.saturating_mul(u64::from(step_ms)))
                    .unwrap_or(i64::MAX),
                step_ms,
                resources: Arc::clone(&resources),
                samples: ended.samples(),
            });
        }
    }

    /// What remote write has done, if there is one.
    #[must_use]
    pub fn exported(&self) -> Option<Counts> {
        Some(self.remote_write.as_ref()?.counts())
    }
}

// === impl EndedStep ===

impl EndedStep {
    fn samples(&self) -> Vec<Sample> {
        let series = |finished: &Finished| {
            // The pools' demand is the customers' once more.
            let usage = finished.usage.iter();
            let usage = usage.filter(|usage| usage.customer != POOL_ACCOUNT);
            usage
                .map(|usage| (usage.customer, usage.resource, usage.demand))
                .collect::<Vec<_>>()
        };
        let now = series(&self.finished);
        let asking: HashSet<_> = now
            .iter()
            .map(|(customer, resource, _)| (*customer, *resource))
            .collect();
        let stopped = series(&self.before);
        let stopped = stopped
            .into_iter()
            .filter(|(customer, resource, _)| !asking.contains(&(*customer, *resource)))
            .map(|(customer, resource, _)| (customer, resource, 0));
        #[allow(clippy::cast_precision_loss)] // exact up to 9e9 tokens in a step
        let sample = |(customer, resource, demand): (_, usize, u64)| Sample {
            customer,
            resource: u8::try_from(resource).unwrap_or(u8::MAX),
            tokens: demand as f64 / 1e6,
        };
        now.iter().copied().chain(stopped).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::usage::FinishedUsage;
    use super::*;
    use forebay_wire::key::CustomerHash;

    fn finished(step: u64, usage: &[(u8, usize, u64)]) -> Arc<Finished> {
        let usage = usage
            .iter()
            .map(|(customer, resource, demand)| FinishedUsage {
                customer: CustomerHash([*customer; 16]),
                resource: *resource,
                demand: *demand,
                denied: 0,
                gateways: None,
            });
        let mut finished = Finished::of(step);
        for usage in usage {
            finished.add(usage, []);
        }
        Arc::new(finished)
    }

    fn samples(before: &Arc<Finished>, finished: &Arc<Finished>) -> Vec<(u8, u8, f64)> {
        let ended = EndedStep {
            before: Arc::clone(before),
            finished: Arc::clone(finished),
        };
        let samples = ended.samples();
        let plain = |sample: &Sample| (sample.customer.0[0], sample.resource, sample.tokens);
        samples.iter().map(plain).collect()
    }

    #[test]
    fn a_zero_is_sent_once_behind_a_demand_and_for_its_resource_only() {
        let first = finished(1, &[(7, 0, 2_500_000), (7, 1, 1), (8, 0, 1_000_000)]);
        let second = finished(2, &[(7, 0, 3_000_000)]);
        let third = finished(3, &[]);
        let none = Arc::default();
        let sent = [(7, 0, 2.5), (7, 1, 1e-6), (8, 0, 1.0)];
        assert_eq!(samples(&none, &first), sent);
        assert_eq!(
            samples(&first, &second),
            [(7, 0, 3.0), (7, 1, 0.0), (8, 0, 0.0)]
        );
        assert_eq!(samples(&second, &third), [(7, 0, 0.0)]);
        assert_eq!(samples(&third, &finished(4, &[])), []);
    }

    #[test]
    fn the_pools_do_not_count_as_a_customer() {
        let first = finished(1, &[(0, 0, 5), (7, 0, 5_000_000)]);
        assert_eq!(samples(&Arc::default(), &first), [(7, 0, 5.0)]);
        assert_eq!(samples(&first, &finished(2, &[])), [(7, 0, 0.0)]);
    }
}
