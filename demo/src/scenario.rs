//! Who asks for how much, and what they have bought.
//!
//! The pool is oversubscribed on purpose, as every real one is: the contracts together promise twice what the upstream
//! can do. Most customers keep to what they did yesterday; one, the spiker, now and then asks for several times its
//! usual demand, within what its contract promises and beyond. With contracts alone the pool then serves whoever asks
//! first, and the steady customers pay for the spiker. That is the case that shadow buckets are made for.
//!
//! Demand is that of a trace at a speed-up: each step keeps its shape and is scaled to the demo's size. The spikes
//! are added to the spiker's series, because which customer spikes when is what the demo is about and must not depend
//! on the file.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use forebay_traces::generator::{GeneratorSpec, SeededRandom};
use forebay_traces::{ReadOptions, Series};

/// The trace looked for in the data folder.
const TRACE_FILE: &str = "servegen_10m.parquet";
/// Share of the trace that lies before the replay. Models are trained on what lies before 70 %.
const REPLAY_FROM: f64 = 0.75;
/// Mean demand of the steady customers in shares of the capacity; one customer each.
const STEADY_SHARES: [f64; 5] = [0.26, 0.22, 0.18, 0.15, 0.12];
/// Mean demand of the spiker outside its spikes.
const SPIKER_SHARE: f64 = 0.04;
/// What the contracts together promise, in multiples of the capacity.
const OVERSUBSCRIPTION: f64 = 2.0;
/// What the upstream can do, in multiples of what the pool lets through: without that margin a queue never gets shorter.
const UPSTREAM_MARGIN: f64 = 1.1;
/// Contract rate of a steady customer in multiples of its mean demand: it rarely meets its own limit.
const STEADY_HEADROOM: f64 = 1.3;
/// Demand in a spike, in multiples of the capacity.
const SPIKE_HEIGHT: f64 = 2.0;
/// Steps from one spike to the next, and the steps that a spike lasts.
const SPIKE_EVERY_STEPS: (f64, f64) = (4.0, 7.0);
const SPIKE_STEPS: (f64, f64) = (1.0, 2.0);
/// Steps of traffic before anything is counted: buckets settle and the forecaster sees its first own steps.
pub(crate) const WARM_UP_STEPS: usize = 5;
/// Depth of a standard bucket in seconds of its rate.
const BURST_S: f64 = 1.0;
/// Days of history that the control plane is given before the replay starts.
const HISTORY_DAYS: usize = 3;
/// A series is fit for a steady customer if it is never idle and a step differs from the one before by less than this
/// share of the mean, in the history.
const STEADY_ROUGHNESS: f64 = 0.2;
/// Nor does it jump by more than this share of its mean in the replay: who does is a spiker of its own.
const STEADY_JUMP: f64 = 0.5;

/// Names in the order of size; the last one is the spiker's.
const NAMES: [&str; STEADY_SHARES.len() + 1] =
    ["acorn", "birch", "cedar", "drift", "ember", "flare"];

/// What a customer is in this scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Does what it did before; the forecast can know.
    Steady,
    /// Spikes without warning.
    Spiker,
}

/// One customer: contract and demand.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    /// Key that the requests carry.
    pub name: &'static str,
    /// The trace's name for the series behind it.
    pub tenant: String,
    /// What part it plays.
    pub role: Role,
    /// Refill of its standard bucket, whole tokens.
    pub rate_per_s: f64,
    /// Depth of its standard bucket, whole tokens.
    pub burst: f64,
    /// Tokens per step before the replay, oldest first; NaN where the trace has a gap.
    pub history: Vec<f64>,
    /// Tokens per step of the replay, the warm-up first.
    pub demand: Vec<f64>,
}

/// Everything that both runs share.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Where the demand comes from.
    pub source: Source,
    /// What the pool lets through, tokens per second: the capacity that the policy names.
    pub capacity_per_s: f64,
    /// What the upstream can really do.
    pub upstream_per_s: f64,
    /// Real length of a step.
    pub step_ms: u64,
    /// Length of a step in the trace.
    pub trace_step_s: u32,
    /// Unix time in the trace at which the replay starts.
    pub replay_start_s: i64,
    /// The customers.
    pub customers: Vec<Customer>,
}

/// Where the demand comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file of real demand.
    Trace(PathBuf),
    /// The generator, with this seed.
    Generator(u64),
}

