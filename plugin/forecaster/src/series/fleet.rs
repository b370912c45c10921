//! What the whole fleet has used in a step of which a gateway sees only its own part at first.
//!
//! A series is of the fleet, and a forecast is made from it as soon as a step is over. What the other gateways have used in that step is
//! told some syncs later. To take the step for our own part until then was worse: in a fleet of several gateways every forecast would
//! start from a value that is far too small. So others are taken to have used what our share of the traffic says, and nothing is learned
//! from a step before the others' part of it is known.

/// Share of the traffic averages that is kept per step.
const KEPT: f32 = 0.8;

/// Others with less than this part of our own traffic are none: the average alone would fade for ever, and a gateway that has lost its
/// control plane would not learn from its own usage for as long.
const NOBODY_BELOW: f32 = 0.01;

/// Our part of one customer's traffic, and what is known of the others'.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    own_average: f32,
    others_average: f32,
    /// The last usage of the others that was told.
    others_last: f32,
    newest: Option<Ended>,
    /// What was told of a step that has not ended here yet.
    early: Option<(i64, f32)>,
    /// Our part when what the others have used was told last.
    told_share: Option<f32>,
}

/// The newest step that has ended here.
#[derive(Clone, Copy, Debug)]
struct Ended {
    step: i64,
    own: f32,
    /// Nobody else had any of the traffic when it ended.
    is_alone: bool,
    others: Option<f32>,
}

// === impl Fleet ===

impl Fleet {
    /// A step has ended in which this gateway has used `own`. Returns what the fleet has used, or an estimate until that is told.
    pub(super) fn ended(&mut self, step: i64, own: f32) -> f32 {
        // The share before this step: what the others have done in it is still to come.
        let share = self.own_share();
        self.own_average = KEPT * self.own_average + (1.0 - KEPT) * own;
        self.others_average *= KEPT;
        if self.others_average < NOBODY_BELOW * self.own_average {
            self.others_average = 0.0;
        }
        if self.newest.is_some_and(|newest| step <= newest.step) {
            // The calendar was set back: what was told speaks of steps that come again.
            self.early = None;
        }
        self.newest = Some(Ended {
            step,
            own,
            is_alone: share >= 1.0,
            others: None,
        });
        let early = self.early.take_if(|(early, _)| *early <= step);
        if let Some((_, others)) = early.filter(|(early, _)| *early == step)
            && let Some(usage) = self.told(step, others)
        {
            return usage;
        }
        if share >= 1.0 {
            return own;
        }
        // Others do as they did, or as we do: the more of the traffic is ours, the more our own part says about the rest.
        own * (2.0 - share) + (1.0 - share) * self.others_last
    }

    /// What the others together have used in a step. Returns what the fleet has, if that is the newest step and it is news.
    pub(super) fn told(&mut self, step: i64, others: f32) -> Option<f32> {
        if !others.is_finite() || others < 0.0 {
            return None;
        }
        let is_early = self.newest.is_none_or(|newest| step > newest.step);
        if is_early {
            if self.early.is_none_or(|(kept, _)| step > kept) {
                self.early = Some((step, others));
            }
            return None;
        }
        let newest = self
            .newest
            .as_mut()
            .filter(|newest| newest.step == step && newest.others.is_none())?;
        newest.others = Some(others);
        let usage = newest.own + others;
        self.others_last = others;
        self.others_average += (1.0 - KEPT) * others;
        if self.own_average + self.others_average > 0.0 {
            self.told_share = Some(self.own_share());
        }
        Some(usage)
    }

    /// Whether what the window has of this step is what the whole fleet has used.
    pub(super) fn is_known(&self, step: i64) -> bool {
        self.newest.is_some_and(|newest| {
            newest.step == step && (newest.others.is_some() || newest.is_alone)
        })
    }

    /// The newest step that has ended here.
    pub(super) fn newest_step(&self) -> Option<i64> {
        self.newest.map(|newest| newest.step)
    }

    /// Forgets the steps, because they have another length from now on; shares stay.
    pub(super) fn forget_steps(&mut self) {
        self.newest = None;
        self.early = None;
        self.others_last = 0.0;
    }

    /// [`Self::own_share`] when the others' part was told last. It does not fade: while the control plane is away each gateway takes itself for
    /// alone little by little, and what all of them together were allocated would be claimed by each.
    pub(super) fn known_share(&self) -> Option<f32> {
        self.told_share
    }

