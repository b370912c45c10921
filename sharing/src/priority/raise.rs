//! From a burn rate to a raised priority, and back.

use crate::priority::burn::{Burn, Kept};

/// A budget that is used up so many times as fast as it lasts raises as far as it goes: 2 % of a month's budget in an hour, what the workbook pages for.
const FULL_RATE: f64 = 14.4;
/// A whole step goes when the raise is so far below it, and comes when it is there.
const HYSTERESIS: f64 = 0.5;
/// A raise of less than this is over.
const OVER: f64 = 0.05;

/// How priorities move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prioritize {
    /// By so much at most.
    pub most: u8,
    /// The part of what is guaranteed that may be denied before a priority moves, 0.001 to 0.5.
    pub error_budget: f64,
    /// A raise falls by half in this time, in milliseconds.
    pub half_life_ms: u64,
}

/// How far a customer's priority is raised, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Raise {
    /// Until when it is told, in milliseconds of whatever clock the caller has.
    pub at_ms: u64,
    /// Why.
    pub burn: Burn,
    /// How far, in parts of a step.
    pub exact: f64,
    /// How far, in whole steps, as it takes effect.
    pub steps: u8,
}

// === impl Prioritize ===

impl Default for Prioritize {
    fn default() -> Self {
        Self {
            most: 2,
            error_budget: 0.001,
            half_life_ms: 900_000,
        }
    }
}

impl Prioritize {
    /// The same with every number inside its bounds.
    fn clean(self) -> Self {
        let budget = self.error_budget;
        Self {
            most: self.most,
            error_budget: if budget.is_finite() {
                budget.clamp(0.001, 0.5)
            } else {
                0.001
            },
            half_life_ms: self.half_life_ms.max(1),
        }
    }

    /// How far a burn rate raises: not at all up to 1, as far as it goes from [`FULL_RATE`] on, and between them by its logarithm.
    fn target(&self, rate: f64) -> f64 {
        let part = rate.max(1.0).ln() / FULL_RATE.ln();
        f64::from(self.most) * part.clamp(0.0, 1.0)
    }
}

// === impl Raise ===

impl Raise {
    /// What becomes of it until `now_ms`, of which `kept` is the last part. An earlier time than the one before is that time: clocks are set back.
    #[must_use]
    pub fn after(self, settings: &Prioritize, now_ms: u64, kept: Option<&Kept>) -> Self {
        let settings = settings.clean();
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let burn = self.burn.after(elapsed_ms, kept);
        let most = f64::from(settings.most);
        let halvings = elapsed_ms as f64 / settings.half_life_ms as f64;
        let before = if self.exact.is_finite() {
            self.exact.clamp(0.0, most)
        } else {
            0.0
        };
        let faded = before * (-halvings).exp2();
        let exact = faded.max(settings.target(burn.rate(settings.error_budget)));
        let exact = if exact < OVER { 0.0 } else { exact };
        Self {
            at_ms: self.at_ms.max(now_ms),
            burn,
            exact,
            steps: steps(self.steps.min(settings.most), exact),
        }
    }

    /// The priority of a customer to which the policy gives `of_policy`.
    #[must_use]
    pub fn priority(&self, of_policy: u8) -> u8 {
        of_policy.saturating_add(self.steps)
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.steps == 0 && self.exact == 0.0 && self.burn == Burn::default()
    }
}

/// Whole steps, from those before.
fn steps(before: u8, exact: f64) -> u8 {
    // From a float the nearest number that there is.
    let whole = |value: f64| value.floor() as u8;
    let up = whole(exact);
    // Those that are held on to although the raise is a little below them.
    let held = whole(exact + HYSTERESIS);
    up.max(before.min(held))
}
