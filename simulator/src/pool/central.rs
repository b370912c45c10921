//! Ways without any allocation: who sees every request, and who sees no pool at all.

use super::fair::max_min;
use super::guard::{Guard, PoolBucket, Served};

/// One counter for all: what does not fit is cut from all in proportion. It costs a message for each request.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pub(crate) sub_step_s: f64,
    pub(crate) pool: PoolBucket,
}

/// Weighted max-min fairness in each sub-step, by who knows all that is asked for in it. No policy can admit more in all.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    pub(crate) sub_step_s: f64,
    pub(crate) pool: PoolBucket,
    pub(crate) weights: Vec<f64>,
}

/// The contract alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

// === impl Counter ===

impl Guard for Counter {
    fn allocate(&mut self, _: &[f64]) {}

    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served {
        let asked: f64 = demand.iter().map(|demand| f64::from(*demand)).sum();
        let available = self.pool.available(self.sub_step_s);
        let admitted = asked.min(available);
        if asked > available {
            let part = available / asked;
            for (denied, demand) in denied.iter_mut().zip(demand) {
                *denied = f64::from(*demand) * (1.0 - part);
            }
        }
        self.pool.spend(admitted, self.sub_step_s);
        Served {
            admitted,
            is_short: asked > available,
            beyond: 0,
        }
    }
}

// === impl Oracle ===

impl Guard for Oracle {
    fn allocate(&mut self, _: &[f64]) {}

    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served {
        let asked: f64 = demand.iter().map(|demand| f64::from(*demand)).sum();
        let available = self.pool.available(self.sub_step_s);
        let admitted = asked.min(available);
        if asked > available {
            let wants: Vec<f64> = demand.iter().map(|demand| f64::from(*demand)).collect();
            let given = max_min(available, &wants, &self.weights);
            for ((denied, want), given) in denied.iter_mut().zip(wants).zip(given) {
                *denied = want - given;
            }
        }
        self.pool.spend(admitted, self.sub_step_s);
        Served {
            admitted,
            is_short: asked > available,
            beyond: 0,
        }
    }
}

// === impl Plain ===

impl Guard for Plain {
    fn allocate(&mut self, _: &[f64]) {}

    fn serve(&mut self, demand: &[f32], _: &mut [f64]) -> Served {
        Served {
            admitted: demand.iter().map(|demand| f64::from(*demand)).sum(),
            ..Served::default()
        }
    }
}
