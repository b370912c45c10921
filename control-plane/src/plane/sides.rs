//! The two sides of a comparison: what gateways report of one round, added up so that among several of a side no single one decides.
//!
//! Each resource is compared by itself, in its own unit: one that counts in bytes would drown one that counts in requests in a common sum. The
//! loss of a side in a resource is one ratio of sums. A mean of the gateways' ratios was worse: the gateway with the least usage decided, and one
//! that used nothing fell out, which chooses by the outcome. All gateways forecast the same usage, so what they report is alike, and
//! each is held against the typical one of both sides: medians, which nobody can move alone where there are three or more. A resource counts
//! where the typical gateway has used it, and where most have been there since its comparison began, so nobody can bring in one of its own.
//!
//! Gateways of older versions say one sum over all resources. Where that is what most of a side say, both sides are compared by it.

use super::canary::Lack;
use super::challenger::Missing;
use super::score::{Anew, PARTS, Part, Score};
use crate::models::Pair;
use forebay_alerts::{Losses, Sums as TypicalSums};
use std::ops::Range;

/// Largest loss per unit of usage that is believed: forecasts ten million times too high.
const LOSS_PER_USAGE_MOST: f64 = 1e6;

/// A gateway weighs at most as much as so many typical ones.
const WEIGHT_MOST: f64 = 2.0;

/// What has matured at a gateway in a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub is_canary: bool,
    pub score: Score,
}

/// The medians of all reports.
#[derive(Clone, Copy, Debug)]
struct Typical {
    /// Which of the parts are looked at: those of most reports.
    said: [bool; PARTS],
    matured: f64,
    parts: [Part; PARTS],
}

/// How much of a gateway's sums counts: one number for those of a resource, so that their ratio stays as it is.
#[derive(Clone, Copy, Debug)]
struct Weights {
    counts: f64,
    parts: [f64; PARTS],
}

/// Weighted sums of a side.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    gateways: u32,
    matured: f64,
    covered: f64,
    /// `None` where no gateway takes part.
    parts: [Option<Part>; PARTS],
}

/// What both sides have shown in a round, or what a comparison lacks; and what begins anew.
pub(super) fn compare(reports: &[Report]) -> (Result<Pair, Lack>, Anew) {
    let scores = |is_canary: bool| {
        let of_side = reports.iter().filter(move |one| one.is_canary == is_canary);
        of_side.map(|report| &report.score)
    };
    let is_by_resource = are_by_resource(scores(true)) && are_by_resource(scores(false));
    let all = reports.iter().map(|report| &report.score);
    let typical = Typical::of(all, is_by_resource);
    let side = |is_canary: bool| {
        let mut sums = Sums::default();
        for score in scores(is_canary).filter(|score| typical.believes(score)) {
            sums.add(score, &typical.weights(score));
        }
        (sums.gateways > 0).then_some(sums)
    };
    let Some(canaries) = side(true) else {
        return (Err(Lack::Canaries), Anew::ALL);
    };
    let Some(others) = side(false) else {
        return (Err(Lack::Others), Anew::ALL);
    };
    let (pair, anew) = typical.pair(&canaries, &others);
    (pair.ok_or(Lack::Usage), anew)
}

/// The same for two models of which each gateway reports both. One weight for both of them: what a gateway says of one model must not
/// count more than what it says of the other.
pub(super) fn compare_beside(reports: &[(Score, Score)]) -> (Result<Pair, Missing>, Anew) {
    let both = || {
        let each = reports.iter();
        each.flat_map(|(challenger, champion)| [challenger, champion])
    };
    let typical = Typical::of(both(), are_by_resource(both()));
    let (mut challengers, mut champions) = (Sums::default(), Sums::default());
    for (challenger, champion) in reports {
        if typical.believes(challenger) && typical.believes(champion) {
            let weights = typical
                .weights(challenger)
                .lower(&typical.weights(champion));
            challengers.add(challenger, &weights);
            champions.add(champion, &weights);
        }
    }
    if challengers.gateways == 0 {
        return (Err(Missing::Gateways), Anew::ALL);
    }
    let (pair, anew) = typical.pair(&challengers, &champions);
    (pair.ok_or(Missing::Usage), anew)
}

/// Whether most of them tell resources apart.
pub(super) fn are_by_resource<'a>(scores: impl Iterator<Item = &'a Score>) -> bool {
    let (mut all, mut by_resource) = (0_usize, 0_usize);
    for score in scores {
        all = all.saturating_add(1);
        by_resource = by_resource.saturating_add(usize::from(score.is_by_resource()));
    }
    by_resource.saturating_mul(2) > all
}

/// What a gateway says to those who watch it, by resource or in one sum as the others say it.
pub(super) fn sums_of(score: &Score, is_by_resource: bool) -> Option<TypicalSums> {
    let mut sums = TypicalSums {
        matured: score.count(),
        covered: score.count() * score.coverage(),
        ..TypicalSums::default()
    };
    let said = score.parts().get(said_in(is_by_resource))?;
    for (losses, part) in sums.losses.iter_mut().zip(said) {
        let Part { loss, usage } = (*part)?;
        *losses = Losses { loss, usage };
    }
    Some(sums)
}

