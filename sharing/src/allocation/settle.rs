//! From what a customer had to what it is to have: up at once, down only where that is worth a change.
//!
//! Who is to have less keeps what nobody needs: a difference of a tenth for good, a larger one by half for one cycle, and then it goes. So a
//! dip of one cycle costs half of what a customer had at most, and under unchanged demand nothing moves after the second cycle (by credits, nothing but among equals). To give
//! back a fifth in each cycle, as autoscalers do, would take an hour for what is idle, and never come to rest.

use crate::allocation::terms::Held;

/// What of the surplus over `target_per_s` a customer keeps if nobody needs it, in tokens per second.
pub(crate) fn keeps(held: Held, target_per_s: f64, quiet_share: f64) -> f64 {
    let surplus = held.per_s - target_per_s;
    if !surplus.is_finite() || surplus <= 0.0 {
        0.0
    } else if surplus <= target_per_s * quiet_share {
        surplus
    } else if held.is_releasing {
        0.0
    } else {
        surplus / 2.0
    }
}

/// Whether it has begun to give back what it keeps.
pub(crate) fn is_releasing(held: Held, target_per_s: f64, quiet_share: f64) -> bool {
    !held.is_releasing && held.per_s - target_per_s > target_per_s * quiet_share
}
