//! Demand as a value: who asks when, or how many ask in a step.
//!
//! Reading files is the caller's work. What happens inside a step is not known from counts, so each run draws it by its own seed.

use crate::random::Random;

/// The demand of all tenants from the start of a run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Their names. No name stands twice.
    pub tenants: Vec<String>,
    /// What they ask for.
    pub demand: Demand,
    /// Where the demand ends.
    pub length_us: u64,
}

/// What is known of the requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// Each of them.
    Requests(Vec<Request>),
    /// How many there are in each step.
    Counts {
        /// Length of a step.
        step_us: u64,
        /// By tenant, then by step. What is no number, or negative, counts as 0.
        counts: Vec<Vec<f64>>,
    },
}

/// A request of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// When it comes, from the start of the run on.
    pub at_us: u64,
    /// Who asks: an index into [`Trace::tenants`].
    pub tenant: u32,
}

// === impl Trace ===

impl Trace {
    /// The requests of a run, in their order. Those of a step come at moments of their own, anywhere in it, as those of a Poisson process
    /// do of which that many came.
    pub(crate) fn requests(&self, random: &Random) -> Vec<Request> {
        let mut requests = match &self.demand {
            Demand::Requests(requests) => requests.clone(),
            Demand::Counts { step_us, counts } => {
                let tenants = counts.iter().zip(0_u32..);
                tenants
                    .flat_map(|(counts, tenant)| {
                        drawn(*step_us, counts, tenant, random.fork(u64::from(tenant)))
                    })
                    .collect()
            }
        };
        requests.retain(|request| {
            request.at_us < self.length_us && (request.tenant as usize) < self.tenants.len()
        });
        requests.sort_unstable();
        requests
    }
}

fn drawn(step_us: u64, counts: &[f64], tenant: u32, mut random: Random) -> Vec<Request> {
    let mut requests = Vec::new();
    for (count, step) in counts.iter().zip(0_u64..) {
        for _ in 0..count.round() as u64 {
            let at_us = random.between_us(step * step_us, (step + 1) * step_us);
            requests.push(Request { at_us, tenant });
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_as_many_requests_as_were_counted_and_gaps_have_none() {
        let trace = Trace {
            tenants: vec!["a".into(), "b".into()],
            demand: Demand::Counts {
                step_us: 1_000,
                counts: vec![vec![3.0, f64::NAN, 2.0], vec![0.0, -1.0, 1.0]],
            },
            length_us: 3_000,
        };
        let requests = trace.requests(&Random::new(7));
        let count = |tenant: u32, step: u64| {
            let of_step = requests
                .iter()
                .filter(|one| one.tenant == tenant && one.at_us / 1_000 == step);
            of_step.count()
        };
        let counts: Vec<usize> = (0..6)
            .map(|cell| count(cell / 3, u64::from(cell % 3)))
            .collect();
        assert_eq!(counts, [3, 0, 2, 0, 0, 1]);
        assert!(requests.is_sorted());
    }
}
