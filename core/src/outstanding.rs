//! Tokens that lie in the workers' chunks, as far as the ledger knows.
//!
//! A level may only refill to its depth less what is outstanding; otherwise a customer whose chunk lay idle could spend
//! chunk and full bucket in one go, and the bound `burst + rate x t` would hold from the start only, not over any t.
//! A worker that traps never reports its chunk, so the count must heal by itself: it is kept in two generations of
//! [`CHUNK_LIFE_US`], and a generation that is over can hold no live chunk. One plain sum would leak at every trap.

use crate::amount::Micro;
use crate::limits::CHUNK_LIFE_US;
use crate::time::TimeUs;

/// Tokens in chunks that were drawn in this generation and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Drawn in the current generation.
    pub current: Micro,
    /// Drawn in the one before.
    pub previous: Micro,
}

// === impl Outstanding ===

impl Outstanding {
    /// All tokens outstanding.
    #[must_use]
    pub const fn total(&self) -> Micro {
        self.current.plus(self.previous)
    }

    /// Tokens held where the bucket's level is `level`; negative in debt. While chunks are out a debt does not count against them: they can be
    /// spent whatever is owed, and whoever divides the rest must know of all that can.
    #[must_use]
    pub const fn balance(&self, level: Micro) -> Micro {
        let outstanding = self.total();
        if outstanding.get() > 0 {
            level.at_least_zero().plus(outstanding)
        } else {
            level
        }
    }

    /// Moves on from `at`, when this was last brought up to date, to `now`.
    pub const fn advance(&mut self, at: TimeUs, now: TimeUs) {
        match generation(now).saturating_sub(generation(at)) {
            0 => {}
            1 => {
                self.previous = self.current;
                self.current = Micro::ZERO;
            }
            _ => {
                *self = Outstanding {
                    current: Micro::ZERO,
                    previous: Micro::ZERO,
                }
            }
        }
    }

    /// A chunk of `amount` was drawn now.
    pub const fn lend(&mut self, amount: Micro) {
        self.current = self.current.plus(amount);
    }

    /// The chunk of `amount` that was drawn at `drawn_at` is back or spent. `now` is the time advanced to.
    pub const fn settle(&mut self, amount: Micro, drawn_at: TimeUs, now: TimeUs) {
        match generation(now).saturating_sub(generation(drawn_at)) {
            0 => self.current = self.current.minus(amount).at_least_zero(),
            1 => self.previous = self.previous.minus(amount).at_least_zero(),
            _ => {}
        }
    }

    /// Takes a [`Outstanding::settle`] back: the chunk that was drawn at `drawn_at` is out after all.
    pub const fn unsettle(&mut self, amount: Micro, drawn_at: TimeUs, now: TimeUs) {
        self.settle(Micro::ZERO.minus(amount), drawn_at, now);
    }

    /// Whether a chunk that was drawn at `drawn_at` no longer counts. The level has filled in its place, so its tokens may not
    /// come back.
    #[must_use]
    pub const fn has_forgotten(drawn_at: TimeUs, now: TimeUs) -> bool {
        generation(now).saturating_sub(generation(drawn_at)) > 1
    }
}

const fn generation(at: TimeUs) -> u64 {
    at.0 / CHUNK_LIFE_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_never_comes_back_is_forgotten_after_its_life() {
        let mut outstanding = Outstanding::default();
        outstanding.lend(Micro::from_tokens(7));
        outstanding.advance(TimeUs(0), TimeUs(CHUNK_LIFE_US));
        assert_eq!(outstanding.total(), Micro::from_tokens(7));
        outstanding.advance(TimeUs(CHUNK_LIFE_US), TimeUs(2 * CHUNK_LIFE_US));
        assert_eq!(outstanding.total(), Micro::ZERO);
    }

    #[test]
    fn a_debt_hides_no_chunk() {
        let mut outstanding = Outstanding::default();
        for (level, out, balance) in [(5, 0, 5), (-5, 0, -5), (5, 2, 7), (0, 2, 2), (-5, 2, 2)] {
            let micro = |tokens: i64| Micro::new(tokens.saturating_mul(1_000_000));
            outstanding.current = micro(out);
            assert_eq!(
                outstanding.balance(micro(level)),
                micro(balance),
                "{level} and {out} in chunks"
            );
        }
    }

    #[test]
    fn a_chunk_is_settled_in_the_generation_that_it_was_drawn_in() {
        let mut outstanding = Outstanding::default();
        let drawn_at = TimeUs(CHUNK_LIFE_US - 1);
        outstanding.lend(Micro::from_tokens(7));
        let now = TimeUs(CHUNK_LIFE_US + 5);
        outstanding.advance(drawn_at, now);
        outstanding.lend(Micro::from_tokens(2));
        outstanding.settle(Micro::from_tokens(7), drawn_at, now);
        assert_eq!(
            outstanding,
            Outstanding {
                current: Micro::from_tokens(2),
                previous: Micro::ZERO
            }
        );
    }
}
