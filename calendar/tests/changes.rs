//! What a calendar says of plans that were changed, and when somebody could have known.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use chrono::{DateTime, Utc};
use forebay_calendar::{Calendar, Entry, ReadOptions, read};
use std::fs;

/// The events of one year.
fn read_ics(events: &str) -> Calendar {
    let text = format!("BEGIN:VCALENDAR\n{events}END:VCALENDAR\n").replace('\n', "\r\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calendar.ics");
    fs::write(&path, text).unwrap();
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp();
    let options = ReadOptions {
        from_s: at("2026-01-01T00:00:00Z"),
        until_s: at("2027-01-01T00:00:00Z"),
        ..ReadOptions::default()
    };
    read(&path, &options).unwrap()
}

/// Day and hour of the beginning, and from when to when it was known.
fn said(entry: &Entry) -> String {
    let text_of = |unix_s: i64| {
        let stamp = DateTime::<Utc>::from_timestamp(unix_s, 0).unwrap();
        stamp.format("%d.%m. %Hh").to_string()
    };
    let event = &entry.event;
    let known = event.known_s.map_or("ever".to_owned(), text_of);
    let until = event.known_until_s.map_or("ever".to_owned(), text_of);
    format!("{}: {known} to {until}", text_of(event.starts_s))
}

fn all_said(events: &str) -> Vec<String> {
    read_ics(events).entries.iter().map(said).collect()
}

/// Each Wednesday in March, made in January.
const SERIES: &str = "BEGIN:VEVENT\nUID:1\nSUMMARY:match\nCREATED:20260101T000000Z\nDTSTART:20260304T210000Z\nDURATION:PT2H\nRRULE:FREQ=WEEKLY;COUNT=4\n";

#[test]
fn a_match_that_was_moved_was_at_its_old_time_for_those_who_did_not_know_yet() {
    let moved = "BEGIN:VEVENT\nUID:1\nSUMMARY:match\nCREATED:20260101T000000Z\nLAST-MODIFIED:20260303T120000Z\nRECURRENCE-ID:20260311T210000Z\nDTSTART:20260312T180000Z\nDURATION:PT2H\nEND:VEVENT\n";
    assert_eq!(
        all_said(&format!("{SERIES}END:VEVENT\n{moved}")),
        [
            "04.03. 21h: 01.01. 00h to ever",
            "11.03. 21h: 01.01. 00h to 03.03. 12h",
            "12.03. 18h: 03.03. 12h to ever",
            "18.03. 21h: 01.01. 00h to ever",
            "25.03. 21h: 01.01. 00h to ever",
        ]
    );
    // A cancelled one is nowhere else; without a LAST-MODIFIED it was written down when it changed.
    let cancelled = moved
        .replace("LAST-MODIFIED:20260303T120000Z", "DTSTAMP:20260304T120000Z")
        .replace("SUMMARY", "STATUS:CANCELLED\nSUMMARY");
    let found = all_said(&format!("{SERIES}END:VEVENT\n{cancelled}"));
    assert_eq!(found[1], "11.03. 21h: 01.01. 00h to 04.03. 12h");
    assert_eq!(found.len(), 4);
    // Where nobody says when, the plan that fell through was never one.
    let unknown = moved.replace("LAST-MODIFIED:20260303T120000Z\n", "");
    let found = all_said(&format!("{SERIES}END:VEVENT\n{unknown}"));
    assert_eq!(found[1], "12.03. 18h: 01.01. 00h to ever");
    assert_eq!(found.len(), 4);
}

