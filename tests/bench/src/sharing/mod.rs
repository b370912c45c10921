//! `bench-sharing`: one pool and many customers, our allocation beside every other, on real demand.
//!
//! With FOREBAY_DATA on the traces there, and always on generated demand. docs/internals/sharing.md says what is compared and what came of it.

mod cycle;
mod forecasts;
pub(crate) mod headline;
mod results;
mod traces;
mod trial;
mod tuning;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use forebay_families::in_parallel;
use forebay_simulator::pool::{Arrivals, Mechanism, PoolFigures};
use serde_json::{Map, Value};

use crate::report::folder;
use headline::{Bar, Found, Headline};
use results::{Figure, Results, YARDSTICK};
use trial::{CAPACITIES, MIDDLE, Trace, Trial};
use tuning::{LOSS_MOST, Tuned};

const SEEDS: u64 = 10;
const OURS: &str = "ours";
const OURS_BY_ALLOCATION: &str = "ours_no_guarantee_credit";
const YARDSTICK_WITH_CREDIT: &str = "reactive_guarantee_credit";

/// Runs it and publishes its report.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let traces = traces::traces()?;
    let results: Vec<Results> = traces.iter().flat_map(of_trace).collect();
    for results in &results {
        if results.arrivals == Arrivals::Bursty {
            for capacity in CAPACITIES {
                results.print(hundredths(capacity));
            }
        }
    }
    let tuned: Vec<Tuned> = traces.iter().flat_map(tuning::of_trace).collect();
    tuning::print(&tuned);
    let mut headlines = headlines(&results, cycle::cycle_ms());
    headlines.extend(headlines_of_tuning(&tuned));
    let mut report = Map::new();
    println!("\nbench-sharing: ours with claims, as shipped, where nothing else is said");
    for headline in &headlines {
        headline.print();
        report.insert(headline.field.to_owned(), headline.found.json());
    }
    let seconds = start.elapsed().as_secs_f64();
    report.insert("seconds".to_owned(), seconds.into());
    for results in &results {
        let traces = report.entry("traces").or_insert_with(|| Map::new().into());
        let arrivals = traces
            .as_object_mut()
            .context("the report's traces are no object")?
            .entry(results.trace)
            .or_insert_with(|| Map::new().into());
        arrivals[results.arrivals.name()] = results.json();
    }
    let of_tuning = tuned.iter().map(Tuned::json).collect();
    report.insert("tuning".to_owned(), Value::Array(of_tuning));
    let path = folder()?.join("bench-sharing.json");
    fs::write(&path, serde_json::to_string_pretty(&Value::Object(report))?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!(
        "{seconds:.0} s; every figure with its interval is in {}",
        path.display()
    );
    let missing: Vec<&str> = headlines
        .iter()
        .filter(|headline| headline.found == Found::NotMeasured)
        .map(|headline| headline.field)
        .collect();
    ensure!(
        missing.is_empty(),
        "not measured: {}; generated demand alone is too easy for some, give FOREBAY_DATA",
        missing.join(", ")
    );
    Ok(())
}

/// Both processes of arrivals, all seeds.
fn of_trace(trace: &Trace) -> Vec<Results> {
    let rows = trial::rows();
    let jobs: Vec<(Arrivals, u64)> = Arrivals::ALL
        .into_iter()
        .flat_map(|arrivals| (0..SEEDS).map(move |seed| (arrivals, seed)))
        .collect();
    let mut trials = in_parallel(&jobs, |_, (arrivals, seed)| {
        Trial::new(trace, *arrivals, *seed, &rows)
    })
    .into_iter();
    Arrivals::ALL
        .into_iter()
        .map(|arrivals| Results {
            trace: trace.name,
            has_bars: trace.has_bars,
            arrivals,
            trials: trials.by_ref().take(SEEDS as usize).collect(),
        })
        .collect()
}

