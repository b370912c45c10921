//! What a recurrence rule says, looked at before it is followed.
//!
//! The library that reads rules takes what is none: letters before a weekday, an interval of 0, the first Monday of a day. It leaves them out of the
//! rule, and then there are occurrences that nobody has planned, or none where some were. So each part is looked at here, and refused with its name.

use super::moment::Local;
use crate::error::shown;
use chrono::{NaiveDateTime, NaiveTime};
use rrule::{Frequency, NWeekday, RRule, Unvalidated};

/// Times of one day, one for each minute.
const TIMES_MOST: usize = 1_440;
const RULE_BYTES_MOST: usize = 4_096;
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
/// Weeks of a year, and so the highest number before a weekday.
const WEEKS_MOST: u8 = 53;

/// A rule without its end.
pub(super) struct Endless {
    pub(super) rule: RRule<Unvalidated>,
    pub(super) count: usize,
    /// The last moment, by the clock of the event.
    pub(super) until: NaiveDateTime,
    /// Times of a day.
    pub(super) times: usize,
}

// === impl Endless ===

impl Endless {
    pub(super) fn of(text: &str, starts: &Local) -> Result<Self, String> {
        if text.len() > RULE_BYTES_MOST {
            return Err(format!("its RRULE has more than {RULE_BYTES_MOST} bytes"));
        }
        let (mut count, mut until, mut times) = (usize::MAX, NaiveDateTime::MAX, 1_usize);
        let (mut names, mut kept) = (Vec::new(), Vec::new());
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.trim().to_ascii_uppercase(), value.trim());
            match name.as_str() {
                "COUNT" => count = positive(&name, value, usize::MAX)?,
                "UNTIL" => until = until_of(value, starts)?,
                "INTERVAL" => drop(positive(&name, value, usize::from(u16::MAX))?),
                "BYDAY" => value.split(',').try_for_each(check_weekday)?,
                "BYHOUR" | "BYMINUTE" | "BYSECOND" => {
                    times = times.saturating_mul(value.split(',').count());
                }
                "FREQ" | "WKST" | "BYMONTH" | "BYMONTHDAY" | "BYYEARDAY" | "BYWEEKNO"
                | "BYSETPOS" => {}
                _ => return Err(bad(format_args!("{} is no part of a rule", shown(&name)))),
            }
            if value.is_empty() {
                return Err(bad(format_args!("its {name} says nothing")));
            }
            if !matches!(name.as_str(), "COUNT" | "UNTIL") {
                kept.push(format!("{name}={value}"));
            }
            if names.contains(&name) {
                return Err(bad(format_args!("it has two {name}")));
            }
            names.push(name);
        }
        if times > TIMES_MOST {
            return Err(format!(
                "its RRULE names {times} times of a day; {TIMES_MOST} are the most"
            ));
        }
        let rule: RRule<Unvalidated> = kept.join(";").parse().map_err(bad)?;
        check_together(&rule)?;
        Ok(Self {
            rule,
            count,
            until,
            times,
        })
    }
}

pub(super) fn bad(error: impl std::fmt::Display) -> String {
    format!("its RRULE: {}", shown(&error.to_string()))
}

pub(super) fn is_below_day(frequency: Frequency) -> bool {
    matches!(
        frequency,
        Frequency::Hourly | Frequency::Minutely | Frequency::Secondly
    )
}

fn positive(name: &str, value: &str, most: usize) -> Result<usize, String> {
    let number = value.parse().ok();
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| {
            format!(
                "its RRULE: `{}` is no {name}; it must be from 1 to {most}",
                shown(value)
            )
        })
}

/// `MO`, or `-1MO`.
fn check_weekday(text: &str) -> Result<(), String> {
    let (number, weekday) = text
        .split_at_checked(text.len().saturating_sub(2))
        .unwrap_or((text, ""));
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits
            .parse()
            .is_ok_and(|number: u8| (1..=WEEKS_MOST).contains(&number));
    let is_weekday = WEEKDAYS.iter().any(|one| one.eq_ignore_ascii_case(weekday));
    match is_weekday && (number.is_empty() || is_number) {
        true => Ok(()),
        false => Err(format!(
            "its RRULE: `{}` is no BYDAY: write MO to SU, in a monthly or yearly rule with a number from 1 to {WEEKS_MOST} or -1 to -{WEEKS_MOST} before it",
            shown(text)
        )),
    }
}

