//! What a tuner knows, as words of 64 bits that can be put away and taken up again: whoever was restarted goes on as if nothing had been.
//!
//! ```text
//!   format, seed, arms, decisions, guard, pending, models by arm, neighbours
//! ```
//! The arms themselves are not among them: they follow from the policy, and what is left here is a fingerprint of them. Of other arms only
//! what guards is taken up, so whoever changes the ranges does not explore the more for it.

use crate::tuning::TuningError;
use crate::tuning::context::Context;
use crate::tuning::evidence::Neighbours;
use crate::tuning::learned::Learned;
use crate::tuning::tuner::{Decision, Tuner};

/// What the words mean.
const FORMAT: u64 = 1;
/// Words of a tuner at most.
pub const WORDS_MOST: usize = 1_024;

/// Words that are read one after the other.
pub(crate) struct Words<'a>(std::slice::Iter<'a, u64>);

// === impl Words ===

impl Words<'_> {
    pub(crate) fn word(&mut self) -> Option<u64> {
        self.0.next().copied()
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        u32::try_from(self.word()?).ok()
    }

    /// No infinity, and always a number.
    pub(crate) fn number(&mut self) -> Option<f64> {
        let number = f64::from_bits(self.word()?);
        number.is_finite().then_some(number)
    }

    /// What may be missing.
    pub(crate) fn optional(&mut self) -> Option<Option<f64>> {
        match self.word()? {
            0 => Some(None),
            _ => self.number().map(Some),
        }
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }
}

pub(crate) fn put_optional(words: &mut Vec<u64>, number: Option<f64>) {
    words.push(u64::from(number.is_some()));
    words.extend(number.map(f64::to_bits));
}

// === impl Tuner ===

impl Tuner {
    /// All that it knows: at most [`WORDS_MOST`].
    #[must_use]
    pub fn words(&self) -> Vec<u64> {
        let arms = self.arms.fingerprint();
        let mut words = vec![FORMAT, self.seed, arms, self.decisions];
        self.guard.put(&mut words);
        words.push(u64::from(self.pending.is_some()));
        if let Some(pending) = &self.pending {
            words.extend([pending.arm as u64, pending.propensity.to_bits()]);
            pending.context.put(&mut words);
        }
        self.learned.put(&mut words);
        self.neighbours.put(&mut words);
        words
    }

    /// The same with what another one knew. If that had other arms, what it has explored and lost counts here as well, and nothing else.
    ///
    /// # Errors
    /// [`TuningError::Kept`] when the words are none of [`Tuner::words`].
    pub fn taking_up(self, words: &[u64]) -> Result<Self, TuningError> {
        if words.len() > WORDS_MOST {
            return Err(TuningError::Kept);
        }
        self.take(&mut Words(words.iter())).ok_or(TuningError::Kept)
    }

    /// The same after a history that is lost: as if as much as may be had just been explored.
    #[must_use]
    pub fn careful(mut self) -> Self {
        self.guard.presume();
        self
    }

    fn take(mut self, words: &mut Words<'_>) -> Option<Self> {
        if words.word()? != FORMAT {
            return None;
        }
        self.seed = words.word()?;
        let are_same = words.word()? == self.arms.fingerprint();
        self.decisions = words.word()?;
        self.guard.take(words)?;
        let pending = match words.word()? {
            0 => None,
            _ => {
                let arm = usize::try_from(words.word()?).ok()?;
                let propensity = words.number()?;
                let is_likely = propensity > 0.0 && propensity <= 1.0;
                is_likely.then_some(())?;
                Some((arm, propensity, Context::take(words)?))
            }
        };
        if !are_same {
            // What came of it can be told from nothing else any more.
            if pending.is_some_and(|(arm, ..)| arm > 0) {
                self.guard.spend(0.0);
            }
            return Some(self);
        }
        if let Some((arm, propensity, context)) = pending {
            self.pending = Some(Decision {
                number: self.decisions,
                arm,
                settings: self.arms.at(arm)?.settings,
                propensity,
                hold: None,
                context,
            });
        }
        let Learned { features, .. } = self.learned;
        self.learned = Learned::take(features, self.arms.len(), words)?;
        self.neighbours = Neighbours::take(self.arms.len(), words)?;
        words.is_over().then_some(self)
    }
}