#[test]
fn an_exception_is_one_since_it_was_made() {
    let of = |more: &str| {
        all_said(&format!(
            "{SERIES}EXDATE:20260318T210000Z\n{more}END:VEVENT\n"
        ))
    };
    let expected = |third: &[&'static str]| {
        let mut all = vec![
            "04.03. 21h: 01.01. 00h to ever",
            "11.03. 21h: 01.01. 00h to ever",
        ];
        all.extend(third);
        all.push("25.03. 21h: 01.01. 00h to ever");
        all
    };
    let changed = of("LAST-MODIFIED:20260310T000000Z\nDTSTAMP:20261231T000000Z\n");
    assert_eq!(changed, expected(&["18.03. 21h: 01.01. 00h to 10.03. 00h"]));
    // What has begun is not taken back: the entry was changed again for another reason.
    let later = of("LAST-MODIFIED:20260510T000000Z\n");
    assert_eq!(later, expected(&["18.03. 21h: 01.01. 00h to 18.03. 21h"]));
    // One that was there from the beginning was never a plan, nor one of which nothing is known.
    assert_eq!(of("LAST-MODIFIED:20260101T000000Z\n"), expected(&[]));
    assert_eq!(of(""), expected(&[]));
}

#[test]
fn what_was_cancelled_was_a_plan_until_then() {
    let of = |more: &str| all_said(&format!("{SERIES}STATUS:CANCELLED\n{more}END:VEVENT\n"));
    assert_eq!(
        of("SEQUENCE:3\nLAST-MODIFIED:20260312T000000Z\n"),
        [
            "04.03. 21h: 01.01. 00h to 04.03. 21h",
            "11.03. 21h: 01.01. 00h to 11.03. 21h",
            "18.03. 21h: 01.01. 00h to 12.03. 00h",
            "25.03. 21h: 01.01. 00h to 12.03. 00h",
        ]
    );
    assert!(of("").is_empty());
}

#[test]
fn what_was_changed_is_known_since_the_change_and_hours_are_those_of_the_clock() {
    let of = |more: &str| {
        read_ics(&format!(
            "BEGIN:VEVENT\nUID:1\nSUMMARY:match\nCREATED:20260101T000000Z\nLAST-MODIFIED:20260303T120000Z\n{more}DTSTART;TZID=Europe/Paris:20260304T210000\nDURATION:PT2H\nRRULE:FREQ=WEEKLY;COUNT=2\nEND:VEVENT\n"
        ))
    };
    let found = of("SEQUENCE:0\n");
    assert_eq!(said(&found.entries[0]), "04.03. 20h: 01.01. 00h to ever");
    assert_eq!(found.entries[0].event.local_hour, Some(21));
    let changed: Vec<String> = of("SEQUENCE:2\n").entries.iter().map(said).collect();
    assert_eq!(
        changed,
        [
            "04.03. 20h: 03.03. 12h to ever",
            "11.03. 20h: 03.03. 12h to ever"
        ]
    );
}

#[test]
fn what_takes_no_time_is_left_out_and_counted_and_the_rest_is_read() {
    let event = |ends: &str| {
        format!("BEGIN:VEVENT\nSUMMARY:reminder\nDTSTART:20260301T090000Z\n{ends}END:VEVENT\n")
    };
    let found = read_ics(&format!(
        "{}{}{}{}",
        event(""),
        event("DTEND:20260301T090000Z\n"),
        event("DURATION:PT0S\n"),
        event("DURATION:PT1H\n")
    ));
    assert_eq!((found.entries.len(), found.momentary), (1, 3));
}

#[test]
fn periods_have_their_own_length_and_zones_may_have_the_names_of_windows() {
    let found = read_ics(
        "BEGIN:VEVENT\nSUMMARY:sale\nDTSTART;TZID=W. Europe Standard Time:20260701T090000\nDURATION:PT1H\nRDATE;VALUE=PERIOD:20260702T090000Z/PT3H,20260703T090000Z/20260703T110000Z\nEND:VEVENT\n",
    );
    let hours: Vec<i64> = found
        .entries
        .iter()
        .map(|entry| (entry.event.ends_s - entry.event.starts_s) / 3_600)
        .collect();
    assert_eq!(hours, [1, 3, 2]);
    assert_eq!(said(&found.entries[0]), "01.07. 07h: ever to ever");
}
