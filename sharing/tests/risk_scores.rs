//! Scores against what couplings really do, in fleets where they were planted.

// Helpers of tests are not seen as tests.
#![allow(clippy::indexing_slicing)]

mod fleet;

use fleet::{Fleet, REACH, RESOURCE, STEP_S, TWO_WEEKS};
use forebay_core::resource::PerResource;
use forebay_sharing::Customer;
use forebay_sharing::risk::{
    Dependence, Event, History, NoisyOr, Pair, Question, between_labels, largest_pairs, links,
    residuals,
};

/// Whose spike, and who may be short.
type Ordered = (usize, usize);

const SEEDS: [u64; 4] = [1, 2, 3, 4];

fn learn(usage: &[Vec<f32>], events: &[Event], seed: u64) -> Dependence {
    let history = History {
        step_s: STEP_S,
        first_s: 0,
        usage,
        events,
    };
    let residuals = residuals(&history);
    let links = links(&residuals, REACH, seed);
    Dependence::of(&residuals, &links, REACH)
}

fn scores(
    capacity_per_s: f64,
    customers: &[Customer],
    dependence: &Dependence,
    seed: u64,
) -> Vec<Pair> {
    let question = Question {
        resource: RESOURCE,
        capacity_per_s: &PerResource::only_first(capacity_per_s),
        customers,
        groups: &[],
        settings: &fleet::settings(),
        dependence,
    };
    largest_pairs(&question, 1000, seed)
}

/// A fleet, what two weeks of it teach, and what it really does afterwards in a pool with a tenth more than what is usual.
struct Case {
    fleet: Fleet,
    usage: Vec<Vec<f32>>,
    customers: Vec<Customer>,
    capacity_per_s: f64,
    dependence: Dependence,
    future: Vec<Vec<f32>>,
    /// For each customer, whether it is short within the horizon.
    short: Vec<Vec<bool>>,
    seed: u64,
}

impl Case {
    fn new(customers: usize, seed: u64) -> Self {
        let fleet = Fleet::planted(customers, seed);
        let usage = fleet.demand(TWO_WEEKS, true, seed + 100);
        let future = fleet.demand(200 * fleet::DAY, false, seed + 200);
        let customers = fleet::customers(&future);
        let capacity_per_s = fleet::medians(&customers) * 1.1;
        let short = fleet::shortages(capacity_per_s, &customers, &future);
        Self {
            dependence: learn(&usage, &[], seed),
            short: short
                .iter()
                .map(|short| fleet::within_reach(short))
                .collect(),
            fleet,
            usage,
            customers,
            capacity_per_s,
            future,
            seed,
        }
    }

    fn scores(&self) -> Vec<Pair> {
        scores(
            self.capacity_per_s,
            &self.customers,
            &self.dependence,
            self.seed,
        )
    }

    /// The probability that the second is short within the horizon when the first spikes, and at any time.
    fn truth(&self, (from, to): Ordered) -> (f64, f64) {
        fleet::truth(&self.future[from], &self.short[to])
    }

    /// Planted pairs in which a spike makes it at least three times as likely that the other one is short, and those in which it is less.
    fn planted(&self) -> (Vec<Ordered>, Vec<Ordered>) {
        let planted = self.fleet.planted_pairs().into_iter();
        planted.partition(|pair| {
            let (given, usual) = self.truth(*pair);
            given > 3.0 * usual
        })
    }
}

fn place(pair: &Pair) -> Ordered {
    (pair.from, pair.to)
}

#[test]
fn planted_couplings_are_what_the_largest_scores_find() {
    let (mut hits_of_all, mut real_of_all) = (0, 0);
    for seed in SEEDS {
        for customers in [24, 48] {
            let case = Case::new(customers, seed);
            let (real, weak) = case.planted();
            // A coupling that does less is neither to be found nor wrong to find. As many are taken as there are, so precision is recall.
            let largest = |pairs: Vec<Ordered>| -> usize {
                let pairs = pairs.into_iter().filter(|pair| !weak.contains(pair));
                pairs
                    .take(real.len())
                    .filter(|pair| real.contains(pair))
                    .count()
            };
            let scores = case.scores();
            let hits = largest(scores.iter().map(place).collect());
            let mut by_pearson: Vec<Ordered> = (0..customers)
                .flat_map(|from| (0..customers).map(move |to| (from, to)))
                .filter(|(from, to)| from != to)
                .collect();
            by_pearson.sort_by(|left, right| {
                let of = |(from, to): Ordered| fleet::pearson(&case.usage[from], &case.usage[to]);
                of(*right).total_cmp(&of(*left))
            });
            let of_pearson = largest(by_pearson);
            // How often accounts are short at all is what the independent reckoning finds.
            let said: f64 = scores.iter().map(|pair| pair.usual).sum();
            let was: f64 = scores.iter().map(|pair| case.truth(place(pair)).1).sum();
            assert!((0.7..1.4).contains(&(said / was)), "{}", said / was);
            println!(
                "seed {seed}, {customers} customers: {hits} of {} found, by Pearson {of_pearson}",
                real.len()
            );
            assert!(hits as f64 >= 0.8 * real.len() as f64);
            assert!(of_pearson < hits);
            hits_of_all += hits;
            real_of_all += real.len();
        }
    }
    println!(
        "precision and recall of all: {:.3}",
        hits_of_all as f64 / real_of_all as f64
    );
}

