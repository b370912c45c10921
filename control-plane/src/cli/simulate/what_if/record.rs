//! From a file to recorded usage: requests by the second, or what there is in each step.

use super::super::super::commands::SimulateOptions;
use super::super::{SECONDS, demand};
use forebay_simulator::pool::what_if::{SECONDS_MOST, Usage};
use forebay_traces::{Demand, Events, Series, read_demand};

const NS_PER_S: i64 = 1_000_000_000;

/// What was recorded.
#[derive(Debug)]
pub(super) struct Record {
    /// Who asks. No name stands twice.
    pub(super) names: Vec<String>,
    pub(super) step_s: u32,
    /// `[customer][step]`; NaN is a gap.
    pub(super) steps: Vec<Vec<f64>>,
    /// Unix time at which the first step begins.
    pub(super) starts_s: i64,
}

/// The usage that was asked for.
///
/// # Errors
/// When the file cannot be read, or has too much.
pub(super) fn read(options: &SimulateOptions) -> Result<Record, String> {
    let most = options.seconds;
    match &options.trace {
        Some(path) => match read_demand(path).map_err(|error| error.to_string())? {
            Demand::Events(events) => of_events(events, most),
            Demand::Steps(series) => of_steps(series, most),
        },
        None => {
            let seconds = most.unwrap_or(SECONDS);
            if seconds > SECONDS_MOST {
                return Err(format!("--seconds {seconds}: give at most {SECONDS_MOST}"));
            }
            of_steps(demand::generated(options, seconds), most)
        }
    }
}

/// By the second.
fn of_events(events: Events, most: Option<u32>) -> Result<Record, String> {
    let starts_s = events
        .events
        .first()
        .map_or(0, |first| first.at_ns.div_euclid(NS_PER_S));
    let second = |at_ns: i64| {
        let second = at_ns.div_euclid(NS_PER_S).abs_diff(starts_s);
        usize::try_from(second).unwrap_or(usize::MAX)
    };
    let recorded = events
        .events
        .last()
        .map_or(0, |last| second(last.at_ns).saturating_add(1));
    let length = at_most(recorded, most, 1);
    let customers = events.tenants.len();
    Usage::check(1, customers, length).map_err(|error| error.to_string())?;
    let mut steps = vec![vec![0.0; length]; customers];
    for event in &events.events {
        let of = steps.get_mut(event.tenant as usize);
        if let Some(count) = of.and_then(|steps| steps.get_mut(second(event.at_ns))) {
            *count += 1.0;
        }
    }
    Ok(Record {
        names: events.tenants,
        step_s: 1,
        steps,
        starts_s,
    })
}

fn of_steps(series: Vec<Series>, most: Option<u32>) -> Result<Record, String> {
    let starts_s = series.iter().map(|one| one.start_s).min().unwrap_or(0);
    let step_s = series.first().map_or(1, |one| one.step_s).max(1);
    let before = |one: &Series| {
        let steps = one.start_s.abs_diff(starts_s) / u64::from(step_s);
        usize::try_from(steps).unwrap_or(usize::MAX)
    };
    let recorded = series
        .iter()
        .map(|one| before(one).saturating_add(one.len()));
    let length = at_most(recorded.max().unwrap_or(0), most, step_s);
    Usage::check(step_s, series.len(), length).map_err(|error| error.to_string())?;
    let of = |one: &Series| {
        let gap = std::iter::repeat_n(f64::NAN, before(one).min(length));
        let steps = gap.chain(one.values.iter().copied());
        steps.take(length).collect()
    };
    Ok(Record {
        steps: series.iter().map(of).collect(),
        names: series.into_iter().map(|one| one.tenant).collect(),
        step_s,
        starts_s,
    })
}

/// Steps of so many seconds, the last one whole.
fn at_most(recorded: usize, seconds: Option<u32>, step_s: u32) -> usize {
    let most = seconds.map_or(usize::MAX, |seconds| seconds.div_ceil(step_s) as usize);
    recorded.min(most)
}
