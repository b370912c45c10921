//! No file takes more time or memory than a calendar may.

#![allow(clippy::unwrap_used)]

use forebay_calendar::{CalendarError, MAX_BYTES, ReadOptions, read};
use std::fs::{self, File};
use std::time::{Duration, Instant};

const YEAR_S: i64 = 365 * 86_400;

fn refused(ending: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("calendar.{ending}"));
    fs::write(&path, text).unwrap();
    let error = read(&path, &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.len() < 1_000, "{} bytes of error", error.len());
    error
}

fn calendar(events: &[String]) -> String {
    format!("BEGIN:VCALENDAR\r\n{}END:VCALENDAR\r\n", events.concat())
}

fn event(kind: &str, rule: &str) -> String {
    format!(
        "BEGIN:VEVENT\r\nSUMMARY:{kind}\r\nDTSTART:20260101T000000Z\r\nDURATION:PT1H\r\nRRULE:{rule}\r\nEND:VEVENT\r\n"
    )
}

#[test]
fn a_kind_that_is_too_long_is_refused_before_its_rule_is_followed() {
    // Were it followed, the turns would end first, and each occurrence have a megabyte.
    let text = calendar(&[event(&"x".repeat(1 << 20), "FREQ=SECONDLY")]);
    let error = refused("ics", &text);
    assert!(error.contains("1 to 256 bytes"), "{error}");
}

#[test]
fn components_within_components_do_not_end_the_program() {
    for text in ["BEGIN:A\r\n".repeat(100_000), "BEGIN:A\n".repeat(1_000_000)] {
        assert!(refused("ics", &text).contains("deeper than 8"));
    }
}

#[test]
fn rules_that_never_occur_use_up_the_turns() {
    let many = vec![event("x", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"); 2_000];
    let error = refused("ics", &calendar(&many));
    assert!(
        error.contains("event 10 (`x`)") && error.contains("turns"),
        "{error}"
    );
    let positions = "FREQ=SECONDLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=2";
    let error = refused("ics", &calendar(&[event("x", positions)]));
    assert!(error.contains("BYSETPOS"), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["csv", "ics", "json"] {
        let path = folder.path().join(format!("calendar.{ending}"));
        let file = File::create(&path).unwrap();
        // Holes: a terabyte that takes no room.
        file.set_len(1 << 40).unwrap();
        let error = read(&path, &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, CalendarError::TooLarge { .. }), "{error}");
        assert!(
            error.to_string().contains(&MAX_BYTES.to_string()),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.ics");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let device = folder.path().join("device.csv");
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    for path in [pipe, device, folder.path().to_owned()] {
        // Without an ending it is refused for that.
        let path = match path.extension() {
            Some(_) => path,
            None => {
                let named = path.join("folder.json");
                fs::create_dir(&named).unwrap();
                named
            }
        };
        let (done, refused) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(read(&path, &ReadOptions::default())));
        let refused = refused.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(
            matches!(refused, Err(CalendarError::NoFile { .. })),
            "{refused:?}"
        );
    }
}

/// Files of megabytes whose time would go with the square of what is in them; each would take minutes then.
#[test]
fn no_file_takes_the_square_of_its_length() {
    let lines =
        |count: usize, line: &dyn Fn(usize) -> String| -> String { (0..count).map(line).collect() };
    let series = "DTSTART:20260101T000000Z\r\nDURATION:PT1S\r\nRRULE:FREQ=MINUTELY;COUNT=60000\r\n";
    let event = |lines: &str| format!("BEGIN:VEVENT\r\nSUMMARY:x\r\n{lines}END:VEVENT\r\n");
    // Each takes back an occurrence, behind which there are as many other lines.
    let exceptions = lines(60_000, &|nth| {
        let (day, hour, minute) = (nth / 1_440, nth / 60 % 24, nth % 60);
        let (month, day) = (1 + day / 28, 1 + day % 28);
        format!("EXDATE:2026{month:02}{day:02}T{hour:02}{minute:02}00Z\r\n")
    });
    // A name of megabytes, at each occurrence.
    let uid = format!("UID:{}\r\n", "x".repeat(4 << 20));
    let moved = event(&format!(
        "{uid}RECURRENCE-ID:20260101T000000Z\r\nDTSTART:20260101T000000Z\r\nDURATION:PT1S\r\n"
    ));
    // A zone behind as many parameters as there are dates.
    let parameters = format!(
        "EXDATE{};TZID=Europe/Paris:20260101T000000{}\r\n",
        ";A=1".repeat(200_000),
        ",20260101T000000".repeat(200_000)
    );
    let announced = |nth: usize| {
        let starts = 1_772_355_600 + nth;
        format!(
            "{{\"specversion\":\"1.0\",\"type\":\"x\",\"data\":{{\"starts\":\"{starts}\",\"duration_s\":1}}}}\n"
        )
    };
    for (what, ending, text) in [
        (
            "exceptions",
            "ics",
            calendar(&[event(&format!("{series}{exceptions}"))]),
        ),
        (
            "a long name",
            "ics",
            calendar(&[event(&format!("{uid}{series}")), moved]),
        ),
        (
            "parameters",
            "ics",
            calendar(&[event(&format!("{series}{parameters}"))]),
        ),
        ("announcements", "json", lines(60_000, &announced)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("calendar.{ending}"));
        fs::write(&path, &text).unwrap();
        let begun = Instant::now();
        let found = read(&path, &ReadOptions::default());
        let taken = begun.elapsed();
        eprintln!("{what}: {} MB in {taken:?}", text.len() >> 20);
        assert!(found.is_ok(), "{what}: {found:?}");
        assert!(taken < Duration::from_secs(30), "{what}: {taken:?}");
    }
}

#[test]
fn events_of_an_array_are_taken_one_by_one() {
    let one = r#"{"specversion":"1.0","type":"x","data":{"starts":"2026-03-01","duration_s":60}}"#;
    // What is wrong with the second is said before anybody has seen that the array has no end.
    let error = refused("json", &format!("[{one},{{\"specversion\":\"1.0\"}},{one}"));
    assert!(error.contains("event 2: missing field"), "{error}");
    let error = refused(
        "json",
        &format!(
            "[{}]",
            one.replace("60", &format!("\"{}\"", "x".repeat(1 << 20)))
        ),
    );
    assert!(
        error.contains("event 1") && error.contains("line 1 column"),
        "{error}"
    );
    let error = refused("json", &format!("[{one},{one}"));
    assert!(error.contains("the document"), "{error}");
}

#[test]
fn events_that_are_felt_for_too_long_altogether_are_refused() {
    let options = ReadOptions {
        from_s: 0,
        until_s: YEAR_S,
        ..ReadOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calendar.csv");
    let rows = |customer: &str, count: usize| {
        format!("x,1970-01-01,1971-01-01,{customer}\n").repeat(count)
    };
    let read_rows = |rows: &str| {
        fs::write(&path, format!("kind,starts,ends,customer\n{rows}")).unwrap();
        read(&path, &options).map(|calendar| calendar.entries.len())
    };
    // Each customer has its own, and those of all.
    let many = format!("{}{}{}", rows("", 10), rows("a", 10), rows("b", 10));
    assert_eq!(read_rows(&many).unwrap(), 30);
    let error = read_rows(&format!("{many}{}", rows("b", 1)))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("customer `b`") && error.contains("20 times"),
        "{error}"
    );
    let error = read_rows(&rows("", 21)).unwrap_err().to_string();
    assert!(error.contains("all customers"), "{error}");
}
