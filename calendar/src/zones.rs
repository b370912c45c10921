//! Time zones: which one a name means, and which moment a clock in it.

use crate::error::shown;
use chrono::{NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Windows' names of time zones, and the IANA zone that each stands for, by the Unicode CLDR (`windowsZones`, territory 001): Outlook writes them.
const WINDOWS_ZONES: &str = include_str!("windows_zones.csv");

/// A time zone by its IANA name, or by that which Windows has for it.
pub(crate) fn zone(name: &str) -> Result<Tz, String> {
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

/// Before a time that the clock skips, it shows one of these hours before: where a zone has moved to the other side of the date line, it has skipped a day.
/// The nearest comes first: between the two the clock may have been changed for another reason.
const BEFORE_A_GAP_H: [i64; 2] = [3, 27];

/// The earlier of two moments where the clock shows a time twice; where it never does, that of the clock that has not been put forward.
pub(crate) fn unix_s(zone: Tz, time: NaiveDateTime) -> i64 {
    let found = zone.from_local_datetime(&time).earliest();
    let later = |hours: i64| {
        let before = time.checked_sub_signed(TimeDelta::hours(hours))?;
        let before = zone.from_local_datetime(&before).earliest()?;
        before.checked_add_signed(TimeDelta::hours(hours))
    };
    let moment = found.or_else(|| BEFORE_A_GAP_H.into_iter().find_map(later));
    moment.map_or(time.and_utc().timestamp(), |moment| moment.timestamp())
}

/// Whether the clock never shows a time, since it is put forward over it.
pub(crate) fn is_skipped(zone: Tz, time: NaiveDateTime) -> bool {
    zone != Tz::UTC && zone.from_local_datetime(&time).earliest().is_none()
}

/// How long it is from one time of a clock to another. Where the clock never shows the first, it means a moment that may lie behind that of the second: then
/// it is as long as the two say.
pub(crate) fn seconds_between(zone: Tz, from: NaiveDateTime, until: NaiveDateTime) -> i64 {
    let passed_s = unix_s(zone, until).saturating_sub(unix_s(zone, from));
    let said_s = (until - from).num_seconds();
    match passed_s <= 0 && said_s > 0 && is_skipped(zone, from) {
        true => said_s,
        false => passed_s,
    }
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
    fn what_begins_at_a_time_that_is_skipped_takes_as_long_as_it_says() {
        let time = |text: &str| format!("2026-03-29T{text}:00").parse().unwrap();
        let between = |from, until| seconds_between(Tz::Europe__Paris, time(from), time(until));
        assert_eq!(between("02:30", "03:15"), 45 * 60);
        assert_eq!(between("02:30", "03:30"), 60 * 60);
        assert_eq!(between("02:10", "02:50"), 40 * 60);
        // From the same moment as 03:30.
        assert_eq!(between("02:30", "05:00"), 90 * 60);
        assert_eq!(between("01:30", "03:30"), 60 * 60);
        assert_eq!(between("02:30", "02:30"), 0);
        assert_eq!(between("03:30", "03:15"), -15 * 60);
    }

    #[test]
    fn in_a_day_that_is_skipped_the_clock_before_it_goes_on() {
        // Samoa has moved to the other side of the date line.
        for hour in 0..24 {
            let at = |day: u32| {
                let time = format!("2011-12-{day}T{hour:02}:30:00").parse().unwrap();
                unix_s(Tz::Pacific__Apia, time)
            };
            assert_eq!(at(30), at(29) + 86_400, "{hour}:30");
            assert_eq!(at(30), at(31), "{hour}:30");
        }
    }
}
