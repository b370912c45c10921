//! What the trainer says of a model's trial, checked: it is shown, kept for years, and may let the model run.

use super::lines::{COUNT_MAX, MESSAGE_CHARS_MAX, printable};
use crate::plane::{FoldView, TrialView};

/// More parts of the time than anybody divides it into.
const FOLDS_MAX: usize = 64;
/// An instant, written in full.
const INSTANT_CHARS_MAX: usize = 40;
/// A larger loss is none of forecasts that were of any use.
const LOSS_MAX: f64 = 1e12;

/// What cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum BadTrial {
    #[error("it has {0} folds, more than {FOLDS_MAX}")]
    TooManyFolds(usize),
    #[error("it says that the model wins and names no fold in which")]
    WinsNowhere,
    #[error("it says that the model wins, and why it loses")]
    WinsAndLoses,
    #[error("`{0}` of fold {1} is not from 0 to {2}")]
    OutOfRange(&'static str, usize, f64),
}

/// The trial with its texts bounded.
///
/// # Errors
/// When its numbers are none that a trial has.
pub(super) fn checked(trial: TrialView) -> Result<TrialView, BadTrial> {
    if trial.folds.len() > FOLDS_MAX {
        return Err(BadTrial::TooManyFolds(trial.folds.len()));
    }
    if trial.wins && trial.folds.is_empty() {
        return Err(BadTrial::WinsNowhere);
    }
    if trial.wins && trial.loses_because.is_some() {
        return Err(BadTrial::WinsAndLoses);
    }
    let folds = trial.folds.into_iter().enumerate();
    let folds = folds.map(|(position, fold)| checked_fold(position, fold));
    let loses_because = trial
        .loses_because
        .map(|why| printable(&why, MESSAGE_CHARS_MAX));
    Ok(TrialView {
        wins: trial.wins,
        loses_because,
        folds: folds.collect::<Result<_, _>>()?,
    })
}

fn checked_fold(position: usize, fold: FoldView) -> Result<FoldView, BadTrial> {
    let is_within = |value: f64, most: f64| (0.0..=most).contains(&value);
    for (name, value, most) in [
        ("wql", fold.wql, LOSS_MAX),
        ("wql_without", fold.wql_without, LOSS_MAX),
        ("coverage_90", fold.coverage_90, 1.0),
        ("customers", fold.customers as f64, COUNT_MAX as f64),
    ] {
        if !is_within(value, most) {
            return Err(BadTrial::OutOfRange(name, position, most));
        }
    }
    Ok(FoldView {
        start: printable(&fold.start, INSTANT_CHARS_MAX),
        end: printable(&fold.end, INSTANT_CHARS_MAX),
        ..fold
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold() -> FoldView {
        FoldView {
            start: "2026-03-01T00:00:00Z".to_owned(),
            end: "2026-03-02T00:00:00Z".to_owned(),
            customers: 3,
            wql: 0.1,
            wql_without: 0.2,
            coverage_90: 0.9,
        }
    }

    fn trial(folds: Vec<FoldView>) -> TrialView {
        TrialView {
            wins: true,
            loses_because: None,
            folds,
        }
    }

    #[test]
    fn numbers_that_no_trial_has_are_refused_and_those_that_one_has_are_kept() {
        let good = trial(vec![fold(), fold()]);
        assert_eq!(checked(good.clone()), Ok(good));
        let wrong = |change: fn(&mut FoldView)| {
            let mut second = fold();
            change(&mut second);
            checked(trial(vec![fold(), second])).unwrap_err()
        };
        let out = |name, most| BadTrial::OutOfRange(name, 1, most);
        assert_eq!(wrong(|fold| fold.wql = -0.1), out("wql", LOSS_MAX));
        assert_eq!(wrong(|fold| fold.wql = f64::NAN), out("wql", LOSS_MAX));
        assert_eq!(
            wrong(|fold| fold.wql_without = 1e300),
            out("wql_without", LOSS_MAX)
        );
        assert_eq!(
            wrong(|fold| fold.coverage_90 = 90.0),
            out("coverage_90", 1.0)
        );
        assert_eq!(
            wrong(|fold| fold.customers = u64::MAX),
            out("customers", COUNT_MAX as f64)
        );
        assert_eq!(checked(trial(Vec::new())), Err(BadTrial::WinsNowhere));
        let many = checked(trial(vec![fold(); FOLDS_MAX + 1]));
        assert_eq!(many, Err(BadTrial::TooManyFolds(FOLDS_MAX + 1)));
        let both = TrialView {
            loses_because: Some("too little data".to_owned()),
            ..trial(vec![fold()])
        };
        assert_eq!(checked(both), Err(BadTrial::WinsAndLoses));
    }

    #[test]
    fn texts_are_cut_and_do_nothing_to_a_terminal() {
        let named = FoldView {
            start: "\u{1b}]0;x\u{7}".repeat(1_000),
            ..fold()
        };
        let lost = TrialView {
            wins: false,
            loses_because: Some("\u{1b}[2J".repeat(1_000_000)),
            folds: vec![named],
        };
        let kept = checked(lost).unwrap();
        let why = kept.loses_because.unwrap();
        assert_eq!(why.chars().count(), MESSAGE_CHARS_MAX);
        assert!(!why.contains('\u{1b}'), "{why:?}");
        let start = &kept.folds[0].start;
        assert!(
            start.chars().count() == INSTANT_CHARS_MAX && !start.contains('\u{1b}'),
            "{start:?}"
        );
    }
}
