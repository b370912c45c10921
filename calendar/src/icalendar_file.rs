//! iCalendar (RFC 5545): single and recurring events, with exceptions, moved occurrences, time zones and days.
//!
//! A rule is unrolled in local time and each occurrence put into its zone afterwards, so a match at nine in the evening stays there when the clocks
//! change. The kind is the first category, or without one the summary; tentative events count half; it became known when it was `CREATED`, or changed since.
//!
//! An occurrence that was moved, excepted or cancelled was to be until somebody said so, and a forecast made before that counted on it. So it is kept, and
//! known until then. To leave it out was the worse alternative: forecasts of the past would know which plans were going to fall through.

mod below_day;
mod lines;
mod moment;
mod rule;
mod rule_text;

use crate::error::shown;
use crate::zones::{seconds_between, unix_s, zone};
use crate::{Entry, Kept, ReadOptions, Refused, check_kind};
use chrono::{NaiveDateTime, TimeDelta, Timelike};
use chrono_tz::Tz;
use forebay_families::Event;
use icalendar::parser::{Property, unfold};
use lines::{Components, VEvent};
use moment::{Local, zone_of};
use std::collections::{BTreeMap, btree_map};

/// Confidence of an event that is tentative.
const TENTATIVE: f64 = 0.5;

/// When something was taken back; `None` inside: nobody has said when.
type Removed = Option<Option<i64>>;

/// What one occurrence has to itself.
#[derive(Clone, Copy, Debug)]
struct Occurrence {
    /// Its beginning, by the clock of the event.
    time: NaiveDateTime,
    length: TimeDelta,
    removed: Removed,
}

/// What is known of the whole calendar while its events are read one by one.
struct Reading<'a> {
    usual: Tz,
    options: &'a ReadOptions,
    /// By the identity of the event, and then by the moment at which it was to be: an occurrence that was moved is an event of its own.
    moved: BTreeMap<&'a str, BTreeMap<i64, Option<i64>>>,
    /// Turns of rules that are left.
    left: usize,
}

pub(crate) fn read(text: &str, options: &ReadOptions, kept: &mut Kept<'_>) -> Result<(), Refused> {
    let whole = |reason: String| ("the calendar".to_owned(), reason);
    let text = unfold(text);
    let calendar = Components::of(&text)?;
    let usual = zone(calendar.zone.as_deref().unwrap_or(&options.zone)).map_err(whole)?;
    let mut reading = Reading {
        usual,
        options,
        moved: BTreeMap::new(),
        left: rule::TURNS_MOST,
    };
    let place = |nth: usize, event: &VEvent<'_>| match event.value("SUMMARY") {
        Some(summary) => format!("event {nth} (`{}`)", shown(summary)),
        None => format!("event {nth}"),
    };
    for (nth, event) in (1..).zip(&calendar.events) {
        let noted = reading.note_moved(event);
        noted.map_err(|reason| (place(nth, event), reason))?;
    }
    for (nth, event) in (1..).zip(&calendar.events) {
        let read = reading.keep(event, kept);
        read.map_err(|reason| (place(nth, event), reason))?;
    }
    Ok(())
}

// === impl Reading ===

impl<'a> Reading<'a> {
    fn note_moved(&mut self, event: &'a VEvent<'_>) -> Result<(), String> {
        let Some(id) = event.property("RECURRENCE-ID") else {
            return Ok(());
        };
        let was_s = Local::of(id, self.usual)?.unix_s();
        let changed_s = changed_s(event)?;
        match self.moved.entry(event.uid()).or_default().entry(was_s) {
            btree_map::Entry::Vacant(place) => {
                place.insert(changed_s);
            }
            // It was gone with the first change that is known of.
            btree_map::Entry::Occupied(mut known) => {
                let first_s = known.get().iter().copied().chain(changed_s).min();
                known.insert(first_s);
            }
        }
        Ok(())
    }

