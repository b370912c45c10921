//! What the API says of tuning.

use super::book::Book;
use super::rule::Rule;
use super::tuning::Choice;
use forebay_sharing::Settings;
use forebay_sharing::tuning::{Arm, Effect, Evidence, Hold, Knob};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tuning as it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TuningView {
    /// Whether the policy in force asks for it.
    pub is_on: bool,
    /// Cycles that were chosen for, ever.
    pub decisions: u64,
    /// Those of them that went by other values than the policy's: of any 100 in a row at most 5.
    pub explored: u64,
    /// How often a guarantee was missed in one of these.
    pub fallbacks: u64,
    /// The last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackView>,
    /// Why the next cycle would not explore; absent where it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldView>,
    /// What the cycle in force was made by; absent for one that is not chosen for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<ChoiceView>,
    /// Which arm is better than the policy's own values, as far as the test says so. It is never taken by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub better: Option<usize>,
    /// What there is to choose from, the policy's own values first.
    pub arms: Vec<ArmView>,
}

/// A guarantee was missed in a cycle that explored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FallbackView {
    /// In which.
    pub cycle: u64,
    /// Nothing was, or is, explored until then.
    pub until_unix_ms: u64,
}

/// Why nothing is explored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HoldView {
    /// `off`: there is nothing to choose from; `paused`: a guarantee was missed; `window`: enough was explored lately; `allowance`: what it may
    /// cost is not earned yet.
    pub why: String,
    /// Until when, of a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
    /// Cycles until one may, of a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u32>,
    /// Rewards that are missing, of an allowance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<f64>,
}

/// What a cycle was made by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceView {
    /// Which choice it was, from 1.
    pub decision: u64,
    /// Which arm; 0: the policy's own values.
    pub arm: usize,
    /// How likely it was to be this one.
    pub propensity: f64,
    /// The quantiles of tiers 1, 2 and 3 that it was made by.
    pub quantiles: [f64; 3],
    /// And the reserve.
    pub reserve_share: f64,
}

/// Values that cycles are made by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArmView {
    /// In which knob it differs from the policy: `quantile_of_tier_1`, `quantile_of_tier_2`, `quantile_of_tier_3` or `reserve_share`; absent: in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knob: Option<String>,
    /// Its quantiles of tiers 1, 2 and 3.
    pub quantiles: [f64; 3],
    /// Its reserve.
    pub reserve_share: f64,
    /// Cycles that went by it.
    pub cycles: u64,
    /// By how much it is better than the policy's own values; absent for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectView>,
}

/// Difference to the policy's own values, in rewards from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectView {
    /// Cycles that were compared with those before and after them.
    pub compared: u32,
    /// Mean difference; 0 where none was.
    pub mean: f64,
    /// Half of its 95 % interval; absent with fewer than two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// Evidence that it is better: 20 times the number of arms beside the policy's own is enough.
    pub e_value: f64,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunedCounts {
    pub(crate) decisions: u64,
    pub(crate) explored: u64,
    pub(crate) fallbacks: u64,
    pub(crate) paused_until_unix_ms: u64,
}

// === impl Book ===

impl Book {
    /// How tuning stands; zeros where it was never on.
    pub(crate) fn tuned(&self) -> TunedCounts {
        let tuned = self.tuning.as_ref();
        let until = tuned.and_then(|tuned| tuned.fallback);
        TunedCounts {
            decisions: tuned.map_or(0, |tuned| tuned.decisions),
            explored: tuned.map_or(0, |tuned| tuned.explored),
            fallbacks: tuned.map_or(0, |tuned| tuned.fallbacks),
            paused_until_unix_ms: until.map_or(0, |fallback| fallback.until_unix_ms),
        }
    }
}

// === impl TuningView ===

impl TuningView {
    pub(crate) fn of(rule: Option<&Rule>, book: &Book, now_unix_ms: u64) -> Self {
        let kept = book.tuning.clone().unwrap_or_default();
        let fallback = kept.fallback.map(|fallback| FallbackView {
            cycle: fallback.cycle,
            until_unix_ms: fallback.until_unix_ms,
        });
        let view = Self {
            decisions: kept.decisions,
            explored: kept.explored,
            fallbacks: kept.fallbacks,
            fallback,
            in_force: ChoiceView::of(book),
            ..Self::default()
        };
        let tuner = rule.and_then(|rule| rule.tuning?.tuner(&rule.settings, book).ok());
        let Some((tuner, _)) = tuner else {
            return view;
        };
        let are_same = tuner.arms().fingerprint() == kept.arms;
        let arms = tuner.arms().iter().zip(tuner.evidence()).enumerate();
        let arms = arms.map(|(position, (arm, evidence))| {
            let cycles = kept.cycles.get(position).filter(|_| are_same);
            ArmView::of(arm, cycles.copied().unwrap_or(0), evidence)
        });
        Self {
            is_on: true,
            hold: tuner.hold(now_unix_ms).map(HoldView::of),
            better: tuner.better(),
            arms: arms.collect(),
            ..view
        }
    }
}

// === impl HoldView ===

impl HoldView {
    fn of(hold: Hold) -> Self {
        let (why, until_unix_ms, cycles, missing) = match hold {
            Hold::Off => ("off", None, None, None),
            Hold::Paused { until_ms } => ("paused", Some(until_ms), None, None),
            Hold::Window { decisions } => ("window", None, Some(decisions), None),
            Hold::Allowance { missing } => ("allowance", None, None, Some(missing)),
        };
        Self {
            why: why.to_owned(),
            until_unix_ms,
            cycles,
            missing,
        }
    }
}

// === impl ChoiceView ===

impl ChoiceView {
    pub(super) fn of(book: &Book) -> Option<Self> {
        let Choice {
            decision,
            arm,
            propensity,
        } = book.tuning.as_ref()?.choice?;
        let Settings {
            quantiles,
            reserve_share,
            ..
        } = book.settings;
        Some(Self {
            decision,
            arm,
            propensity,
            quantiles,
            reserve_share,
        })
    }
}

// === impl ArmView ===

impl ArmView {
    fn of(arm: &Arm, cycles: u64, evidence: &Evidence) -> Self {
        let Effect { count, mean, ci95 } = evidence.effect();
        Self {
            knob: arm.knob.map(|knob: Knob| knob.name().to_owned()),
            quantiles: arm.settings.quantiles,
            reserve_share: arm.settings.reserve_share,
            cycles,
            effect: arm.knob.map(|_| EffectView {
                compared: count,
                mean,
                ci95: ci95.is_finite().then_some(ci95),
                // JSON has no infinity.
                e_value: evidence.e_value().min(f64::MAX),
            }),
        }
    }
}
