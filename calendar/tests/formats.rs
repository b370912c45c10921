//! The same events in all formats, and what calendars of the real world bring with them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use chrono::{DateTime, Utc};
use forebay_calendar::{CalendarError, CsvNames, Entry, ReadOptions, read};
use forebay_families::Event;
use proptest::prelude::*;
use std::fs;

fn read_text(ending: &str, text: &str, options: &ReadOptions) -> Result<Vec<Entry>, CalendarError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("calendar.{ending}"));
    fs::write(&path, text).unwrap();
    Ok(read(&path, options)?.entries)
}

fn at(text: &str) -> i64 {
    text.parse::<DateTime<Utc>>().unwrap().timestamp()
}

fn text_of(unix_s: i64) -> String {
    let stamp = DateTime::<Utc>::from_timestamp(unix_s, 0).unwrap();
    stamp.format("%Y-%m-%dT%H:%MZ").to_string()
}

/// Beginnings and ends.
fn spans(ics: &str, options: &ReadOptions) -> Vec<(String, String)> {
    let text = format!(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//t//t\r\n{}\r\nEND:VCALENDAR\r\n",
        ics.replace('\n', "\r\n")
    );
    let entries = read_text("ics", &text, options).unwrap();
    let span = |entry: &Entry| (text_of(entry.event.starts_s), text_of(entry.event.ends_s));
    entries.iter().map(span).collect()
}

fn year(year: i64) -> ReadOptions {
    ReadOptions {
        from_s: at(&format!("{year}-01-01T00:00:00Z")),
        until_s: at(&format!("{}-01-01T00:00:00Z", year + 1)),
        ..ReadOptions::default()
    }
}

