//! An allocation as a lease: it is its owner's alone until the next cycle, used or not. What most distributed limiters do.
//!
//! The reserve is in nobody's lease. Who wants more than its lease takes of it at once, first come, first served: within a sub-step, all the same part.

use super::guard::{Guard, Part, PoolBucket, Served};

/// Depth of a lease and of the reserve, in seconds of its rate: together they have the pool's.
const DEPTH_S: f64 = 1.0;

/// Leases of a pool, and its reserve.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    sub_step_s: f64,
    /// Behind them, as for everybody.
    pool: PoolBucket,
    leases: Vec<Part>,
    reserve: Part,
}

// === impl Leases ===

impl Leases {
    pub(crate) fn new(customers: usize, capacity_per_s: f64, sub_step_s: f64) -> Self {
        Self {
            sub_step_s,
            pool: PoolBucket::full(capacity_per_s),
            leases: vec![Part::default(); customers],
            reserve: Part::default(),
        }
    }
}

impl Guard for Leases {
    fn allocate(&mut self, allocated_per_s: &[f64]) {
        for (lease, rate) in self.leases.iter_mut().zip(allocated_per_s) {
            lease.set(*rate, DEPTH_S);
        }
        let allocated: f64 = allocated_per_s.iter().sum();
        let reserve_per_s = (self.pool.capacity_per_s - allocated).max(0.0);
        self.reserve.set(reserve_per_s, DEPTH_S);
    }

    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served {
        let (mut asked, mut rests) = (0.0, 0.0);
        let mut served = Served::default();
        let customers = demand.iter().zip(&mut self.leases);
        for ((demand, lease), rest) in customers.zip(denied.iter_mut()) {
            let demand = f64::from(*demand);
            *rest = demand - lease.use_up_to(demand, self.sub_step_s).used;
            asked += demand;
            if *rest > 0.0 {
                served.beyond += 1;
                rests += *rest;
            }
        }
        let given = self.reserve.use_up_to(rests, self.sub_step_s).used;
        let part = given / rests.max(f64::MIN_POSITIVE);
        // Leases of less than a request keep a whole one: together they can be more than the pool has.
        let used = asked - rests + given;
        let fits = (self.pool.available(self.sub_step_s) / used.max(f64::MIN_POSITIVE)).min(1.0);
        served.is_short = rests > given || fits < 1.0;
        served.admitted = asked;
        if served.is_short {
            if part <= 0.0 {
                served.beyond = 0;
            }
            for (demand, denied) in demand.iter().zip(denied.iter_mut()) {
                let admitted = f64::from(*demand) - *denied * (1.0 - part);
                *denied = f64::from(*demand) - admitted * fits;
                served.admitted -= *denied;
            }
        }
        self.pool.spend(served.admitted, self.sub_step_s);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_denied_while_the_reserve_remains_and_idle_leases_help_nobody() {
        let mut leases = Leases::new(2, 20.0, 1.0);
        leases.allocate(&[5.0, 5.0]);
        let mut denied = [0.0; 2];
        assert!(!leases.serve(&[14.0, 1.0], &mut denied).is_short);
        let served = leases.serve(&[30.0, 0.0], &mut denied);
        // Its lease and all of the reserve, with the one that was left of it.
        assert!((served.admitted - 16.0).abs() < 1e-9, "{served:?}");
        assert!((denied[0] - 14.0).abs() < 1e-9 && denied[1] == 0.0);
    }
}
