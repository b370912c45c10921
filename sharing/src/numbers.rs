//! Clean numbers: what comes in is what gateways, customers and forecasters have said, and one of it may be nonsense.

use forebay_core::limits::MAX_TOKENS;

/// Largest rate of any kind, in tokens per second: the core's own bound. It keeps sums finite.
const MAX_PER_S: f64 = MAX_TOKENS as f64;

/// Rates below this, a thousandth of a micro-token per second, count as 0: quotients stay finite, too.
const MIN_PER_S: f64 = 1e-9;

/// Weights beyond these bounds count as the bound.
const MIN_WEIGHT: f64 = 1e-6;
const MAX_WEIGHT: f64 = 1e6;

/// The rate, or 0 where it is not a number, infinite, negative or too small to matter.
pub(crate) fn clean(value: f64) -> f64 {
    if value.is_finite() && value >= MIN_PER_S {
        value.min(MAX_PER_S)
    } else {
        0.0
    }
}

/// A weight that can be divided by.
pub(crate) fn clean_weight(weight: f64) -> f64 {
    clean(weight).clamp(MIN_WEIGHT, MAX_WEIGHT)
}
