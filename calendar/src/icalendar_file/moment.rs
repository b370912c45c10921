//! Moments, days and time zones as calendars write them.

use super::lines::shown;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use icalendar::parser::Property;

/// Windows' names of time zones, and the IANA zone that each stands for, by the Unicode CLDR (`windowsZones`, territory 001): Outlook writes them.
const WINDOWS_ZONES: &str = include_str!("windows_zones.csv");

/// A moment as the calendar says it: local time in a zone, or a whole day there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    pub(super) time: NaiveDateTime,
    pub(super) zone: Tz,
    pub(super) is_day: bool,
}

// === impl Local ===

impl Local {
    /// The only value of a property.
    pub(super) fn of(property: &Property<'_>, usual: Tz) -> Result<Self, String> {
        Self::of_value(property.val.as_str(), property, usual)
    }

    /// One of the values of a property.
    pub(super) fn of_value(
        value: &str,
        property: &Property<'_>,
        usual: Tz,
    ) -> Result<Self, String> {
        let named = property
            .params
            .iter()
            .find(|one| one.key.as_str().eq_ignore_ascii_case("TZID"));
        let zone = match named.and_then(|one| one.val.as_ref()) {
            Some(name) => zone(name.as_str())?,
            None => usual,
        };
        let bad = || {
            format!(
                "its {} `{}` is no date",
                property.name.as_str(),
                shown(value)
            )
        };
        Self::parsed(value, zone).ok_or_else(bad)
    }

    /// `20260301`, `20260301T090000` or `20260301T090000Z`.
    pub(super) fn parsed(text: &str, zone: Tz) -> Option<Self> {
        let text = text.trim();
        if let Some(utc) = text.strip_suffix('Z') {
            let time = date_time(utc)?;
            let (zone, is_day) = (Tz::UTC, false);
            return Some(Self { time, zone, is_day });
        }
        let (time, is_day) = match date(text) {
            Some(date) => (date.and_time(NaiveTime::MIN), true),
            None => (date_time(text)?, false),
        };
        Some(Self { time, zone, is_day })
    }

    pub(super) fn unix_s(&self) -> i64 {
        unix_s(self.zone, self.time)
    }

    /// The same moment as another clock shows it.
    pub(super) fn in_zone(&self, zone: Tz) -> NaiveDateTime {
        if self.zone == zone {
            return self.time;
        }
        let moment = DateTime::<Utc>::from_timestamp(self.unix_s(), 0).unwrap_or_default();
        moment.with_timezone(&zone).naive_local()
    }
}

/// Years have four digits: what is added to them cannot leave what a calendar can say.
fn date(text: &str) -> Option<NaiveDate> {
    let is_whole = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    NaiveDate::parse_from_str(text, "%Y%m%d")
        .ok()
        .filter(|_| is_whole)
}

fn date_time(text: &str) -> Option<NaiveDateTime> {
    let (day, time) = text.split_once('T')?;
    let is_whole = time.len() == 6 && time.bytes().all(|byte| byte.is_ascii_digit());
    let time = NaiveTime::parse_from_str(time, "%H%M%S").ok()?;
    Some(date(day)?.and_time(time)).filter(|_| is_whole)
}

/// A time zone by its IANA name, or by that which Windows has for it.
pub(super) fn zone(name: &str) -> Result<Tz, String> {
    let name = name.trim();
    let windows = || {
        let mut rows = WINDOWS_ZONES.lines().filter_map(|row| row.split_once(','));
        let (_, zone) = rows.find(|(windows, _)| windows.eq_ignore_ascii_case(name))?;
        zone.parse().ok()
    };
    name.parse().ok().or_else(windows).ok_or_else(|| {
        format!(
            "`{}` is no time zone: write an IANA name such as Europe/Paris, or a name of Windows",
            shown(name)
        )
    })
}

/// The earlier of two moments where the clock shows a time twice; where it never does, as long after as it is put forward.
pub(super) fn unix_s(zone: Tz, time: NaiveDateTime) -> i64 {
    let found = zone.from_local_datetime(&time).earliest();
    let later = || {
        let before = time.checked_sub_signed(TimeDelta::hours(3))?;
        let before = zone.from_local_datetime(&before).earliest()?;
        Some(before + TimeDelta::hours(3))
    };
    let moment = found.or_else(later);
    moment.map_or(time.and_utc().timestamp(), |moment| moment.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_windows_stands_for_a_zone_that_is_known() {
        let mut count = 0;
        for row in WINDOWS_ZONES.lines() {
            let (windows, iana) = row.split_once(',').unwrap_or((row, ""));
            assert!(iana.parse::<Tz>().is_ok(), "{row}");
            assert_eq!(zone(windows).ok(), iana.parse().ok(), "{row}");
            count += 1;
        }
        assert!(count > 130, "{count}");
        assert_eq!(zone("W. Europe Standard Time"), Ok(Tz::Europe__Berlin));
        assert!(zone(&"x".repeat(1_000_000)).is_err_and(|error| error.len() < 300));
    }

    #[test]
    fn only_whole_dates_and_times_are_moments() {
        let parsed = |text: &str| Local::parsed(text, Tz::UTC).map(|local| local.is_day);
        assert_eq!(parsed("20260301"), Some(true));
        assert_eq!(parsed(" 20260301T090000Z "), Some(false));
        for text in [
            "",
            "2026030",
            "+26210301",
            "20260230",
            "20260301T0900",
            "20260301T+90000",
            "999999990301T090000",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