#[test]
fn the_same_event_is_the_same_in_every_format() {
    let expected = [Entry {
        customer: Some("acme".to_owned()),
        event: Event {
            lead_s: Some(600),
            decay_s: Some(1_200),
            known_s: Some(at("2026-02-01T00:00:00Z")),
            confidence: 0.8,
            factor: Some(2.5),
            ..Event::new(
                "sale",
                at("2026-03-01T09:00:00Z"),
                at("2026-03-01T11:00:00Z"),
            )
        },
    }];
    let csv = "kind,starts,ends,customer,known,lead_s,decay_s,confidence,factor\n\
        sale,2026-03-01T10:00:00+01:00,2026-03-01T11:00:00Z,acme,2026-02-01,600,1200,0.8,2.5\n";
    let json = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"sale","subject":"acme","time":"2026-02-01T00:00:00Z",
        "data":{"starts":"2026-03-01T09:00:00Z","duration_s":7200,"lead_s":600,"decay_s":1200,"confidence":0.8,"factor":2.5}}"#;
    let options = ReadOptions::default();
    assert_eq!(read_text("csv", csv, &options).unwrap(), expected);
    for text in [json.to_owned(), format!("[{json}]"), format!("\n{json}\n")] {
        assert_eq!(read_text("json", &text, &options).unwrap(), expected);
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_what_is_read() {
    let ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:x\r\nDTSTART:20260301T090000Z\r\nDURATION:PT1H\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
    let csv = "kind,starts,duration_s\nx,2026-03-01T09:00:00Z,3600\n";
    let json = r#"{"specversion":"1.0","type":"x","data":{"starts":"2026-03-01T09:00:00Z","duration_s":3600}}"#;
    for (ending, text) in [("ics", ics), ("csv", csv), ("json", json)] {
        let entries = read_text(ending, &format!("\u{feff}{text}"), &year(2026)).unwrap();
        assert_eq!(entries.len(), 1, "{ending}");
        assert_eq!(entries[0].event.kind, "x");
    }
}

#[test]
fn a_recurring_event_stays_at_its_hour_when_the_clocks_change() {
    let found = spans(
        "BEGIN:VEVENT\nUID:1\nSUMMARY:match\nDTSTART;TZID=Europe/Paris:20260321T210000\nDTEND;TZID=Europe/Paris:20260321T230000\nRRULE:FREQ=WEEKLY;UNTIL=20260404\nEND:VEVENT",
        &year(2026),
    );
    let expected = [
        ("2026-03-21T20:00Z", "2026-03-21T22:00Z"),
        ("2026-03-28T20:00Z", "2026-03-28T22:00Z"),
        ("2026-04-04T19:00Z", "2026-04-04T21:00Z"),
    ];
    assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn a_time_that_the_clock_skips_or_shows_twice_has_a_moment() {
    let of = |day: &str| {
        let text = format!(
            "BEGIN:VEVENT\nUID:1\nSUMMARY:x\nDTSTART;TZID=Europe/Paris:{day}T023000\nDURATION:PT1H\nEND:VEVENT"
        );
        spans(&text, &year(2026))[0].0.clone()
    };
    assert_eq!(of("20260329"), "2026-03-29T01:30Z");
    assert_eq!(of("20261025"), "2026-10-25T00:30Z");
}

#[test]
fn local_times_and_days_of_tables_and_announcements_are_those_of_the_zone() {
    let options = ReadOptions {
        zone: "Europe/Paris".to_owned(),
        ..year(2026)
    };
    let csv = "kind,starts,ends,known\n\
        sale,2026-07-01 09:00:00,2026-07-01T10:00:00Z,2026-06-01\n\
        sale,2026-07-02,2026-07-03,\n\
        sale,2026-07-04T09:00:00Z,2026-07-04T10:00:00+00:00,\n";
    let json = |starts: &str, ends: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"sale","data":{{"starts":"{starts}","ends":"{ends}"}}}}"#
        )
    };
    let json = [
        json("2026-07-01 09:00:00", "2026-07-01T10:00:00Z"),
        json("2026-07-02", "2026-07-03"),
        json("2026-07-04T09:00:00Z", "2026-07-04T10:00:00+00:00"),
    ]
    .concat();
    for (ending, text) in [("csv", csv), ("json", &json)] {
        let entries = read_text(ending, text, &options).unwrap();
        let spans: Vec<_> = entries
            .iter()
            .map(|one| (text_of(one.event.starts_s), text_of(one.event.ends_s)))
            .collect();
        let expected = [
            ("2026-07-01T07:00Z", "2026-07-01T10:00Z"),
            ("2026-07-01T22:00Z", "2026-07-02T22:00Z"),
            ("2026-07-04T09:00Z", "2026-07-04T10:00Z"),
        ];
        assert_eq!(
            spans,
            expected.map(|(a, b)| (a.to_owned(), b.to_owned())),
            "{ending}"
        );
        let hours: Vec<_> = entries.iter().map(|one| one.event.local_hour).collect();
        assert_eq!(hours, [Some(9), Some(0), None], "{ending}");
    }
    let entries = read_text("csv", csv, &options).unwrap();
    assert_eq!(entries[0].event.known_s, Some(at("2026-05-31T22:00:00Z")));
    for (ending, text) in [("csv", csv), ("json", &json)] {
        let options = ReadOptions {
            zone: "Mars/Base".to_owned(),
            ..year(2026)
        };
        let error = read_text(ending, text, &options).unwrap_err().to_string();
        assert!(error.contains("`Mars/Base` is no time zone"), "{error}");
    }
}

#[test]
fn what_begins_within_the_hour_that_the_clock_skips_takes_as_long_as_it_says() {
    let found = spans(
        "BEGIN:VEVENT\nUID:1\nSUMMARY:x\nDTSTART;TZID=Europe/Paris:20260329T023000\nDTEND;TZID=Europe/Paris:20260329T031500\nEND:VEVENT",
        &year(2026),
    );
    let expected = (
        "2026-03-29T01:30Z".to_owned(),
        "2026-03-29T02:15Z".to_owned(),
    );
    assert_eq!(found, std::slice::from_ref(&expected));
    let options = ReadOptions {
        zone: "Europe/Paris".to_owned(),
        ..year(2026)
    };
    let csv = "kind,starts,ends\nx,2026-03-29 02:30:00,2026-03-29 03:15:00\n";
    let entries = read_text("csv", csv, &options).unwrap();
    let span = |one: &Entry| (text_of(one.event.starts_s), text_of(one.event.ends_s));
    assert_eq!(entries.iter().map(span).collect::<Vec<_>>(), [expected]);
}

