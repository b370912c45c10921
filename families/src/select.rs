//! Which learned families are worth deploying: only those that make the mixture better on two folds, one after the other, that they have not seen.
//!
//! Simple families are always in. A learned one that wins once has been lucky as often as not, and one that never wins costs CPU for nothing.

use crate::events::Foresight;
use crate::mixture::{MixtureSettings, mix};
use crate::parallel::in_parallel;
use crate::{Family, Forecasts, Frame, History, Learner, Priors, QUANTILES, SIMPLE, pinball};
use std::ops::Range;

/// A learned family must lower the loss of the mixture of those that are in already by this part, on each fold.
const MARGIN: f64 = 0.01;
/// A fold has no more steps than this, and no fewer than a season or so many horizons, as far as a quarter of the history allows.
const FOLD_STEPS_MAX: usize = 1_440;
const FOLD_HORIZONS: usize = 4;

/// A learned family in the race.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrant {
    /// Its name.
    pub name: &'static str,
    /// By which part it has lowered the mixture's loss on each fold.
    pub gains: [f64; 2],
    /// Whether that was enough.
    pub is_deployed: bool,
}

/// What a race has shown, and all forecasts from the beginning of its first fold.
#[derive(Debug)]
pub struct Race {
    /// Names of all families, simple ones first.
    pub names: Vec<&'static str>,
    /// `[customer][family]`. Those of a learned family are made by what was learned before the fold or the test that they lie in.
    pub forecasts: Vec<Vec<Option<Forecasts>>>,
    /// The learned families.
    pub entrants: Vec<Entrant>,
    /// `[customer]`: the mixture of all that is deployed, from the beginning of the test on.
    pub deployed: Vec<Option<Forecasts>>,
}

/// Lets families forecast from two folds before the step where each customer's test begins to the end of its history, chooses among the learned ones
/// by the folds, and mixes what is deployed. Nothing at or after a test's beginning is learned from, but by the mixture, as time goes on.
#[must_use]
pub fn race(
    histories: &[History],
    frame: &Frame,
    test_starts: &[usize],
    learners: &[&dyn Learner],
    settings: &MixtureSettings,
) -> Race {
    let folds: Vec<usize> = test_starts
        .iter()
        .map(|start| fold_steps(frame, *start))
        .collect();
    // Where the part `part` begins: the first fold, the second one, the test, the end.
    let begins = |customer: usize, part: usize| match part {
        0..=2 => test_starts[customer] - (2 - part) * folds[customer],
        _ => histories[customer].len(),
    };
    // What may be learned for a part ends for all customers when the first of them begins it, by the clock: the others' later demand is the future, too.
    let ends = |part: usize| -> Vec<usize> {
        let stamp = |(i, history): (usize, &History)| history.stamp_s(begins(i, part));
        let first_s = histories.iter().enumerate().map(stamp).min().unwrap_or(0);
        let end =
            |(i, history): (usize, &History)| history.steps_before(first_s).min(begins(i, part));
        histories.iter().enumerate().map(end).collect()
    };
    let test_ends = ends(2);

    let foresights: Vec<Foresight<'_>> = histories
        .iter()
        .map(|history| Foresight::new(history, frame))
        .collect();
    let mut names: Vec<&'static str> = SIMPLE.iter().map(Family::name).collect();
    let mut forecasts = in_parallel(histories, |customer, history| {
        let origins = begins(customer, 0)..=history.len() - 1;
        SIMPLE
            .iter()
            .map(|family| foresights[customer].forecast(family, origins.clone()))
            .collect::<Vec<_>>()
    });
    let mut entrants = Vec::new();
    for learner in learners {
        let parts: Option<Vec<_>> = (0..3)
            .map(|part| {
                let ends = ends(part);
                let cleaned = in_parallel(histories, |customer, _| {
                    foresights[customer].cleaned(ends[customer])
                });
                let family = learner.learn(&cleaned, &ends, frame)?;
                Some(in_parallel(histories, |customer, _| {
                    let origins = begins(customer, part)..=begins(customer, part + 1) - 1;
                    foresights[customer].forecast(family.as_ref(), origins)
                }))
            })
            .collect();
        let Some(parts) = parts else { continue };
        let joined = join(parts);
        let without = deployed_of(&forecasts, &names, &entrants);
        let mut with = without.clone();
        for (of, added) in with.iter_mut().zip(&joined) {
            of.push(added.as_ref());
        }
        let losses = |families: &[Vec<Option<&Forecasts>>]| {
            let mixed = in_parallel(histories, |customer, history| {
                mix(
                    history,
                    frame,
                    &families[customer],
                    &Priors::equal(),
                    settings,
                )
            });
            [0, 1].map(|fold| {
                let span = |customer: usize| {
                    begins(customer, fold)..begins(customer, fold + 1).min(test_ends[customer])
                };
                pooled_loss(histories, frame, &mixed, span)
            })
        };
        let (before, after) = (losses(&without), losses(&with));
        let gains = [0, 1].map(|fold| 1.0 - after[fold] / before[fold]);
        entrants.push(Entrant {
            name: learner.name(),
            gains,
            is_deployed: gains.iter().all(|gain| *gain >= MARGIN),
        });
        names.push(learner.name());
        for (of, added) in forecasts.iter_mut().zip(joined) {
            of.push(added);
        }
    }

    let chosen = deployed_of(&forecasts, &names, &entrants);
    let priors = Priors::learned(histories, frame, &chosen, &test_ends);
    let deployed = in_parallel(histories, |customer, history| {
        let mixed = mix(history, frame, &chosen[customer], &priors, settings)?;
        Some(mixed.since(test_starts[customer]))
    });
    Race {
        names,
        forecasts,
        entrants,
        deployed,
    }
}

