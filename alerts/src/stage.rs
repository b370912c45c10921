//! The life of an alert: a function of what it was, of what is read, and of the time.
//!
//! ```text
//!             bad                 bad for long enough            good for long enough          after a while
//!   nothing ────────▶ pending ───────────────────────▶ firing ───────────────────────▶ resolved ─────────────▶ nothing
//!       ▲                │ good                           ▲ │ bad: as before               │ bad
//!       └────────────────┘                                └─┘                              └────▶ pending, as another one
//! ```
//! Bad and good do not meet: between them is what is unclear, which leaves everything as it is. Rounds are counted, not told by the
//! clock: a server that was asleep for an hour has read nothing in it.

use serde::{Deserialize, Serialize};

/// Rounds for which a resolved alert is shown.
const RESOLVED_ROUNDS: u32 = 15;

/// What a round says of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It holds.
    Bad,
    /// It neither holds nor is over.
    Unclear,
    /// It is over.
    Good,
}

/// How much of a reading it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Rounds that an alert is pending before it fires.
    pub hold: u32,
    /// Good rounds in a row, after the first, before it is resolved.
    pub clear: u32,
}

/// Where an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It holds, and nobody is told yet.
    Pending {
        /// Since when.
        since_unix_ms: u64,
        /// Bad rounds.
        rounds: u32,
    },
    /// People are told.
    Firing {
        /// Since when.
        since_unix_ms: u64,
        /// Good rounds in a row.
        good_rounds: u32,
    },
    /// It is over.
    Resolved {
        /// Since when it was firing.
        since_unix_ms: u64,
        /// When it was over.
        resolved_unix_ms: u64,
        /// Rounds since.
        rounds: u32,
    },
}

// === impl Reading ===

impl Reading {
    /// Of several that are about the same: bad if one is, and good if all are. Of none it is unclear.
    pub(crate) fn worst(readings: impl Iterator<Item = Self>) -> Self {
        readings
            .reduce(|worst, reading| match (worst, reading) {
                (Self::Bad, _) | (_, Self::Bad) => Self::Bad,
                (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
                (Self::Good, Self::Good) => Self::Good,
            })
            .unwrap_or(Self::Unclear)
    }
}

// === impl Stage ===

impl Stage {
    /// What comes after `before`. `None`: nothing to speak of.
    #[must_use]
    pub fn next(
        before: Option<Self>,
        reading: Reading,
        patience: Patience,
        now_unix_ms: u64,
    ) -> Option<Self> {
        match (before, reading) {
            (None | Some(Self::Resolved { .. }), Reading::Bad) => {
                Some(Self::begin(patience, now_unix_ms))
            }
            (None, _) | (Some(Self::Pending { .. }), Reading::Good) => None,
            (Some(Self::Pending { rounds, .. }), Reading::Bad) if rounds >= patience.hold => {
                Some(Self::fire(now_unix_ms))
            }
            (
                Some(Self::Pending {
                    since_unix_ms,
                    rounds,
                }),
                Reading::Bad,
            ) => Some(Self::Pending {
                since_unix_ms,
                rounds: rounds.saturating_add(1),
            }),
            (Some(Self::Pending { .. }), Reading::Unclear) => before,
            (
                Some(Self::Firing {
                    since_unix_ms,
                    good_rounds,
                }),
                Reading::Good,
            ) => Some(if good_rounds >= patience.clear {
                Self::Resolved {
                    since_unix_ms,
                    resolved_unix_ms: now_unix_ms,
                    rounds: 0,
                }
            } else {
                Self::Firing {
                    since_unix_ms,
                    good_rounds: good_rounds.saturating_add(1),
                }
            }),
            (Some(Self::Firing { since_unix_ms, .. }), _) => Some(Self::Firing {
                since_unix_ms,
                good_rounds: 0,
            }),
            (
                Some(Self::Resolved {
                    since_unix_ms,
                    resolved_unix_ms,
                    rounds,
                }),
                _,
            ) => (rounds < RESOLVED_ROUNDS).then(|| Self::Resolved {
                since_unix_ms,
                resolved_unix_ms,
                rounds: rounds.saturating_add(1),
            }),
        }
    }

    /// Whether people are told.
    #[must_use]
    pub const fn is_firing(&self) -> bool {
        matches!(self, Self::Firing { .. })
    }

