//! `bench-neighbour`: what the others at two real gateways notice of a neighbour that floods both.
//!
//! Everything runs on the machine that is measured, so a flood takes CPU from everybody. What of that is ours is seen beside a flood that
//! Envoy
//! answers itself. Windows of all conditions take turns, with the same arrivals in each round, and a machine that others use gets no
//! verdict.
//! docs/internals/sharing.md says what came of it.

mod backend;
mod judge;
mod machine;
mod results;
mod scene;
mod sender;
mod site;
mod window;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use forebay_envoy_tests::Envoy;

use machine::Usage;
use results::Measured;
use scene::{Arrangement, CAPACITY_PER_S, Condition, NEIGHBOUR_RATE_PER_S, customers};
use site::Site;
use window::Window;

/// At the beginning of a window, so long does not count.
const SETTLE_US: u64 = 800_000;
const MEASURED_US: u64 = 3_000_000;

const LENDING: Arrangement = Arrangement {
    name: "lending",
    has_sharing: true,
    ceiling_per_s: CAPACITY_PER_S,
    depth_ms: 1_000,
    backend_per_s: CAPACITY_PER_S,
};
const WITH_FLOOD: [Condition; 2] = [Condition::Quiet, Condition::Flood];

/// The figures of the first one are at the top of the report. Where a quiet run is held against itself the flood is held against bars.
const TRIALS: [Trial; 5] = [
    Trial {
        arrangement: LENDING,
        conditions: &[
            Condition::Quiet,
            Condition::QuietAgain,
            Condition::Flood,
            Condition::Machine,
        ],
        rounds: 5,
    },
    Trial {
        arrangement: Arrangement {
            name: "no_borrowing",
            ceiling_per_s: NEIGHBOUR_RATE_PER_S,
            ..LENDING
        },
        conditions: &[Condition::Quiet, Condition::QuietAgain, Condition::Flood],
        rounds: 5,
    },
    Trial {
        arrangement: Arrangement {
            name: "lending_headroom",
            backend_per_s: 500,
            ..LENDING
        },
        conditions: &WITH_FLOOD,
        rounds: 2,
    },
    Trial {
        arrangement: Arrangement {
            name: "lending_shallow",
            backend_per_s: 500,
            depth_ms: 100,
            ..LENDING
        },
        conditions: &WITH_FLOOD,
        rounds: 1,
    },
    Trial {
        arrangement: Arrangement {
            name: "no_plugin",
            ..LENDING
        },
        conditions: &[Condition::Unprotected],
        rounds: 1,
    },
];

/// So many rounds of an arrangement.
struct Trial {
    arrangement: Arrangement,
    conditions: &'static [Condition],
    rounds: usize,
}

/// Runs it and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let started = Instant::now();
    let site = Site::start(&LENDING).await?;
    let mut all = Vec::new();
    for trial in &TRIALS {
        all.push(trial.run(&site).await?);
        eprintln!(
            "{}: measured after {:.0} s",
            trial.arrangement.name,
            started.elapsed().as_secs_f64()
        );
    }
    results::publish(&all, started.elapsed().as_secs_f64())
}

// === impl Trial ===

impl Trial {
    async fn run(&self, site: &Site) -> Result<Measured> {
        site.arrange(&self.arrangement).await?;
        let mut windows: BTreeMap<Condition, Vec<Window>> = BTreeMap::new();
        for round in 0..self.rounds {
            // Each begins as often as the others, and comes behind each of them.
            let mut order = self.conditions.to_vec();
            order.rotate_left(round / 2 % self.conditions.len());
            if round % 2 == 1 {
                order.reverse();
            }
            for condition in order {
                let window = measure(site, condition, round as u64).await?;
                windows.entry(condition).or_default().push(window);
            }
        }
        Ok(Measured {
            arrangement: self.arrangement,
            windows,
        })
    }
}

async fn measure(site: &Site, condition: Condition, seed: u64) -> Result<Window> {
    let gateways = site.gateways.iter().map(Envoy::pid);
    let processes: Vec<u32> = gateways.chain([site.plane.pid()]).collect();
    let length_us = SETTLE_US + MEASURED_US;
    let before = Usage::now(&processes)?;
    site.backend.take_work();
    let answers = site.send(condition, seed, length_us).await?;
    let others_cpu = Usage::now(&processes)?.others_since(before);
    let mut window = Window::of(&answers, &customers(), SETTLE_US, length_us);
    window.add_work(site.backend.take_work(), length_us);
    window.others_cpu_s = others_cpu * window.seconds;
    Ok(window)
}
