//! Training on a prepared data set, and the trial that says whether the model earns its place.
//!
//! What was tested is what is released: the model learns from the first four fifths of the time, and is judged on two halves of the rest, which
//! it has not seen, inside the gateway's own ensemble. A model that learns from everything afterwards would be fresher by a few days, and
//! nobody would have tested it.

use std::path::Path;

use forebay_forecast::{Limits, Model, TrackSettings};
use forebay_traces::{ReadOptions, Series, read};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::fit::Data;
use crate::prepare::{PreparedFolder, PreparedResource};
use crate::recipe::Recipe;
use crate::replay::{BATCH_ROWS, in_parallel, methods};
use crate::scoring::{self, Cut, Score};
use crate::stamp::rfc3339;

/// Of the model that is learned from it.
pub(crate) const NAME: &str = "prepared";
/// What outliers are clipped to: nothing is to be learned from them.
const LEARNED: &str = "amount";
/// What happened: a forecast that missed it loses by all of it.
const JUDGED: &str = "recorded";

/// Last share of the time that the model does not see.
const TRIAL_SHARE: f64 = 0.2;
/// Parts of it that are judged each by itself.
const FOLDS: usize = 2;
/// Origins of a customer in a fold.
const ORIGINS: usize = 200;
/// With the network the ensemble's loss must be at most this part of what it is without, in each fold.
const WINS_BELOW: f64 = 0.98;
/// Steps ahead that are judged: gateways forecast the step that is running.
const JUDGED_STEPS: usize = 1;
/// Fewest steps of a season: forecasts of the steps ahead look at the season before.
const SEASON_STEPS_MIN: usize = 2;

/// A prepared resource that is learned from.
pub(crate) struct Retraining {
    pub(crate) recipe: Recipe,
    pub(crate) data: Data,
    judged: Vec<Series>,
    degraded_because: Option<String>,
}

/// How the model fared on what it had not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trial {
    /// One after the other.
    pub(crate) folds: Vec<Fold>,
    /// It won in each fold by the margin, and the data set is not degraded.
    pub(crate) wins: bool,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loses_because: Option<String>,
}

/// A part of the time after training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fold {
    pub(crate) start: String,
    pub(crate) end: String,
    pub(crate) customers: usize,
    pub(crate) points: usize,
    /// Weighted quantile loss of the gateway's ensemble with the network.
    pub(crate) wql: f64,
    /// And without it.
    pub(crate) wql_without: f64,
    /// Share of steps at or below the 0.9 quantile, with the network.
    pub(crate) coverage_90: f64,
}

// === impl Retraining ===

impl Retraining {
    /// Reads a resource of a prepared data set; it may be left out where there is one.
    pub(crate) fn open(set: &Path, resource: Option<&str>) -> Result<Self, TrainError> {
        let refused = |reason: String| TrainError::Data {
            path: set.to_owned(),
            reason,
        };
        let prepared = PreparedFolder::open(set)?.ok_or_else(|| {
            refused(
                "no prepared data set: `forebay-train prepare FILE... --out DIR` makes one".into(),
            )
        })?;
        let names: Vec<&str> = prepared
            .resources()
            .map(|(name, _)| name.as_str())
            .collect();
        let (name, about) = match (resource, names.as_slice()) {
            (None, [_]) => prepared.resources().next(),
            (Some(wanted), _) => prepared.resources().find(|(name, _)| *name == wanted),
            (None, _) => None,
        }
        .ok_or_else(|| {
            refused(format!(
                "name one of its resources with --resource: {}",
                names.join(", ")
            ))
        })?;
        if about.season < SEASON_STEPS_MIN {
            return Err(refused(format!(
                "{name} is too short to learn from: a season, such as a day, must be seen four times"
            )));
        }
        let path = set.join(format!("{name}.parquet"));
        let column = |column: &str| -> Result<Vec<Series>, TrainError> {
            aligned(read(&path, &ReadOptions::value(column))?).map_err(&refused)
        };
        Ok(Self {
            recipe: recipe(about),
            data: Data {
                series: column(LEARNED)?,
                source: format!("prepared usage of {name}"),
                sha256: prepared.digest().to_owned(),
            },
            judged: column(JUDGED)?,
            degraded_because: about.degraded_because.clone(),
        })
    }

