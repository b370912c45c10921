//! The two sides of a comparison: what gateways report of one round, added up so that among several of a side no single one decides.
//!
//! The loss of a side is one ratio of sums. A mean of the gateways' ratios was worse: the gateway with the least usage decided, and one
//! that used nothing fell out, which chooses by the outcome. All gateways forecast the same usage, so what they report is alike, and
//! each is held against the typical one of both sides: medians, which nobody can move alone where there are three or more.

use super::canary::Lack;
use super::challenger::Missing;
use super::score::Score;
use crate::models::Pair;
use forebay_alerts::Sums as TypicalSums;

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
    matured: f64,
    loss: f64,
    usage: f64,
}

/// Weighted sums of a side.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    gateways: u32,
    matured: f64,
    covered: f64,
    loss: f64,
    usage: f64,
}

/// What both sides have shown in a round.
///
/// # Errors
/// With what a comparison lacks.
pub(super) fn compare(reports: &[Report]) -> Result<Pair, Lack> {
    let typical = Typical::of(reports);
    let side = |is_canary: bool| {
        let mut sums = Sums::default();
        let of_side = reports
            .iter()
            .filter(|report| report.is_canary == is_canary && typical.believes(&report.score));
        for report in of_side {
            sums.add(&report.score, typical.weight(&report.score));
        }
        (sums.gateways > 0).then_some(sums)
    };
    let canaries = side(true).ok_or(Lack::Canaries)?;
    let others = side(false).ok_or(Lack::Others)?;
    let means = canaries.means().zip(others.means());
    means
        .and_then(|(canaries, others)| Pair::new(canaries, others))
        .ok_or(Lack::Usage)
}

/// What two models have shown in a round, of which each gateway reports both. One weight for both of them: what a gateway says of one
/// model must not count more than what it says of the other.
///
/// # Errors
/// With what a comparison lacks.
pub(super) fn compare_beside(reports: &[(Score, Score)]) -> Result<Pair, Missing> {
    let each = reports.iter().flat_map(|(challenger, champion)| {
        [(true, *challenger), (false, *champion)]
            .map(|(is_canary, score)| Report { is_canary, score })
    });
    let typical = Typical::of(&each.collect::<Vec<_>>());
    let (mut challengers, mut champions) = (Sums::default(), Sums::default());
    for (challenger, champion) in reports {
        if typical.believes(challenger) && typical.believes(champion) {
            let weight = typical.weight(challenger).min(typical.weight(champion));
            challengers.add(challenger, weight);
            champions.add(champion, weight);
        }
    }
    if challengers.gateways == 0 {
        return Err(Missing::Gateways);
    }
    let means = challengers.means().zip(champions.means());
    means
        .and_then(|(challenger, champion)| Pair::new(challenger, champion))
        .ok_or(Missing::Usage)
}

/// What has matured at the typical gateway: the mean, in which no gateway weighs more than two typical ones. `None` without one.
pub(super) fn typical(scores: &[Score]) -> Option<TypicalSums> {
    let reports = scores.iter().map(|score| Report {
        is_canary: false,
        score: *score,
    });
    let typical = Typical::of(&reports.collect::<Vec<_>>());
    let mut sums = Sums::default();
    for score in scores.iter().filter(|score| typical.believes(score)) {
        sums.add(score, typical.weight(score));
    }
    let gateways = f64::from(sums.gateways);
    (sums.gateways > 0).then(|| TypicalSums {
        matured: sums.matured / gateways,
        covered: sums.covered / gateways,
        loss: sums.loss / gateways,
        usage: sums.usage / gateways,
    })
}

// === impl Typical ===

