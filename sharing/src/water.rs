//! Water-filling: weighted max-min fairness between bounds.
//!
//! Every share rises with one common level until it meets its upper bound or the capacity is used up; it starts at its
//! lower bound. So no share can grow except at the cost of one that is not larger, by weight, or that stands on its lower bound. That is
//! the max-min fair division of Bertsekas and Gallager, "Data Networks", chapter 6, with weights and lower bounds.
//!
//! The level is found by a search among the points where a share starts or stops to rise. Going through rounds of "equal part
//! of the rest", as doorman does, takes n rounds of n steps; its code stops after the second.

/// Between what a share can lie, in tokens per second, and how fast it rises.
#[derive(Clone, Copy, Debug)]
pub struct Vessel {
    /// Not less than this. The lower bounds together must fit into the capacity.
    pub lower_per_s: f64,
    /// Not more than this; not below the lower bound.
    pub upper_per_s: f64,
    /// Positive.
    pub weight: f64,
}

/// Fills `capacity_per_s` into the vessels. What remains when all of them are full is not given out.
#[must_use]
pub fn fill(capacity_per_s: f64, vessels: &[Vessel]) -> Vec<f64> {
    let full = || vessels.iter().map(|vessel| vessel.upper_per_s);
    if full().sum::<f64>() <= capacity_per_s {
        return full().collect();
    }
    let held_at = |level: f64| -> f64 { vessels.iter().map(|vessel| vessel.at(level)).sum() };
    let mut levels: Vec<f64> = vessels.iter().flat_map(Vessel::turns).collect();
    levels.sort_unstable_by(f64::total_cmp);
    let above = levels.partition_point(|level| held_at(*level) <= capacity_per_s);
    if above == levels.len() {
        return full().collect();
    }
    // From this level up to the next turn, the sum is a straight line.
    let from = above
        .checked_sub(1)
        .and_then(|last| levels.get(last))
        .copied()
        .unwrap_or(0.0);
    let rising: f64 = vessels
        .iter()
        .filter(|vessel| {
            let [starts, stops] = vessel.turns();
            starts <= from && from < stops
        })
        .map(|vessel| vessel.weight)
        .sum();
    let rest = (capacity_per_s - held_at(from)).max(0.0);
    let level = if rising > 0.0 {
        from + rest / rising
    } else {
        from
    };
    vessels.iter().map(|vessel| vessel.at(level)).collect()
}

// === impl Vessel ===

impl Vessel {
    fn at(&self, level: f64) -> f64 {
        (self.weight * level)
            .max(self.lower_per_s)
            .min(self.upper_per_s)
    }

    fn turns(&self) -> [f64; 2] {
        [
            self.lower_per_s / self.weight,
            self.upper_per_s / self.weight,
        ]
    }
}
