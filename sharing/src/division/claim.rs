//! What one gateway brings to a division.

/// One gateway's claim on a rate. All rates in tokens per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// What is asked for here, denied demand included.
    pub demand_per_s: f64,
    /// What is expected here: the upper quantile of the fleet's forecast times this gateway's own share of the traffic. (Quantiles
    /// made gateway by gateway would not add up to the fleet's.)
    pub forecast_per_s: Option<f64>,
    /// What it has been granted until now.
    pub held_per_s: f64,
    /// What it must have if that is possible: its part of the guarantee, or its starter.
    pub floor_per_s: f64,
    /// How much it counts beside the others, for instance by its workers. A weight of 0 counts as a millionth, so that it comes last
    /// but capacity is not left lying while it has demand.
    pub weight: f64,
}

// === impl Claim ===

impl Claim {
    /// What it should hold: what was asked for or what is expected, whichever is more.
    #[must_use]
    pub fn need_per_s(&self) -> f64 {
        self.demand_per_s.max(self.forecast_per_s.unwrap_or(0.0))
    }
}

impl Default for Claim {
    /// A gateway that nobody asks anything of, with a weight of 1.
    fn default() -> Self {
        Self {
            demand_per_s: 0.0,
            forecast_per_s: None,
            held_per_s: 0.0,
            floor_per_s: 0.0,
            weight: 1.0,
        }
    }
}