/// The mean square of what forecasts of a probability are off the outcome, where it happens in this part of the cases.
fn brier(forecast: f64, happens: f64) -> f64 {
    happens * (1.0 - forecast).powi(2) + (1.0 - happens) * forecast.powi(2)
}

#[test]
fn likelihoods_are_better_forecasts_than_base_rates_and_than_correlations() {
    let mut sums = [0.0; 4];
    let mut reliability = Vec::new();
    for seed in SEEDS {
        let case = Case::new(24, seed);
        let scores = case.scores();
        let (mut pairs, weak) = case.planted();
        pairs.extend(weak);
        // And as many of those whom a correlation would have named.
        let pearson = |(from, to): Ordered| fleet::pearson(&case.usage[from], &case.usage[to]);
        let all: Vec<Ordered> = (0..24)
            .flat_map(|from| (0..24).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        let mut others = all.clone();
        others.retain(|pair| !pairs.contains(pair));
        others.sort_by(|left, right| pearson(*right).total_cmp(&pearson(*left)));
        others.truncate(pairs.len());
        pairs.extend(others);
        // The best line from correlation to likelihood that there is, found from the truth itself, over all pairs.
        let lift = |pair: Ordered| {
            let (given, usual) = case.truth(pair);
            given - usual
        };
        let of_lift: f64 = all.iter().map(|pair| lift(*pair) * pearson(*pair)).sum();
        let of_square: f64 = all.iter().map(|pair| pearson(*pair).powi(2)).sum();
        for pair in &pairs {
            let (given, usual) = case.truth(*pair);
            let found = scores.iter().find(|found| place(found) == *pair);
            let ours = found.map_or(usual, |found| found.usual + found.likelihood);
            let by_pearson = (usual + of_lift / of_square * pearson(*pair)).clamp(0.0, 1.0);
            for (sum, forecast) in sums.iter_mut().zip([ours, usual, by_pearson, given]) {
                *sum += brier(forecast, given);
            }
            reliability.push((ours, given));
        }
    }
    let [ours, climatology, by_pearson, best] = sums;
    println!(
        "Brier skill against base rates: {:.3} (of {:.3} that there is to have)",
        1.0 - ours / climatology,
        1.0 - best / climatology
    );
    println!("against correlations: {:.3}", 1.0 - ours / by_pearson);
    for (low, high) in [(0.0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 1.0)] {
        let within: Vec<_> = reliability
            .iter()
            .filter(|(ours, _)| (low..high).contains(ours))
            .collect();
        let count = within.len() as f64;
        let (said, was) = within.iter().fold((0.0, 0.0), |sum, (ours, given)| {
            (sum.0 + ours, sum.1 + given)
        });
        println!(
            "  said {:.3}, was {:.3} in {count} pairs",
            said / count,
            was / count
        );
    }
    assert!(1.0 - ours / climatology > 0.1);
    assert!(1.0 - ours / by_pearson > 0.1);
}

#[test]
fn more_capacity_never_raises_a_score() {
    let (mut worst, mut worst_product, mut compared) = ([0.0_f64; 2], 0.0_f64, 0);
    for seed in SEEDS {
        let case = Case::new(24, seed);
        let usual = fleet::medians(&case.customers);
        let mut before: Vec<Option<Pair>> = vec![None; 24 * 24];
        for percent in (60..=160).step_by(4) {
            let capacity_per_s = usual * f64::from(percent) / 100.0;
            let pairs = scores(capacity_per_s, &case.customers, &case.dependence, seed);
            let mut now: Vec<Option<Pair>> = vec![None; 24 * 24];
            for pair in &pairs {
                now[pair.from * 24 + pair.to] = Some(*pair);
            }
            for (before, now) in before.iter().zip(&now) {
                if let (Some(before), Some(now)) = (before, now) {
                    assert!(now.usual <= before.usual, "{before:?} {now:?}");
                    let at = usize::from(percent > 104);
                    worst[at] = worst[at].max(now.score - before.score);
                    let rate = case.customers[now.to].terms.at(RESOURCE).rate_per_s;
                    let product = |pair: &Pair| pair.likelihood * pair.magnitude_per_s / rate;
                    worst_product = worst_product.max(product(now) - product(before));
                    compared += 1;
                }
            }
            before = now;
        }
    }
    let [starved, enough] = worst;
    println!(
        "{compared} steps of 4 %: scores rise by {enough:.4} of the rate at most above 104 % of what is usual, by {starved:.4} below"
    );
    println!("likelihood x magnitude / rate would by {worst_product:.4}");
    assert!(enough < 0.003 && starved < 0.01, "{worst:?}");
}

#[test]
fn accounts_that_rise_together_in_an_ample_pool_have_no_score() {
    for seed in SEEDS {
        let mut usage = Fleet::planted(6, seed).demand(TWO_WEEKS, true, seed);
        usage[1] = usage[0].clone();
        let dependence = learn(&usage, &[], seed);
        let customers = fleet::customers(&usage);
        let all: f64 = customers
            .iter()
            .map(|customer| customer.terms.at(RESOURCE).rate_per_s)
            .sum();
        assert_eq!(scores(1.01 * all, &customers, &dependence, seed), []);
        let tight = scores(fleet::medians(&customers), &customers, &dependence, seed);
        let first = tight.iter().find(|pair| place(pair) == (0, 1)).unwrap();
        println!("seed {seed}: {:.3} in a tight pool", first.score);
        assert!(first.score > 0.01);
    }
}

#[test]
fn an_event_that_was_announced_leaves_no_score_between_those_whom_it_moves() {
    for seed in SEEDS {
        let mut fleet = Fleet::independent(24, seed);
        fleet.campaign = vec![2, 9, 16];
        let usage = fleet.demand(TWO_WEEKS, true, seed + 300);
        let event = Event {
            customers: fleet.campaign.clone(),
            is_on: (0..TWO_WEEKS).map(Fleet::campaign_at).collect(),
        };
        let mut without = fleet.clone();
        without.campaign.clear();
        let customers = fleet::customers(&without.demand(60 * fleet::DAY, false, seed));
        let capacity_per_s = fleet::medians(&customers) * 1.1;
        let among = |events: &[Event]| {
            let pairs = scores(
                capacity_per_s,
                &customers,
                &learn(&usage, events, seed),
                seed,
            );
            let is_among = |pair: &&Pair| {
                fleet.campaign.contains(&pair.from) && fleet.campaign.contains(&pair.to)
            };
            pairs
                .iter()
                .filter(is_among)
                .map(|pair| pair.score)
                .fold(0.0, f64::max)
        };
        let (unknown, known) = (among(&[]), among(&[event]));
        println!(
            "seed {seed}: {unknown:.4} where nobody knew of it, {known:.4} where it was known"
        );
        assert!(unknown > 0.0);
        assert!(known < 0.1 * unknown);
    }
}

#[test]
fn a_network_names_who_made_an_account_short() {
    let (mut named, mut all) = (0, 0);
    for seed in SEEDS {
        let case = Case::new(24, seed);
        // Two weeks of what came later.
        let steps = TWO_WEEKS;
        let spikes: Vec<Vec<bool>> = case
            .future
            .iter()
            .map(|demand| {
                let line = fleet::quantile(demand, 0.95) as f32;
                demand[..steps]
                    .iter()
                    .map(|demand| *demand > line)
                    .collect()
            })
            .collect();
        for (from, to, _, _) in &case.fleet.drives {
            let short: Vec<Option<bool>> =
                case.short[*to][..steps].iter().copied().map(Some).collect();
            let others: Vec<usize> = (0..24).filter(|other| other != to).collect();
            let causes: Vec<&[bool]> = others
                .iter()
                .map(|other| spikes[*other].as_slice())
                .collect();
            let network = NoisyOr::learn(&short, &causes);
            let largest = network
                .links
                .iter()
                .enumerate()
                .max_by(|l, r| l.1.total_cmp(r.1));
            named += usize::from(largest.is_some_and(|(at, _)| others[at] == *from));
            all += 1;
        }
    }
    println!("{named} of {all} accounts are named that others follow");
    assert!(named * 10 >= all * 9);
}

#[test]
fn labels_have_scores_among_one_another() {
    let case = Case::new(24, 1);
    let question = Question {
        resource: RESOURCE,
        capacity_per_s: &PerResource::only_first(case.capacity_per_s),
        customers: &case.customers,
        groups: &[],
        settings: &fleet::settings(),
        dependence: &case.dependence,
    };
    // Those whom others follow, those who follow, and the rest without a label.
    let labels: Vec<Option<usize>> = (0..24)
        .map(|customer| match customer {
            0..4 => Some(0),
            12..16 => Some(1),
            _ => None,
        })
        .collect();
    let pairs = between_labels(&question, &labels, 1);
    println!("{:?}", pairs[0]);
    assert_eq!((pairs[0].from, pairs[0].to), (0, 1));
    assert!(pairs[0].likelihood_interval.low > 0.0);
}
