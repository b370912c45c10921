//! Rules of the hour, the minute or the second.
//!
//! They are followed day by day, and within the days that are theirs from one hour, minute or second to the next. The library for rules was the worse
//! alternative: behind a day that is not the rule's it goes on at an hour that is not either, and ends without a word when it has seen that hour twice.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Weekday};
use rrule::{Frequency, NWeekday, RRule, Unvalidated};

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;
const MINUTE_S: i64 = 60;

/// Such a rule, by the clock of its event.
pub(super) struct BelowDay {
    days: Days,
    /// Length of an hour, a minute or a second.
    unit_s: i64,
    /// From one of them that is the rule's to the next.
    interval_s: i64,
    /// The event's own, since 1970.
    first_s: i64,
    hours: Numbers,
    minutes: Numbers,
    seconds: Numbers,
}

/// Which days are a rule's. What it does not name is not asked for.
struct Days {
    months: Vec<i64>,
    /// Of the month, from its beginning or, negative, from its end.
    month_days: Vec<i64>,
    /// Of the year, likewise.
    year_days: Vec<i64>,
    weekdays: Vec<Weekday>,
}

/// Hours of a day, or minutes or seconds, a bit for each.
#[derive(Clone, Copy)]
struct Numbers(u64);

// === impl BelowDay ===

impl BelowDay {
    /// `None` for rules of the day or of more.
    pub(super) fn of(rule: &RRule<Unvalidated>, starts: NaiveDateTime) -> Option<Self> {
        let unit_s = match rule.get_freq() {
            Frequency::Hourly => HOUR_S,
            Frequency::Minutely => MINUTE_S,
            Frequency::Secondly => 1,
            _ => return None,
        };
        // Within its hours and minutes a rule that says nothing else occurs when the event does.
        let usual = |of_event: u32, length_s: i64| match length_s < unit_s {
            true => Numbers(1 << of_event),
            false => Numbers::ALL,
        };
        let named = |numbers: &[u8], usual: Numbers| match numbers {
            [] => usual,
            _ => Numbers::of(numbers),
        };
        let starts_s = starts.and_utc().timestamp();
        Some(Self {
            days: Days::of(rule),
            unit_s,
            interval_s: i64::from(rule.get_interval()).max(1) * unit_s,
            first_s: starts_s - starts_s.rem_euclid(unit_s),
            hours: named(rule.get_by_hour(), Numbers::ALL),
            minutes: named(rule.get_by_minute(), usual(starts.minute(), MINUTE_S)),
            seconds: named(rule.get_by_second(), usual(starts.second(), 1)),
        })
    }

    /// Hands the moments of a day to `look`, in their order, and `None` for every hour, minute or second that was looked at, until `look` has enough and returns
    /// false. Says whether it had not.
    pub(super) fn follow(
        &self,
        day: NaiveDate,
        mut look: impl FnMut(Option<NaiveDateTime>) -> Result<bool, String>,
    ) -> Result<bool, String> {
        if !self.days.contain(day) {
            return Ok(true);
        }
        let midnight = day.and_time(NaiveTime::MIN);
        // The rule's next hour, minute or second at a time of the day, or after it.
        let next_s = |time_s: i64| {
            let since_first_s = midnight.and_utc().timestamp() + time_s - self.first_s;
            time_s + (-since_first_s).rem_euclid(self.interval_s)
        };
        let mut time_s = next_s(0);
        while time_s < DAY_S {
            if !look(None)? {
                return Ok(false);
            }
            let (hour, minute) = (time_s / HOUR_S, time_s % HOUR_S / MINUTE_S);
            let second = time_s % MINUTE_S;
            // What lies within an hour that is not the rule's is not looked at, nor within a minute.
            let from_s = if !self.hours.contain(hour) {
                self.hours.after(hour, 24) * HOUR_S
            } else if self.unit_s < HOUR_S && !self.minutes.contain(minute) {
                hour * HOUR_S + self.minutes.after(minute, 60) * MINUTE_S
            } else if self.unit_s < MINUTE_S && !self.seconds.contain(second) {
                time_s - second + self.seconds.after(second, 60)
            } else {
                for moment_s in self.within(time_s) {
                    if !look(midnight.checked_add_signed(TimeDelta::seconds(moment_s)))? {
                        return Ok(false);
                    }
                }
                time_s + self.unit_s
            };
            time_s = next_s(from_s);
        }
        Ok(true)
    }

