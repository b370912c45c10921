//! When a gateway syncs: at its interval, when it was asked to, and sooner when a sync may bring tokens that are missing.
//!
//! Times and nothing of messages, so that a gateway in Envoy and a model of one in a simulator keep the same pace. What is sent before
//! the interval is over is paid from a budget; what fetches the rest of an answer is not, because it brings what was sent for.
//!
//! No two intervals are the same: a control plane that stopped for a moment is then asked by everybody at once, and without some chance
//! in it the fleet would go on to ask in one wave for ever.

use crate::early_syncs::{EARLY_GAP_US, EarlySyncs};
use crate::time::TimeUs;

/// An early sync must save this part of the interval.
const WORTH_PART: u64 = 5;

/// An interval is shorter or longer than it should be by up to this part of it.
const SPREAD_PART: u64 = 10;

/// Nobody is asked to come later than this many intervals.
const ASKED_MOST_INTERVALS: u64 = 2;

/// The times of a gateway's syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// What the gateway is configured to.
    longest_us: u64,
    /// The same, or what the control plane expects if that is shorter.
    interval_us: u64,
    /// `None` before the first.
    sent_at: Option<TimeUs>,
    /// When the next one is due by the interval.
    usual_at: TimeUs,
    due_at: TimeUs,
    early: EarlySyncs,
    /// The next sync fetches the rest of an answer.
    is_rest: bool,
    /// When the control plane has said that a sync brings what is missing.
    asked_at: Option<TimeUs>,
    random: u64,
}

/// What an answer says about the next sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The control plane expects one in such intervals; 0 says nothing.
    pub interval_us: u64,
    /// Tokens are on the move: the next one should come so long after the last one was sent; 0 says nothing.
    pub early_us: u64,
    /// This was a part of what there is to say.
    pub is_partial: bool,
}

// === impl Pace ===