    /// The part of the customer's traffic that comes through this gateway, 0 to 1.
    pub(super) fn own_share(&self) -> f32 {
        let others = self.others_so_far();
        let all = self.own_average + others;
        if others > 0.0 && all > 0.0 {
            (self.own_average / all).clamp(0.0, 1.0)
        } else {
            1.0
        }
    }

    /// The others' average, to be held against our own. Ours has the newest step in it; theirs has room for it only, until it is told. A
    /// step begins like that, and that is when claims are made.
    fn others_so_far(&self) -> f32 {
        match self.newest {
            Some(Ended { others: None, .. }) => self.others_average / KEPT,
            _ => self.others_average,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fleet in which we have a quarter of 40 tokens per step.
    fn quarter() -> Fleet {
        let mut fleet = Fleet::default();
        for step in 0..60 {
            fleet.ended(step, 10.0);
            fleet.told(step, 30.0);
        }
        fleet
    }

    #[test]
    fn a_step_is_estimated_by_our_share_until_the_others_part_is_told() {
        let mut fleet = quarter();
        assert!((fleet.ended(60, 10.0) - 40.0).abs() < 0.1);
        assert!(!fleet.is_known(60));
        assert_eq!(fleet.told(60, 50.0), Some(60.0));
        assert!(fleet.is_known(60));
        assert_eq!(fleet.told(60, 70.0), None, "the first word counts");
    }

    #[test]
    fn a_gateway_alone_has_exactly_what_it_used_itself() {
        let mut fleet = Fleet::default();
        for step in 0..9 {
            assert_eq!(fleet.ended(step, 3.7), 3.7);
            assert!(fleet.is_known(step));
        }
    }

    #[test]
    fn what_is_told_early_counts_when_the_step_has_ended_here() {
        let mut fleet = quarter();
        assert_eq!(fleet.told(60, 35.0), None);
        assert_eq!(fleet.ended(60, 11.0), 46.0);
        assert!(fleet.is_known(60));
        // The step that was told of has passed without us: it says nothing about a later one.
        assert_eq!(fleet.told(61, 500.0), None);
        assert!(fleet.ended(62, 10.0) < 60.0);
        assert!(!fleet.is_known(62));
    }

    #[test]
    fn the_share_that_was_told_last_does_not_fade() {
        let mut fleet = quarter();
        assert!((fleet.known_share().unwrap_or(0.0) - 0.25).abs() < 1e-3);
        for step in 60..100 {
            fleet.ended(step, 10.0);
        }
        assert_eq!(fleet.own_share(), 1.0);
        assert!((fleet.known_share().unwrap_or(0.0) - 0.25).abs() < 1e-3);
        assert_eq!(Fleet::default().known_share(), None);
    }

    #[test]
    fn a_gateway_of_which_nobody_tells_anything_any_more_is_alone_after_a_while() {
        let mut fleet = quarter();
        let known = |fleet: &mut Fleet, step| {
            fleet.ended(step, 10.0);
            fleet.is_known(step)
        };
        assert!(!known(&mut fleet, 60));
        let alone = (61..120)
            .find(|step| known(&mut fleet, *step))
            .expect("in 60 steps");
        assert!((70..95).contains(&alone), "{alone}");
        assert_eq!(fleet.ended(120, 8.0), 8.0);
    }

    #[test]
    fn a_share_is_the_same_before_and_after_the_newest_step_is_told() {
        let mut fleet = quarter();
        let before = fleet.own_share();
        fleet.ended(60, 10.0);
        assert!((fleet.own_share() - before).abs() < 0.01);
        fleet.told(60, 30.0);
        assert!((fleet.own_share() - before).abs() < 0.01);
    }

    #[test]
    fn a_share_is_known_once_the_others_part_was_told_and_somebody_used_anything() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.known_share(), None);
        fleet.ended(0, 10.0);
        assert_eq!(fleet.known_share(), None, "others may have as much");
        fleet.told(0, 0.0);
        assert_eq!(fleet.known_share(), Some(1.0));
        let mut idle = Fleet::default();
        idle.ended(0, 0.0);
        idle.told(0, 0.0);
        assert_eq!(idle.known_share(), None);
        assert!((quarter().known_share().unwrap() - 0.25).abs() < 0.01);
    }

    #[test]
    fn nonsense_is_not_heard() {
        let mut fleet = quarter();
        fleet.ended(60, 10.0);
        for others in [f32::NAN, f32::INFINITY, -1.0] {
            assert_eq!(fleet.told(60, others), None);
        }
        assert!(!fleet.is_known(60));
    }
}
