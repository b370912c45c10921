//! What is known of a customer in a step.

/// What a customer did in a step of usage history, all of its gateways together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// When the step began.
    pub unix_ms: u64,
    /// Tokens that it asked for, whether they were denied or not.
    pub asked: f64,
    /// Of these, denied by its contract.
    pub denied_contract: f64,
    /// Of these, denied by the pool.
    pub denied_pool: f64,
    /// Gateways, or distinct keys, that were behind it.
    pub keys: Option<f64>,
    /// The upper quantile that was forecast for the step before it began.
    pub forecast_high: Option<f64>,
    /// A known event: how many times the usual demand is expected.
    pub event_factor: Option<f64>,
}

/// No amount is more than this: gateways may say anything.
const AMOUNT_MOST: f64 = 1e15;
/// What an event can explain: an operator's slip of the finger must not hide everything.
const FACTOR_MOST: f64 = 100.0;

// === impl Step ===

impl Step {
    /// What it wanted. What the pool denies is mostly asked for once more, and says nothing of the customer.
    pub(crate) fn demand(&self) -> f64 {
        let asked = amount(self.asked);
        asked - amount(self.denied_pool).min(asked)
    }

    pub(crate) fn denied(&self) -> f64 {
        amount(self.denied_contract).min(self.demand())
    }

    pub(crate) fn keys(&self) -> Option<f64> {
        self.keys.map(amount)
    }

    pub(crate) fn forecast_high(&self) -> Option<f64> {
        self.forecast_high
            .filter(|high| high.is_finite())
            .map(amount)
    }

    /// At least 1: an event that is expected to lower demand makes nothing unusual.
    pub(crate) fn factor(&self) -> f64 {
        match self.event_factor {
            Some(factor) if factor.is_finite() => factor.clamp(1.0, FACTOR_MOST),
            _ => 1.0,
        }
    }
}

fn amount(value: f64) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    value.clamp(0.0, AMOUNT_MOST)
}
