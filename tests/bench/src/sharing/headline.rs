//! A figure that is published at the top, and what it has to be.
//!
//! What could not be measured is shown as that and keeps no bar. To leave it out would make a bar that nothing was held against look like
//! one that was kept.

use serde_json::Value;

/// Below this part of minutes, whoever is compared with misses too little for that.
const MISSES_MIN: f64 = 0.001;

/// One line.
pub(crate) struct Headline {
    pub(crate) field: &'static str,
    pub(crate) found: Found,
    pub(crate) bar: Bar,
    pub(crate) meaning: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Found {
    Figure(f64),
    /// There are none of what is compared, where others have some: as many times fewer as one likes, and no number.
    None,
    NotMeasured,
}

// === impl Headline ===

impl Headline {
    pub(crate) fn print(&self) {
        println!(
            "  {:36} {:>12}  {} ({})",
            self.field,
            self.found.text(),
            self.meaning,
            self.verdict()
        );
    }

    fn verdict(&self) -> String {
        let (bar, is_kept) = match (self.bar, self.found) {
            (Bar::None, _) => return "no bar".to_owned(),
            (Bar::AtLeast(bar), found) => {
                let is_kept = match found {
                    Found::Figure(value) => value >= bar,
                    Found::None => true,
                    Found::NotMeasured => false,
                };
                (format!(">= {bar}"), is_kept)
            }
            (Bar::AtMost(bar), found) => {
                let is_kept = matches!(found, Found::Figure(value) if value <= bar);
                (format!("<= {bar}"), is_kept)
            }
        };
        let verdict = if is_kept { "kept" } else { "MISSED" };
        format!("bar: {bar}, {verdict}")
    }
}

// === impl Found ===

impl Found {
    /// The lowest of all; one that is missing is not passed over.
    pub(crate) fn least(values: impl Iterator<Item = f64>) -> Self {
        Self::of(values, f64::min)
    }

    /// The highest of all.
    pub(crate) fn most(values: impl Iterator<Item = f64>) -> Self {
        Self::of(values, f64::max)
    }

    fn of(values: impl Iterator<Item = f64>, worse: fn(f64, f64) -> f64) -> Self {
        let worst = values.reduce(|one, other| {
            if one.is_nan() || other.is_nan() {
                f64::NAN
            } else {
                worse(one, other)
            }
        });
        match worst {
            Some(value) if value.is_finite() => Self::Figure(value),
            _ => Self::NotMeasured,
        }
    }

    /// How many times fewer misses the first of each pair has than the second, at the least, where the second has some.
    pub(crate) fn times_fewer(misses: impl Iterator<Item = (f64, f64)>) -> Self {
        // One that is no number is not passed over.
        let times: Vec<f64> = misses
            .filter(|(_, theirs)| theirs.is_nan() || *theirs > MISSES_MIN)
            .map(|(ours, theirs)| theirs / ours)
            .collect();
        if !times.is_empty() && times.iter().all(|times| *times == f64::INFINITY) {
            return Self::None;
        }
        Self::least(times.into_iter())
    }

    pub(crate) fn json(self) -> Value {
        match self {
            Self::Figure(value) => value.into(),
            Self::None | Self::NotMeasured => self.text().into(),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Figure(value) => format!("{value:.5}"),
            Self::None => "none".to_owned(),
            Self::NotMeasured => "not measured".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(found: Found, bar: Bar) -> String {
        Headline {
            field: "",
            found,
            bar,
            meaning: "",
        }
        .verdict()
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_so_and_keeps_no_bar() {
        for values in [vec![], vec![f64::NAN, 1.0], vec![1.0, f64::NAN, 0.5]] {
            let of = || values.iter().copied();
            for found in [Found::least(of()), Found::most(of())] {
                assert_eq!(found, Found::NotMeasured, "{values:?}");
                assert_eq!(found.json(), "not measured");
            }
        }
        for bar in [Bar::AtLeast(0.0), Bar::AtMost(1.0)] {
            assert!(verdict(Found::NotMeasured, bar).ends_with("MISSED"));
            assert!(verdict(Found::Figure(0.5), bar).ends_with("kept"));
        }
        assert_eq!(Found::least([2.0, 1.0].into_iter()), Found::Figure(1.0));
        assert_eq!(Found::most([-2.0, -1.0].into_iter()), Found::Figure(-1.0));
    }

    #[test]
    fn no_misses_are_none_and_no_number_of_times_fewer() {
        let of = |misses: &[(f64, f64)]| Found::times_fewer(misses.iter().copied());
        assert_eq!(of(&[(0.0, 0.01), (0.0, 0.02)]), Found::None);
        assert_eq!(of(&[(0.0, 0.01), (0.005, 0.02)]), Found::Figure(4.0));
        // Who misses next to nothing is no comparison.
        assert_eq!(of(&[(0.0, 0.0), (0.1, 0.0005)]), Found::NotMeasured);
        assert_eq!(of(&[(0.005, 0.02), (f64::NAN, 0.02)]), Found::NotMeasured);
        assert_eq!(of(&[(0.0, f64::NAN), (0.005, 0.02)]), Found::NotMeasured);
        assert!(verdict(Found::None, Bar::AtLeast(20.0)).ends_with("kept"));
    }
}
