//! Components of a calendar, by their lines.
//!
//! The lines that matter are read by a library; which component they belong to is found here, with a bound on the depth. The library's own way from a text
//! to components was the worse alternative: it calls itself for each `BEGIN`, so that a file of nothing else ends the program, and keeps every
//! line of every component, needed or not.

use crate::Refused;
use crate::error::shown;
use icalendar::parser::Property;

/// Components within components: an alarm within an event within a calendar is 3.
const DEPTH_MOST: usize = 8;
/// What is read of an event.
const NEEDED: [&str; 16] = [
    "CATEGORIES",
    "CREATED",
    "DTEND",
    "DTSTAMP",
    "DTSTART",
    "DURATION",
    "EXDATE",
    "EXRULE",
    "LAST-MODIFIED",
    "RDATE",
    "RECURRENCE-ID",
    "RRULE",
    "SEQUENCE",
    "STATUS",
    "SUMMARY",
    "UID",
];
const ZONE: &str = "X-WR-TIMEZONE";

/// A calendar's events, and the time zone that it names.
#[derive(Debug, Default)]
pub(super) struct Components<'a> {
    pub(super) zone: Option<String>,
    pub(super) events: Vec<VEvent<'a>>,
}

/// What is needed of an event.
#[derive(Debug, Default)]
pub(super) struct VEvent<'a>(Vec<Property<'a>>);

// === impl Components ===

impl<'a> Components<'a> {
    /// Of a text whose lines are unfolded.
    pub(super) fn of(text: &'a str) -> Result<Self, Refused> {
        let mut found = Self::default();
        let mut open: Vec<&str> = Vec::new();
        // An event, and how many components are open within which it is.
        let mut event: Option<(VEvent<'a>, usize)> = None;
        let mut is_empty = true;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let place = || match &event {
                Some(_) => format!("event {}", found.events.len() + 1),
                None => "the calendar".to_owned(),
            };
            if let Some(name) = after(line, "BEGIN:") {
                if open.len() == DEPTH_MOST {
                    let reason = format!("components are nested deeper than {DEPTH_MOST}");
                    return Err((place(), reason));
                }
                let is_event = name == "VEVENT" && matches!(open.as_slice(), [] | ["VCALENDAR"]);
                if is_event {
                    event = Some((VEvent::default(), open.len()));
                }
                open.push(name);
                is_empty = false;
            } else if let Some(name) = after(line, "END:") {
                if open.pop() != Some(name) {
                    let reason = format!("`END:{}` closes nothing that is open", shown(name));
                    return Err((place(), reason));
                }
                if let Some((whole, _)) = event.take_if(|(_, depth)| open.len() == *depth) {
                    found.events.push(whole);
                }
            } else {
                let key = line.split([':', ';']).next().unwrap_or("").trim_start();
                let is_of_event = event.as_ref().is_some_and(|(_, at)| open.len() == at + 1);
                let is_needed = match is_of_event {
                    true => NEEDED.iter().any(|name| key.eq_ignore_ascii_case(name)),
                    false => open == ["VCALENDAR"] && key.eq_ignore_ascii_case(ZONE),
                };
                if !is_needed {
                    continue;
                }
                let property = Property::try_from(line)
                    .map_err(|_| (place(), format!("`{}` is no property", shown(line))))?;
                match event.as_mut() {
                    Some((event, _)) => event.0.push(property),
                    None => found.zone = Some(property.val.as_str().to_owned()),
                }
            }
        }
        let whole = |reason: String| Err(("the calendar".to_owned(), reason));
        match open.last() {
            Some(name) => whole(format!("`BEGIN:{}` has no END", shown(name))),
            None if is_empty => whole("it has no BEGIN:VCALENDAR".to_owned()),
            None => Ok(found),
        }
    }
}

// === impl VEvent ===

impl<'a> VEvent<'a> {
    /// All properties of a name.
    pub(super) fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b Property<'a>> {
        let is_called =
            |property: &&Property<'a>| property.name.as_str().eq_ignore_ascii_case(name);
        self.0.iter().filter(is_called)
    }

    /// The last one of a name.
    pub(super) fn property<'b>(&'b self, name: &'b str) -> Option<&'b Property<'a>> {
        self.all(name).last()
    }

    pub(super) fn value<'b>(&'b self, name: &'b str) -> Option<&'b str> {
        Some(self.property(name)?.val.as_str())
    }

    pub(super) fn uid(&self) -> &str {
        self.value("UID").unwrap_or("")
    }
}

/// What follows a prefix that may be written in small letters.
fn after<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let head = line.get(..prefix.len())?;
    let rest = line.get(prefix.len()..)?;
    head.eq_ignore_ascii_case(prefix).then(|| rest.trim_end())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_an_event_is_not_the_events() {
        let text = "BEGIN:VCALENDAR\nX-WR-TIMEZONE:Europe/Paris\nBEGIN:VEVENT\nSUMMARY:sale\nBEGIN:VALARM\nSUMMARY:alarm\nEND:VALARM\nEND:VEVENT\nBEGIN:VJOURNAL\nSUMMARY:note\nEND:VJOURNAL\nEND:VCALENDAR\n";
        let found = Components::of(text).unwrap();
        assert_eq!(found.zone.as_deref(), Some("Europe/Paris"));
        let kinds: Vec<_> = found
            .events
            .iter()
            .map(|one| one.value("SUMMARY"))
            .collect();
        assert_eq!(kinds, [Some("sale")]);
    }

    #[test]
    fn however_deep_components_are_the_reader_is_not_and_refuses_them() {
        let deep = "BEGIN:A\r\n".repeat(1_000_000);
        // A parameter over several lines is none, whatever a library takes it for.
        let hidden = "BEGIN:A\nX;P=\"\nEND:A\n\":x\n".repeat(1_000_000);
        let behind = "BEGIN:A\nBEGIN:B\nEND:BBEGIN:C\n".repeat(1_000_000);
        for text in [deep, behind] {
            let (_, reason) = Components::of(&text).unwrap_err();
            assert!(
                reason.contains("deeper than 8") || reason.contains("closes nothing"),
                "{reason}"
            );
        }
        assert!(Components::of(&hidden).unwrap().events.is_empty());
    }
}
