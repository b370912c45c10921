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

/// The training before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) started_unix_ms: u64,
    pub(super) has_failed: bool,
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
    /// Whether to begin now. `since_unix_ms` is when the schedule itself began, before which nothing was trained; `drift_unix_ms` when drift was found
    /// last.
    pub(super) fn due(
        &self,
        now_unix_ms: u64,
        since_unix_ms: u64,
        last: Option<Last>,
        drift_unix_ms: Option<u64>,
    ) -> Option<Cause> {
        let age_ms = |last: Last| now_unix_ms.saturating_sub(last.started_unix_ms);
        if last.is_some_and(|last| last.has_failed && age_ms(last) < FAILURE_PAUSE_MS) {
            return None;
        }
        let next = self.next_unix_ms(since_unix_ms, last);
        if next.is_some_and(|next| now_unix_ms >= next) {
            return Some(Cause::Schedule);
        }
        // What was found before the last training began, that training has answered.
        let is_new = |drift: u64| last.is_none_or(|last| drift > last.started_unix_ms);
        let has_rested = last.is_none_or(|last| age_ms(last) >= DRIFT_PAUSE_MS);
        let drifts = self.on_drift && drift_unix_ms.is_some_and(is_new) && has_rested;
        drifts.then_some(Cause::Drift)
    }

    /// When the clock is the next reason, as far as there is such a time.
    pub(super) fn next_unix_ms(&self, since_unix_ms: u64, last: Option<Last>) -> Option<u64> {
        let from = last.map_or(since_unix_ms, |last| last.started_unix_ms);
        self.every_ms.map(|every| from.saturating_add(every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    const DAY_MS: u64 = 86_400_000;
    const DAILY: Schedule = Schedule {
        every_ms: Some(DAY_MS),
        on_drift: false,
    };
    const ON_DRIFT: Schedule = Schedule {
        every_ms: None,
        on_drift: true,
    };

    fn last(started_unix_ms: u64, has_failed: bool) -> Option<Last> {
        Some(Last {
            started_unix_ms,
            has_failed,
        })
    }

    #[test]
    fn without_a_schedule_nothing_begins_by_itself() {
        let never = Schedule::default();
        assert_eq!(never.due(u64::MAX, 0, None, Some(u64::MAX)), None);
        assert_eq!(DAILY.due(DAY_MS / 2, 0, None, Some(DAY_MS / 2)), None);
        assert_eq!(ON_DRIFT.due(u64::MAX, 0, None, None), None);
    }

    #[test]
    fn the_clock_counts_from_the_training_before_or_from_the_start() {
        assert_eq!(DAILY.due(DAY_MS - 1, 0, None, None), None);
        assert_eq!(DAILY.due(DAY_MS, 0, None, None), Some(Cause::Schedule));
        assert_eq!(DAILY.due(DAY_MS, 0, last(5, false), None), None);
        assert_eq!(
            DAILY.due(DAY_MS + 5, 0, last(5, false), None),
            Some(Cause::Schedule)
        );
    }

    #[test]
    fn drift_counts_once_and_not_sooner_than_a_day_after_a_training() {
        let due = |now, drift| ON_DRIFT.due(now, 0, last(DAY_MS, false), Some(drift));
        assert_eq!(
            due(3 * DAY_MS, DAY_MS),
            None,
            "the training has answered it"
        );
        assert_eq!(due(2 * DAY_MS - 1, DAY_MS + 1), None, "the model is new");
        assert_eq!(due(2 * DAY_MS, DAY_MS + 1), Some(Cause::Drift));
        assert_eq!(ON_DRIFT.due(7, 0, None, Some(7)), Some(Cause::Drift));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_fails_is_tried_once_an_hour_at_most(
            now in 0..u64::MAX,
            started in 0..u64::MAX,
            every in 1..10 * DAY_MS,
            drift in proptest::option::of(0..u64::MAX),
        ) {
            let schedule = Schedule { every_ms: Some(every), on_drift: true };
            let due = schedule.due(now, 0, last(started, true), drift);
            prop_assert!(due.is_none() || now - started >= FAILURE_PAUSE_MS);
        }
    }
}
