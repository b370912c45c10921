//! `forebay simulate`: a fleet under the demand of a trace, with our policy beside others.
//!
//! Files are read and written here and nowhere else in a simulation. With `--against` it is [`what_if`].

mod demand;
mod table;
mod what_if;

use super::commands::SimulateOptions;
use crate::plane::Settings;
use crate::simulated::SimulatedPlane;
use forebay_sharing::Law;
use forebay_simulator::{Comparison, Coordinator, PolicyName, Scenario, SimulationError};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The control plane runs with the defaults of `forebay serve`, where they matter for a division.
const SETTINGS: Settings = Settings {
    lease_ttl_ms: 10_000,
    fallback_ttl_ms: 600_000,
    sync_interval_ms: 250,
    step_ms: 60_000,
    history_steps: 16,
    max_other_customers: 1,
    audit_keep: 1,
};

/// Seconds of the demand where nobody says how many, and the most.
const SECONDS: u32 = 600;
const SECONDS_MOST: u32 = 86_400;

/// Runs the comparison, prints its table and writes its files.
///
/// # Errors
/// What is wrong with the options, the trace or a file.
pub(super) fn run(options: &SimulateOptions) -> Result<(), String> {
    if let Some(against) = &options.against {
        return what_if::run(options, against);
    }
    check(options)?;
    let policies = policies(&options.policies)?;
    let trace = demand::read(options, options.seconds.unwrap_or(SECONDS))?;
    let settings = forebay_simulator::Settings {
        gateways: usize::from(options.gateways),
        capacity: options.capacity,
        reserve: options.reserve,
        faults_until_us: if options.faults { trace.length_us } else { 0 },
    };
    let seeds: Vec<u64> = match options.seed {
        Some(seed) => vec![seed],
        None => (1..=options.seeds).collect(),
    };
    let comparison = Comparison::new(&trace, settings, &policies, &seeds, &coordinator)
        .map_err(|error| error.to_string())?;
    say(&table::text(&trace, options, &comparison))?;
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&comparison.fields())
            .map_err(|error| error.to_string())?;
        write(path, &json)?;
        write(&path.with_extension("csv"), &comparison.csv())?;
    }
    Ok(())
}

/// Those that are named, each once; all where none is.
fn policies(named: &[String]) -> Result<Vec<PolicyName>, String> {
    let mut policies = Vec::new();
    for name in named {
        let policy = name.parse::<PolicyName>().map_err(|error| {
            format!("{error}. To compare policies of files, give the older one with --against")
        })?;
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        policies.extend(PolicyName::ALL);
    }
    Ok(policies)
}

fn check(options: &SimulateOptions) -> Result<(), String> {
    if let Some(given) = options.seconds.filter(|seconds| *seconds > SECONDS_MOST) {
        return Err(format!(
            "--seconds {given} is more than a fleet is simulated for: give from 20 to {SECONDS_MOST}"
        ));
    }
    if !(options.capacity > 0.0 && options.capacity <= 1e6) {
        let given = options.capacity;
        return Err(format!(
            "--capacity {given} is no multiple of the mean load: give a number above 0, for example 1.35"
        ));
    }
    if !(0.0..=0.9).contains(&options.reserve) {
        let given = options.reserve;
        return Err(format!(
            "--reserve {given} is no part of a contract: give a number from 0 to 0.9, for example 0.25"
        ));
    }
    Ok(())
}

fn coordinator(
    scenario: &Scenario,
    law: &'static dyn Law,
) -> Result<Box<dyn Coordinator>, SimulationError> {
    Ok(Box::new(SimulatedPlane::new(scenario, SETTINGS, law)?))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn say(text: &str) -> Result<(), String> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("cannot print the table: {error}")),
    }
}
