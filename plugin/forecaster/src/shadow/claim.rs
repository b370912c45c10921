//! One customer's claim: what the forecast says, or what the control plane has allocated, raised while demand runs ahead of it.
//!
//! A forecast is made once a step; demand that leaves it should not wait for the next one. So a deviation multiplies the refill at once,
//! and the raise decays by half-life instead of ending, because an end would be a cliff at an arbitrary time.

use forebay_core::amount::Rate;
use forebay_core::policy::Limits;
use forebay_wire::forecaster_config::ShadowConfig;

use super::allocations::Allocated;
use super::writer::Terms;
use crate::series::Series;

/// Deviations raise one claim at most this often.
const RAISE_GAP_US: u64 = 500_000;

/// A claim is never raised above this multiple of its forecast.
const RAISE_MOST: f32 = 4.0;

/// A raise this small is over.
const RAISE_OVER: f32 = 1.02;

/// A multiple of the forecast, decaying to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raise {
    factor: f32,
    at_us: u64,
}

/// What was written to the ledger last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Claim {
    /// The raise in force.
    pub raise: Raise,
    /// Refill as written.
    pub rate: Rate,
    /// Depth as written, in microseconds of the refill.
    pub span_us: u32,
    /// Unscaled depth beyond the guarantee credit that the sums count for this claim, in micro-tokens.
    pub depth: f64,
    /// Contract that the totals count it under.
    pub contract: u16,
    /// Whether anything was ever written.
    pub written: bool,
    /// Step of the last forecast that was counted as a refill.
    pub counted_step: Option<i64>,
}

// === impl Raise ===

impl Default for Raise {
    fn default() -> Self {
        Self {
            factor: 1.0,
            at_us: 0,
        }
    }
}

impl Raise {
    /// The multiple now.
    #[must_use]
    pub fn factor(&self, now_us: u64, half_life_ms: u32) -> f32 {
        if self.factor <= 1.0 {
            return 1.0;
        }
        let half_lives =
            now_us.saturating_sub(self.at_us) as f32 / (half_life_ms.max(1) as f32 * 1_000.0);
        let factor = 1.0 + (self.factor - 1.0) * (-half_lives * std::f32::consts::LN_2).exp();
        if factor < RAISE_OVER { 1.0 } else { factor }
    }

    /// A deviation was seen. Returns true when it raised the claim.
    pub fn deviated(&mut self, now_us: u64, config: &ShadowConfig) -> bool {
        let raised_lately = self.factor > 1.0 && now_us.saturating_sub(self.at_us) < RAISE_GAP_US;
        if raised_lately || config.deviation_raise <= 1.0 {
            return false;
        }
        let now = self.factor(now_us, config.deviation_half_life_ms);
        self.factor = (now * config.deviation_raise).min(RAISE_MOST);
        self.at_us = now_us;
        true
    }

    /// Whether the raise is over and the ledger needs no further write for it. The first look after the end still says no.
    pub fn is_settled(&mut self, now_us: u64, half_life_ms: u32) -> bool {
        if self.factor <= 1.0 {
            return true;
        }
        if self.factor(now_us, half_life_ms) <= 1.0 {
            self.factor = 1.0;
        }
        false
    }
}

// === impl Claim ===

impl Claim {
    /// The refill that the claim should have now: forecast or allocation x own share of the traffic x raise, never above the contract.
    #[must_use]
    pub fn wanted_rate(
        &self,
        series: &Series,
        limits: &Limits,
        allocated: Option<Allocated>,
        terms: &Terms<'_>,
    ) -> Rate {
        let config = terms.config;
        if !config.enabled {
            return Rate::ZERO;
        }
        let raise = self
            .raise
            .factor(terms.now_us, config.deviation_half_life_ms);
        let foreseen_per_s = series.forecast().map_or(0.0, |forecast| {
            let per_s = f64::from(forecast.claim) * 1e6 / terms.step_us.max(1) as f64;
            per_s * f64::from(series.own_share())
        });
        let per_s = match allocated {
            None => foreseen_per_s * f64::from(raise),
            Some(allocated) => allocated_per_s(&allocated, series, limits, foreseen_per_s, raise),
        };
        // A cast from float saturates and takes NaN to 0.
        Rate::new((per_s * 1e6) as u64).min(limits.ceiling)
    }
}

/// What of an allocation is claimed here. A guarantee is not for the control plane to take: what a forecast claims within it is claimed
/// whatever was allocated. A raise is not known to those who divide the pool, so it ends with what of the pool lies here.
fn allocated_per_s(
    allocated: &Allocated,
    series: &Series,
    limits: &Limits,
    foreseen_per_s: f64,
    raise: f32,
) -> f64 {
    let share = series
        .known_share()
        .map_or(allocated.part_of_pool, f64::from);
    let guaranteed_per_s = limits.guarantee.get() as f64 / 1e6 * share;
    let per_s = (allocated.per_s * share).max(foreseen_per_s.min(guaranteed_per_s));
    (per_s * f64::from(raise)).min(per_s.max(allocated.pool_here_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_decays_by_half_lives_and_ends() {
        let config = ShadowConfig {
            deviation_raise: 2.0,
            deviation_half_life_ms: 1_000,
            ..ShadowConfig::default()
        };
        let mut raise = Raise::default();
        assert!(raise.deviated(0, &config));
        assert_eq!(raise.factor(0, 1_000), 2.0);
        assert!((raise.factor(1_000_000, 1_000) - 1.5).abs() < 1e-3);
        assert!(
            !raise.is_settled(20_000_000, 1_000),
            "the end itself must still be written"
        );
        assert!(raise.is_settled(20_100_000, 1_000));
    }

    #[test]
    fn raises_add_up_but_not_without_bound_nor_in_a_storm() {
        let config = ShadowConfig {
            deviation_raise: 2.0,
            deviation_half_life_ms: 600_000,
            ..ShadowConfig::default()
        };
        let mut raise = Raise::default();
        assert!(raise.deviated(1_000_000, &config));
        assert!(
            !raise.deviated(1_000_001, &config),
            "one deviation has many requests"
        );
        for now_s in 2..20 {
            raise.deviated(now_s * 1_000_000, &config);
        }
        assert!(raise.factor(19_000_000, 600_000) <= RAISE_MOST);
    }

    #[test]
    fn a_raise_of_one_is_switched_off() {
        let config = ShadowConfig {
            deviation_raise: 1.0,
            ..ShadowConfig::default()
        };
        assert!(!Raise::default().deviated(0, &config));
    }
}