/// The size of the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// What the pool lets through, tokens per second.
    pub capacity_per_s: f64,
    /// Steps that are replayed and counted, after the warm-up.
    pub steps: usize,
    /// Real length of a step.
    pub step_ms: u64,
    /// Seed of spikes, arrivals and, without a file, of the demand.
    pub seed: u64,
}

impl Scenario {
    /// Builds the scenario from the data folder's trace, or from the generator if there is none.
    pub(crate) fn new(data: Option<&Path>, size: Size) -> Result<Self> {
        let file = data
            .map(|folder| folder.join(TRACE_FILE))
            .filter(|file| file.exists());
        let (series, source) = match file {
            Some(file) => {
                let series = forebay_traces::read(&file, &ReadOptions::value("requests"))
                    .with_context(|| format!("cannot use {} for the demo", file.display()))?;
                (series, Source::Trace(file))
            }
            None => {
                let spec = GeneratorSpec {
                    seed: size.seed,
                    ..GeneratorSpec::default()
                };
                (spec.series(), Source::Generator(size.seed))
            }
        };
        Self::from_series(&series, source, size)
    }

    fn from_series(series: &[Series], source: Source, size: Size) -> Result<Self> {
        let steps = WARM_UP_STEPS + size.steps;
        let longest = series.iter().map(Series::len).max().unwrap_or(0);
        let start = (longest as f64 * REPLAY_FROM) as usize;
        let steps_per_day = series.first().map_or(0, |s| 86_400 / s.step_s.max(1)) as usize;
        let oldest = start.saturating_sub(HISTORY_DAYS * steps_per_day);
        ensure!(
            start + steps <= longest,
            "the trace has {longest} steps; a replay of {steps} from step {start} does not fit: ask for fewer seconds"
        );
        let mut fit: Vec<(f64, &Series)> = series
            .iter()
            .filter(|s| s.len() == longest)
            .filter_map(|s| {
                Some((
                    roughness(s.values.get(oldest..start + steps)?, start - oldest)?,
                    s,
                ))
            })
            .filter(|(roughness, _)| *roughness < STEADY_ROUGHNESS)
            .collect();
        fit.sort_by(|a, b| a.0.total_cmp(&b.0));
        ensure!(
            fit.len() >= NAMES.len(),
            "the demo needs {} customers without gaps whose demand is steady, the trace has {}",
            NAMES.len(),
            fit.len()
        );
        // Evenly over the fit ones, so that not only the very smoothest are shown.
        let chosen: Vec<&Series> = (0..NAMES.len())
            .map(|i| fit[i * (fit.len() - 1) / (NAMES.len() - 1)].1)
            .collect();
        let step_s = size.step_ms as f64 / 1_000.0;
        let mut customers: Vec<Customer> = chosen
            .iter()
            .zip(NAMES)
            .enumerate()
            .map(|(i, (series, name))| {
                let share = STEADY_SHARES.get(i).copied().unwrap_or(SPIKER_SHARE);
                let mean_per_s = share * size.capacity_per_s;
                let window = &series.values[start..start + steps];
                let scale = mean_per_s * step_s / mean(window);
                let rate_per_s = (STEADY_HEADROOM * mean_per_s).round();
                Customer {
                    name,
                    tenant: series.tenant.clone(),
                    role: if i < STEADY_SHARES.len() {
                        Role::Steady
                    } else {
                        Role::Spiker
                    },
                    rate_per_s,
                    burst: (BURST_S * rate_per_s).round(),
                    history: series.values[oldest..start]
                        .iter()
                        .map(|v| v * scale)
                        .collect(),
                    demand: window.iter().map(|v| v * scale).collect(),
                }
            })
            .collect();
        let promised: f64 = customers
            .iter()
            .filter(|c| c.role == Role::Steady)
            .map(|c| c.rate_per_s)
            .sum();
        if let Some(spiker) = customers.last_mut() {
            spiker.rate_per_s = OVERSUBSCRIPTION * size.capacity_per_s - promised;
            spiker.burst = BURST_S * spiker.rate_per_s;
            add_spikes(
                &mut spiker.demand,
                SPIKE_HEIGHT * size.capacity_per_s * step_s,
                size.seed,
            );
        }
        Ok(Self {
            source,
            capacity_per_s: size.capacity_per_s,
            upstream_per_s: UPSTREAM_MARGIN * size.capacity_per_s,
            step_ms: size.step_ms,
            trace_step_s: chosen[0].step_s,
            replay_start_s: chosen[0].stamp_s(start),
            customers,
        })
    }