    /// Lets the model forecast what comes after its training. `out` is only named in errors.
    pub(crate) fn trial(&self, bytes: &[u8], out: &Path) -> Result<Trial, TrainError> {
        let folds = (0..FOLDS)
            .map(|fold| self.fold(fold, bytes, out))
            .collect::<Result<Vec<_>, _>>()?;
        let loses_because = self.loses_because(&folds);
        Ok(Trial {
            folds: folds.into_iter().flatten().collect(),
            wins: loses_because.is_none(),
            loses_because,
        })
    }

    fn loses_because(&self, folds: &[Option<Fold>]) -> Option<String> {
        if let Some(why) = &self.degraded_because {
            return Some(why.clone());
        }
        folds.iter().find_map(|fold| match fold {
            None => Some("nobody was active for long enough to be judged".to_owned()),
            Some(fold) if fold.wql <= WINS_BELOW * fold.wql_without => None,
            Some(fold) => Some(format!(
                "from {} to {} the loss is {:.4} with it and {:.4} without, and {WINS_BELOW} of that was asked for",
                fold.start, fold.end, fold.wql, fold.wql_without
            )),
        })
    }

    /// `None` where nobody can be judged.
    fn fold(&self, fold: usize, bytes: &[u8], out: &Path) -> Result<Option<Fold>, TrainError> {
        let Some(first) = self.judged.first() else {
            return Ok(None);
        };
        let len = first.len();
        let border = |part: usize| {
            let share = 1.0 - TRIAL_SHARE * (1.0 - part as f64 / FOLDS as f64);
            (len as f64 * share) as usize
        };
        let (from, to) = (border(fold), border(fold + 1));
        let cut = Cut {
            test_share: (to - from) as f64 / to.max(1) as f64,
            origins: ORIGINS,
            ..self.recipe.cut()
        };
        let until = |one: &Series| Series {
            values: one.values[..to].to_vec(),
            ..one.clone()
        };
        let scored = scoring::select(&cut, self.judged.iter().map(until).collect());
        let failed = |source| TrainError::Model {
            path: out.to_owned(),
            source,
        };
        let load = || Model::load(bytes, &Limits::default(), BATCH_ROWS);
        let settings = TrackSettings {
            // A gateway hears a step late what the others have used.
            late_steps: 1,
            ..TrackSettings::for_model(load().map_err(failed)?.spec())
        };
        let forecasts = in_parallel(&scored, load, |model, one| {
            methods::forecast(&self.recipe, one, model, &settings)
        })
        .map_err(failed)?;
        let with = scoring::score(&cut, &scored, JUDGED_STEPS, |customer, origin, step| {
            Some(forecasts[customer].ensemble[origin].horizon(step))
        });
        let without = scoring::score(&cut, &scored, JUDGED_STEPS, |customer, origin, step| {
            Some(forecasts[customer].ensemble_without[origin].horizon(step))
        });
        // Where nothing was used at any origin there is nothing to divide by.
        let is_judged =
            |(with, without): &(Score, Score)| with.wql.is_finite() && without.wql.is_finite();
        Ok(with
            .zip(without)
            .filter(is_judged)
            .map(|(with, without)| Fold {
                start: rfc3339(first.stamp_s(from)),
                end: rfc3339(first.stamp_s(to)),
                customers: with.tenants,
                points: with.points,
                wql: with.wql,
                wql_without: without.wql,
                coverage_90: with.coverage[2],
            }))
    }
}