/// What has matured at the typical gateway: the mean, in which no gateway weighs more than two typical ones. `None` without one.
pub(super) fn typical(scores: &[Score]) -> Option<TypicalSums> {
    let is_by_resource = are_by_resource(scores.iter());
    let speaks_so = |score: &&Score| !is_by_resource || score.is_by_resource();
    let typical = Typical::of(scores.iter().filter(speaks_so), is_by_resource);
    let mut sums = Sums::default();
    let believed = |score: &&Score| typical.believes(score);
    for score in scores.iter().filter(speaks_so).filter(believed) {
        sums.add(score, &typical.weights(score));
    }
    let gateways = f64::from(sums.gateways);
    if sums.gateways == 0 {
        return None;
    }
    let mut means = TypicalSums {
        matured: sums.matured / gateways,
        covered: sums.covered / gateways,
        ..TypicalSums::default()
    };
    let said = said_in(is_by_resource);
    let parts = sums.parts.iter().zip(&typical.parts);
    let parts = parts.skip(said.start).take(said.len());
    for (mean, (part, median)) in means.losses.iter_mut().zip(parts) {
        let Part { loss, usage } = part.unwrap_or_default();
        *mean = match median.usage > 0.0 {
            true => Losses {
                loss: loss / gateways,
                usage: usage / gateways,
            },
            // Where the typical gateway has seen no usage, a mean would be whatever somebody has made up.
            false => Losses {
                loss: median.loss,
                usage: 0.0,
            },
        };
    }
    Some(means)
}

/// Where it is said: in one sum for each resource, or in one for all.
fn said_in(is_by_resource: bool) -> Range<usize> {
    match is_by_resource {
        true => 1..PARTS,
        false => 0..1,
    }
}

// === impl Typical ===

impl Typical {
    fn of<'a>(scores: impl Iterator<Item = &'a Score>, is_by_resource: bool) -> Self {
        let scores: Vec<&Score> = scores.collect();
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let mut parts = [Part::default(); PARTS];
        let mut said = [false; PARTS];
        for (place, (part, is_said)) in parts.iter_mut().zip(&mut said).enumerate() {
            let of_part = || {
                let parts = scores.iter().map(|score| score.parts().get(place));
                parts.flatten().flatten()
            };
            // After a rolling restart one may be left who was there when it began: that one would be typical of itself.
            let is_of_most = of_part().count().saturating_mul(2) > scores.len();
            *is_said = is_of_most && said_in(is_by_resource).contains(&place);
            if *is_said {
                *part = Part {
                    loss: median(of_part().map(|part| part.loss).collect()),
                    usage: median(of_part().map(|part| part.usage).collect()),
                };
            }
        }
        Self {
            said,
            matured: median(scores.iter().map(|score| score.count()).collect()),
            parts,
        }
    }

    fn believes(&self, score: &Score) -> bool {
        let of_each = self.said.iter().zip(&self.parts).zip(score.parts());
        of_each.into_iter().all(|((is_said, typical), part)| {
            let part = part.filter(|_| *is_said).unwrap_or_default();
            // Nothing can be told of forecasts for usage that nobody had: they wait for it.
            typical.usage == 0.0 || part.loss <= LOSS_PER_USAGE_MOST * part.usage.max(typical.usage)
        })
    }

    fn weights(&self, score: &Score) -> Weights {
        let within = |value: f64, typical: f64| {
            if typical > 0.0 && value > 0.0 {
                (WEIGHT_MOST * typical / value).min(1.0)
            } else {
                1.0
            }
        };
        let mut weights = Weights {
            counts: within(score.count(), self.matured),
            parts: [1.0; PARTS],
        };
        let of_each = weights.parts.iter_mut().zip(score.parts());
        for ((weight, part), typical) in of_each.zip(&self.parts) {
            let part = part.unwrap_or_default();
            *weight = within(part.loss, typical.loss).min(within(part.usage, typical.usage));
        }
        weights
    }

    /// How both sides compare, and what begins anew: not what was used nowhere. `None` if nothing was used.
    fn pair(&self, canaries: &Sums, others: &Sums) -> (Option<Pair>, Anew) {
        let mut losses = Vec::new();
        let mut anew = Anew::ALL;
        let sides = canaries.parts.iter().zip(&others.parts);
        let of_each = anew.parts.iter_mut().zip(&self.said).zip(&self.parts);
        for (((is_anew, is_said), typical), sides) in of_each.zip(sides) {
            // Where a side has nobody who was there from the beginning, there is nothing to wait for.
            let (true, (Some(canaries), Some(others))) = (*is_said, sides) else {
                continue;
            };
            if typical.usage > 0.0 && canaries.usage > 0.0 && others.usage > 0.0 {
                losses.push((canaries.loss / canaries.usage, others.loss / others.usage));
            } else {
                *is_anew = false;
            }
        }
        let coverages = canaries.coverage().zip(others.coverage());
        let pair = coverages.and_then(|coverages| Pair::new(&losses, coverages));
        anew.counts = pair.is_some();
        (pair, anew)
    }
}

// === impl Weights ===

impl Weights {
    /// The lower of both.
    fn lower(mut self, other: &Self) -> Self {
        self.counts = self.counts.min(other.counts);
        for (weight, other) in self.parts.iter_mut().zip(other.parts) {
            *weight = weight.min(other);
        }
        self
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, score: &Score, weights: &Weights) {
        self.gateways = self.gateways.saturating_add(1);
        self.matured += weights.counts * score.count();
        self.covered += weights.counts * score.count() * score.coverage();
        let of_each = self.parts.iter_mut().zip(score.parts());
        for ((sum, part), weight) in of_each.zip(weights.parts) {
            let Some(part) = part else {
                continue;
            };
            let sum = sum.get_or_insert_default();
            sum.loss += weight * part.loss;
            sum.usage += weight * part.usage;
        }
    }

    /// The share that was covered.
    fn coverage(&self) -> Option<f64> {
        (self.matured > 0.0).then(|| (self.covered / self.matured).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
#[path = "sides_tests.rs"]
mod tests;
