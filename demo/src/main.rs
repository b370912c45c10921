//! `forebay-demo`: the main job on realistic traffic, in front of your eyes.
//!
//! A real Envoy with both plugins, the real control plane, an upstream with a finite capacity and the demand of
//! several customers from a trace. The same requests are sent twice, with shadow buckets on and off.

// The demo's own mistakes must stop it; it is not compiled into anything that serves traffic.
#![allow(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod arrivals;
mod client;
mod contract_check;
mod control_plane;
#[cfg(test)]
mod documents;
mod gateway;
mod http;
mod outcome;
mod places;
mod processes;
mod report;
mod run;
mod scenario;
mod tally;
mod upstream;
mod view;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use places::Places;
use report::Comparison;
use run::Stage;
use scenario::{Role, Scenario, Size};

/// Shows shadow buckets at work: real Envoy, real control plane, replayed demand.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of traffic in each of the two runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=400))]
    seconds: u32,
    /// Capacity that the policy names, requests per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=5000))]
    capacity: u32,
    /// Real milliseconds per step of the trace.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(200..=10_000))]
    step_ms: u32,
    /// Seed of spikes, arrivals and generated demand.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whichever ends first: the other future is dropped, and with it every child process.
    let result = tokio::select! {
        result = demo(&arguments) => result,
        result = interrupted() => result,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> Result<()> {
    let places = Places::find()?;
    let steps = (u64::from(arguments.seconds) * 1_000).div_ceil(u64::from(arguments.step_ms));
    let size = Size {
        capacity_per_s: f64::from(arguments.capacity),
        steps: usize::try_from(steps)?,
        step_ms: u64::from(arguments.step_ms),
        seed: arguments.seed,
    };
    let scenario = Scenario::new(places.data.as_deref(), size)?;
    let arrivals = arrivals::schedule(&scenario, arguments.seed);
    introduce(&scenario, arrivals.len());
    let stage = Stage {
        places: &places,
        scenario: &scenario,
        arrivals: &arrivals,
    };
    let on_folder = places.work.join("on");
    let off_folder = places.work.join("off");
    let on = run::run(&stage, true, &on_folder).await?;
    let off = run::run(&stage, false, &off_folder).await?;
    let comparison = Comparison { on, off };
    comparison.write(&scenario, f64::from(arguments.seconds), &places.report)?;
    println!(
        "{}\nwritten: {}",
        comparison.table(),
        places.report.display()
    );
    Ok(())
}

/// Says what is about to be shown.
fn introduce(scenario: &Scenario, requests: usize) {
    eprintln!(
        "demo: demand from {}, {requests} requests, once with and once without shadow buckets",
        scenario.source
    );
    for customer in &scenario.customers {
        eprintln!(
            "demo:   {:<6} is {}, contract {:.0}/s{}",
            customer.name,
            customer.tenant,
            customer.rate_per_s,
            if customer.role == Role::Spiker {
                ", with spikes added"
            } else {
                ""
            }
        );
    }
}

/// Returns when the user or the system asks the demo to end.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    bail!("interrupted; everything that was started has been stopped")
}
