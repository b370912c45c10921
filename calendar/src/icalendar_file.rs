//! iCalendar (RFC 5545): single and recurring events, with exceptions, moved occurrences, time zones and days.
//!
//! A rule is unrolled in local time and each occurrence put into its zone afterwards, so a match at nine in the evening stays there when the clocks
//! change. The kind is the first category, or without one the summary; tentative events count half; it became known when it was `CREATED`, or changed since.

use crate::{Entry, Keep, ReadOptions, Refused};
use chrono::{
    DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::Tz;
use forebay_families::Event;
use icalendar::{Calendar, CalendarComponent, CalendarDateTime, Component, DatePerhapsTime};
use icalendar::{Event as VEvent, EventStatus};
use rrule::{RRule, RRuleSet, Unvalidated};
use std::collections::BTreeSet;

/// Occurrences of all rules of a calendar that are looked at, the time that is asked for or not: a rule of each second from 1970 on would never end.
const OCCURRENCES_MOST: usize = 1_000_000;
/// Confidence of an event that is tentative.
const TENTATIVE: f64 = 0.5;

/// A moment as the calendar says it: local time in a zone, or a whole day there.
#[derive(Clone, Copy, Debug)]
struct Local {
    time: NaiveDateTime,
    zone: Tz,
    is_day: bool,
}

// === impl Local ===

impl Local {
    fn of(value: DatePerhapsTime, usual: Tz) -> Result<Self, String> {
        let (time, zone, is_day) = match value {
            DatePerhapsTime::Date(date) => (date.and_time(NaiveTime::MIN), usual, true),
            DatePerhapsTime::DateTime(CalendarDateTime::Floating(time)) => (time, usual, false),
            DatePerhapsTime::DateTime(CalendarDateTime::Utc(time)) => {
                (time.naive_utc(), Tz::UTC, false)
            }
            DatePerhapsTime::DateTime(CalendarDateTime::WithTimezone { date_time, tzid }) => {
                (date_time, zone(&tzid)?, false)
            }
        };
        Ok(Self { time, zone, is_day })
    }

    fn unix_s(&self) -> i64 {
        unix_s(self.zone, self.time)
    }
}

fn zone(name: &str) -> Result<Tz, String> {
    name.parse()
        .map_err(|_| format!("`{name}` is no time zone: IANA names such as Europe/Paris are"))
}

/// The earlier of two moments where the clock shows a time twice; where it never does, as long after as it is put forward.
fn unix_s(zone: Tz, time: NaiveDateTime) -> i64 {
    let found = zone.from_local_datetime(&time).earliest();
    let later = || {
        let before = zone
            .from_local_datetime(&(time - TimeDelta::hours(3)))
            .earliest()?;
        Some(before + TimeDelta::hours(3))
    };
    let moment = found.or_else(later);
    moment.map_or(time.and_utc().timestamp(), |moment| moment.timestamp())
}

pub(crate) fn read(text: &str, options: &ReadOptions, keep: Keep<'_>) -> Result<(), Refused> {
    let whole = |reason: String| ("the calendar".to_owned(), reason);
    let calendar: Calendar = text.parse().map_err(whole)?;
    let usual = zone(calendar.get_timezone().unwrap_or(&options.zone)).map_err(whole)?;
    let events = calendar
        .components
        .iter()
        .filter_map(|component| match component {
            CalendarComponent::Event(event) => Some(event),
            _ => None,
        });
    // An occurrence that was moved is an event of its own, and its place in the rule is empty.
    let mut moved: BTreeSet<(&str, i64)> = BTreeSet::new();
    let mut named = Vec::new();
    for (nth, event) in (1..).zip(events) {
        let place = match event.get_summary() {
            Some(summary) => format!("event {nth} (`{summary}`)"),
            None => format!("event {nth}"),
        };
        if let Some(id) = event.get_recurrence_id() {
            let id = Local::of(id, usual).map_err(|reason| (place.clone(), reason))?;
            moved.insert((event.get_uid().unwrap_or(""), id.unix_s()));
        }
        named.push((place, event));
    }
    let mut left = OCCURRENCES_MOST;
    for (place, event) in named {
        if event.get_status() == Some(EventStatus::Cancelled) {
            continue;
        }
        let kept = occurrences(event, usual, options, &moved, &mut left)
            .and_then(|found| found.into_iter().try_for_each(&mut *keep));
        kept.map_err(|reason| (place, reason))?;
    }
    Ok(())
}

fn occurrences(
    event: &VEvent,
    usual: Tz,
    options: &ReadOptions,
    moved: &BTreeSet<(&str, i64)>,
    left: &mut usize,
) -> Result<Vec<Entry>, String> {
    let starts = event
        .get_start()
        .ok_or("it has no DTSTART that can be read")?;
    let starts = Local::of(starts, usual)?;
    let length = length(event, &starts, usual)?;
    let uid = event.get_uid().unwrap_or("");
    let is_moved_one = event.get_recurrence_id().is_some();
    let mut begins: BTreeSet<NaiveDateTime> = match event.property_value("RRULE") {
        Some(rule) if !is_moved_one => unrolled(rule, &starts, length, options, left)?,
        _ => BTreeSet::from([starts.time]),
    };
    begins.extend(
        dates(event, "RDATE", usual)?
            .iter()
            .map(|date| in_zone(date, &starts)),
    );
    for date in dates(event, "EXDATE", usual)? {
        begins.remove(&in_zone(&date, &starts));
    }
    let category = event
        .property_value("CATEGORIES")
        .and_then(|all| all.split(',').next());
    let multi = || {
        event
            .multi_properties()
            .get("CATEGORIES")?
            .first()?
            .value()
            .split(',')
            .next()
    };
    let kind = category.or_else(multi).or_else(|| event.get_summary());
    let kind = kind.unwrap_or("").trim().to_owned();
    let tentative = event.get_status() == Some(EventStatus::Tentative);
    let known_s = known_s(event, is_moved_one)?;
    let entries = begins.into_iter().filter_map(|time| {
        let begin = Local { time, ..starts };
        let starts_s = begin.unix_s();
        if !is_moved_one && moved.contains(&(uid, starts_s)) {
            return None;
        }
        let ends_s = match starts.is_day {
            true => unix_s(starts.zone, time.checked_add_signed(length)?),
            false => starts_s.saturating_add(length.num_seconds()),
        };
        Some(Entry {
            customer: None,
            event: Event {
                known_s,
                local_hour: u8::try_from(time.hour()).ok(),
                confidence: if tentative { TENTATIVE } else { 1.0 },
                ..Event::new(kind.clone(), starts_s, ends_s)
            },
        })
    });
    Ok(entries.collect())
}

fn length(event: &VEvent, starts: &Local, usual: Tz) -> Result<TimeDelta, String> {
    if let Some(ends) = event.get_end() {
        let ends = Local::of(ends, usual)?;
        return Ok(match starts.is_day && ends.is_day {
            true => ends.time - starts.time,
            false => TimeDelta::seconds(ends.unix_s().saturating_sub(starts.unix_s())),
        });
    }
    if let Some(text) = event.property_value("DURATION") {
        let duration = iso8601::duration(text).map_err(|_| format!("`{text}` is no DURATION"))?;
        let seconds = std::time::Duration::from(duration).as_secs();
        let delta = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
        return delta.ok_or_else(|| format!("the DURATION `{text}` is too long"));
    }
    match starts.is_day {
        true => Ok(TimeDelta::days(1)),
        false => Err("it has neither DTEND nor DURATION".to_owned()),
    }
}

/// The beginnings of a rule within the time that is asked for, in local time.
fn unrolled(
    rule: &str,
    starts: &Local,
    length: TimeDelta,
    options: &ReadOptions,
    left: &mut usize,
) -> Result<BTreeSet<NaiveDateTime>, String> {
    let bad = |error: rrule::RRuleError| format!("its RRULE: {error}");
    let parts = rule.split(';').map(|part| match part.split_once('=') {
        Some((name, until)) if name.eq_ignore_ascii_case("UNTIL") => until_in(until, starts),
        _ => Ok(part.to_owned()),
    });
    let rule = parts.collect::<Result<Vec<_>, _>>()?.join(";");
    let rule: RRule<Unvalidated> = rule.parse().map_err(bad)?;
    let as_utc = |time: NaiveDateTime| rrule::Tz::UTC.from_utc_datetime(&time);
    let rule = rule.validate(as_utc(starts.time)).map_err(bad)?;
    // Wide enough for any zone.
    let bound = |unix_s: i64, days: i64| {
        let moment = DateTime::<Utc>::from_timestamp(unix_s, 0).unwrap_or_default();
        let time = moment.naive_utc();
        time.checked_add_signed(TimeDelta::days(days))
            .unwrap_or(time)
    };
    let from = bound(
        options.from_s.saturating_sub(length.num_seconds().max(0)),
        -2,
    );
    let until = bound(options.until_s, 2);
    let set = RRuleSet::new(as_utc(starts.time)).rrule(rule);
    let mut found = BTreeSet::new();
    for date in &set {
        let time = date.naive_utc();
        if time >= until {
            break;
        }
        *left = left.checked_sub(1).ok_or_else(|| {
            format!("with its RRULE there are more than {OCCURRENCES_MOST} occurrences since the first DTSTART: begin it later, or let it recur less often")
        })?;
        if time >= from {
            found.insert(time);
        }
    }
    Ok(found)
}

/// An end of recurrence as if local time were UTC.
fn until_in(until: &str, starts: &Local) -> Result<String, String> {
    let bad = || format!("`{until}` is no UNTIL");
    let time = match until.strip_suffix('Z') {
        Some(utc) => {
            let utc = NaiveDateTime::parse_from_str(utc, "%Y%m%dT%H%M%S").map_err(|_| bad())?;
            starts.zone.from_utc_datetime(&utc).naive_local()
        }
        None => match NaiveDateTime::parse_from_str(until, "%Y%m%dT%H%M%S") {
            Ok(time) => time,
            Err(_) => {
                let date = NaiveDate::parse_from_str(until, "%Y%m%d").map_err(|_| bad())?;
                let next = date.checked_add_days(Days::new(1)).ok_or_else(bad)?;
                next.and_time(NaiveTime::MIN) - TimeDelta::seconds(1)
            }
        },
    };
    Ok(format!("UNTIL={}Z", time.format("%Y%m%dT%H%M%S")))
}

/// All dates of a property that may come several times, each with several values.
fn dates(event: &VEvent, name: &str, usual: Tz) -> Result<Vec<Local>, String> {
    let several = event.multi_properties().get(name).into_iter().flatten();
    let properties = several.chain(event.properties().get(name));
    let mut found = Vec::new();
    for property in properties {
        for value in property.value().split(',') {
            let mut one = icalendar::Property::new(name, value.trim());
            for parameter in property.params().values() {
                one.append_parameter(parameter.clone());
            }
            let date = DatePerhapsTime::from_property(&one.done());
            let date = date.ok_or_else(|| format!("its {name} `{value}` is no date"))?;
            found.push(Local::of(date, usual)?);
        }
    }
    Ok(found)
}

/// The same moment as the clock of an event shows it; a day is the event's time on that day.
fn in_zone(date: &Local, starts: &Local) -> NaiveDateTime {
    if date.is_day {
        return date.time.date().and_time(starts.time.time());
    }
    if date.zone == starts.zone {
        return date.time;
    }
    let moment = DateTime::<Utc>::from_timestamp(date.unix_s(), 0).unwrap_or_default();
    moment.with_timezone(&starts.zone).naive_local()
}

/// When what an event says became known: when it was made or, where it was changed since, when that was. An occurrence that was moved was.
fn known_s(event: &VEvent, is_moved_one: bool) -> Result<Option<i64>, String> {
    let is_changed = event
        .property_value("SEQUENCE")
        .is_some_and(|sequence| sequence.trim() != "0");
    let mut known = None;
    for (name, counts) in [
        ("CREATED", true),
        ("LAST-MODIFIED", is_moved_one || is_changed),
    ] {
        if let Some(text) = event.property_value(name).filter(|_| counts) {
            let time = NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y%m%dT%H%M%S");
            let time = time.map_err(|_| format!("its {name} `{text}` is no moment"))?;
            known = known.max(Some(time.and_utc().timestamp()));
        }
    }
    Ok(known)
}