#[test]
fn exceptions_are_left_out_and_moved_occurrences_are_where_they_went() {
    let found = spans(
        "BEGIN:VEVENT\nUID:1\nSUMMARY:sale\nDTSTART:20260105T090000Z\nDTEND:20260105T100000Z\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE:20260106T090000Z\nRDATE:20260110T090000Z\nEND:VEVENT\n\
         BEGIN:VEVENT\nUID:1\nSUMMARY:sale\nRECURRENCE-ID:20260107T090000Z\nDTSTART:20260107T150000Z\nDTEND:20260107T160000Z\nEND:VEVENT",
        &year(2026),
    );
    let begins: Vec<&str> = found.iter().map(|(begin, _)| begin.as_str()).collect();
    assert_eq!(
        begins,
        [
            "2026-01-05T09:00Z",
            "2026-01-07T15:00Z",
            "2026-01-08T09:00Z",
            "2026-01-10T09:00Z"
        ]
    );
}

#[test]
fn a_holiday_is_a_day_of_its_zone_every_year() {
    let options = ReadOptions {
        zone: "America/New_York".to_owned(),
        ..year(2026)
    };
    let found = spans(
        "BEGIN:VEVENT\nUID:1\nSUMMARY:Independence Day\nDTSTART;VALUE=DATE:20000704\nRRULE:FREQ=YEARLY\nEND:VEVENT",
        &options,
    );
    assert_eq!(
        found,
        [(
            "2026-07-04T04:00Z".to_owned(),
            "2026-07-05T04:00Z".to_owned()
        )]
    );
}

#[test]
fn the_kind_is_the_category_and_a_tentative_event_counts_half_and_a_cancelled_one_not() {
    let event = |status: &str, hour: u32| {
        format!(
            "BEGIN:VEVENT\r\nUID:{hour}\r\nSUMMARY:Spring sale\r\nCATEGORIES:sale,spring\r\nSTATUS:{status}\r\nCREATED:20260101T000000Z\r\nDTSTART:20260301T{hour:02}0000Z\r\nDURATION:PT30M\r\nEND:VEVENT\r\n"
        )
    };
    let text = format!(
        "BEGIN:VCALENDAR\r\n{}{}{}END:VCALENDAR\r\n",
        event("CONFIRMED", 9),
        event("TENTATIVE", 10),
        event("CANCELLED", 11)
    );
    let entries = read_text("ics", &text, &ReadOptions::default()).unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.event.kind.as_str(), entry.event.confidence))
        .collect();
    assert_eq!(found, [("sale", 1.0), ("sale", 0.5)]);
    assert_eq!(entries[0].event.known_s, Some(at("2026-01-01T00:00:00Z")));
}