    /// Moments within an hour or a minute; a second is itself one.
    fn within(&self, unit_s: i64) -> impl Iterator<Item = i64> {
        let first = Numbers::of(&[0]);
        let (minutes, seconds) = match self.unit_s {
            HOUR_S => (self.minutes, self.seconds),
            MINUTE_S => (first, self.seconds),
            _ => (first, first),
        };
        let of_minute = move |minute: i64| {
            seconds
                .all()
                .map(move |second| unit_s + minute * MINUTE_S + second)
        };
        minutes.all().flat_map(of_minute)
    }
}

// === impl Days ===

impl Days {
    fn of(rule: &RRule<Unvalidated>) -> Self {
        let weekday = |day: &NWeekday| match day {
            NWeekday::Every(weekday) | NWeekday::Nth(_, weekday) => *weekday,
        };
        Self {
            months: widened(rule.get_by_month()),
            month_days: widened(rule.get_by_month_day()),
            year_days: widened(rule.get_by_year_day()),
            weekdays: rule.get_by_weekday().iter().map(weekday).collect(),
        }
    }

    fn contain(&self, day: NaiveDate) -> bool {
        let is_among = |numbers: &[i64], number: u32, of: u32| {
            let number = i64::from(number);
            let from_end = number - i64::from(of) - 1;
            numbers.is_empty()
                || numbers.binary_search(&number).is_ok()
                || numbers.binary_search(&from_end).is_ok()
        };
        let days_of_year = 365 + u32::from(day.leap_year());
        (self.weekdays.is_empty() || self.weekdays.contains(&day.weekday()))
            && (self.months.is_empty() || self.months.contains(&i64::from(day.month())))
            && is_among(&self.month_days, day.day(), day.num_days_in_month().into())
            && is_among(&self.year_days, day.ordinal(), days_of_year)
    }
}

/// Ascending.
fn widened<T: Copy + Into<i64>>(numbers: &[T]) -> Vec<i64> {
    let mut widened: Vec<i64> = numbers.iter().map(|number| (*number).into()).collect();
    widened.sort_unstable();
    widened.dedup();
    widened
}

// === impl Numbers ===

impl Numbers {
    const ALL: Self = Self(u64::MAX);

    /// Of numbers below 64.
    fn of(numbers: &[u8]) -> Self {
        let bits = numbers.iter().map(|number| 1_u64 << (number % 64));
        Self(bits.fold(0, |all, bit| all | bit))
    }

    fn contain(self, number: i64) -> bool {
        (self.0 >> number.rem_euclid(64)) & 1 == 1
    }

    /// The next one behind a number below 60, or, where there is none, how many there could be.
    fn after(self, number: i64, of: i64) -> i64 {
        let next = number + 1;
        let behind = i64::from((self.0 >> next.rem_euclid(64)).trailing_zeros());
        (next + behind).min(of)
    }

