//! What was learned of arms: the reward of the policy's own values, and by how much each other arm differs from it, by context.
//!
//! Differences and not rewards, because they are what is small and what matters: an arm of which nothing is known is expected to be as good
//! as the policy.

use crate::tuning::context::{Context, FEATURES, Features};
use crate::tuning::kept::Words;
use crate::tuning::offline::Logged;
use crate::tuning::ridge::Ridge;

/// What rewards differ by from cycle to cycle, roughly: a width in rewards. Also what a difference is bounded by where a few large ones
/// must not decide.
pub(crate) const NOISE: f64 = 0.05;

/// Models of all arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    pub(super) features: Features,
    /// The first is of the reward less 1, the others of the difference to what the first expects.
    models: Vec<Ridge>,
}

// === impl Learned ===

impl Learned {
    /// Nothing is known of so many arms.
    #[must_use]
    pub fn nothing(features: Features, arms: usize) -> Self {
        Self {
            features,
            models: vec![Ridge::default(); arms.max(1)],
        }
    }

    /// What a log says. The policy's own first, so that all differences are to the same.
    #[must_use]
    pub fn from_log(features: Features, arms: usize, log: &[Logged]) -> Self {
        let mut learned = Self::nothing(features, arms);
        for of_own in [true, false] {
            for logged in log.iter().filter(|logged| (logged.arm == 0) == of_own) {
                learned.learn(&logged.context, logged.arm, logged.reward);
            }
        }
        learned
    }

    /// Takes in what came of an arm.
    pub fn learn(&mut self, context: &Context, arm: usize, reward: f64) {
        let features = self.features.of(context);
        let own = self.own(&features);
        let value = if arm == 0 { reward - 1.0 } else { reward - own };
        if let Some(model) = self.models.get_mut(arm) {
            model.learn(&features, value);
        }
    }

    /// The reward that is expected of an arm.
    #[must_use]
    pub fn expects(&self, context: &Context, arm: usize) -> f64 {
        let features = self.features.of(context);
        let own = self.own(&features);
        if arm == 0 {
            return own;
        }
        own + self
            .models
            .get(arm)
            .map_or(0.0, |model| model.expects(&features))
    }

    /// The arm that is better than the policy's own by most, as far as one can be sure of; 0 where none is.
    #[must_use]
    pub fn surest(&self, context: &Context) -> usize {
        let lower = |model: &Ridge, features: &[f64; FEATURES]| {
            model.expects(features) - NOISE * model.width(features)
        };
        match self.best_by(context, lower) {
            Some((arm, gain)) if gain > 0.0 => arm,
            _ => 0,
        }
    }

    /// The arm beside the policy's own of which most may be hoped for: LinUCB with a model for each arm (Li et al. 2010).
    pub(crate) fn most_hopeful(&self, context: &Context) -> Option<usize> {
        let upper = |model: &Ridge, features: &[f64; FEATURES]| {
            model.expects(features) + NOISE * model.width(features)
        };
        self.best_by(context, upper).map(|(arm, _)| arm)
    }

    pub(crate) fn put(&self, words: &mut Vec<u64>) {
        self.models.iter().for_each(|model| model.put(words));
    }

    pub(crate) fn take(features: Features, arms: usize, words: &mut Words<'_>) -> Option<Self> {
        let models = (0..arms).map(|_| Ridge::take(words));
        Some(Self {
            features,
            models: models.collect::<Option<_>>()?,
        })
    }

    /// The first among equals.
    fn best_by(
        &self,
        context: &Context,
        value: impl Fn(&Ridge, &[f64; FEATURES]) -> f64,
    ) -> Option<(usize, f64)> {
        let features = self.features.of(context);
        let arms = self.models.iter().enumerate().skip(1);
        arms.map(|(arm, model)| (arm, value(model, &features)))
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
    }

    fn own(&self, features: &[f64; FEATURES]) -> f64 {
        1.0 + self
            .models
            .first()
            .map_or(0.0, |model| model.expects(features))
    }
}
