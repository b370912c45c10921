//! How long scores take: 10 000 customers, of which 600 follow another one and 600 burst together in threes, over two weeks of five minutes.
//! `cargo bench -p forebay-sharing --bench risk`

#![allow(clippy::indexing_slicing)]

#[path = "../tests/fleet/mod.rs"]
mod fleet;

use fleet::{Fleet, REACH, RESOURCE, STEP_S, TWO_WEEKS};
use forebay_core::resource::PerResource;
use forebay_sharing::risk::{
    Dependence, History, Question, SCENARIOS, largest_pairs, links, residuals,
};
use std::time::Instant;

const CUSTOMERS: usize = 10_000;

// What a benchmark is there for; everything that it measures reads none.
#[allow(clippy::disallowed_methods)]
fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let before = processor_s();
    let result = run();
    let processor = match (before, processor_s()) {
        (Some(before), Some(after)) => format!(", {:.3} s of a core", after - before),
        _ => String::new(),
    };
    println!("{what}: {:.3} s{processor}", start.elapsed().as_secs_f64());
    result
}

/// What this process has had of a core, in seconds: what counts on a machine that others use, too. Linux only.
fn processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

fn main() {
    let mut fleet = Fleet::planted(3600, 1);
    let missing = Fleet::independent(CUSTOMERS - 3600, 2);
    fleet.bases.extend(missing.bases);
    fleet.bursts_a_day.extend(missing.bursts_a_day);
    let planted = fleet.planted_pairs();
    let usage = timed("making up demand", || fleet.demand(TWO_WEEKS, true, 3));
    let customers = timed("forecasts", || {
        let one_day: Vec<Vec<f32>> = usage
            .iter()
            .map(|usage| usage[3000..3288].to_vec())
            .collect();
        fleet::customers(&one_day)
    });
    let history = History {
        step_s: STEP_S,
        first_s: 0,
        usage: &usage,
        events: &[],
    };
    let residuals = timed("residuals", || residuals(&history));
    let links = timed("links", || links(&residuals, REACH, 1));
    let real = links
        .iter()
        .filter(|link| planted.contains(&(link.from, link.to)))
        .count();
    println!(
        "  {} links, {real} of them among the {} planted pairs",
        links.len(),
        planted.len()
    );
    let dependence = timed("dependence", || Dependence::of(&residuals, &links, REACH));
    let capacity_per_s = PerResource::only_first(fleet::medians(&customers) * 1.05);
    let question = Question {
        resource: RESOURCE,
        capacity_per_s: &capacity_per_s,
        customers: &customers,
        groups: &[],
        settings: &fleet::settings(),
        dependence: &dependence,
    };
    for seed in 1..=5 {
        let pairs = timed("the 1 000 largest pairs", || {
            largest_pairs(&question, 1000, seed)
        });
        println!(
            "  {} pairs of {SCENARIOS} scenarios, the first {:?}",
            pairs.len(),
            pairs.first().map(|pair| pair.score)
        );
    }
}