/// `[customer][family]`: those of simple families, and of learned ones that are deployed.
fn deployed_of<'a>(
    forecasts: &'a [Vec<Option<Forecasts>>],
    names: &[&'static str],
    entrants: &[Entrant],
) -> Vec<Vec<Option<&'a Forecasts>>> {
    let is_in = |name: &&'static str| {
        let entrant = entrants.iter().find(|entrant| entrant.name == *name);
        entrant.is_none_or(|entrant| entrant.is_deployed)
    };
    let of_customer = |of: &'a Vec<Option<Forecasts>>| {
        let named = names.iter().zip(of).filter(|(name, _)| is_in(name));
        named.map(|(_, forecasts)| forecasts.as_ref()).collect()
    };
    forecasts.iter().map(of_customer).collect()
}

/// Steps of a fold before a test that begins at `start`.
fn fold_steps(frame: &Frame, start: usize) -> usize {
    let wanted = frame.season.max(FOLD_HORIZONS * frame.horizons);
    wanted.min(start / 4).min(FOLD_STEPS_MAX)
}

/// Forecasts of successive parts, `[part][customer]`, as one table for each customer; `None` where any part has none.
fn join(parts: Vec<Vec<Option<Forecasts>>>) -> Vec<Option<Forecasts>> {
    let mut parts = parts.into_iter();
    let mut joined = parts.next().unwrap_or_default();
    for part in parts {
        for (before, after) in joined.iter_mut().zip(part) {
            match (before.as_mut(), after) {
                (Some(before), Some(after)) => before.append(&after),
                _ => *before = None,
            }
        }
    }
    joined
}

