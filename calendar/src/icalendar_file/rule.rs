//! Recurrence rules, unrolled with a bound on the work.
//!
//! A rule is followed in turns: one for each day, week, month or year, or for each of the moments in it. The library that takes them neither says nor
//! bounds how many there are between two occurrences, so they are charged by the time that lies between, and what makes single turns long is refused
//! before the first.

use super::lines::shown;
use super::moment::Local;
use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use rrule::{Frequency, RRule, RRuleSet, Unvalidated};

/// Turns of all rules of a calendar, in the time that is asked for or before it: a rule of each second from 1970 on would never end.
pub(super) const TURNS_MOST: usize = 1_000_000;
/// The library gives a rule up after so many turns without an occurrence.
const TURNS_HOPELESS: usize = 100_000;
/// What a rule costs before its first turn.
const RULE_TURNS: usize = 16;
/// Moments that are looked at within one turn, and cost about as much as another.
const MOMENTS_OF_TURN: usize = 64;
/// Times of one day, one for each minute.
const TIMES_MOST: usize = 1_440;
const RULE_BYTES_MOST: usize = 4_096;

/// A rule without its end.
struct Endless {
    rule: RRule<Unvalidated>,
    count: usize,
    /// The last moment, by the clock of the event.
    until: NaiveDateTime,
    /// Times of a day.
    times: usize,
}

// === impl Endless ===

impl Endless {
    fn of(text: &str, starts: &Local) -> Result<Self, String> {
        if text.len() > RULE_BYTES_MOST {
            return Err(format!("its RRULE has more than {RULE_BYTES_MOST} bytes"));
        }
        let (mut count, mut until, mut times) = (usize::MAX, NaiveDateTime::MAX, 1_usize);
        let mut kept = Vec::new();
        for part in text.split(';') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_uppercase().as_str() {
                "COUNT" => {
                    let bad = |_| format!("its RRULE: `{}` is no COUNT", shown(value));
                    count = value.trim().parse().map_err(bad)?;
                    continue;
                }
                "UNTIL" => {
                    until = until_of(value, starts)?;
                    continue;
                }
                "BYHOUR" | "BYMINUTE" | "BYSECOND" => {
                    times = times.saturating_mul(value.split(',').count());
                }
                _ => {}
            }
            kept.push(part);
        }
        if times > TIMES_MOST {
            return Err(format!(
                "its RRULE names {times} times of a day; {TIMES_MOST} are the most"
            ));
        }
        let rule: RRule<Unvalidated> = kept.join(";").parse().map_err(bad)?;
        let is_below_day = matches!(
            rule.get_freq(),
            Frequency::Hourly | Frequency::Minutely | Frequency::Secondly
        );
        if is_below_day && !rule.get_by_set_pos().is_empty() {
            return Err(
                "its RRULE has a BYSETPOS, but recurs more often than daily: name hours or minutes instead"
                    .to_owned(),
            );
        }
        Ok(Self {
            rule,
            count,
            until,
            times,
        })
    }

    /// Days that pass with each turn, at least, and what a turn costs.
    fn turn(&self) -> (usize, usize) {
        let interval = usize::from(self.rule.get_interval()).max(1);
        let (days, looked_at) = match self.rule.get_freq() {
            Frequency::Yearly => (365 * interval, 366),
            Frequency::Monthly => (28 * interval, 31),
            Frequency::Weekly => (7 * interval, 7),
            Frequency::Daily => (interval, 1),
            // Days on which it does not recur are passed in one turn each.
            Frequency::Hourly | Frequency::Minutely | Frequency::Secondly => (1, 1),
        };
        (days, 1 + looked_at * self.times / MOMENTS_OF_TURN)
    }
}

fn bad(error: impl std::fmt::Display) -> String {
    format!("its RRULE: {}", shown(&error.to_string()))
}