/// How a resource is learned from: the network that gateways run, with the resource's steps and season.
fn recipe(about: &PreparedResource) -> Recipe {
    let edge = Recipe::edge();
    Recipe {
        name: NAME.into(),
        file: String::new(),
        model: String::new(),
        value: LEARNED.into(),
        season_steps: about.season,
        test_share: TRIAL_SHARE,
        error_rows: about.season.clamp(edge.season_steps, 1_440),
        ..edge
    }
}

/// All series over one span, that of all together, so that one instant divides them all into what is learned and what is judged; where a series has
/// not begun, or has ended, are gaps.
fn aligned(mut series: Vec<Series>) -> Result<Vec<Series>, String> {
    let start_s = series.iter().map(|one| one.start_s).min().unwrap_or(0);
    let end_s = series
        .iter()
        .map(|one| one.stamp_s(one.len()))
        .max()
        .unwrap_or(0);
    let step_s = series.first().map_or(1, |one| i64::from(one.step_s));
    let steps = usize::try_from((end_s - start_s) / step_s).unwrap_or(0);
    if steps.saturating_mul(series.len()) > crate::prepare::STEPS_MAX as usize {
        return Err(format!(
            "{} customers over {steps} steps are more than {} steps in all: prepare fewer of them, or a shorter time",
            series.len(),
            crate::prepare::STEPS_MAX
        ));
    }
    for one in &mut series {
        let before = usize::try_from((one.start_s - start_s) / step_s).unwrap_or(0);
        let mut values = vec![f64::NAN; before];
        values.append(&mut one.values);
        values.resize(steps, f64::NAN);
        (one.start_s, one.values) = (start_s, values);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(start_s: i64, values: &[f64]) -> Series {
        Series {
            tenant: "a".into(),
            start_s,
            step_s: 60,
            values: values.to_vec(),
        }
    }

    #[test]
    fn one_instant_divides_all_series_wherever_they_begin_and_end() {
        let found = aligned(vec![series(120, &[1.0, 2.0, 3.0]), series(0, &[4.0])]).unwrap();
        let known = |one: &Series| -> Vec<Option<f64>> {
            let values = one.values.iter();
            values
                .map(|value| (!value.is_nan()).then_some(*value))
                .collect()
        };
        assert_eq!(
            known(&found[0]),
            [None, None, Some(1.0), Some(2.0), Some(3.0)]
        );
        assert_eq!(known(&found[1]), [Some(4.0), None, None, None, None]);
        assert!(found.iter().all(|one| one.start_s == 0));
    }

    fn fold(wql: f64, wql_without: f64) -> Option<Fold> {
        Some(Fold {
            start: "a".into(),
            end: "b".into(),
            customers: 1,
            points: 1,
            wql,
            wql_without,
            coverage_90: 0.9,
        })
    }

    #[test]
    fn a_model_must_win_in_each_fold_by_the_margin_and_on_enough_data() {
        let retraining = |degraded: Option<&str>| Retraining {
            recipe: Recipe::generated(),
            data: Data {
                series: Vec::new(),
                source: String::new(),
                sha256: String::new(),
            },
            judged: Vec::new(),
            degraded_because: degraded.map(str::to_owned),
        };
        let loses = |folds: &[Option<Fold>]| retraining(None).loses_because(folds).is_some();
        assert!(!loses(&[fold(0.9, 1.0), fold(0.98, 1.0)]));
        assert!(loses(&[fold(0.9, 1.0), fold(0.99, 1.0)]));
        assert!(loses(&[fold(0.99, 1.0), fold(0.5, 1.0)]));
        assert!(loses(&[fold(f64::NAN, 1.0), fold(0.5, 1.0)]));
        assert!(loses(&[fold(0.5, 1.0), None]));
        let why = retraining(Some("3 days")).loses_because(&[fold(0.5, 1.0), fold(0.5, 1.0)]);
        assert_eq!(why.as_deref(), Some("3 days"));
    }
}
