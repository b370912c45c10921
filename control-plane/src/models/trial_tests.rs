//! The promises of the sequential test, by simulation: how often it errs, and how soon it sees.

use super::{
    ALPHA, Bet, COVERAGE_MARGIN, Finding, HOUR_MS, HOURS_FOR_PROMOTION, MARGIN,
    PAIRS_FOR_PROMOTION, Pair, Trial,
};

const RUNS: u32 = 400;
const PAIRS: u32 = 1_000;

/// An error of the simulation itself: three standard deviations of a share of `RUNS` at `ALPHA`.
const SLACK: f64 = 0.033;

/// SplitMix64, so that each run has its seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A pair whose difference over sum is `gain`, with coverage as given.
fn pair(gain: f64, canary_coverage: f64, others_coverage: f64) -> Pair {
    let losses = [(1.0 - gain, 1.0 + gain)];
    Pair::new(&losses, (canary_coverage, others_coverage)).unwrap()
}

/// Kinds of noise with mean zero within -0.9 and 0.9, given what came before.
#[derive(Clone, Copy, Debug)]
enum Noise {
    Even,
    /// Mostly a little, seldom much in the other direction: what looks best for long, and is not.
    Skewed,
    /// The same mirrored.
    Mirrored,
    /// Wilder after a wild pair.
    Clustered,
}

const NOISES: [Noise; 4] = [
    Noise::Even,
    Noise::Skewed,
    Noise::Mirrored,
    Noise::Clustered,
];

fn noise(kind: Noise, before: f64, dice: &mut Dice) -> f64 {
    let even = 2.0 * dice.share() - 1.0;
    let rare = dice.share() < 0.05;
    match kind {
        Noise::Even => 0.3 * even,
        Noise::Skewed => {
            if rare {
                -0.76
            } else {
                0.04
            }
        }
        Noise::Mirrored => {
            if rare {
                0.76
            } else {
                -0.04
            }
        }
        Noise::Clustered => (0.05 + 0.8 * before.abs().min(0.9)) * even,
    }
}

/// Runs a trial of pairs with this mean until it finds something. Returns after how many pairs.
fn run(mean: f64, kind: Noise, dice: &mut Dice) -> (Option<Finding>, u32) {
    let mut trial = Trial::default();
    let mut before = 0.0;
    for count in 0..PAIRS {
        before = noise(kind, before, dice);
        trial.observe(pair(mean + before, 0.9, 0.9), u64::from(count));
        if let Some(finding) = trial.finding(0) {
            return (Some(finding), count);
        }
    }
    (None, PAIRS)
}

fn share_of(
    mean: f64,
    kind: Noise,
    seed: u64,
    wanted: impl Fn(Option<Finding>, u32) -> bool,
) -> f64 {
    let mut dice = Dice(seed);
    let hits = (0..RUNS)
        .filter(|_| {
            let (finding, count) = run(mean, kind, &mut dice);
            wanted(finding, count)
        })
        .count();
    hits as f64 / f64::from(RUNS)
}

#[test]
fn a_model_that_is_worse_by_the_margin_is_hardly_ever_promoted() {
    for (seed, kind) in (1..).zip(NOISES) {
        for mean in [-MARGIN, -2.0 * MARGIN] {
            let promoted = share_of(mean, kind, seed, |finding, _| {
                finding.is_some_and(Finding::is_good)
            });
            assert!(
                promoted <= ALPHA + SLACK,
                "{kind:?}, mean {mean}, seed {seed}: {promoted}"
            );
        }
    }
}

#[test]
fn a_model_that_is_worse_at_all_is_hardly_ever_found_better() {
    for (seed, kind) in (11..).zip(NOISES) {
        let better = share_of(0.0, kind, seed, |finding, _| {
            finding == Some(Finding::Better)
        });
        assert!(
            better <= ALPHA / 2.0 + SLACK,
            "{kind:?}, seed {seed}: {better}"
        );
    }
}

#[test]
fn a_model_that_is_not_worse_is_hardly_ever_rolled_back() {
    for (seed, kind) in (21..).zip(NOISES) {
        let back = share_of(0.0, kind, seed, |finding, _| {
            finding.is_some_and(|finding| !finding.is_good())
        });
        assert!(back <= ALPHA + SLACK, "{kind:?}, seed {seed}: {back}");
    }
}

