//! Which values may be tried: one knob at a time, at the ends of the range that somebody has named for it.
//!
//! All combinations of three values of five knobs are 243 arms. At one explored cycle in twenty, each would be seen once in two weeks, and
//! nothing would ever be learned. One knob at a time has ten arms at most, and says which knob it was.

use crate::Settings;
use crate::risk::chance::Chance;
use crate::tuning::TuningError;

/// A knob that may be tuned. How long an allocation holds and how fast it is taken up are none: neither can make a cycle better, only
/// staler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// Which quantile of its forecast a customer of tier 1 is allocated.
    QuantileOfTier1,
    /// Of tier 2.
    QuantileOfTier2,
    /// Of tier 3.
    QuantileOfTier3,
    /// The part of a capacity that is nobody's until it is asked for.
    ReserveShare,
    /// The threshold below which an allocation stays as it is.
    QuietShare,
}

/// Values that a knob may take, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

/// A range for each knob that may be tuned; the others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranges([Option<Range>; Knob::ALL.len()]);

/// Values to make a cycle by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arm {
    /// The knob in which they differ from the policy's. `None`: they are the policy's.
    pub knob: Option<Knob>,
    /// The values.
    pub settings: Settings,
}

/// What there is to choose from. The first is the policy's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Arms(Vec<Arm>);

// === impl Knob ===

impl Knob {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::QuantileOfTier1,
        Self::QuantileOfTier2,
        Self::QuantileOfTier3,
        Self::ReserveShare,
        Self::QuietShare,
    ];

    /// Name in answers and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuantileOfTier1 => "quantile_of_tier_1",
            Self::QuantileOfTier2 => "quantile_of_tier_2",
            Self::QuantileOfTier3 => "quantile_of_tier_3",
            Self::ReserveShare => "reserve_share",
            Self::QuietShare => "quiet_share",
        }
    }

    /// What it may be at the least and at the most, whoever asks.
    #[must_use]
    pub const fn bounds(self) -> (f64, f64) {
        match self {
            Self::QuantileOfTier1 | Self::QuantileOfTier2 | Self::QuantileOfTier3 => (0.5, 0.99),
            // Half of a pool in nobody's allocation leaves little to allocate.
            Self::ReserveShare => (0.0, 0.5),
            Self::QuietShare => (0.0, 0.5),
        }
    }

    /// Its value.
    #[must_use]
    pub const fn of(self, settings: &Settings) -> f64 {
        let [one, two, three] = settings.quantiles;
        match self {
            Self::QuantileOfTier1 => one,
            Self::QuantileOfTier2 => two,
            Self::QuantileOfTier3 => three,
            Self::ReserveShare => settings.reserve_share,
            Self::QuietShare => settings.quiet_share,
        }
    }

    /// The same settings with another value of it.
    #[must_use]
    pub fn set(self, mut settings: Settings, value: f64) -> Settings {
        let [one, two, three] = &mut settings.quantiles;
        match self {
            Self::QuantileOfTier1 => *one = value,
            Self::QuantileOfTier2 => *two = value,
            Self::QuantileOfTier3 => *three = value,
            Self::ReserveShare => settings.reserve_share = value,
            Self::QuietShare => settings.quiet_share = value,
        }
        settings
    }
}

// === impl Ranges ===

impl Ranges {
    /// The same with a range for a knob.
    #[must_use]
    pub fn with(mut self, knob: Knob, low: f64, high: f64) -> Self {
        for (range, other) in self.0.iter_mut().zip(Knob::ALL) {
            if other == knob {
                *range = Some(Range { low, high });
            }
        }
        self
    }

    /// Knobs that may be tuned, each with its range.
    pub fn iter(&self) -> impl Iterator<Item = (Knob, Range)> {
        let knobs = Knob::ALL.into_iter().zip(&self.0);
        knobs.filter_map(|(knob, range)| Some((knob, (*range)?)))
    }
}

// === impl Arms ===

impl Arms {
    /// The policy's own values, and for each knob with a range one arm at each end where that differs.
    ///
    /// # Errors
    /// [`TuningError::Range`] and [`TuningError::Own`], for the first range that cannot be.
    pub fn around(own: &Settings, ranges: &Ranges) -> Result<Self, TuningError> {
        let mut arms = vec![Arm {
            knob: None,
            settings: *own,
        }];
        for (knob, Range { low, high }) in ranges.iter() {
            let (least, most) = knob.bounds();
            // Written so that what is no number is refused, too.
            if !(least <= low && low <= high && high <= most) {
                return Err(TuningError::Range { knob, low, high });
            }
            let of_policy = knob.of(own);
            if !(low <= of_policy && of_policy <= high) {
                let own = of_policy;
                return Err(TuningError::Own {
                    knob,
                    low,
                    high,
                    own,
                });
            }
            let ends = [low, high].into_iter().filter(|end| *end != of_policy);
            arms.extend(ends.map(|end| Arm {
                knob: Some(knob),
                settings: knob.set(*own, end),
            }));
        }
        Ok(Self(arms))
    }

    /// The arm at a position, if there is one.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&Arm> {
        self.0.get(position)
    }

    /// Other arms have another one, as good as surely.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let numbers = self.0.iter().flat_map(|arm| {
            let [one, two, three] = arm.settings.quantiles;
            [
                one,
                two,
                three,
                arm.settings.reserve_share,
                arm.settings.quiet_share,
            ]
        });
        // FNV-1a, by words: nobody has a reason to forge it.
        numbers.fold(0xcbf2_9ce4_8422_2325, |sum, number| {
            (sum ^ number.to_bits())
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29)
        })
    }

    /// All of them, the policy's own first.
    pub fn iter(&self) -> impl Iterator<Item = &Arm> {
        self.0.iter()
    }

    /// The position of one of them, all as likely as one another: how a log is made off-line, where exploring costs nothing. A number has
    /// always the same.
    #[must_use]
    pub fn by_chance(&self, seed: u64, number: u64) -> usize {
        let part = usize::try_from(number).unwrap_or(usize::MAX);
        Chance::of_part(seed, part).below(self.len())
    }

    /// How many there are, the policy's own included: 1 to 11.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
