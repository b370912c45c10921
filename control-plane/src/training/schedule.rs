//! When to train: a function of the time, of when it was done last, and of what the detectors say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Drift is answered once in this time: a model that has just been made from what there is would come out the same.
const DRIFT_PAUSE_MS: u64 = 86_400_000;
/// After a training that failed the next one comes no sooner, whatever calls for it but a person.
const FAILURE_PAUSE_MS: u64 = 3_600_000;

/// Why a training begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody has asked for it.
    Asked,
    /// It was time.
    Schedule,
    /// Forecasts have become worse than they were.
    Drift,
}

/// When to train without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// From the beginning of a training to the beginning of the next; `None`: never by the clock.
    pub every_ms: Option<u64>,
    /// Whether drift is a reason.
    pub on_drift: bool,
}

/// The trainings before, as far as the next one depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// When the schedule itself began, before which nothing was trained; `None` until that is written down.
    pub(super) since_unix_ms: Option<u64>,
    /// When the newest training began that has come to something, or that somebody has ended.
    pub(super) done_unix_ms: Option<u64>,
    /// When the newest one began, if it has failed.
    pub(super) failed_unix_ms: Option<u64>,
}

// === impl Cause ===

impl Cause {
    /// As in requests and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Schedule => "schedule",
            Self::Drift => "drift",
        }
    }
}

// === impl Schedule ===

impl Schedule {
    /// Whether to begin now. `drift_unix_ms` is when drift was found last.
    pub(super) fn due(
        &self,
        now_unix_ms: u64,
        past: Past,
        drift_unix_ms: Option<u64>,
    ) -> Option<Cause> {
        if self
            .next_unix_ms(past)
            .is_some_and(|next| now_unix_ms >= next)
        {
            return Some(Cause::Schedule);
        }
        // What was found before a training that has come to something, that one has answered.
        let is_new = |drift: u64| past.done_unix_ms.is_none_or(|done| drift > done);
        let has_passed = |at: Option<u64>, pause_ms: u64| {
            at.is_none_or(|at| now_unix_ms >= at.saturating_add(pause_ms))
        };
        let drifts = self.on_drift
            && drift_unix_ms.is_some_and(is_new)
            && has_passed(past.done_unix_ms, DRIFT_PAUSE_MS)
            && has_passed(past.failed_unix_ms, FAILURE_PAUSE_MS);
        drifts.then_some(Cause::Drift)
    }

    /// When the clock is the next reason, as far as there is such a time. What has failed is tried again sooner.
    pub(super) fn next_unix_ms(&self, past: Past) -> Option<u64> {
        let every_ms = self.every_ms?;
        if let Some(failed) = past.failed_unix_ms {
            return Some(failed.saturating_add(every_ms.min(FAILURE_PAUSE_MS)));
        }
        let from = past.done_unix_ms.or(past.since_unix_ms)?;
        Some(from.saturating_add(every_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    const DAILY: Schedule = Schedule {
        every_ms: Some(DAY_MS),
        on_drift: false,
    };
    const ON_DRIFT: Schedule = Schedule {
        every_ms: None,
        on_drift: true,
    };

    fn done(at: u64) -> Past {
        Past {
            done_unix_ms: Some(at),
            ..Past::default()
        }
    }

    #[test]
    fn without_a_schedule_nothing_begins_by_itself() {
        let (never, past) = (Schedule::default(), Past::default());
        assert_eq!(never.due(u64::MAX, past, Some(u64::MAX)), None);
        assert_eq!(DAILY.due(DAY_MS / 2, past, Some(DAY_MS / 2)), None);
        assert_eq!(ON_DRIFT.due(u64::MAX, past, None), None);
    }

    #[test]
    fn the_clock_counts_from_the_training_before_or_from_the_start() {
        let from = |since_unix_ms| Past {
            since_unix_ms: Some(since_unix_ms),
            ..Past::default()
        };
        assert_eq!(
            DAILY.next_unix_ms(Past::default()),
            None,
            "it has not begun"
        );
        assert_eq!(DAILY.due(u64::MAX, Past::default(), None), None);
        assert_eq!(DAILY.due(DAY_MS + 2, from(3), None), None);
        assert_eq!(DAILY.due(DAY_MS + 3, from(3), None), Some(Cause::Schedule));
        assert_eq!(DAILY.due(DAY_MS, done(5), None), None);
        assert_eq!(DAILY.due(DAY_MS + 5, done(5), None), Some(Cause::Schedule));
    }

    #[test]
    fn drift_counts_once_and_not_sooner_than_a_day_after_a_training() {
        let due = |now, drift| ON_DRIFT.due(now, done(DAY_MS), Some(drift));
        assert_eq!(
            due(3 * DAY_MS, DAY_MS),
            None,
            "the training has answered it"
        );
        assert_eq!(due(2 * DAY_MS - 1, DAY_MS + 1), None, "the model is new");
        assert_eq!(due(2 * DAY_MS, DAY_MS + 1), Some(Cause::Drift));
        assert_eq!(
            ON_DRIFT.due(7, Past::default(), Some(7)),
            Some(Cause::Drift)
        );
    }

    #[test]
    fn a_training_that_failed_answers_nothing_and_is_tried_again_in_an_hour() {
        let failed = Past {
            failed_unix_ms: Some(DAY_MS),
            ..Past::default()
        };
        let due = |now| ON_DRIFT.due(now, failed, Some(DAY_MS - 1));
        assert_eq!(due(DAY_MS + HOUR_MS - 1), None);
        assert_eq!(due(DAY_MS + HOUR_MS), Some(Cause::Drift));
        assert_eq!(DAILY.due(DAY_MS + HOUR_MS - 1, failed, None), None);
        assert_eq!(
            DAILY.due(DAY_MS + HOUR_MS, failed, None),
            Some(Cause::Schedule)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_fails_is_tried_once_an_hour_at_most(
            now in 0..u64::MAX / 2,
            failed in 0..u64::MAX / 2,
            hours in 1..400_u64,
            drift in proptest::option::of(0..u64::MAX),
        ) {
            let schedule = Schedule { every_ms: Some(hours * HOUR_MS), on_drift: true };
            let past = Past { failed_unix_ms: Some(failed), ..Past::default() };
            prop_assert!(schedule.due(now, past, drift).is_none() || now - failed >= HOUR_MS);
        }
    }
}
