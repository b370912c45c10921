//! By which values the next cycle is to be made.

use crate::Settings;
use crate::risk::chance::Chance;
use crate::tuning::TuningError;
use crate::tuning::context::{Context, Features};
use crate::tuning::evidence::{Evidence, Neighbours};
use crate::tuning::guard::{EXPLORED_MOST, Guard, Hold, WINDOW};
use crate::tuning::knobs::{Arms, Ranges};
use crate::tuning::learned::Learned;
use crate::tuning::offline::Logged;
use crate::tuning::outcome::Outcome;

/// Of the decisions that explore, the part in which any arm is as likely as another: no arm's propensity is 0, so what is logged says
/// something of all.
const BY_CHANCE: f64 = 0.5;

/// What may be tuned, and how much it may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Which knobs, and how far.
    pub ranges: Ranges,
    /// How contexts are read.
    pub features: Features,
    /// Of the decisions, the part that explores at most: 0 to 0.05. 0 switches tuning off.
    pub share: f64,
    /// Of the rewards of the policy's own values, the part that may be lost at most: 0.001 to 0.5.
    pub loss_most: f64,
    /// Chance comes from it.
    pub seed: u64,
}

/// What a cycle is to be made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Counts up from 1.
    pub number: u64,
    /// Which arm; 0 is the policy's own.
    pub arm: usize,
    /// Its values.
    pub settings: Settings,
    /// How likely it was to be this arm.
    pub propensity: f64,
    /// Why it could not explore, if it could not.
    pub hold: Option<Hold>,
    /// What was known.
    pub context: Context,
}

/// A promise was broken in a cycle that explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Which arm it was.
    pub arm: usize,
    /// Nothing is explored until then, in the caller's time.
    pub until_ms: u64,
}

/// What was made of an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// For the log; none where nothing was asked for or nobody has told.
    pub logged: Option<Logged>,
    /// Why and until when nothing is explored from now on.
    pub fallback: Option<Fallback>,
}

/// Chooses and learns. The same calls give the same decisions, to the last bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuner {
    pub(super) arms: Arms,
    share: f64,
    pub(super) seed: u64,
    pub(super) guard: Guard,
    pub(super) learned: Learned,
    pub(super) neighbours: Neighbours,
    pub(super) decisions: u64,
    /// The decision whose outcome is not known yet.
    pub(super) pending: Option<Decision>,
}

// === impl Tuner ===

impl Tuner {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// When a range or a part cannot be, see [`TuningError`].
    pub fn new(own: &Settings, rules: &Rules) -> Result<Self, TuningError> {
        let Rules {
            ranges,
            features,
            share,
            loss_most,
            seed,
        } = *rules;
        let of_window = f64::from(WINDOW);
        if !(0.0..=f64::from(EXPLORED_MOST) / of_window).contains(&share) {
            return Err(TuningError::Share { share });
        }
        if !(0.001..=0.5).contains(&loss_most) {
            return Err(TuningError::Loss { loss_most });
        }
        let arms = Arms::around(own, &ranges)?;
        let explored_most = match arms.len() {
            1 => 0,
            // Not rounded down because a part has no digit to spare.
            _ => (share * of_window + 1e-9) as u32,
        };
        Ok(Self {
            share,
            seed,
            guard: Guard::new(explored_most, loss_most),
            learned: Learned::nothing(features, arms.len()),
            neighbours: Neighbours::new(arms.len()),
            arms,
            decisions: 0,
            pending: None,
        })
    }

    /// The same with what was learned elsewhere, of the same arms.
    #[must_use]
    pub fn knowing(mut self, learned: Learned) -> Self {
        self.learned = learned;
        self
    }

    /// What the next cycle is to be made by. An outcome that has not come by now is taken for one that nobody tells.
    pub fn choose(&mut self, now_ms: u64, context: &Context) -> Decision {
        if self.pending.is_some() {
            self.observe(now_ms, None);
        }
        self.decisions = self.decisions.saturating_add(1);
        let hold = self.guard.holds(now_ms);
        let (arm, propensity) = match hold {
            Some(_) => (0, 1.0),
            None => self.draw(context),
        };
        self.guard.note(arm > 0);
        // An arm that there is none of is never drawn.
        let settings = self.arms.at(arm).or(self.arms.at(0));
        let decision = Decision {
            number: self.decisions,
            arm,
            settings: settings.map_or_else(Settings::default, |arm| arm.settings),
            propensity,
            hold,
            context: *context,
        };
        self.pending = Some(decision);
        decision
    }

    /// What came of the cycle that was chosen for last; `None`: nobody has told. Without such a cycle nothing happens.
    ///
    /// A cycle that explored and that nobody tells of counts as a full loss: silence is no way to explore for nothing.
    pub fn observe(&mut self, now_ms: u64, outcome: Option<&Outcome>) -> Observed {
        let Some(decision) = self.pending.take() else {
            return Observed::default();
        };
        let Decision {
            arm,
            propensity,
            context,
            ..
        } = decision;
        let reward = outcome.and_then(Outcome::reward);
        match (arm, reward) {
            (0, Some(reward)) => {
                self.guard.earn(reward);
                self.neighbours.see_own(reward);
            }
            (_, Some(reward)) => {
                self.guard.spend(reward);
                self.neighbours.see(arm, reward);
            }
            (0, None) => {}
            (_, None) if outcome.is_some_and(|outcome| outcome.asked == 0.0) => {}
            (_, None) => self.guard.spend(0.0),
        }
        if let Some(reward) = reward {
            self.learned.learn(&context, arm, reward);
        }
        let breaks = arm > 0 && outcome.is_some_and(Outcome::breaks_promise);
        Observed {
            logged: reward.map(|reward| Logged {
                context,
                arm,
                propensity,
                reward,
            }),
            fallback: breaks.then(|| Fallback {
                arm,
                until_ms: self.guard.pause(now_ms),
            }),
        }
    }

    /// Why the next decision would not explore, if it would not.
    #[must_use]
    pub fn hold(&self, now_ms: u64) -> Option<Hold> {
        self.guard.holds(now_ms)
    }

    /// What there is to choose from.
    #[must_use]
    pub const fn arms(&self) -> &Arms {
        &self.arms
    }

    /// What was seen of each arm beside its neighbours, by position.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        self.neighbours.arms()
    }

    /// The arm that is better than the policy's own values, as far as the test says so. It is named and not taken.
    #[must_use]
    pub fn better(&self) -> Option<usize> {
        self.neighbours.better()
    }

    /// An arm, and how likely it was.
    fn draw(&self, context: &Context) -> (usize, f64) {
        let part = usize::try_from(self.decisions).unwrap_or(usize::MAX);
        let mut chance = Chance::of_part(self.seed, part);
        let others = self.arms.len() - 1;
        let hopeful = self.learned.most_hopeful(context);
        if uniform(&mut chance) >= self.share {
            return (0, 1.0 - self.share);
        }
        let by_chance = uniform(&mut chance) < BY_CHANCE;
        let any = 1 + chance.below(others);
        let arm = match hopeful {
            Some(hopeful) if !by_chance => hopeful,
            _ => any,
        };
        let likely = BY_CHANCE / others as f64
            + match hopeful == Some(arm) {
                true => 1.0 - BY_CHANCE,
                false => 0.0,
            };
        (arm, self.share * likely)
    }
}

/// From 0 up to, not including, 1.
fn uniform(chance: &mut Chance) -> f64 {
    (chance.bits() >> 11) as f64 / (1_u64 << 53) as f64
}
