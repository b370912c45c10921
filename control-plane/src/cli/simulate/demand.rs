//! From files and generated series to the demand of a simulation, which knows neither.

use super::super::commands::SimulateOptions;
use forebay_simulator::{Demand, Request, Trace};
use forebay_traces::generator::GeneratorSpec;
use forebay_traces::{Event, Events, Series, read_demand};

const US_PER_S: u64 = 1_000_000;

/// What is generated: 24 customers, the middle one with about 12 requests a second, and bursts so often that minutes have some.
const TENANTS: usize = 24;
const STEP_S: u32 = 10;
const MEDIAN_PER_STEP: f64 = 150.0;
const BURSTS_PER_DAY: f64 = 100.0;
const SPIKES_PER_DAY: f64 = 50.0;

/// The demand that was asked for.
///
/// # Errors
/// When the file cannot be read, or has no demand.
pub(super) fn read(options: &SimulateOptions, seconds: u32) -> Result<Trace, String> {
    let length_us = u64::from(seconds) * US_PER_S;
    let trace = match &options.trace {
        Some(path) => match read_demand(path).map_err(|error| error.to_string())? {
            forebay_traces::Demand::Events(events) => of_events(events, length_us),
            forebay_traces::Demand::Steps(series) => of_steps(&series, length_us),
        },
        None => of_steps(&generated(options, seconds), length_us),
    };
    let is_empty = match &trace.demand {
        Demand::Requests(requests) => requests.is_empty(),
        Demand::Counts { counts, .. } => !counts.iter().flatten().any(|count| *count >= 1.0),
    };
    if is_empty {
        return Err(format!(
            "there is no request in the first {seconds} s of the trace: give a longer part with --seconds"
        ));
    }
    Ok(trace)
}

/// Made-up demand of so many seconds.
pub(super) fn generated(options: &SimulateOptions, seconds: u32) -> Vec<Series> {
    let spec = GeneratorSpec {
        seed: options.generate.unwrap_or_default(),
        customers: TENANTS,
        steps: seconds.div_ceil(STEP_S) as usize,
        step_s: STEP_S,
        median_per_step: MEDIAN_PER_STEP,
        bursts_per_day: BURSTS_PER_DAY,
        spikes_per_day: SPIKES_PER_DAY,
    };
    spec.series()
}

fn of_events(events: Events, length_us: u64) -> Trace {
    let starts_ns = events.events.first().map_or(0, |first| first.at_ns);
    let at_us = |event: &Event| event.at_ns.abs_diff(starts_ns) / 1_000;
    let requests = events
        .events
        .iter()
        .take_while(|event| at_us(event) < length_us)
        .map(|event| Request {
            at_us: at_us(event),
            tenant: event.tenant,
        });
    Trace {
        demand: Demand::Requests(requests.collect()),
        tenants: events.tenants,
        length_us,
    }
}

fn of_steps(series: &[Series], length_us: u64) -> Trace {
    let starts_s = series.iter().map(|one| one.start_s).min().unwrap_or(0);
    let step_s = series.first().map_or(1, |one| u64::from(one.step_s).max(1));
    let steps = length_us.div_ceil(step_s * US_PER_S);
    let counts = series.iter().map(|one| {
        let before = one.start_s.abs_diff(starts_s) / step_s;
        let zeros = (0..before).map(|_| 0.0);
        let counts = zeros.chain(one.values.iter().copied());
        counts
            .take(usize::try_from(steps).unwrap_or(usize::MAX))
            .collect()
    });
    Trace {
        demand: Demand::Counts {
            step_us: step_s * US_PER_S,
            counts: counts.collect(),
        },
        tenants: series.iter().map(|one| one.tenant.clone()).collect(),
        length_us,
    }
}