/// The worst of all traces that bars are about, and of both processes.
fn headlines(results: &[Results], cycle_ms: f64) -> Vec<Headline> {
    let middle = hundredths(MIDDLE);
    let tight = hundredths(CAPACITIES[0]);
    let with_bars = || results.iter().filter(|results| results.has_bars);
    let least = |value: &dyn Fn(&Results) -> f64| Found::least(with_bars().map(value));
    let most = |value: &dyn Fn(&Results) -> f64| Found::most(with_bars().map(value));
    let most_of_all = |mechanism, policy, figure: Figure| {
        let at = move |results: &Results| {
            CAPACITIES.map(|times| {
                let key = (hundredths(times), mechanism, policy);
                results.mean(key, figure).mean
            })
        };
        Found::most(with_bars().flat_map(at))
    };
    let steady: Figure = |figures: &PoolFigures| figures.guarantee_missed_steady;
    let fewer = |policy| {
        let missed =
            |results: &Results, policy| results.mean((middle, "claims", policy), steady).mean;
        Found::times_fewer(
            with_bars().map(|results| (missed(results, policy), missed(results, YARDSTICK))),
        )
    };
    let goodput = |capacity, mechanism| {
        least(&|results: &Results| results.goodput_vs_oracle((capacity, mechanism, OURS)).mean)
    };
    let paired = |mechanism| {
        least(&|results: &Results| results.goodput_vs_reactive((middle, mechanism, OURS)).mean)
    };
    let line = |field, found, bar, meaning| Headline {
        field,
        found,
        bar,
        meaning,
    };
    vec![
        line(
            "goodput_vs_oracle",
            goodput(middle, "claims"),
            Bar::AtLeast(0.96),
            "served, over what the oracle serves, capacity 1.35 x the mean, lowest trace",
        ),
        line(
            "goodput_vs_oracle_115",
            goodput(tight, "claims"),
            Bar::AtLeast(0.93),
            "the same at 1.15 x",
        ),
        line(
            "goodput_vs_reactive",
            paired("claims"),
            Bar::AtLeast(-0.005),
            "less the same of reactive + reserve, paired, 1.35 x, lowest",
        ),
        line(
            "guarantee_misses",
            most_of_all("claims", OURS, steady),
            Bar::AtMost(0.0005),
            "of customers' minutes that kept to the guarantee in each sub-step, highest",
        ),
        line(
            "guarantee_misses_by_sums",
            most_of_all("claims", OURS, |figures| figures.guarantee_missed),
            Bar::AtMost(0.0005),
            "of customers' minutes whose sum was within the guarantee, highest",
        ),
        line(
            "guarantee_misses_by_sums_rpc",
            most_of_all("central", "counter_with_guarantees", |figures| {
                figures.guarantee_missed
            }),
            Bar::None,
            "the same of a message for each request",
        ),
        line(
            "guarantee_misses_by_allocation",
            most_of_all("claims", OURS_BY_ALLOCATION, steady),
            Bar::None,
            "the first of these by the allocation alone, without credits of guarantees",
        ),
        line(
            "guarantee_misses_reactive",
            most_of_all("claims", YARDSTICK, steady),
            Bar::None,
            "the same of reactive + reserve",
        ),
        line(
            "guarantee_misses_reactive_credit",
            most_of_all("claims", YARDSTICK_WITH_CREDIT, steady),
            Bar::None,
            "the same of reactive + reserve with the credits that ours has",
        ),
        line(
            "misses_below_reactive_by_allocation",
            fewer(OURS_BY_ALLOCATION),
            Bar::AtLeast(20.0),
            "times fewer misses than reactive + reserve where that has over 0.1 %, both without credits, 1.35 x, lowest",
        ),
        line(
            "misses_below_reactive",
            fewer(OURS),
            Bar::None,
            "the same with credits of guarantees for ours alone",
        ),
        line(
            "false_rejected",
            most(&|results: &Results| {
                results
                    .mean((middle, "claims", OURS), |f| f.false_rejected)
                    .mean
            }),
            Bar::AtMost(0.012),
            "denied while there was capacity, 1.35 x, highest",
        ),
        line(
            "over_admitted",
            most_of_all("claims", OURS, |figures| figures.over_admitted),
            Bar::AtMost(0.0),
            "admitted above the pool, highest",
        ),
        line(
            "jain",
            least(&|results: &Results| results.mean((middle, "claims", OURS), |f| f.jain).mean),
            Bar::AtLeast(0.975),
            "Jain's index of what part each was admitted, 1.35 x, lowest",
        ),
        line(
            "tier1_admitted_in_spike",
            least(&|results: &Results| {
                results
                    .mean_in_spike((middle, "claims", OURS), |f| f.tier1_admitted)
                    .mean
            }),
            Bar::AtLeast(0.999),
            "while tier 3 asks for 12 x, lowest",
        ),
        line(
            "cycle_ms_10000",
            Found::most([cycle_ms].into_iter()),
            Bar::AtMost(1_000.0),
            "a cycle, 10 000 customers, 2 000 groups with caps, 2 resources",
        ),
        line(
            "leases_goodput_vs_oracle",
            goodput(middle, "leases"),
            Bar::None,
            "ours as leases, which are not shipped",
        ),
        line(
            "leases_goodput_vs_reactive",
            paired("leases"),
            Bar::None,
            "the same, paired",
        ),
        line(
            "leases_guarantee_misses",
            most_of_all("leases", OURS, steady),
            Bar::None,
            "the same, highest",
        ),
    ]
}

/// What tuning could bring at the most, and what trying it costs.
fn headlines_of_tuning(tuned: &[Tuned]) -> Vec<Headline> {
    let gain = |mechanism| {
        let with_bars = tuned.iter().filter(move |tuned| {
            tuned.has_bars && tuned.capacity == MIDDLE && tuned.mechanism == mechanism
        });
        Found::least(with_bars.map(|tuned| tuned.gain.mean))
    };
    vec![
        Headline {
            field: "tuning_gain",
            found: gain(Mechanism::Claims),
            bar: Bar::None,
            meaning: "reward of what tuning has learned, on other seeds, less that of the policy's own values, 1.35 x, lowest",
        },
        Headline {
            field: "tuning_gain_leases",
            found: gain(Mechanism::Leases),
            bar: Bar::None,
            meaning: "the same as leases",
        },
        Headline {
            field: "tuning_lost",
            found: Found::most(tuned.iter().map(Tuned::lost)),
            bar: Bar::AtMost(LOSS_MOST),
            meaning: "of the policy's rewards, the part that the guarded tuner loses, highest of all traces and capacities",
        },
    ]
}

fn hundredths(times: f64) -> u32 {
    (times * 100.0).round() as u32
}