#[test]
fn what_is_clearly_better_or_worse_is_seen_soon() {
    for (mean, wanted) in [(0.1, Finding::Better), (-0.1, Finding::Worse)] {
        let seen = share_of(mean, Noise::Even, 31, |finding, count| {
            finding == Some(wanted) && count < 200
        });
        assert!(seen >= 0.95, "{wanted:?}, seed 31: {seen}");
    }
    let promoted = share_of(0.0, Noise::Even, 32, |finding, _| {
        finding.is_some_and(Finding::is_good)
    });
    assert!(promoted >= 0.3, "an equal model, seed 32: {promoted}");
}

#[test]
fn coverage_that_is_lost_is_seen_although_the_loss_is_the_same() {
    let mut dice = Dice(41);
    let mut found = |coverage: f64| {
        let mut trial = Trial::default();
        (0..400).find_map(|_| {
            let jitter = 0.1 * (dice.share() - 0.5);
            trial.observe(pair(0.0, coverage + jitter, 0.9), 0);
            trial.finding(0).filter(|finding| !finding.is_good())
        })
    };
    assert_eq!(found(0.7), Some(Finding::Uncovered), "seed 41");
    assert_eq!(found(0.9 - COVERAGE_MARGIN), None, "seed 41");
}

#[test]
fn no_model_is_promoted_before_enough_pairs_span_enough_time_and_a_worse_one_is_seen_at_once() {
    const SPAN_MS: u64 = 86_400_000;
    for (gain, wanted) in [(0.0, Finding::NotWorse), (0.5, Finding::Better)] {
        for step_ms in [60_000, HOUR_MS * 5] {
            let mut trial = Trial::default();
            let (mut pairs, mut now) = (0, 1_000);
            while trial.finding(SPAN_MS).is_none() && pairs < 10_000 {
                trial.observe(pair(gain, 0.9, 0.9), now);
                (pairs, now) = (pairs + 1, now + step_ms);
            }
            assert_eq!(trial.finding(SPAN_MS), Some(wanted));
            assert!(pairs >= PAIRS_FOR_PROMOTION, "{wanted:?}: {pairs} pairs");
            assert!(trial.evidence().span_ms >= SPAN_MS, "{wanted:?}");
            assert!(trial.evidence().hours >= HOURS_FOR_PROMOTION, "{wanted:?}");
        }
        // By day only, for as long as one likes.
        let mut trial = Trial::default();
        for number in 0..10_000 {
            trial.observe(
                pair(gain, 0.9, 0.9),
                number / 12 * SPAN_MS + number % 12 * HOUR_MS,
            );
        }
        assert_eq!(trial.finding(SPAN_MS), None, "{wanted:?}");
        assert_eq!(
            trial.finding(HOUR_MS),
            Some(wanted),
            "a model of a shorter season"
        );
    }
    let mut trial = Trial::default();
    while trial.finding(SPAN_MS).is_none() {
        trial.observe(pair(-0.5, 0.9, 0.9), 0);
    }
    assert_eq!(trial.finding(SPAN_MS), Some(Finding::Worse));
    assert!(trial.evidence().pairs < PAIRS_FOR_PROMOTION);
}

/// Wealth of a bet against a claim that holds, to its limit: after so many pairs, or when it first reaches `until`.
fn wealth(claimed: f64, kind: Noise, pairs: u32, until: f64, dice: &mut Dice) -> f64 {
    let mut bet = Bet::against(claimed);
    let mut before = 0.0;
    for _ in 0..pairs {
        before = noise(kind, before, dice);
        bet.observe(claimed + before);
        if bet.log_wealth.exp() >= until {
            break;
        }
    }
    bet.log_wealth.exp()
}

#[test]
fn under_the_claim_no_bet_gains_on_average_whenever_one_stops() {
    const BETS: u32 = 4_000;
    for (seed, kind) in (61..).zip(NOISES) {
        let mut dice = Dice(seed);
        for claimed in [0.0, -MARGIN, COVERAGE_MARGIN] {
            for (pairs, until) in [
                (1, f64::INFINITY),
                (10, f64::INFINITY),
                (100, f64::INFINITY),
                (200, 1.5),
                (200, 5.0),
            ] {
                let gained = (0..BETS).map(|_| wealth(claimed, kind, pairs, until, &mut dice));
                let gained: Vec<f64> = gained.collect();
                let count = f64::from(BETS);
                let mean = gained.iter().sum::<f64>() / count;
                let squares = gained.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
                let error = (squares / (count - 1.0) / count).sqrt();
                assert!(
                    mean <= 1.0 + 3.0 * error + 1e-9,
                    "{kind:?}, claim {claimed}, {pairs} pairs or {until}, seed {seed}: {mean} +- {error}"
                );
            }
        }
    }
}