    /// Length of the replay, warm-up included.
    pub(crate) fn replay_us(&self) -> u64 {
        let steps = self.customers.first().map_or(0, |c| c.demand.len());
        self.step_ms * 1_000 * steps as u64
    }

    /// When counting starts, after the start of the replay.
    pub(crate) fn warm_up_us(&self) -> u64 {
        self.step_ms * 1_000 * WARM_UP_STEPS as u64
    }

    /// Calendar seconds that pass in one real second.
    pub(crate) fn speed_up(&self) -> u64 {
        u64::from(self.trace_step_s) * 1_000 / self.step_ms
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(file) => write!(f, "{}", file.display()),
            Self::Generator(seed) => write!(f, "generator, seed {seed}"),
        }
    }
}

/// Mean step-to-step change in the history, in shares of the mean; `None` if the replay itself has gaps, idle steps or jumps.
fn roughness(values: &[f64], history: usize) -> Option<f64> {
    let (history, replay) = values.split_at_checked(history)?;
    let jump = STEADY_JUMP * mean(replay);
    if replay.iter().any(|v| v.is_nan() || *v <= 0.0)
        || replay
            .windows(2)
            .any(|pair| (pair[1] - pair[0]).abs() > jump)
    {
        return None;
    }
    let changes: Vec<f64> = history
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).abs())
        .filter(|c| !c.is_nan())
        .collect();
    let known: Vec<f64> = history.iter().copied().filter(|v| !v.is_nan()).collect();
    // Without a history to speak of nothing is known about it.
    (changes.len() * 2 > history.len()).then(|| mean(&changes) / mean(&known))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn add_spikes(demand: &mut [f64], height: f64, seed: u64) {
    let mut random = SeededRandom::new(seed).fork(1);
    let mut between =
        |(low, high): (f64, f64)| (low + (high - low) * random.uniform()).round() as usize;
    let mut step = WARM_UP_STEPS + 1;
    while step < demand.len() {
        let end = (step + between(SPIKE_STEPS)).min(demand.len());
        demand[step..end].fill(height);
        step = end + between(SPIKE_EVERY_STEPS);
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, Scenario, Size};

    const SIZE: Size = Size {
        capacity_per_s: 500.0,
        steps: 30,
        step_ms: 1_000,
        seed: 1,
    };

    #[test]
    fn contracts_promise_twice_the_capacity() {
        let scenario = Scenario::new(None, SIZE).unwrap();
        let promised: f64 = scenario.customers.iter().map(|c| c.rate_per_s).sum();
        assert!((promised - 1_000.0).abs() < 1e-9, "{promised}");
        assert!(
            scenario
                .customers
                .iter()
                .all(|c| c.rate_per_s.fract() == 0.0 && c.burst.fract() == 0.0)
        );
    }

    #[test]
    fn steady_customers_alone_fit_and_one_customer_spikes() {
        let scenario = Scenario::new(None, SIZE).unwrap();
        let steady: Vec<_> = scenario
            .customers
            .iter()
            .filter(|c| c.role == Role::Steady)
            .collect();
        let mean: f64 = steady.iter().flat_map(|c| &c.demand).sum::<f64>() / 35.0;
        assert!((mean - 465.0).abs() < 1.0, "{mean}");
        let spikes: Vec<_> = scenario
            .customers
            .iter()
            .filter(|c| c.role == Role::Spiker)
            .collect();
        assert_eq!(spikes.len(), 1);
        assert!(spikes[0].demand.iter().any(|v| *v > 900.0));
        assert!(spikes[0].history.iter().all(|v| *v < 200.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_scenario() {
        let a = Scenario::new(None, SIZE).unwrap();
        let b = Scenario::new(None, SIZE).unwrap();
        assert!(
            a.customers
                .iter()
                .zip(&b.customers)
                .all(|(x, y)| x.demand == y.demand && x.history == y.history)
        );
    }

    #[test]
    fn a_replay_longer_than_the_trace_is_refused() {
        let error = Scenario::new(
            None,
            Size {
                steps: 10_000,
                ..SIZE
            },
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("fewer seconds"), "{error}");
    }
}