/// Pinball loss of all customers' forecasts from the ends of these steps, as far as their outcomes lie in there too, over their demand.
fn pooled_loss(
    histories: &[History],
    frame: &Frame,
    mixed: &[Option<Forecasts>],
    span: impl Fn(usize) -> Range<usize>,
) -> f64 {
    let (mut loss, mut demand) = (0.0, 0.0);
    for (customer, (history, forecasts)) in histories.iter().zip(mixed).enumerate() {
        let Some(forecasts) = forecasts else { continue };
        let Range { start, end } = span(customer);
        for origin in start..end {
            for horizon in 1..=frame.horizons.min(end - 1 - origin) {
                let actual = history.known()[origin + horizon];
                let row = forecasts.of(origin, horizon);
                if actual.is_nan() || row[0].is_nan() {
                    continue;
                }
                let losses = QUANTILES.iter().zip(row);
                loss += losses
                    .map(|(level, value)| pinball(*level, f64::from(*value), actual))
                    .sum::<f64>();
                demand += actual;
            }
        }
    }
    loss / demand
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Agenda, Arima, Boosting, BoostingWithCovariates, Event, RidgeRegression,
        RidgeWithCovariates,
    };
    use proptest::prelude::*;
    use std::ops::RangeInclusive;
    use std::sync::Arc;

    fn frame() -> Frame {
        Frame {
            season: 24,
            long_season: Some(72),
            horizons: 4,
            error_rows: 48,
        }
    }

    /// Three customers with a daily shape, noise, and a drift of the level.
    fn histories(seed: u64) -> Vec<History> {
        let noise = |i: u64| {
            (i.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64
                / (1 << 24) as f64
        };
        (1..4_u64)
            .map(|customer| {
                let values = (0..480_u64).map(|i| {
                    let day = (i % 24) as f64 / 24.0 * std::f64::consts::TAU;
                    let level = 10.0 * customer as f64 * (1.0 + i as f64 / 480.0);
                    level * (1.5 + day.sin()) * (0.8 + 0.4 * noise(1_000 * customer + i))
                });
                History::new(0, 3_600, values.collect())
            })
            .collect()
    }

    fn run(histories: &[History], learners: &[&dyn Learner]) -> Race {
        let starts = vec![340; histories.len()];
        race(
            histories,
            &frame(),
            &starts,
            learners,
            &MixtureSettings::default(),
        )
    }

    /// Every other day at another hour.
    fn sales() -> Vec<Event> {
        let starts = (1..10_i64).map(|nth| (48 * nth + 7 * nth % 24) * 3_600);
        starts
            .map(|starts_s| Event::new("sale", starts_s, starts_s + 4 * 3_600))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        /// Whatever comes after a step, no forecast from it moves: not of any family, and not of what is deployed.
        #[test]
        fn the_future_moves_no_forecast(seed in 0..1_000_u64, cut in 345..470_usize, factor in 0.0..50.0_f64) {
            let known: Vec<History> = histories(seed)
                .into_iter()
                .map(|history| {
                    // That of five steps ahead, which is no look into the future for who is told of it now.
                    let ahead = history.known()[5..].iter().chain(&[f64::NAN; 5]);
                    let covariates = Arc::new(vec![ahead.map(|value| value.sqrt()).collect()]);
                    let history = history.with_covariates(covariates);
                    history.with_agenda(Arc::new(Agenda::new(sales())))
                })
                .collect();
            let learners: [&dyn Learner; 5] = [&Boosting, &BoostingWithCovariates, &RidgeRegression, &RidgeWithCovariates, &Arima];
            let other: Vec<History> = known
                .iter()
                .map(|history| {
                    let mut values = history.known().to_vec();
                    values[cut + 1..].iter_mut().for_each(|value| *value = factor * *value + 3.0);
                    let mut covariates = history.covariates().to_vec();
                    covariates[0][cut + 1..].iter_mut().for_each(|value| *value = factor + 9.0);
                    let history = History::new(0, 3_600, values).with_covariates(Arc::new(covariates));
                    // What only became known later, although it was before, and is to come.
                    let known_s = Some(history.stamp_s(cut + 1) + 1);
                    let late = [cut as i64 - 90, cut as i64 + 1].map(|step| Event {
                        known_s,
                        factor: Some(3.0),
                        ..Event::new("sale", step * 3_600, (step + 5) * 3_600)
                    });
                    history.with_agenda(Arc::new(Agenda::new(sales().into_iter().chain(late))))
                })
                .collect();
            let (before, after) = (run(&known, &learners), run(&other, &learners));
            prop_assert_eq!(&before.entrants, &after.entrants);
            for customer in 0..known.len() {
                let both = before.forecasts[customer].iter().zip(&after.forecasts[customer]);
                for (a, b) in both.chain([(&before.deployed[customer], &after.deployed[customer])]) {
                    prop_assert_eq!(a.is_some(), b.is_some());
                    let (Some(a), Some(b)) = (a, b) else { continue };
                    let begin = *a.origins().start();
                    for origin in begin..=cut {
                        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                        prop_assert_eq!(bits(a.from(origin)), bits(b.from(origin)), "from {}", origin);
                    }
                }
            }
        }
    }

    /// A family that always forecasts the same, whatever it is asked.
    #[derive(Debug)]
    struct Stubborn;

    impl Family for Stubborn {
        fn name(&self) -> &'static str {
            "stubborn"
        }

        fn forecast(
            &self,
            _: &History,
            frame: &Frame,
            origins: RangeInclusive<usize>,
        ) -> Option<Forecasts> {
            let mut forecasts = Forecasts::none(&origins, frame.horizons);
            for origin in origins {
                forecasts.from_mut(origin).fill(1e6);
            }
            Some(forecasts)
        }
    }

    impl Learner for Stubborn {
        fn name(&self) -> &'static str {
            "stubborn"
        }

        fn learn(&self, _: &[History], _: &[usize], _: &Frame) -> Option<Box<dyn Family>> {
            Some(Box::new(Self))
        }
    }

    #[test]
    fn a_family_that_helps_on_both_folds_is_deployed_and_one_that_does_not_is_not() {
        let race = run(&histories(7), &[&Boosting, &Stubborn]);
        let deployed: Vec<(&str, bool)> = race
            .entrants
            .iter()
            .map(|entrant| (entrant.name, entrant.is_deployed))
            .collect();
        assert_eq!(
            deployed,
            [("boosted", true), ("stubborn", false)],
            "{:?}",
            race.entrants
        );
        let without = run(&histories(7), &[&Boosting]);
        assert_eq!(race.deployed, without.deployed);
    }

    /// Learns well until the second fold, and nonsense from then on.
    #[derive(Debug)]
    struct Lucky;

    impl Learner for Lucky {
        fn name(&self) -> &'static str {
            "lucky"
        }

        fn learn(
            &self,
            histories: &[History],
            ends: &[usize],
            frame: &Frame,
        ) -> Option<Box<dyn Family>> {
            let second_fold = 340 - fold_steps(frame, 340);
            if ends[0] < second_fold {
                return Boosting.learn(histories, ends, frame);
            }
            Some(Box::new(Stubborn))
        }
    }

    #[test]
    fn a_family_that_helps_on_one_fold_only_is_not_deployed() {
        let race = run(&histories(7), &[&Lucky]);
        let [lucky] = race.entrants.as_slice() else {
            panic!("{:?}", race.entrants);
        };
        assert!(
            lucky.gains[0] >= MARGIN && lucky.gains[1] < MARGIN,
            "{lucky:?}"
        );
        assert!(!lucky.is_deployed);
    }

    #[test]
    fn the_same_histories_give_the_same_forecasts() {
        let histories = histories(3);
        let bits = |race: &Race| format!("{:?} {:?}", race.forecasts, race.deployed);
        let learners: [&dyn Learner; 5] = [
            &Boosting,
            &BoostingWithCovariates,
            &RidgeRegression,
            &RidgeWithCovariates,
            &Arima,
        ];
        assert_eq!(
            bits(&run(&histories, &learners)),
            bits(&run(&histories, &learners))
        );
    }
}
