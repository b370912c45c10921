//! Which occurrences a rule has.

#![allow(clippy::unwrap_used)]

use chrono::{DateTime, Utc};
use forebay_calendar::{CalendarError, ReadOptions, read};
use std::fs;

/// Beginnings in the year 2026 of an event with these lines.
fn begins(lines: &str) -> Result<Vec<String>, CalendarError> {
    let text = format!(
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:x\nDURATION:PT1M\n{lines}\nEND:VEVENT\nEND:VCALENDAR\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calendar.ics");
    fs::write(&path, text.replace('\n', "\r\n")).unwrap();
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp();
    let options = ReadOptions {
        from_s: at("2026-01-01T00:00:00Z"),
        until_s: at("2027-01-01T00:00:00Z"),
        ..ReadOptions::default()
    };
    let text_of = |unix_s: i64| {
        let stamp = DateTime::<Utc>::from_timestamp(unix_s, 0).unwrap();
        stamp.format("%m-%d %H:%M").to_string()
    };
    let entries = read(&path, &options)?.entries;
    Ok(entries
        .iter()
        .map(|entry| text_of(entry.event.starts_s))
        .collect())
}

#[test]
fn a_rule_below_the_day_loses_nothing_on_days_that_are_not_its_own() {
    for rule in [
        "FREQ=HOURLY;BYDAY=MO;BYHOUR=9;COUNT=3",
        "FREQ=MINUTELY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;COUNT=3",
        "FREQ=SECONDLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;BYSECOND=0;UNTIL=20260119T090000Z",
    ] {
        let found = begins(&format!("DTSTART:20260105T090000Z\nRRULE:{rule}")).unwrap();
        assert_eq!(
            found,
            ["01-05 09:00", "01-12 09:00", "01-19 09:00"],
            "{rule}"
        );
    }
    // The same rule by the year.
    let rest = "BYMONTH=3,11;BYMONTHDAY=-1,15;BYHOUR=9,22;BYMINUTE=0,30";
    let by = |frequency: &str| {
        begins(&format!(
            "DTSTART:20200105T090000Z\nRRULE:FREQ={frequency};{rest}"
        ))
        .unwrap()
    };
    let yearly = by("YEARLY");
    assert_eq!(yearly.len(), 16);
    assert_eq!(by("HOURLY"), yearly);
    assert_eq!(by("MINUTELY"), yearly);
}

#[test]
fn a_rule_that_is_none_is_refused_with_its_event_and_its_part() {
    for (rule, word) in [
        ("FREQ=WEEKLY;BYDAY=XMO", "`XMO` is no BYDAY"),
        ("FREQ=DAILY;INTERVAL=0", "`0` is no INTERVAL"),
    ] {
        let error = begins(&format!("DTSTART:20260105T090000Z\nRRULE:{rule}")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("event 1 (`x`)") && error.contains(word),
            "{error}"
        );
    }
}

#[test]
fn several_rules_hold_together_and_a_rule_of_exceptions_is_refused() {
    let found = begins(
        "DTSTART:20260105T090000Z\nRRULE:FREQ=WEEKLY;COUNT=3\nRRULE:FREQ=MONTHLY;BYDAY=2MO;COUNT=2\nEXDATE:20260105T090000Z",
    );
    let expected = ["01-12 09:00", "01-19 09:00", "02-09 09:00"];
    assert_eq!(found.unwrap(), expected);
    let error =
        begins("DTSTART:20260105T090000Z\nRRULE:FREQ=DAILY;COUNT=3\nEXRULE:FREQ=DAILY;INTERVAL=2");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("event 1 (`x`)") && error.contains("EXDATE"),
        "{error}"
    );
}

#[test]
fn two_times_of_the_clock_that_are_one_moment_are_one_occurrence() {
    let found = begins("DTSTART;TZID=Europe/Paris:20260329T013000\nRRULE:FREQ=HOURLY;COUNT=4");
    assert_eq!(
        found.unwrap(),
        ["03-29 00:30", "03-29 01:30", "03-29 02:30"]
    );
}
