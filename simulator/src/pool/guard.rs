//! What stands between the customers and the pool in one sub-step.

/// What became of a sub-step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Served {
    /// Requests that were admitted.
    pub(crate) admitted: f64,
    /// Whether anything was denied.
    pub(crate) is_short: bool,
    /// Customers that were admitted something beyond what is allocated to them.
    pub(crate) beyond: usize,
}

/// A way to admit requests.
pub(crate) trait Guard {
    /// What is allocated to each customer from now on, in requests per second.
    fn allocate(&mut self, allocated_per_s: &[f64]);

    /// Admits requests of one sub-step. What each customer is denied is written to `denied` where anything is.
    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served;
}

/// The pool's bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolBucket {
    pub(crate) capacity_per_s: f64,
    pub(crate) depth: f64,
    level: f64,
}

/// A part of the rate, with a stock of its own. Its depth is a time of its rate, and enough for one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(crate) rate_per_s: f64,
    depth: f64,
    stock: f64,
}

/// Least depth, in requests: with less, no request would ever be within its part.
const DEPTH_MIN: f64 = 1.0;

/// What a part does in a sub-step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) used: f64,
    pub(crate) stock: f64,
}

// === impl PoolBucket ===

impl PoolBucket {
    /// With a depth of one second of its rate.
    pub(crate) const fn full(capacity_per_s: f64) -> Self {
        Self::with_depth(capacity_per_s, capacity_per_s)
    }

    pub(crate) const fn with_depth(capacity_per_s: f64, depth: f64) -> Self {
        Self {
            capacity_per_s,
            depth,
            level: depth,
        }
    }

    /// All that can be admitted in a sub-step of this length.
    pub(crate) fn available(&self, sub_step_s: f64) -> f64 {
        self.level + self.capacity_per_s * sub_step_s
    }

    /// Ends a sub-step. What was admitted beyond what there was is no debt.
    pub(crate) fn spend(&mut self, admitted: f64, sub_step_s: f64) {
        let left = self.available(sub_step_s) - admitted;
        self.level = left.max(0.0).min(self.depth);
    }
}

// === impl Part ===

impl Part {
    /// Gives it another rate, and a depth of so many seconds of it.
    pub(crate) fn set(&mut self, rate_per_s: f64, depth_s: f64) {
        self.rate_per_s = rate_per_s;
        self.depth = match rate_per_s > 0.0 {
            true => (rate_per_s * depth_s).max(DEPTH_MIN),
            false => 0.0,
        };
        self.stock = self.stock.min(self.depth);
    }

    /// Uses up to `demand`, and keeps what is left as far as it has room.
    pub(crate) fn use_up_to(&mut self, demand: f64, sub_step_s: f64) -> Used {
        let available = self.stock + self.rate_per_s * sub_step_s;
        let used = demand.min(available);
        self.stock = (available - used).min(self.depth);
        Used {
            used,
            stock: self.stock,
        }
    }
}
