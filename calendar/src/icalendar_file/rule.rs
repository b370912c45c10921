//! Recurrence rules, unrolled with a bound on the work.
//!
//! A rule is followed in turns: one for each day, week, month or year, or for each of the moments in it. The library that takes them neither says nor
//! bounds how many there are between two occurrences, so they are charged by the time that lies between, and what makes single turns long is refused
//! before the first.

use super::below_day::BelowDay;
use super::moment::Local;
use super::rule_text::{Endless, bad};
use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use rrule::{Frequency, RRuleSet};

/// Turns of all rules of a calendar, in the time that is asked for or before it: a rule of each second from 1970 on would never end.
pub(super) const TURNS_MOST: usize = 1_000_000;
/// The library gives a rule up after so many turns without an occurrence.
const TURNS_HOPELESS: usize = 100_000;
/// What a rule costs before its first turn.
const RULE_TURNS: usize = 16;
/// Moments that the library looks at within one turn, and cost about as much as another.
const MOMENTS_OF_TURN: usize = 64;

/// Hours, minutes or seconds that are looked at within one turn, and are none.
const LOOKS_OF_TURN: usize = 16;

/// A rule that is followed.
struct Following<'a, F> {
    starts: &'a Local,
    from: NaiveDateTime,
    until: NaiveDateTime,
    /// Occurrences that are left.
    count: usize,
    /// Turns that are left.
    turns: &'a mut usize,
    /// Takes occurrences.
    found: F,
}

/// Hands the beginnings from a moment to another, by the clock of the event, to `found`, and takes turns from those that are left.
pub(super) fn unroll(
    text: &str,
    starts: &Local,
    (from, until): (NaiveDateTime, NaiveDateTime),
    turns: &mut usize,
    found: impl FnMut(NaiveDateTime),
) -> Result<(), String> {
    let rule = Endless::of(text, starts)?;
    let mut following = Following {
        starts,
        from,
        // The last moment of a rule is one of its own.
        until: until.min(
            rule.until
                .checked_add_signed(TimeDelta::seconds(1))
                .unwrap_or(until),
        ),
        count: rule.count,
        turns,
        found,
    };
    following.take(RULE_TURNS)?;
    match BelowDay::of(&rule.rule, starts.time) {
        Some(below_day) => {
            // What is in no rule's range.
            rule.rule.validate(as_utc(starts.time)).map_err(bad)?;
            following.follow_days(&below_day)
        }
        None => following.follow_library(rule),
    }
}

fn as_utc(time: NaiveDateTime) -> DateTime<rrule::Tz> {
    rrule::Tz::UTC.from_utc_datetime(&time)
}

// === impl Endless ===

impl Endless {
    /// Days that pass with each turn of the library, at least, and what a turn costs.
    fn turn(&self) -> (usize, usize) {
        let interval = usize::from(self.rule.get_interval());
        let (days, looked_at) = match self.rule.get_freq() {
            Frequency::Yearly => (365 * interval, 366),
            Frequency::Monthly => (28 * interval, 31),
            Frequency::Weekly => (7 * interval, 7),
            _ => (interval, 1),
        };
        (days, 1 + looked_at * self.times / MOMENTS_OF_TURN)
    }
}

// === impl Following ===

impl<F: FnMut(NaiveDateTime)> Following<'_, F> {
    fn take(&mut self, turns: usize) -> Result<(), String> {
        let left = self.turns.checked_sub(turns);
        *self.turns = left.ok_or_else(|| {
            format!("with its RRULE, rules are followed for more than {TURNS_MOST} turns since their DTSTART: begin it later, let it recur less often, or leave out what never occurs")
        })?;
        Ok(())
    }

    /// Takes an occurrence, and says whether another one is asked for.
    fn meet(&mut self, time: NaiveDateTime) -> bool {
        if time >= self.until {
            return false;
        }
        if time >= self.from {
            (self.found)(time);
        }
        self.count = self.count.saturating_sub(1);
        self.count > 0
    }

    fn follow_days(mut self, rule: &BelowDay) -> Result<(), String> {
        let mut day = self.starts.time.date();
        let mut looked_at = 0_usize;
        while day.and_time(NaiveTime::MIN) < self.until {
            self.take(1)?;
            let is_asked_for_more = rule.follow(day, |moment| match moment {
                None => {
                    looked_at += 1;
                    self.take(usize::from(looked_at.is_multiple_of(LOOKS_OF_TURN)))?;
                    Ok(true)
                }
                Some(moment) if moment < self.starts.time => Ok(true),
                Some(moment) => {
                    self.take(1)?;
                    Ok(self.meet(moment))
                }
            })?;
            match day.succ_opt() {
                Some(next) if is_asked_for_more => day = next,
                _ => break,
            }
        }
        Ok(())
    }

    fn follow_library(mut self, rule: Endless) -> Result<(), String> {
        let (days_of_turn, cost) = rule.turn();
        self.take(cost)?;
        let starts = as_utc(self.starts.time);
        let validated = rule.rule.validate(starts).map_err(bad)?;
        let dates = RRuleSet::new(starts).rrule(validated).limit();
        let mut last = self.starts.time;
        for date in &dates {
            let time = date.naive_utc();
            let days = usize::try_from((time.date() - last.date()).num_days()).unwrap_or(0);
            self.take(1 + days.div_ceil(days_of_turn) * cost)?;
            if !self.meet(time) {
                return Ok(());
            }
            last = time;
        }
        // No end was named, so this one has been given up.
        self.take(TURNS_HOPELESS)
    }
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
            ("FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30", 0, 1_500),
            ("FREQ=MINUTELY;BYDAY=TH;BYHOUR=9;BYMINUTE=0", 209, 2_500),
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
