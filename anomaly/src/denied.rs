//! Whether more than usual is denied by the contract.
//!
//! A CUSUM of the share that is denied: what is above the usual share and an allowance adds up, and leaks, so that it is over when it is over. Of the
//! share and not of the tokens: those of a large customer say nothing that its demand does not say. The pool's denials are not
//! the customer's doing and are not in it.

use serde::{Deserialize, Serialize};

/// What may be denied above the usual share.
const ALLOWANCE: f64 = 0.25;
/// What is left of the sum in each step.
const LEAK: f64 = 0.97;
const SUM_MOST: f64 = 20.0;
/// The z of one step in which all is denied.
const Z: f64 = 3.0;
/// No step counts as more than this above the usual share when that is learned.
const LEARNED_MOST: f64 = 0.2;

/// The share that is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Denied {
    usual: f32,
    sum: f32,
}

// === impl Denied ===

impl Denied {
    /// Takes the share that was denied in a step; the sum as a z.
    pub(crate) fn observe(&mut self, share: f64) -> f64 {
        let above = share - f64::from(self.usual) - ALLOWANCE;
        let sum = (LEAK * f64::from(self.sum) + above).clamp(0.0, SUM_MOST);
        self.sum = sum as f32;
        Z * sum
    }

    pub(crate) fn learn(&mut self, share: f64, rate: f64) {
        let usual = f64::from(self.usual);
        self.usual += (rate * (share - usual).min(LEARNED_MOST)) as f32;
    }
}
