//! Moments and days as calendars write them.

use crate::error::shown;
use crate::zones::{unix_s, zone};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use chrono_tz::Tz;
use icalendar::parser::Property;

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
        let zone = zone_of(property, usual)?;
        Self::of_value(property.val.as_str(), property.name.as_str(), zone)
    }

    /// One of the values of the property of this name.
    pub(super) fn of_value(value: &str, name: &str, zone: Tz) -> Result<Self, String> {
        let bad = || format!("its {name} `{}` is no date", shown(value));
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

/// The zone that a property names, or the usual one.
pub(super) fn zone_of(property: &Property<'_>, usual: Tz) -> Result<Tz, String> {
    let mut params = property.params.iter();
    let named = params.find(|one| one.key.as_str().eq_ignore_ascii_case("TZID"));
    match named.and_then(|one| one.val.as_ref()) {
        Some(name) => zone(name.as_str()),
        None => Ok(usual),
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

#[cfg(test)]
mod tests {
    use super::*;

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