/// Parts that are right by themselves, and not beside each other.
fn check_together(rule: &RRule<Unvalidated>) -> Result<(), String> {
    let frequency = rule.get_freq();
    if is_below_day(frequency) && !rule.get_by_set_pos().is_empty() {
        return Err(
            "its RRULE has a BYSETPOS, but recurs more often than daily: name hours or minutes instead"
                .to_owned(),
        );
    }
    let is_numbered = |day: &NWeekday| matches!(day, NWeekday::Nth(..));
    let numbered = rule.get_by_weekday().iter().filter(|day| is_numbered(day));
    let numbered = numbered.count();
    if numbered == 0 {
        return Ok(());
    }
    if !matches!(frequency, Frequency::Monthly | Frequency::Yearly) {
        return Err(format!(
            "its RRULE has a number before a weekday (BYDAY), but recurs {frequency}: only months and years have a first Monday"
        ));
    }
    if !rule.get_by_week_no().is_empty() {
        return Err(
            "its RRULE has a number before a weekday (BYDAY) and a BYWEEKNO, which exclude each other"
                .to_owned(),
        );
    }
    if numbered < rule.get_by_weekday().len() {
        return Err(
            "its RRULE has weekdays with a number and without one (BYDAY), which are not understood together: write two rules"
                .to_owned(),
        );
    }
    Ok(())
}

/// The last moment of a rule, by the clock of the event: a day is meant with all of its hours.
fn until_of(text: &str, starts: &Local) -> Result<NaiveDateTime, String> {
    let bad = || format!("its RRULE: `{}` is no UNTIL", shown(text));
    let until = Local::parsed(text, starts.zone).ok_or_else(bad)?;
    let last_of_day = NaiveTime::from_hms_opt(23, 59, 59).unwrap_or(NaiveTime::MIN);
    Ok(match until.is_day {
        true => until.time.date().and_time(last_of_day),
        false => until.in_zone(starts.zone),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Tz;

    fn refused(text: &str) -> String {
        let starts = Local::parsed("20260101T090000", Tz::UTC).unwrap();
        match Endless::of(text, &starts) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error,
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_part() {
        for (text, word) in [
            ("FREQ=WEEKLY;BYDAY=XMO", "`XMO` is no BYDAY"),
            ("FREQ=WEEKLY;BYDAY=MO,,TU", "`` is no BYDAY"),
            ("FREQ=MONTHLY;BYDAY=0MO", "`0MO` is no BYDAY"),
            ("FREQ=MONTHLY;BYDAY=54MO", "`54MO` is no BYDAY"),
            ("FREQ=MONTHLY;BYDAY=+-1MO", "`+-1MO` is no BYDAY"),
            ("FREQ=MONTHLY;BYDAY=1.5MO", "`1.5MO` is no BYDAY"),
            // Its last two bytes begin within a letter.
            ("FREQ=WEEKLY;BYDAY=\u{e9}1", "is no BYDAY"),
            ("FREQ=DAILY;BYDAY=1MO", "recurs DAILY"),
            ("FREQ=WEEKLY;BYDAY=-1MO", "recurs WEEKLY"),
            ("FREQ=HOURLY;BYDAY=1MO", "recurs HOURLY"),
            ("FREQ=MONTHLY;BYDAY=1MO,TU", "write two rules"),
            ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=1MO", "BYWEEKNO"),
            ("FREQ=DAILY;INTERVAL=0", "`0` is no INTERVAL"),
            ("FREQ=DAILY;INTERVAL=-1", "`-1` is no INTERVAL"),
            ("FREQ=DAILY;INTERVAL=65536", "`65536` is no INTERVAL"),
            ("FREQ=DAILY;COUNT=0", "`0` is no COUNT"),
            ("FREQ=DAILY;COUNT=2;COUNT=3", "two COUNT"),
            ("FREQ=DAILY;UNTIL=20260201;UNTIL=20260301", "two UNTIL"),
            ("FREQ=DAILY;BYMONTH=", "BYMONTH says nothing"),
            ("FREQ=DAILY;BYWEEKDAY=1MO", "BYWEEKDAY is no part"),
            ("FREQ=DAILY;BYMONTH=13", "13"),
            ("INTERVAL=2", "FREQ"),
        ] {
            let error = refused(text);
            assert!(
                error.contains(word) && error.contains("RRULE"),
                "{text}: {error}"
            );
        }
        for text in [
            "FREQ=MONTHLY;BYDAY=+1MO,-1fr;",
            "freq=weekly;byday=mo,tu; wkst=su",
            "FREQ=YEARLY;BYDAY=52SU",
        ] {
            let starts = Local::parsed("20260101T090000", Tz::UTC).unwrap();
            assert!(Endless::of(text, &starts).is_ok(), "{text}");
        }
    }
}