#[test]
fn the_bets_that_can_lead_to_a_decision_share_its_error_probability() {
    let bets: [fn(&mut Trial) -> &mut Bet; 4] = [
        |trial| &mut trial.better,
        |trial| &mut trial.not_worse,
        |trial| &mut trial.worse,
        |trial| &mut trial.uncovered,
    ];
    // By Ville's inequality a bet that is wrong decides with a probability of at most one over the wealth that it takes.
    let (mut promoted, mut taken_back) = (0.0, 0.0);
    for bet in bets {
        let found = |wealth: f64| {
            let mut trial = Trial {
                pairs: PAIRS_FOR_PROMOTION,
                ..Trial::default()
            };
            bet(&mut trial).log_wealth = wealth.ln();
            trial.finding(0)
        };
        let decides = (1..10_000).find_map(|wealth| Some((wealth, found(f64::from(wealth))?)));
        let (wealth, finding) = decides.unwrap();
        match finding.is_good() {
            true => promoted += 1.0 / f64::from(wealth),
            false => taken_back += 1.0 / f64::from(wealth),
        }
    }
    for probability in [promoted, taken_back] {
        assert!(
            probability > 0.0 && probability <= ALPHA + 1e-9,
            "{probability}"
        );
    }
}

#[test]
fn whatever_the_pairs_are_the_evidence_is_a_number_and_survives_the_store() {
    let mut dice = Dice(51);
    let mut trial = Trial::default();
    for _ in 0..10_000 {
        let loss = |share: f64| (share * 60.0 - 40.0).exp();
        let losses = [(); 3].map(|()| (loss(dice.share()), loss(dice.share())));
        let resources = 1 + (dice.next() % 3) as usize;
        let made = Pair::new(&losses[..resources], (dice.share(), dice.share()));
        if let Some(pair) = made {
            trial.observe(pair, 0);
        }
    }
    trial.observe(Pair::new(&[(0.0, 0.0)], (0.0, 1.0)).unwrap(), 0);
    let evidence = trial.evidence();
    for value in [
        evidence.better,
        evidence.not_worse,
        evidence.worse,
        evidence.uncovered,
    ] {
        assert!(!value.is_nan(), "{evidence:?}");
    }
    let text = serde_json::to_string(&trial).unwrap();
    let read: Trial = serde_json::from_str(&text).unwrap();
    let (back, shown) = (read.evidence(), trial.evidence());
    assert_eq!(
        (back.pairs, read.finding(0)),
        (shown.pairs, trial.finding(0))
    );
    assert!((back.canary_loss / shown.canary_loss - 1.0).abs() < 1e-9);
    let shares = (0.5, 0.5);
    for wrong in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(Pair::new(&[(wrong, 1.0)], shares), None);
        assert_eq!(Pair::new(&[(1.0, 1.0), (1.0, wrong)], shares), None);
        assert_eq!(Pair::new(&[(1.0, 1.0)], (wrong, 0.5)), None);
    }
    assert_eq!(Pair::new(&[(1.0, 1.0)], (0.5, 1.5)), None);
    assert_eq!(Pair::new(&[], shares), None, "nothing was used");
}

#[test]
fn a_pair_is_the_mean_of_its_resources_whatever_their_losses_are() {
    let pair = |losses: &[(f64, f64)]| Pair::new(losses, (0.9, 0.9)).unwrap();
    // Half as much loss in one, and as much in the other, of which nobody can foresee anything.
    let mixed = pair(&[(0.05, 0.1), (3.0, 3.0)]);
    assert!((mixed.gain() - 1.0 / 6.0).abs() < 1e-12);
    assert!((mixed.losses().0 - 1.525).abs() < 1e-12);
    assert_eq!(pair(&[(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)]).gain(), 0.0);
    assert_eq!(pair(&[(0.0, 1.0), (0.0, 5.0)]).gain(), 1.0);
}