    fn keep(&mut self, event: &'a VEvent<'_>, kept: &mut Kept<'_>) -> Result<(), String> {
        let is_moved_one = event.property("RECURRENCE-ID").is_some();
        let is_cancelled = is_status(event, "CANCELLED");
        if is_moved_one && is_cancelled {
            return Ok(());
        }
        let kind = kind(event);
        check_kind(kind)?;
        if event.property("EXRULE").is_some() {
            return Err(
                "it has an EXRULE, which RFC 5545 has abolished: name what is excepted in EXDATE"
                    .to_owned(),
            );
        }
        let starts = event.property("DTSTART").ok_or("it has no DTSTART")?;
        let starts = Local::of(starts, self.usual)?;
        let length = length(event, &starts, self.usual)?;
        if length.is_zero() {
            kept.leave_out();
        }
        let occurrences = self.occurrences(event, &starts, length)?;
        let (made_s, known_s) = (made_s(event)?, known_s(event, is_moved_one)?);
        let tentative = is_status(event, "TENTATIVE");
        let moved = self.moved.get(event.uid()).filter(|_| !is_moved_one);
        let lasting = |(_, one): &(i64, Occurrence)| !one.length.is_zero();
        for (starts_s, occurrence) in occurrences.into_iter().filter(lasting) {
            let Occurrence { time, length, .. } = occurrence;
            let ends_s = match starts.is_day {
                true => time
                    .checked_add_signed(length)
                    .map_or(starts_s, |ends| unix_s(starts.zone, ends)),
                false => starts_s.saturating_add(length.num_seconds()),
            };
            // What its own event says of it was in the calendar before that was changed.
            let (removed, known_s) = match occurrence.removed {
                Some(_) => (occurrence.removed, made_s),
                None => (moved.and_then(|all| all.get(&starts_s)).copied(), known_s),
            };
            // What has begun is not taken back any more: its entry was changed later for another reason.
            let known_until_s = match removed {
                Some(Some(changed_s)) => Some(changed_s.min(starts_s)),
                Some(None) => continue,
                None => None,
            };
            if known_until_s.is_some_and(|until_s| known_s.is_some_and(|from_s| from_s >= until_s))
            {
                continue;
            }
            kept.keep(Entry {
                customer: None,
                event: Event {
                    known_s,
                    known_until_s,
                    local_hour: u8::try_from(time.hour()).ok(),
                    confidence: if tentative { TENTATIVE } else { 1.0 },
                    ..Event::new(kind, starts_s, ends_s)
                },
            })?;
        }
        Ok(())
    }

    /// By their beginnings. Two times of the clock may be one moment, where it is put forward.
    fn occurrences(
        &mut self,
        event: &VEvent<'_>,
        starts: &Local,
        length: TimeDelta,
    ) -> Result<BTreeMap<i64, Occurrence>, String> {
        let (usual, options) = (self.usual, self.options);
        let is_moved_one = event.property("RECURRENCE-ID").is_some();
        let is_cancelled = is_status(event, "CANCELLED");
        let changed_s = match is_cancelled || event.property("EXDATE").is_some() {
            true => changed_s(event)?,
            false => None,
        };
        let removed = is_cancelled.then_some(changed_s);
        let mut found = BTreeMap::new();
        let mut take = |time: NaiveDateTime, length: TimeDelta| {
            let occurrence = Occurrence {
                time,
                length,
                removed,
            };
            found.insert(unix_s(starts.zone, time), occurrence);
        };
        let mut rules = event.all("RRULE").filter(|_| !is_moved_one).peekable();
        if rules.peek().is_none() {
            take(starts.time, length);
        }
        let from_s = options.from_s.saturating_sub(length.num_seconds().max(0));
        let bounds = rule::clocks(from_s, options.until_s);
        for rule in rules {
            rule::unroll(rule.val.as_str(), starts, bounds, &mut self.left, |time| {
                take(time, length);
            })?;
        }
        for dates in event.all("RDATE") {
            let zone = zone_of(dates, usual)?;
            for value in values(dates) {
                // A period has a length of its own.
                let (begins, ends) = value.split_once('/').unwrap_or((value, ""));
                let begins = Local::of_value(begins, "RDATE", zone)?;
                let length = match ends {
                    "" => length,
                    _ if ends.starts_with('P') => duration(ends)?,
                    _ => seconds(&begins, &Local::of_value(ends, "RDATE", zone)?),
                };
                take(on_clock(&begins, starts), length);
            }
        }
        for dates in event.all("EXDATE") {
            let zone = zone_of(dates, usual)?;
            for value in values(dates) {
                let time = on_clock(&Local::of_value(value, "EXDATE", zone)?, starts);
                if let Some(occurrence) = found.get_mut(&unix_s(starts.zone, time)) {
                    occurrence.removed = Some(changed_s);
                }
            }
        }
        Ok(found)
    }
}

