//! Moments as people write them.

use crate::error::shown;
use crate::zones::{seconds_between, unix_s};
use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use chrono_tz::Tz;
use std::ops::Range;

/// Later and earlier ones are slips of the pen: from year 0 to 9999.
const YEAR_MAX: i32 = 9_999;
const UNIX_S_MIN: f64 = -62_167_219_200.0;
const UNIX_S_MAX: f64 = 253_402_300_799.0;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) unix_s: i64,
    /// What a clock shows then, if it was said by one of no stated offset.
    pub(crate) clock: Option<NaiveDateTime>,
}

// === impl Stamp ===

impl Stamp {
    /// An RFC 3339 date and time (`T` or a space between them), one without an offset, which is that of the zone's clock, a date, which is its first
    /// moment there, or Unix seconds. Not eight digits: they are rather meant as a date than as seconds of some day in the year 1970 or a little later.
    pub(crate) fn of(text: &str, zone: Tz) -> Result<Self, String> {
        let text = text.trim();
        let bad = || {
            format!(
                "`{}` is no moment: write 2026-03-01T09:00:00Z, 2026-03-01, or Unix seconds",
                shown(text)
            )
        };
        if let Some(stamp) = with_offset(text) {
            return Ok(stamp);
        }
        let time = text.replacen(' ', "T", 1).parse::<NaiveDateTime>().ok();
        let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN);
        if let Some(clock) = time.or_else(|| text.parse().ok().map(midnight)) {
            return match is_year(clock.year()) {
                true => Ok(Self {
                    unix_s: unix_s(zone, clock),
                    clock: Some(clock),
                }),
                false => Err(bad()),
            };
        }
        if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("`{text}` is no moment: write a date as 2026-03-01"));
        }
        match text.parse::<f64>() {
            Ok(seconds) if (UNIX_S_MIN..=UNIX_S_MAX).contains(&seconds) => Ok(Self {
                unix_s: seconds as i64,
                clock: None,
            }),
            _ => Err(bad()),
        }
    }

    /// Only one with an offset, as RFC 3339 has it.
    pub(crate) fn of_rfc3339(text: &str) -> Result<Self, String> {
        with_offset(text.trim()).ok_or_else(|| {
            format!(
                "`{}` is no RFC 3339 date and time: write 2026-03-01T09:00:00Z",
                shown(text)
            )
        })
    }

    /// From it to an end; `None` without one.
    pub(crate) fn span(
        self,
        ends: Option<&str>,
        duration_s: Option<u32>,
        zone: Tz,
    ) -> Result<Option<Range<i64>>, String> {
        let length_s = match (ends, duration_s) {
            (Some(ends), _) => {
                let ends = Self::of(ends, zone)?;
                match (self.clock, ends.clock) {
                    (Some(from), Some(until)) => seconds_between(zone, from, until),
                    _ => ends.unix_s.saturating_sub(self.unix_s),
                }
            }
            (None, Some(duration_s)) => duration_s.into(),
            (None, None) => return Ok(None),
        };
        Ok(Some(self.unix_s..self.unix_s.saturating_add(length_s)))
    }
}

fn with_offset(text: &str) -> Option<Stamp> {
    let stamp = text.parse::<DateTime<FixedOffset>>().ok()?;
    is_year(stamp.year()).then(|| Stamp {
        unix_s: stamp.timestamp(),
        clock: None,
    })
}

fn is_year(year: i32) -> bool {
    (0..=YEAR_MAX).contains(&year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_a_moment_mean_the_same() {
        let unix_s = |text: &str, zone| Stamp::of(text, zone).map(|stamp| stamp.unix_s);
        for text in [
            "2026-03-01T09:00:00Z",
            "2026-03-01 09:00:00+00:00",
            "2026-03-01T10:00:00+01:00",
            "2026-03-01 09:00:00",
            "1772355600",
        ] {
            assert_eq!(unix_s(text, Tz::UTC), Ok(1_772_355_600), "{text}");
        }
        assert_eq!(unix_s("2026-03-01", Tz::UTC), Ok(1_772_323_200));
        for text in [
            "",
            "soon",
            "1e300",
            "NaN",
            "2026-02-30",
            "+262000-01-01",
            "+200000-01-01T00:00:00Z",
        ] {
            let error = unix_s(text, Tz::Europe__Paris);
            assert!(
                error.is_err_and(|error| error.contains("is no moment")),
                "{text}"
            );
        }
        assert!(unix_s(&"x".repeat(1_000_000), Tz::UTC).is_err_and(|error| error.len() < 300));
    }

    #[test]
    fn a_date_without_hyphens_is_no_second() {
        let unix_s = |text: &str| Stamp::of(text, Tz::UTC).map(|stamp| stamp.unix_s);
        for text in ["20260301", " 20261231 "] {
            let error = unix_s(text);
            assert!(
                error.is_err_and(|error| error.contains("2026-03-01")),
                "{text}"
            );
        }
        assert_eq!(unix_s("1202603010"), Ok(1_202_603_010));
        assert_eq!(unix_s("-20260301"), Ok(-20_260_301));
        assert_eq!(unix_s("0"), Ok(0));
    }

    #[test]
    fn only_what_states_no_offset_is_of_the_zone() {
        let paris = |text: &str| Stamp::of(text, Tz::Europe__Paris).map(|stamp| stamp.unix_s);
        for text in ["2026-07-01T09:00:00Z", "2026-07-01 11:00:00", "1782896400"] {
            assert_eq!(paris(text), Ok(1_782_896_400), "{text}");
        }
        assert_eq!(paris("2026-07-01"), Ok(1_782_896_400 - 11 * 3_600));
    }
}