impl Typical {
    fn of(reports: &[Report]) -> Self {
        let median = |value: fn(&Score) -> f64| {
            let mut values: Vec<f64> = reports.iter().map(|report| value(&report.score)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        Self {
            matured: median(Score::count),
            loss: median(Score::loss),
            usage: median(Score::usage),
        }
    }

    fn believes(&self, score: &Score) -> bool {
        // Nothing can be told of forecasts for usage that nobody had: such a round goes on.
        self.usage == 0.0 || score.loss() <= LOSS_PER_USAGE_MOST * score.usage().max(self.usage)
    }

    /// One number for all sums of a gateway: its ratios stay as they are.
    fn weight(&self, score: &Score) -> f64 {
        let within = |value: f64, typical: f64| {
            if typical > 0.0 && value > 0.0 {
                WEIGHT_MOST * typical / value
            } else {
                1.0
            }
        };
        within(score.count(), self.matured)
            .min(within(score.loss(), self.loss))
            .min(within(score.usage(), self.usage))
            .min(1.0)
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, score: &Score, weight: f64) {
        self.gateways = self.gateways.saturating_add(1);
        self.matured += weight * score.count();
        self.covered += weight * score.count() * score.coverage();
        self.loss += weight * score.loss();
        self.usage += weight * score.usage();
    }

    /// Loss over usage, and the share that was covered; `None` while nothing was used.
    fn means(&self) -> Option<(f64, f64)> {
        let fits = self.usage > 0.0 && self.matured > 0.0;
        fits.then(|| {
            let coverage = (self.covered / self.matured).clamp(0.0, 1.0);
            (self.loss / self.usage, coverage)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::sync::ForecastScore;

    fn report(is_canary: bool, loss: f64, usage: f64) -> Report {
        let said = ForecastScore {
            matured: 10,
            covered: 9,
            loss,
            usage,
        };
        Report {
            is_canary,
            score: Score::read(&said).unwrap(),
        }
    }

    /// How the losses of canaries and others compare.
    fn ratio(reports: &[Report]) -> f64 {
        let pair = compare(reports).unwrap();
        let (canaries, others) = pair.losses();
        others / canaries
    }

    #[test]
    fn a_gateway_with_next_to_no_usage_does_not_decide() {
        let reports = [
            report(true, 5e4, 1e6),
            report(false, 5e4, 1e6),
            report(false, 50.0, 1.0),
        ];
        assert!((ratio(&reports) - 1.0).abs() < 0.01, "{}", ratio(&reports));
    }

    #[test]
    fn a_gateway_that_lies_moves_its_side_by_two_typical_ones_at_most() {
        for (loss, usage) in [
            (1e18, 1e-300),
            (1e18, 1.0),
            (1e9, 1e6),
            (0.0, 1e18),
            (1e18, 1e18),
            (0.0, 0.0),
        ] {
            let mut reports: Vec<Report> = (0..9).map(|_| report(false, 5e4, 1e6)).collect();
            reports.push(report(true, 5e4, 1e6));
            reports.push(report(false, loss, usage));
            let moved = ratio(&reports);
            assert!(
                (0.75..=1.25).contains(&moved),
                "{loss} over {usage}: {moved}"
            );
        }
    }

    #[test]
    fn the_typical_gateway_is_not_who_speaks_loudest() {
        let honest: Vec<Score> = vec![report(false, 5e4, 1e6).score; 9];
        let alone = typical(&honest).unwrap();
        assert!((alone.loss / alone.usage - 0.05).abs() < 1e-12);
        assert!(
            (alone.matured - 10.0).abs() < 1e-9,
            "of one gateway, not of all"
        );
        for (loss, usage) in [(1e18, 1.0), (1e9, 1e6), (0.0, 1e18)] {
            let with_liar = [&honest[..], &[report(false, loss, usage).score]].concat();
            let sums = typical(&with_liar).unwrap();
            let moved = sums.loss / sums.usage / 0.05;
            assert!(
                (0.75..=1.25).contains(&moved),
                "{loss} over {usage}: {moved}"
            );
        }
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn loss_on_customers_that_stay_silent_counts() {
        let quiet = [
            report(true, 5e4, 1e6),
            report(false, 5e4, 1e6),
            report(false, 5e4, 0.0),
        ];
        assert!(ratio(&quiet) > 1.9, "{}", ratio(&quiet));
    }

    #[test]
    fn a_gateway_weighs_as_much_for_a_challenger_as_for_the_model_in_force() {
        let both = |challenger, champion, usage| {
            let of = |loss| report(true, loss, usage).score;
            (of(challenger), of(champion))
        };
        let ratio = |reports: &[(Score, Score)]| {
            let (challenger, champion) = compare_beside(reports).unwrap().losses();
            champion / challenger
        };
        let honest = vec![both(4e4, 5e4, 1e6); 5];
        assert!((ratio(&honest) - 1.25).abs() < 1e-9);
        // A challenger that is far worse at one gateway counts there for as much as its champion does.
        let mut mixed = honest.clone();
        mixed.push(both(4e7, 5e4, 1e6));
        assert!((0.6..1.0).contains(&ratio(&mixed)), "{}", ratio(&mixed));
        for (challenger, champion, usage) in [(0.0, 1e18, 1e6), (1e18, 0.0, 1e6), (0.0, 1e6, 1e18)]
        {
            let mut lied = honest.clone();
            lied.push(both(challenger, champion, usage));
            assert!((0.8..=1.8).contains(&ratio(&lied)), "{}", ratio(&lied));
        }
        assert_eq!(compare_beside(&[]), Err(Missing::Gateways));
        let silent = [both(1.0, 1.0, 0.0)];
        assert_eq!(compare_beside(&silent), Err(Missing::Usage));
    }

    #[test]
    fn a_canary_that_is_much_worse_looks_so_and_what_is_lacking_is_said() {
        let worse = [
            report(true, 5e7, 1e6),
            report(false, 5e4, 1e6),
            report(false, 5e4, 1e6),
        ];
        assert!(ratio(&worse) < 0.01, "{}", ratio(&worse));
        for (reports, lack) in [
            (vec![report(false, 1.0, 1.0)], Lack::Canaries),
            (vec![report(true, 1.0, 1.0)], Lack::Others),
            (
                vec![report(true, 1.0, 0.0), report(false, 1.0, 0.0)],
                Lack::Usage,
            ),
        ] {
            assert_eq!(compare(&reports), Err(lack));
        }
    }
}