    /// In words: `pending`, `firing` or `resolved`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
            Self::Resolved { .. } => "resolved",
        }
    }

    const fn begin(patience: Patience, now_unix_ms: u64) -> Self {
        match patience.hold {
            0 => Self::fire(now_unix_ms),
            _ => Self::Pending {
                since_unix_ms: now_unix_ms,
                rounds: 1,
            },
        }
    }

    const fn fire(now_unix_ms: u64) -> Self {
        Self::Firing {
            since_unix_ms: now_unix_ms,
            good_rounds: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reading::{Bad, Good, Unclear};
    use proptest::prelude::*;

    const PATIENCE: Patience = Patience { hold: 2, clear: 1 };
    const PENDING: Stage = Stage::Pending {
        since_unix_ms: 1,
        rounds: 1,
    };
    const RIPE: Stage = Stage::Pending {
        since_unix_ms: 1,
        rounds: 2,
    };
    const FIRING: Stage = Stage::Firing {
        since_unix_ms: 3,
        good_rounds: 0,
    };
    const HEALING: Stage = Stage::Firing {
        since_unix_ms: 3,
        good_rounds: 1,
    };

    const fn resolved(rounds: u32) -> Stage {
        Stage::Resolved {
            since_unix_ms: 3,
            resolved_unix_ms: 5,
            rounds,
        }
    }

    const fn began(now: u64) -> Option<Stage> {
        Some(Stage::Pending {
            since_unix_ms: now,
            rounds: 1,
        })
    }

    #[test]
    fn each_stage_goes_where_the_truth_table_says() {
        let fired_now = Stage::Firing {
            since_unix_ms: 9,
            good_rounds: 0,
        };
        let resolved_now = Stage::Resolved {
            since_unix_ms: 3,
            resolved_unix_ms: 9,
            rounds: 0,
        };
        let (old, older) = (resolved(RESOLVED_ROUNDS - 1), resolved(RESOLVED_ROUNDS));
        for (before, on_bad, on_unclear, on_good) in [
            (None, began(9), None, None),
            (Some(PENDING), Some(RIPE), Some(PENDING), None),
            (Some(RIPE), Some(fired_now), Some(RIPE), None),
            (Some(FIRING), Some(FIRING), Some(FIRING), Some(HEALING)),
            (
                Some(HEALING),
                Some(FIRING),
                Some(FIRING),
                Some(resolved_now),
            ),
            (Some(old), began(9), Some(older), Some(older)),
            (Some(older), began(9), None, None),
        ] {
            for (reading, after) in [(Bad, on_bad), (Unclear, on_unclear), (Good, on_good)] {
                let found = Stage::next(before, reading, PATIENCE, 9);
                assert_eq!(found, after, "{before:?} {reading:?}");
            }
        }
    }

    #[test]
    fn without_patience_it_fires_at_once_and_is_over_at_once() {
        let none = Patience { hold: 0, clear: 0 };
        let firing = Stage::next(None, Bad, none, 1);
        assert!(firing.unwrap().is_firing());
        assert_eq!(
            Stage::next(firing, Good, none, 2).unwrap().name(),
            "resolved"
        );
    }

    proptest! {
        /// Whatever is read, it takes `hold` + 1 bad rounds without a good one to fire, and `clear` + 1 good ones in a row to end.
        #[test]
        fn it_fires_and_ends_only_after_as_much_as_patience_asks_for(
            readings in prop::collection::vec(prop::sample::select(vec![Bad, Unclear, Good]), 1..80),
            hold in 0_u32..5,
            clear in 0_u32..5,
        ) {
            let patience = Patience { hold, clear };
            let (mut stage, mut bad, mut good) = (None, 0, 0);
            for (now, reading) in (0..).zip(readings) {
                let was_firing = stage.is_some_and(|stage: Stage| stage.is_firing());
                bad = match reading { Bad => bad + 1, Unclear => bad, Good => 0 };
                good = if reading == Good { good + 1 } else { 0 };
                stage = Stage::next(stage, reading, patience, now);
                let is_firing = stage.is_some_and(|stage| stage.is_firing());
                if is_firing && !was_firing {
                    prop_assert!(bad > hold);
                }
                if was_firing {
                    prop_assert_eq!(is_firing, good <= clear);
                    bad = if is_firing { bad } else { 0 };
                }
            }
        }
    }
}
