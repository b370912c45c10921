//! The knobs of the allocation, few and bounded.

use forebay_core::policy::Tier;

/// How the cycle decides, whoever the customers are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// For tiers 1, 2 and 3: which quantile of its forecast a customer is allocated, as far as the pool goes.
    pub quantiles: [f64; 3],
    /// The part of a capacity that is nobody's until it is asked for. Guarantees go before it.
    pub reserve_share: f64,
    /// A customer that is to have less than it has keeps it where the difference is at most this part, and nobody needs it.
    pub quiet_share: f64,
    /// Whether who has lent most goes first among equals, in place of equal parts by weight.
    pub with_credits: bool,
    /// From one cycle to the next, in seconds: what a credit is counted in.
    pub interval_s: f64,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            quantiles: [0.99, 0.9, 0.5],
            reserve_share: 0.25,
            quiet_share: 0.1,
            with_credits: false,
            interval_s: 300.0,
        }
    }
}

impl Settings {
    /// The quantile for a tier.
    #[must_use]
    pub fn quantile(&self, tier: Tier) -> f64 {
        let [one, two, three] = self.quantiles;
        match tier {
            Tier::One => one,
            Tier::Two => two,
            Tier::Three => three,
        }
    }

    /// The same with every knob inside its bounds.
    pub(crate) fn clean(self) -> Self {
        let defaults = Settings::default();
        let bounded = |value: f64, low: f64, high: f64, otherwise: f64| {
            if value.is_finite() {
                value.clamp(low, high)
            } else {
                otherwise
            }
        };
        let [one, two, three] = self.quantiles;
        let [default_one, default_two, default_three] = defaults.quantiles;
        Self {
            quantiles: [
                bounded(one, 0.5, 0.99, default_one),
                bounded(two, 0.5, 0.99, default_two),
                bounded(three, 0.5, 0.99, default_three),
            ],
            reserve_share: bounded(self.reserve_share, 0.0, 0.9, defaults.reserve_share),
            quiet_share: bounded(self.quiet_share, 0.0, 1.0, defaults.quiet_share),
            with_credits: self.with_credits,
            interval_s: bounded(self.interval_s, 0.001, 86_400.0, defaults.interval_s),
        }
    }
}