fn is_status(event: &VEvent<'_>, status: &str) -> bool {
    let said = event.value("STATUS").unwrap_or("");
    said.trim().eq_ignore_ascii_case(status)
}

fn kind<'a>(event: &'a VEvent<'_>) -> &'a str {
    let categories = event.all("CATEGORIES").next();
    let category = categories.and_then(|all| all.val.as_str().split(',').next());
    category
        .or_else(|| event.value("SUMMARY"))
        .unwrap_or("")
        .trim()
}

/// How long an event takes; one that says nothing ends when it begins, or with its day.
fn length(event: &VEvent<'_>, starts: &Local, usual: Tz) -> Result<TimeDelta, String> {
    if let Some(ends) = event.property("DTEND") {
        let ends = Local::of(ends, usual)?;
        return Ok(match starts.is_day && ends.is_day {
            true => ends.time - starts.time,
            false => seconds(starts, &ends),
        });
    }
    match (event.value("DURATION"), starts.is_day) {
        (Some(text), _) => duration(text),
        (None, true) => Ok(TimeDelta::days(1)),
        (None, false) => Ok(TimeDelta::zero()),
    }
}

fn seconds(from: &Local, until: &Local) -> TimeDelta {
    let seconds = match from.zone == until.zone {
        true => seconds_between(from.zone, from.time, until.time),
        false => until.unix_s().saturating_sub(from.unix_s()),
    };
    TimeDelta::seconds(seconds)
}

fn duration(text: &str) -> Result<TimeDelta, String> {
    let text = text.trim();
    let bad = || format!("`{}` is no DURATION", shown(text));
    let duration = iso8601::duration(text).map_err(|_| bad())?;
    let seconds = std::time::Duration::from(duration).as_secs();
    let delta = i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds);
    delta.ok_or_else(bad)
}

/// All values of a property that may have several.
fn values<'a>(property: &'a Property<'_>) -> impl Iterator<Item = &'a str> {
    property.val.as_str().split(',').map(str::trim)
}

/// The same moment as the clock of an event shows it; a day is the event's time on that day.
fn on_clock(date: &Local, starts: &Local) -> NaiveDateTime {
    match date.is_day {
        true => date.time.date().and_time(starts.time.time()),
        false => date.in_zone(starts.zone),
    }
}

fn stamp_s(event: &VEvent<'_>, name: &str) -> Result<Option<i64>, String> {
    let Some(text) = event.value(name) else {
        return Ok(None);
    };
    match Local::parsed(text, Tz::UTC) {
        Some(moment) => Ok(Some(moment.unix_s())),
        None => Err(format!("its {name} `{}` is no moment", shown(text))),
    }
}

fn made_s(event: &VEvent<'_>) -> Result<Option<i64>, String> {
    stamp_s(event, "CREATED")
}

/// When an entry was changed: at the latest when it was written down, where nothing else is said.
fn changed_s(event: &VEvent<'_>) -> Result<Option<i64>, String> {
    match stamp_s(event, "LAST-MODIFIED")? {
        Some(changed_s) => Ok(Some(changed_s)),
        None => stamp_s(event, "DTSTAMP"),
    }
}

/// When what an event says became known: when it was made or, where it was changed since, when that was. An occurrence that was moved was.
fn known_s(event: &VEvent<'_>, is_moved_one: bool) -> Result<Option<i64>, String> {
    let sequence = event.value("SEQUENCE").unwrap_or("0");
    let changed_s = match sequence.trim() {
        _ if is_moved_one => changed_s(event)?,
        "0" => None,
        _ => stamp_s(event, "LAST-MODIFIED")?,
    };
    Ok(made_s(event)?.max(changed_s))
}