/// Hands the beginnings from a moment to another, by the clock of the event, to `found`, and takes turns from those that are left.
pub(super) fn unroll(
    text: &str,
    starts: &Local,
    (from, until): (NaiveDateTime, NaiveDateTime),
    left: &mut usize,
    mut found: impl FnMut(NaiveDateTime),
) -> Result<(), String> {
    let rule = Endless::of(text, starts)?;
    let (days_of_turn, cost) = rule.turn();
    let mut take = |turns: usize| {
        *left = left.checked_sub(turns).ok_or_else(|| {
            format!("with its RRULE, rules are followed for more than {TURNS_MOST} turns since their DTSTART: begin it later, let it recur less often, or leave out what never occurs")
        })?;
        Ok::<(), String>(())
    };
    take(RULE_TURNS + cost)?;
    let as_utc = |time: NaiveDateTime| rrule::Tz::UTC.from_utc_datetime(&time);
    let validated = rule.rule.validate(as_utc(starts.time)).map_err(bad)?;
    let set = RRuleSet::new(as_utc(starts.time)).rrule(validated).limit();
    let mut dates = set.into_iter();
    let mut last = starts.time;
    for _ in 0..rule.count {
        let Some(date) = dates.next() else {
            // No end was named, so this one has been given up.
            return take(TURNS_HOPELESS);
        };
        let time = date.naive_utc();
        let days = usize::try_from((time.date() - last.date()).num_days()).unwrap_or(0);
        take(1 + days.div_ceil(days_of_turn) * cost)?;
        if time >= until || time > rule.until {
            break;
        }
        if time >= from {
            found(time);
        }
        last = time;
    }
    Ok(())
}

/// A stretch of Unix time, wide enough for the clocks of any zone.
pub(super) fn clocks(from_s: i64, until_s: i64) -> (NaiveDateTime, NaiveDateTime) {
    let bound = |unix_s: i64, days: i64| {
        let moment = DateTime::<Utc>::from_timestamp(unix_s, 0).unwrap_or_default();
        let time = moment.naive_utc();
        time.checked_add_signed(TimeDelta::days(days))
            .unwrap_or(time)
    };
    (bound(from_s, -2), bound(until_s, 2))
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

    /// How many there are until the third of January 2030, and how many turns that took.
    fn turns(text: &str) -> Result<(usize, usize), String> {
        let starts = Local::parsed("20260101T090000", Tz::UTC).ok_or("no moment")?;
        let bounds = clocks(1_767_225_600, 1_893_456_000);
        let (mut left, mut count) = (TURNS_MOST, 0);
        unroll(text, &starts, bounds, &mut left, |_| count += 1)?;
        Ok((count, TURNS_MOST - left))
    }

    #[test]
    fn a_rule_costs_the_turns_that_it_takes() {
        for (text, count, most) in [
            ("FREQ=DAILY;COUNT=10", 10, 50),
            ("FREQ=WEEKLY;UNTIL=20260201", 5, 50),
            ("FREQ=YEARLY", 5, 100),
            ("FREQ=DAILY;UNTIL=20251231", 0, 50),
            // Turns without an occurrence count as well.
            ("FREQ=DAILY;BYMONTH=12;BYMONTHDAY=31", 4, 3_700),
            ("FREQ=SECONDLY;BYMONTH=12;BYMONTHDAY=31;COUNT=1", 1, 500),
        ] {
            let (found, taken) = turns(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found, count, "{text}");
            assert!(taken <= most, "{text}: {taken}");
        }
        assert!(turns("FREQ=DAILY;BYMONTH=12;BYMONTHDAY=31").is_ok_and(|(_, taken)| taken > 1_000));
    }

    #[test]
    fn a_rule_that_never_occurs_is_given_up_and_costs_what_it_took() {
        for text in [
            "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=20",
        ] {
            let found = turns(text);
            assert!(
                found.is_ok_and(|(count, taken)| count == 0 && taken >= TURNS_HOPELESS),
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_a_turn_long_is_refused_before_the_first() {
        let all = |of: u32| {
            (0..of)
                .map(|one| one.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        let dense = format!(
            "FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR={};BYMINUTE={};BYSECOND={}",
            all(24),
            all(60),
            all(60)
        );
        let positions = format!("FREQ=YEARLY;BYDAY=MO;BYSETPOS=1{}", ",1".repeat(5_000));
        for (text, word) in [
            (dense.as_str(), "86400 times of a day"),
            (
                "FREQ=SECONDLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=2",
                "BYSETPOS",
            ),
            (positions.as_str(), "4096 bytes"),
        ] {
            let error = turns(text).expect_err(text);
            assert!(error.contains(word), "{error}");
        }
        // A minute each is not, and its turns cost more than one.
        let minutes = format!(
            "FREQ=YEARLY;BYDAY=MO;BYHOUR={};BYMINUTE={};COUNT=1",
            all(24),
            all(60)
        );
        assert!(turns(&minutes).is_ok_and(|(_, taken)| taken > 8_000));
    }
}