    /// Those of minutes or seconds, ascending.
    fn all(self) -> impl Iterator<Item = i64> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.saturating_sub(1);
            (number < 60).then_some(number.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    /// The first so many occurrences of a rule.
    fn first(rule: &str, starts: &str, count: usize) -> Vec<String> {
        let (rule, starts) = (rule.parse().unwrap(), time(starts));
        let rule = BelowDay::of(&rule, starts).unwrap();
        let (mut found, mut day) = (Vec::new(), starts.date());
        while found.len() < count {
            rule.follow(day, |moment| {
                found.extend(moment.filter(|moment| *moment >= starts));
                Ok(found.len() < count)
            })
            .unwrap();
            day = day.succ_opt().unwrap();
        }
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn days_that_are_not_the_rules_take_nothing_from_those_that_are() {
        let mondays = [
            "2026-01-05 09:00:00",
            "2026-01-12 09:00:00",
            "2026-01-19 09:00:00",
        ];
        for rule in [
            "FREQ=HOURLY;BYDAY=MO;BYHOUR=9",
            "FREQ=MINUTELY;BYDAY=MO;BYHOUR=9;BYMINUTE=0",
            "FREQ=SECONDLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;BYSECOND=0",
        ] {
            assert_eq!(first(rule, "2026-01-05T09:00:00", 3), mondays, "{rule}");
        }
        let of = |rule: &str, count| first(rule, "2026-01-05T09:30:15", count);
        assert_eq!(
            of("FREQ=HOURLY;BYMONTH=2,4;BYMONTHDAY=-1;BYHOUR=23", 2),
            ["2026-02-28 23:30:15", "2026-04-30 23:30:15"]
        );
        assert_eq!(
            of("FREQ=MINUTELY;BYYEARDAY=-1,60;BYHOUR=0;BYMINUTE=59", 4),
            [
                "2026-03-01 00:59:15",
                "2026-12-31 00:59:15",
                "2027-03-01 00:59:15",
                "2027-12-31 00:59:15"
            ]
        );
        assert_eq!(
            of(
                "FREQ=HOURLY;BYDAY=TU;BYHOUR=8,20;BYMINUTE=0,45;BYSECOND=1",
                3
            ),
            [
                "2026-01-06 08:00:01",
                "2026-01-06 08:45:01",
                "2026-01-06 20:00:01"
            ]
        );
    }

    #[test]
    fn an_interval_is_counted_from_the_event_over_all_days() {
        let starts = time("2026-01-05T09:30:15");
        for (rule, step_s, is_asked) in [
            (
                "FREQ=HOURLY;INTERVAL=5;BYDAY=WE",
                5 * 3_600,
                (|at| at.weekday() == Weekday::Wed) as fn(NaiveDateTime) -> bool,
            ),
            ("FREQ=HOURLY;INTERVAL=36;BYHOUR=9", 36 * 3_600, |at| {
                at.hour() == 9
            }),
            (
                "FREQ=MINUTELY;INTERVAL=7;BYHOUR=3;BYMONTHDAY=2,9",
                7 * 60,
                |at| at.hour() == 3 && [2, 9].contains(&at.day()),
            ),
            ("FREQ=SECONDLY;INTERVAL=7;BYMINUTE=59;BYHOUR=23", 7, |at| {
                at.hour() == 23 && at.minute() == 59
            }),
            ("FREQ=SECONDLY;INTERVAL=65535", 65_535, |_| true),
        ] {
            let all = (0_i64..).map(|nth| starts + TimeDelta::seconds(nth * step_s));
            let expected: Vec<String> = all
                .filter(|at| is_asked(*at))
                .take(40)
                .map(|at| at.to_string())
                .collect();
            assert_eq!(first(rule, "2026-01-05T09:30:15", 40), expected, "{rule}");
        }
    }

    #[test]
    fn of_an_hour_that_is_not_the_rules_no_second_is_looked_at() {
        let rule = "FREQ=SECONDLY;BYHOUR=9;BYMINUTE=0;BYSECOND=0"
            .parse()
            .unwrap();
        let starts = time("2026-01-05T09:00:00");
        let rule = BelowDay::of(&rule, starts).unwrap();
        let mut looked_at = 0;
        let all = rule.follow(starts.date(), |moment| {
            looked_at += usize::from(moment.is_none());
            Ok(true)
        });
        assert!(all.unwrap() && looked_at < 10, "{looked_at}");
    }
}
