//! Which accounts rise together beyond chance: what both statistics find, each at half of the rate of false discoveries.
//!
//! Correlation sees what many steps have in common, coincidences see rare spikes, and each misses what the other finds.

use crate::risk::correlation::{Lagged, correlate};
use crate::risk::dependence::SMALL_FLEET;
use crate::risk::discovery::{FALSE_SHARE, found};
use crate::risk::residuals::Residuals;
use crate::risk::tails::{Coincidence, Tail, Tails};

/// How many pairs are looked at in a fleet that is not small: those that spike together most.
const SCREENED: usize = 20_000;

/// An ordered pair of which the second one rises with the first, or after it.
#[derive(Clone, Debug)]
pub struct Link {
    /// Who comes first.
    pub from: usize,
    /// Who rises with it, or follows.
    pub to: usize,
    /// By how many steps it follows, at the largest correlation.
    pub lag_steps: usize,
    /// The largest correlation of normal scores within the horizon.
    pub correlation: f64,
    /// Dependence in the upper tail.
    pub tail: Tail,
    /// Spikes that are followed.
    pub coincidence: Coincidence,
}

/// The links among all customers, with a horizon of `reach_steps`.
#[must_use]
pub fn links(residuals: &Residuals, reach_steps: usize, seed: u64) -> Vec<Link> {
    let customers = residuals.customers();
    let reach_steps = reach_steps.min(residuals.steps());
    let tails = Tails::of(residuals, reach_steps);
    let pairs: Vec<(usize, usize)> = if customers <= SMALL_FLEET {
        (0..customers)
            .flat_map(|from| (0..customers).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect()
    } else {
        tails.screen(SCREENED)
    };
    let correlations = correlate(residuals, &pairs, reach_steps);
    let coincidences: Vec<Coincidence> = correlations
        .pairs
        .iter()
        .map(|pair| tails.coincidence(pair.from, pair.to))
        .collect();
    let all = customers as f64 * (customers as f64 - 1.0);
    let lags = reach_steps as f64 + 1.0;
    let of_lags: Vec<f64> = correlations
        .pairs
        .iter()
        .flat_map(|pair| pair.p_values.clone())
        .collect();
    let by_correlation = found(&of_lags, all * lags, FALSE_SHARE / 2.0);
    let of_spikes: Vec<f64> = coincidences.iter().map(|found| found.p_value).collect();
    let by_spikes = found(&of_spikes, all, FALSE_SHARE / 2.0);
    let by_correlation = by_correlation.chunks(reach_steps + 1);
    correlations
        .pairs
        .iter()
        .zip(coincidences)
        .zip(by_correlation.zip(by_spikes))
        .filter(|((pair, _), (at_lag, by_spikes))| *by_spikes || rises(pair, at_lag))
        .map(|((pair, coincidence), _)| {
            let (lag_steps, correlation) = largest(pair);
            Link {
                from: pair.from,
                to: pair.to,
                lag_steps,
                correlation,
                tail: tails.dependence(pair.from, pair.to, seed),
                coincidence,
            }
        })
        .collect()
}

/// Whether what is found is a rise of both: who falls when another rises makes room for it.
fn rises(pair: &Lagged, at_lag: &[bool]) -> bool {
    let mut all = pair.correlations.iter().zip(at_lag);
    all.any(|(correlation, is_found)| *is_found && *correlation > 0.0)
}

fn largest(pair: &Lagged) -> (usize, f64) {
    let all = pair.correlations.iter().copied().enumerate();
    all.max_by(|left, right| left.1.total_cmp(&right.1))
        .unwrap_or((0, 0.0))
}
