//! Hours and weekdays as customers live them.
//!
//! The grid stays in UTC, where each day has as many steps as the next: a grid of local time would have an hour of nothing in spring and one of
//! two amounts in autumn. What moves is the hour that is written beside a step, by the table of zones that comes with this program and not by that of
//! the machine.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::stamp::rfc3339;

/// What customers' clocks show: a time zone.
pub(crate) struct LocalClock {
    name: String,
    zone: TimeZone,
}

/// Local time of a step's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    /// 0 to 23.
    pub(crate) hour: u8,
    /// 1 is Monday, 7 Sunday.
    pub(crate) weekday: u8,
}

/// From when on local time is so far ahead of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UtcOffset {
    pub(crate) from: String,
    pub(crate) utc_offset_s: i32,
}

// === impl LocalClock ===

impl LocalClock {
    pub(super) fn of(name: &str) -> Result<Self, TrainError> {
        let zone = TimeZone::get(name).map_err(|_| {
            TrainError::Options(format!(
                "--zone: {name:?} is no time zone; give a name of the IANA data base, such as Europe/Zurich, America/New_York or UTC"
            ))
        })?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Ok(Self { name, zone })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn local(&self, unix_s: i64) -> LocalTime {
        // Times come from 64 bits of nanoseconds, which jiff's years hold.
        let at = Timestamp::from_second(unix_s).unwrap_or_default();
        let local = self.zone.to_datetime(at);
        LocalTime {
            hour: local.hour().unsigned_abs(),
            weekday: local.weekday().to_monday_one_offset().unsigned_abs(),
        }
    }

    /// The offset at the start of a span, and each change of it within.
    pub(super) fn offsets(&self, start_s: i64, end_s: i64) -> Vec<UtcOffset> {
        let start = Timestamp::from_second(start_s).unwrap_or_default();
        let first = UtcOffset {
            from: rfc3339(start_s),
            utc_offset_s: self.zone.to_offset(start).seconds(),
        };
        let changes = self
            .zone
            .following(start)
            .take_while(|change| change.timestamp().as_second() < end_s);
        let mut offsets = vec![first];
        for change in changes {
            let utc_offset_s = change.offset().seconds();
            if offsets
                .last()
                .is_some_and(|before| before.utc_offset_s != utc_offset_s)
            {
                offsets.push(UtcOffset {
                    from: rfc3339(change.timestamp().as_second()),
                    utc_offset_s,
                });
            }
        }
        offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: i64 = 3_600;
    /// 2025-03-30T00:00:00Z, a Sunday: at 01:00Z, Zurich goes from 2 to 3 o'clock.
    const SPRING_S: i64 = 1_743_292_800;
    /// 2025-10-26T00:00:00Z, a Sunday: at 01:00Z, Zurich goes from 3 to 2 o'clock.
    const AUTUMN_S: i64 = 1_761_436_800;

    fn hours(zone: &str, from_s: i64, every_s: i64) -> Vec<u8> {
        let clock = LocalClock::of(zone).unwrap();
        (0..4)
            .map(|step| clock.local(from_s + step * every_s).hour)
            .collect()
    }

    #[test]
    fn an_hour_is_left_out_in_spring_and_comes_twice_in_autumn() {
        assert_eq!(hours("Europe/Zurich", SPRING_S, HOUR_S), [1, 3, 4, 5]);
        assert_eq!(hours("Europe/Zurich", AUTUMN_S, HOUR_S), [2, 2, 3, 4]);
        assert_eq!(hours("UTC", SPRING_S, HOUR_S), [0, 1, 2, 3]);
    }

    #[test]
    fn changes_of_the_offset_are_listed_where_they_happen() {
        let zurich = LocalClock::of("Europe/Zurich").unwrap();
        let changes = zurich.offsets(SPRING_S, AUTUMN_S + 2 * HOUR_S);
        let changes: Vec<_> = changes
            .iter()
            .map(|one| (one.from.as_str(), one.utc_offset_s))
            .collect();
        let expected = [
            ("2025-03-30T00:00:00Z", 3_600),
            ("2025-03-30T01:00:00Z", 7_200),
            ("2025-10-26T01:00:00Z", 3_600),
        ];
        assert_eq!(changes, expected);
        assert_eq!(
            zurich.offsets(SPRING_S, SPRING_S + HOUR_S).len(),
            1,
            "not yet"
        );
    }

    #[test]
    fn half_an_hour_and_the_other_half_of_the_world() {
        // 2025-04-05T15:00Z: Lord Howe goes from 2 o'clock back to half past one.
        assert_eq!(
            hours("Australia/Lord_Howe", 1_743_863_400, HOUR_S / 2),
            [1, 1, 2, 2]
        );
        let local = LocalClock::of("Australia/Lord_Howe")
            .unwrap()
            .local(1_743_863_400);
        assert_eq!(local.weekday, 7, "still Saturday in UTC");
    }

    #[test]
    fn a_zone_that_is_none_is_refused_with_what_would_be_one() {
        let Err(error) = LocalClock::of("Europe/Zürich") else {
            panic!("taken");
        };
        let error = error.to_string();
        assert!(
            error.contains("Europe/Zürich") && error.contains("Europe/Zurich"),
            "{error}"
        );
    }
}