impl Pace {
    /// The first sync is due at `now`, the next ones about every `interval_us`. `seed` differs between gateways.
    #[must_use]
    pub const fn new(interval_us: u64, seed: u64, now: TimeUs) -> Self {
        Self {
            longest_us: interval_us,
            interval_us,
            sent_at: None,
            usual_at: now,
            due_at: now,
            early: EarlySyncs::new(interval_us),
            is_rest: false,
            asked_at: None,
            // Xorshift stays at zero once it is there.
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    /// When the next sync is due.
    #[must_use]
    pub const fn due_at(&self) -> TimeUs {
        self.due_at
    }

    /// A sync was sent.
    pub fn sent(&mut self, now: TimeUs) {
        let is_early = self.sent_at.is_some() && now < self.usual_at;
        if is_early && !self.is_rest {
            let random = self.next_random();
            self.early.sent(now, random);
        }
        self.is_rest = false;
        self.sent_at = Some(now);
        self.usual_at = now.plus_us(self.spread_us());
        self.due_at = self.usual_at;
        // One that was sent for something else in the meantime changes nothing about it.
        self.asked_at = self.asked_at.filter(|asked_at| *asked_at > now);
        self.keep_to_what_was_asked();
    }

    /// The last sync was answered.
    pub fn answered(&mut self, asked: Asked) {
        let sent_at = self.sent_at.unwrap_or(TimeUs(0));
        let interval_us = asked
            .interval_us
            .clamp(EARLY_GAP_US, self.longest_us.max(EARLY_GAP_US));
        if asked.interval_us > 0 && interval_us != self.interval_us {
            self.interval_us = interval_us;
            self.usual_at = sent_at.plus_us(self.spread_us());
            self.due_at = self.due_at.min(self.usual_at);
        }
        if asked.early_us > 0 {
            // A lack that was found while the answer was on its way is answered by it.
            self.due_at = self.usual_at;
            let most_us = self.interval_us.saturating_mul(ASKED_MOST_INTERVALS);
            self.asked_at = Some(sent_at.plus_us(asked.early_us.min(most_us)));
            self.keep_to_what_was_asked();
        }
        if asked.is_partial {
            self.is_rest = true;
            self.due_at = self.due_at.min(sent_at.plus_us(EARLY_GAP_US));
        }
    }

    /// A sync from `now` on may bring tokens that are missing: as soon as an early one is left. Not when the control plane has said when to
    /// come: a sync before that would find nothing and be missing later.
    pub fn hurry(&mut self, now: TimeUs) {
        if self.asked_at.is_none() {
            self.due_at = self.due_at.min(now.max(self.early_at()));
        }
    }

    /// The last sync failed: the next one waits until then.
    pub fn back_off(&mut self, until: TimeUs) {
        self.due_at = until;
    }

    fn early_at(&self) -> TimeUs {
        self.sent_at
            .map_or(TimeUs(0), |sent_at| self.early.next_at(sent_at))
    }

    /// Comes when it was asked to, if that is sooner than usual by more than it is worth.
    fn keep_to_what_was_asked(&mut self) {
        let Some(asked_at) = self.asked_at else {
            return;
        };
        let worth_us = self.interval_us.checked_div(WORTH_PART).unwrap_or(0);
        if asked_at.plus_us(worth_us) <= self.usual_at {
            self.due_at = self.due_at.min(asked_at.max(self.early_at()));
        }
    }

    /// An interval, more or less.
    fn spread_us(&mut self) -> u64 {
        let part_us = self.interval_us.checked_div(SPREAD_PART).unwrap_or(0);
        let width_us = part_us.saturating_mul(2).saturating_add(1);
        let random_us = self.next_random().checked_rem(width_us).unwrap_or(0);
        self.interval_us
            .saturating_sub(part_us)
            .saturating_add(random_us)
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_US: u64 = 250_000;
    const START: TimeUs = TimeUs(1_000_000);

    /// One that has just sent its first sync and got this answer.
    fn answered(asked: Asked) -> Pace {
        let mut pace = Pace::new(INTERVAL_US, 7, START);
        pace.sent(START);
        pace.answered(asked);
        pace
    }

    fn early(early_us: u64) -> Asked {
        Asked {
            early_us,
            ..Asked::default()
        }
    }

    /// How long after the start the next one is due.
    fn wait_us(pace: &Pace) -> u64 {
        pace.due_at().since(START)
    }

    /// Whether that is an interval, more or less.
    fn is_usual(us: u64) -> bool {
        (INTERVAL_US * 9 / 10..=INTERVAL_US * 11 / 10).contains(&us)
    }

    #[test]
    fn the_first_is_due_at_once_and_the_next_after_the_interval() {
        assert_eq!(Pace::new(INTERVAL_US, 7, START).due_at(), START);
        assert!(is_usual(wait_us(&answered(Asked::default()))));
    }

    #[test]
    fn the_control_plane_may_ask_for_a_sooner_one_but_not_for_a_storm_nor_a_later_one() {
        // 240 ms are not worth an early sync, whatever the interval comes to.
        let cases = [
            (100_000, Some(100_000)),
            (1_000, Some(EARLY_GAP_US)),
            (0, None),
            (240_000, None),
            (60_000_000, None),
        ];
        for (early_us, expected_us) in cases {
            let mut pace = answered(early(early_us));
            let is_right = expected_us.map_or(is_usual(wait_us(&pace)), |us| us == wait_us(&pace));
            assert!(is_right, "{early_us} us asked for: {}", wait_us(&pace));
            let later = START.plus_us(1_000_000);
            pace.sent(later);
            assert!(
                is_usual(pace.due_at().since(later)),
                "it was asked for once"
            );
        }
    }

    #[test]
    fn the_control_plane_may_expect_more_than_we_would_send_and_those_are_not_early() {
        let mut pace = Pace::new(4 * INTERVAL_US, 7, START);
        let mut now = START;
        for _ in 1..20 {
            pace.sent(now);
            pace.answered(Asked {
                interval_us: INTERVAL_US,
                ..Asked::default()
            });
            assert!(is_usual(pace.due_at().since(now)));
            now = pace.due_at();
        }
        pace.sent(now);
        pace.hurry(now);
        assert_eq!(pace.due_at(), now.plus_us(EARLY_GAP_US), "none was spent");
    }

    #[test]
    fn the_rest_of_an_answer_is_fetched_at_once_and_costs_no_early_sync() {
        let mut pace = Pace::new(INTERVAL_US, 7, START);
        let mut now = START;
        for _ in 0..100 {
            pace.sent(now);
            pace.answered(Asked {
                is_partial: true,
                ..Asked::default()
            });
            now = now.plus_us(EARLY_GAP_US);
            assert_eq!(pace.due_at(), now);
        }
        pace.sent(now);
        pace.answered(early(10_000));
        assert_eq!(pace.due_at(), now.plus_us(EARLY_GAP_US));
    }

    #[test]
    fn a_storm_of_lacks_is_one_sync_no_sooner_than_they_are_seen() {
        let mut pace = answered(Asked::default());
        pace.hurry(START.plus_us(1_000));
        pace.hurry(START.plus_us(2_000));
        assert_eq!(wait_us(&pace), EARLY_GAP_US);
        let mut pace = answered(Asked::default());
        pace.hurry(START.plus_us(200_000));
        assert_eq!(wait_us(&pace), 200_000);
    }

    #[test]
    fn a_lack_waits_for_what_the_control_plane_has_asked_for() {
        let mut pace = Pace::new(INTERVAL_US, 7, START);
        pace.sent(START);
        // One that was found before the answer came, and one after it.
        pace.hurry(START);
        pace.answered(early(180_000));
        pace.hurry(START);
        assert_eq!(wait_us(&pace), 180_000);
        pace.sent(START.plus_us(180_000));
        pace.answered(Asked::default());
        pace.hurry(START);
        assert_eq!(wait_us(&pace), 230_000, "it was asked for once");
    }

    #[test]
    fn one_that_comes_in_between_leaves_the_one_that_was_asked_for() {
        let mut pace = answered(Asked {
            early_us: 180_000,
            is_partial: true,
            ..Asked::default()
        });
        assert_eq!(wait_us(&pace), EARLY_GAP_US, "the rest of the answer");
        pace.sent(pace.due_at());
        pace.answered(Asked::default());
        pace.hurry(START);
        assert_eq!(wait_us(&pace), 180_000);
    }

    /// Of so many, how many are due in each tenth of `cycle_us`.
    fn by_tenth(fleet: &[Pace], cycle_us: u64) -> [u32; 10] {
        let mut by_tenth = [0; 10];
        for pace in fleet {
            let tenth = pace.due_at().0 % cycle_us * 10 / cycle_us;
            by_tenth[usize::try_from(tenth).unwrap()] += 1;
        }
        by_tenth
    }

    #[test]
    fn gateways_that_lack_tokens_all_the_time_do_not_send_their_early_syncs_at_one_time() {
        let mut fleet: Vec<Pace> = (0..1_000)
            .map(|gateway| Pace::new(INTERVAL_US, gateway, START))
            .collect();
        // Each goes on until it is due to send an early one after half a minute.
        for pace in &mut fleet {
            let mut is_early = false;
            while !is_early || wait_us(pace) < 30_000_000 {
                let now = pace.due_at();
                pace.sent(now);
                let usual_at = pace.due_at();
                pace.hurry(now);
                is_early = pace.due_at() < usual_at;
            }
        }
        let by_tenth = by_tenth(&fleet, 4 * INTERVAL_US);
        assert!(
            by_tenth.iter().all(|count| (50..200).contains(count)),
            "{by_tenth:?}"
        );
    }

    #[test]
    fn gateways_that_came_at_one_time_do_not_go_on_to() {
        let mut fleet: Vec<Pace> = (0..100)
            .map(|gateway| Pace::new(INTERVAL_US, gateway, START))
            .collect();
        for _ in 0..40 {
            for pace in &mut fleet {
                let now = pace.due_at();
                pace.sent(now);
            }
        }
        // In each tenth of an interval about ten of them.
        let by_tenth = by_tenth(&fleet, INTERVAL_US);
        assert!(by_tenth.iter().all(|count| *count < 25), "{by_tenth:?}");
        let passed_us: u64 = fleet.iter().map(wait_us).sum::<u64>() / 100;
        let expected_us = 40 * INTERVAL_US;
        assert!(
            passed_us.abs_diff(expected_us) < expected_us / 100,
            "as often as before: {passed_us}"
        );
    }
}