#[test]
fn columns_may_have_other_names() {
    let options = ReadOptions {
        names: CsvNames {
            starts: "kickoff_utc".to_owned(),
            kind: "match".to_owned(),
            duration_s: Some(6_300),
            ..CsvNames::default()
        },
        ..ReadOptions::default()
    };
    let entries = read_text(
        "csv",
        "kickoff_utc,stage\n1998-06-10 15:30:00+00:00,group\n",
        &options,
    )
    .unwrap();
    assert_eq!(entries[0].event.kind, "match");
    assert_eq!(entries[0].event.ends_s - entries[0].event.starts_s, 6_300);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let ics = |event: &str| {
        format!(
            "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:x\r\n{event}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        )
    };
    let cases = [
        (
            "csv",
            "kind,starts,ends\nsale,soon,later\n".to_owned(),
            "line 2: `soon` is no moment",
        ),
        (
            "csv",
            "kind,starts\nsale,2026-03-01\n".to_owned(),
            "line 2: it has neither `ends` nor `duration_s`",
        ),
        ("csv", String::new(), "the heading: the file is empty"),
        (
            "csv",
            "sale,2026-03-01,2026-03-02\n".to_owned(),
            "the heading: no column is named `starts`, the first line has sale, 2026-03-01",
        ),
        (
            "csv",
            "kind,starts,ends,starts\nsale,2026-03-01,2026-03-02,2026-03-01\n".to_owned(),
            "two columns `starts`",
        ),
        (
            "csv",
            "kind,starts,ends\r\n\r\nsale,2026-03-01,2026-03-02\r\nsale,soon,later\r\n".to_owned(),
            "line 4: `soon`",
        ),
        (
            "csv",
            "kind,starts,ends,confidence\nsale,2026-03-01,2026-03-02,7\n".to_owned(),
            "confidence is 7",
        ),
        (
            "csv",
            "kind,starts,ends\nsale,2026-03-02,2026-03-01\n".to_owned(),
            "ends before it begins",
        ),
        (
            "csv",
            "kind,starts,ends,factor\nsale,2026-03-01,2026-03-02,-1\n".to_owned(),
            "factor is -1",
        ),
        (
            "json",
            r#"{"specversion":"0.3","type":"x","data":{"starts":"2026-03-01"}}"#.to_owned(),
            "event 1: its specversion",
        ),
        (
            "json",
            r#"[{"specversion":"1.0"}]"#.to_owned(),
            "event 1: missing field",
        ),
        (
            "json",
            r#"[{"specversion":"1.0","type":"x","data":{"starts":1772355600,"duration_s":60}}]"#.to_owned(),
            "event 1: its `starts` is the number 1772355600; it must be a text",
        ),
        (
            "json",
            r#"{"specversion":"1.0","type":"x","data":{"starts":"2026-03-01","ends":1.5}}"#.to_owned(),
            "event 1: its `ends` is the number 1.5",
        ),
        (
            "json",
            r#"{"specversion":"1.0","type":"x","time":-7,"data":{"starts":"2026-03-01","duration_s":60}}"#.to_owned(),
            "event 1: its `time` is the number -7",
        ),
        (
            "json",
            r#"{"specversion":"1.0","type":"x","time":"1772355600","data":{"starts":"2026-03-01","duration_s":60}}"#.to_owned(),
            "event 1: its `time`: `1772355600` is no RFC 3339",
        ),
        ("json", "{".to_owned(), "the document"),
        ("ics", "BEGIN:VEVENT".to_owned(), "the calendar"),
        (
            "ics",
            ics("DTSTART;TZID=Mars/Base:20260301T090000\r\nDURATION:PT1H"),
            "`Mars/Base` is no time zone",
        ),
        (
            "ics",
            ics("DTSTART:20260301T090000Z\r\nDTEND:20260301T080000Z"),
            "ends before it begins",
        ),
        (
            "ics",
            ics("DTSTART:20260301T090000Z\r\nDURATION:PT1H\r\nRRULE:FREQ=NEVER"),
            "its RRULE",
        ),
        (
            "ics",
            ics("DTSTART:20260301T090000Z\r\nDURATION:PT1H\r\nRRULE:FREQ=SECONDLY"),
            "more than 1000000 turns",
        ),
        ("txt", String::new(), "must end in .csv"),
    ];
    for (ending, text, word) in cases {
        let error = read_text(ending, &text, &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// As of a system that has announced nothing yet.
#[test]
fn a_heading_without_rows_is_a_calendar_without_events() {
    let entries = read_text("csv", "kind,starts,ends\n", &ReadOptions::default()).unwrap();
    assert!(entries.is_empty());
}

#[test]
fn what_lies_outside_the_time_that_is_asked_for_does_not_count_and_the_rest_has_a_bound() {
    let rows = |count: usize, year: usize| -> String {
        let row = |nth: usize| {
            format!(
                "x,{year}-01-01 {:02}:{:02}:00,60\n",
                nth / 60 % 24,
                nth % 60
            )
        };
        (0..count).map(row).collect()
    };
    let head = "kind,starts,duration_s\n";
    let past = format!("{head}{}{}", rows(70_000, 2020), rows(10, 2026));
    assert_eq!(read_text("csv", &past, &year(2026)).unwrap().len(), 10);
    let many = format!("{head}{}", rows(70_000, 2026));
    let error = read_text("csv", &many, &year(2026))
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 65536 events"), "{error}");
    let never = spans(
        "BEGIN:VEVENT\nUID:1\nSUMMARY:x\nDTSTART:20260101T000000Z\nDURATION:PT1H\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30\nEND:VEVENT",
        &year(2026),
    );
    assert_eq!(never, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a file holds, it is read or refused.
    #[test]
    fn no_text_breaks_the_reader(
        head in prop::sample::select(vec![
            "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART:20260301T090000Z\r\nDURATION:PT1H\r\nRRULE:",
            "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:x\r\nDTSTART",
            "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART:20260301T090000Z\r\nDURATION:",
            "kind,starts,ends,known,factor\n", "[{\"specversion\":\"1.0\",", "",
        ]),
        tail in "[-A-Z0-9;=:,TZPY\r\n+{}\"./]{0,60}",
        ending in prop::sample::select(vec!["ics", "csv", "json"]),
    ) {
        let text = format!("{head}{tail}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n");
        drop(read_text(ending, &text, &year(2026)));
    }
}
