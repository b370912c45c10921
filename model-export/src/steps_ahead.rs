//! How far ahead is forecast, as people say it: in steps, or as a time, which is another number of steps for each length of them.

use serde::Deserialize;

/// Most steps ahead: a week of steps of five minutes.
pub(crate) const STEPS_AHEAD_MAX: usize = 2_016;
/// A time is only scored where the test span is so many times as long: with less, all forecasts would begin within a moment.
const TEST_SPAN_MIN: f64 = 1.5;
const UNITS_S: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', 86_400),
    ('w', 604_800),
];

/// Steps ahead that are reported.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "steps ahead must be numbers of steps, or times such as \"12h\", \"1d\" or \"1w\""
)]
pub(crate) enum Ahead {
    Steps(usize),
    Time(String),
}

// === impl Ahead ===

impl Ahead {
    /// What is wrong with it, whatever the steps are.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Steps(steps) if !(1..=STEPS_AHEAD_MAX).contains(steps) => Err(format!(
                "`horizons` must be steps from 1 to {STEPS_AHEAD_MAX}, or times such as \"1d\""
            )),
            Self::Time(text) if seconds(text).is_none() => Err(format!(
                "`horizons`: {text:?} is no time; it must be like \"12h\", \"1d\" or \"1w\""
            )),
            _ => Ok(()),
        }
    }

    /// As steps of a file whose longest test span has `test_steps`; else why it is not scored there. A number of steps is somebody's word that it can be.
    pub(crate) fn steps(&self, step_s: usize, test_steps: usize) -> Result<usize, String> {
        let text = match self {
            Self::Steps(steps) => return Ok(*steps),
            Self::Time(text) => text,
        };
        let ahead_s = seconds(text).unwrap_or(0);
        let step_s = step_s as u64;
        if ahead_s < step_s || !ahead_s.is_multiple_of(step_s) {
            return Err(format!("{text} is no whole number of steps of {step_s} s"));
        }
        let steps = usize::try_from(ahead_s / step_s).unwrap_or(usize::MAX);
        if steps > STEPS_AHEAD_MAX {
            return Err(format!(
                "{text} is {steps} steps, and {STEPS_AHEAD_MAX} at most are forecast; say a longer `step_s`"
            ));
        }
        let needed = steps as f64 * TEST_SPAN_MIN;
        match (test_steps as f64) < needed {
            true => Err(format!(
                "{text} is {steps} steps, and a test span of {needed:.0} is needed, of which there are {test_steps}"
            )),
            false => Ok(steps),
        }
    }
}

fn seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let (_, unit_s) = UNITS_S.iter().find(|(name, _)| *name == unit)?;
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    count.checked_mul(*unit_s).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Ahead {
        Ahead::Time(text.into())
    }

    #[test]
    fn a_time_is_another_number_of_steps_for_each_length() {
        assert_eq!(time("1d").steps(3_600, 100), Ok(24));
        assert_eq!(time("1w").steps(3_600, 252), Ok(168));
        assert_eq!(time("1d").steps(600, 1_000), Ok(144));
        assert_eq!(time("90m").steps(300, 1_000), Ok(18));
        assert_eq!(Ahead::Steps(7).steps(300, 1), Ok(7));
    }

    #[test]
    fn what_cannot_be_scored_is_said() {
        for (text, step_s, test_steps, says) in [
            ("1w", 3_600, 251, "of which there are 251"),
            ("1w", 60, 1_000_000, "a longer `step_s`"),
            ("1d", 7_000, 1_000, "no whole number of steps"),
            ("1h", 86_400, 1_000, "no whole number of steps"),
        ] {
            let reason = time(text).steps(step_s, test_steps).unwrap_err();
            assert!(reason.contains(says), "{says}: {reason}");
        }
        for text in [
            "",
            "d",
            "1",
            "1y",
            "-1d",
            "0h",
            "1.5d",
            "99999999999999999999w",
            "1é",
        ] {
            assert!(time(text).check().is_err(), "{text}");
        }
        assert!(Ahead::Steps(0).check().is_err());
        assert_eq!(time("1w").check(), Ok(()));
    }
}
