//! How much abuse is found in made-up fleets, and how often nothing is found to be abuse. The figures of docs/internals/anomaly.md:
//! `cargo test -p forebay-anomaly --test abuse -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod fleets;

use fleets::{CUSTOMERS, Chance, DAY, Done, Fleet, MINUTE_MS, NOTHING, Watched};

/// Of each fleet: four weeks in which nothing is wrong, the first week of which are learned from.
const CALM_WEEKS: u64 = 4;
const SEEDS: [u64; 4] = [1, 2, 3, 4];
/// Attacks begin within so many days.
const ATTACK_DAYS: u64 = 3;
/// What is found so many minutes after the end still counts.
const GRACE: u64 = 10;

/// A kind of abuse: its name, how many minutes it lasts, and what is done in each.
struct Abuse {
    name: &'static str,
    minutes: u64,
    done: fn(f64) -> Done,
}

const ABUSES: [Abuse; 5] = [
    Abuse {
        name: "three times as much for 4 hours",
        minutes: 240,
        done: |_| Done {
            more: 2.0,
            ..NOTHING
        },
    },
    Abuse {
        name: "ten times as much for 15 minutes",
        minutes: 15,
        done: |_| Done {
            more: 9.0,
            ..NOTHING
        },
    },
    Abuse {
        name: "from one to five times as much in a day",
        minutes: DAY,
        done: |share| Done {
            more: 4.0 * share,
            ..NOTHING
        },
    },
    Abuse {
        name: "a flood that the contract denies, an hour",
        minutes: 60,
        done: |_| Done {
            denied: 2.0,
            ..NOTHING
        },
    },
    Abuse {
        name: "six times as many keys for an hour",
        minutes: 60,
        done: |_| Done {
            keys_times: 6.0,
            ..NOTHING
        },
    },
];

struct Found {
    found: usize,
    median_minutes: u64,
    by_kind: [usize; 6],
}

fn calm(seed: u64) -> (Fleet, Watched, usize, [usize; 6], u64) {
    let (mut fleet, mut watched) = (Fleet::new(seed), Watched::new(60_000, CUSTOMERS));
    let (mut alarms, mut by_kind, mut flagged) = (0, [0; 6], 0);
    for _ in 0..CALM_WEEKS * 7 * DAY {
        let steps = fleet.next(|_| NOTHING);
        watched.observe(&steps);
        for number in watched.new_flags(fleet.minute * MINUTE_MS) {
            alarms += 1;
            by_kind[number % 6] += 1;
        }
        let unusual =
            |verdict: &&forebay_anomaly::Verdict| verdict.kind == forebay_anomaly::Kind::Unusual;
        flagged += watched.verdicts.iter().filter(unusual).count() as u64;
    }
    (fleet, watched, alarms, by_kind, flagged)
}

/// Each customer is attacked once, at a time of its own.
fn attack(fleet: &Fleet, watched: &Watched, abuse: &Abuse, seed: u64) -> Found {
    let (mut fleet, mut watched) = (fleet.clone(), watched.clone());
    let begin = fleet.minute;
    let mut chance = Chance(seed ^ 0xABCD);
    let starts: Vec<u64> = (0..CUSTOMERS)
        .map(|_| begin + 1 + (chance.uniform() * (ATTACK_DAYS * DAY) as f64) as u64)
        .collect();
    let mut found = [None; CUSTOMERS];
    for _ in 0..ATTACK_DAYS * DAY + abuse.minutes + GRACE {
        let now = fleet.minute + 1;
        let steps = fleet.next(|number| {
            let since = now.wrapping_sub(starts[number]);
            if since < abuse.minutes {
                (abuse.done)(since as f64 / abuse.minutes as f64)
            } else {
                NOTHING
            }
        });
        watched.observe(&steps);
        for (number, verdict) in watched.verdicts.iter().enumerate() {
            let is_time = now >= starts[number] && now < starts[number] + abuse.minutes + GRACE;
            if is_time && found[number].is_none() && verdict.kind == forebay_anomaly::Kind::Unusual
            {
                found[number] = Some(now - starts[number]);
            }
        }
    }
    let mut by_kind = [0; 6];
    for (number, found) in found.iter().enumerate() {
        by_kind[number % 6] += usize::from(found.is_some());
    }
    let mut minutes: Vec<u64> = found.iter().flatten().copied().collect();
    minutes.sort_unstable();
    Found {
        found: minutes.len(),
        median_minutes: minutes.get(minutes.len() / 2).copied().unwrap_or(0),
        by_kind,
    }
}

#[test]
fn abuse_is_found_and_hardly_anything_else_is() {
    let mut found = [0; ABUSES.len()];
    let mut all_alarms = 0;
    for seed in SEEDS {
        let (fleet, watched, alarms, by_kind, flagged) = calm(seed);
        all_alarms += alarms;
        let weeks = CUSTOMERS as f64 * (CALM_WEEKS as f64 - 1.0);
        println!(
            "seed {seed}: {alarms} false alarms in {weeks:.0} customer-weeks, by kind {by_kind:?}, flagged for {:.3} % of the time",
            100.0 * flagged as f64 / (weeks * 7.0 * DAY as f64)
        );
        for (count, abuse) in found.iter_mut().zip(&ABUSES) {
            let one = attack(&fleet, &watched, abuse, seed);
            *count += one.found;
            println!(
                "seed {seed}: {}: {} of {CUSTOMERS}, by kind {:?}, after {} minutes",
                abuse.name, one.found, one.by_kind, one.median_minutes
            );
        }
    }
    let attacked = CUSTOMERS * SEEDS.len();
    let weeks = attacked as f64 * (CALM_WEEKS as f64 - 1.0);
    let rate = all_alarms as f64 / weeks;
    println!("{rate:.3} false alarms per customer-week");
    assert!(rate < 1.0, "{rate}");
    for (count, abuse) in found.iter().zip(&ABUSES) {
        let recall = *count as f64 / attacked as f64;
        println!("| {} | {recall:.3} |", abuse.name);
        assert!(recall >= 0.9, "{}: {recall}", abuse.name);
    }
}
