//! What is known before a cycle that may tell which arm suits it.
//!
//! Three numbers, because an explored cycle in twenty is all that there is to learn from: how full the pool is expected to be, how sure the
//! forecasts are, and the hour. Which of them help is decided off-line ([`crate::tuning::best_features`]), and "none" is one of the
//! answers.

use crate::Outlook;
use crate::numbers::clean;
use crate::tuning::kept::Words;

/// Numbers that an arm is judged by.
pub(crate) const FEATURES: usize = 5;
/// Largest load and spread: what is beyond tells no more.
const MOST: f64 = 2.0;
const DAY_S: f64 = 86_400.0;
/// Loads at which bins end.
const BINS: [f64; FEATURES - 1] = [0.5, 0.7, 0.85, 1.0];

/// What is known before a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Context {
    load: f64,
    spread: f64,
    second_of_day: f64,
}

/// How a context is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Not at all: an arm is as good as it was in the mean.
    Constant,
    /// By load, in five bins.
    Bins,
    /// Load, spread and hour, each with its own slope: the linear model of Li et al. (WWW 2010).
    Linear,
}

// === impl Context ===

impl Context {
    /// From numbers; what cannot be one counts as 0.
    ///
    /// `load` is demand over capacity, `spread` the distance from the median to the 0.9 quantile over the median, both of all customers
    /// together.
    #[must_use]
    pub fn new(load: f64, spread: f64, second_of_day: f64) -> Self {
        Self {
            load: clean(load).min(MOST),
            spread: clean(spread).min(MOST),
            second_of_day: clean(second_of_day) % DAY_S,
        }
    }

    /// From what customers are expected to ask for.
    #[must_use]
    pub fn of(outlooks: &[Outlook], capacity_per_s: f64, second_of_day: f64) -> Self {
        let sum = |probability: f64| -> f64 {
            let each = outlooks.iter().map(|outlook| outlook.clean());
            each.map(|outlook| outlook.at(probability)).sum()
        };
        let (median, upper) = (sum(0.5), sum(0.9));
        let over = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Self::new(
            over(median, clean(capacity_per_s)),
            over(upper - median, median),
            second_of_day,
        )
    }

    pub(crate) fn put(&self, words: &mut Vec<u64>) {
        words.extend([self.load, self.spread, self.second_of_day].map(f64::to_bits));
    }

    pub(crate) fn take(words: &mut Words<'_>) -> Option<Self> {
        Some(Self::new(words.number()?, words.number()?, words.number()?))
    }
}

// === impl Features ===

impl Features {
    /// All of them, simple ones first.
    pub const ALL: [Self; 3] = [Self::Constant, Self::Bins, Self::Linear];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Bins => "bins",
            Self::Linear => "linear",
        }
    }

    /// The context as numbers. What is not used is 0, where a model stays at its prior.
    pub(crate) fn of(self, context: &Context) -> [f64; FEATURES] {
        match self {
            Self::Constant => [1.0, 0.0, 0.0, 0.0, 0.0],
            Self::Bins => {
                let bin = BINS.iter().filter(|end| context.load >= **end).count();
                let mut features = [0.0; FEATURES];
                if let Some(feature) = features.get_mut(bin) {
                    *feature = 1.0;
                }
                features
            }
            Self::Linear => {
                let angle = context.second_of_day / DAY_S * std::f64::consts::TAU;
                [
                    1.0,
                    context.load,
                    context.spread,
                    libm::sin(angle),
                    libm::cos(angle),
                ]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_of_all_customers_together_and_nonsense_is_nothing() {
        let outlooks = [[10.0, 20.0, 30.0], [30.0, 40.0, 90.0]]
            .map(|quantiles_per_s| Outlook { quantiles_per_s });
        let context = Context::of(&outlooks, 80.0, 3.5 * DAY_S);
        assert_eq!(context, Context::new(0.5, 0.5, 0.5 * DAY_S));
        assert_eq!(
            Context::of(&outlooks, 0.0, f64::NAN),
            Context::new(0.0, 0.5, 0.0)
        );
        assert_eq!(Context::of(&[], 1.0, 0.0), Context::default());
        assert_eq!(Context::new(f64::INFINITY, -1.0, 0.0), Context::default());
    }

    #[test]
    fn each_load_is_in_one_bin() {
        for (load, bin) in [(0.0, 0), (0.5, 1), (0.84, 2), (0.99, 3), (1.0, 4), (9.0, 4)] {
            let mut expected = [0.0; FEATURES];
            expected[bin] = 1.0;
            assert_eq!(
                Features::Bins.of(&Context::new(load, 0.0, 0.0)),
                expected,
                "{load}"
            );
        }
    }
}
