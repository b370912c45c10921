//! Contracts that fit a trace: there is demand for everybody's, and hardly anybody's is enough for all of it.
//!
//! A trace knows what was asked for and not what was bought. So each tenant has bought what it needed in nearly all of the first half,
//! and the second half shows what becomes of that. Contracts of one size for all would leave most of them without any meaning.

use crate::trace::Request;
use forebay_core::{Micro, Rate};

/// Demand is counted in windows of this length.
const WINDOW_US: u64 = 10_000_000;
/// Of those windows, so many have no more than what the contract goes by.
const PART_OF_WINDOWS: f64 = 0.9;
/// A contract is this much larger than that.
const MARGIN: f64 = 1.2;
/// The burst is this many seconds of the rate.
const BURST_S: u64 = 2;
/// The guarantee is one part of so many of the rate.
const GUARANTEE_PARTS: u64 = 4;
/// No contract is smaller, in thousandths of a token per second.
const RATE_MILLI_PER_S_LEAST: u64 = 1_000;

/// What a tenant has bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// In whole thousandths of a token per second, so that it can be written as a short decimal.
    pub rate_milli_per_s: u64,
}

// === impl Contract ===

impl Contract {
    /// Tokens per second.
    #[must_use]
    pub const fn rate(self) -> Rate {
        Rate::new(self.rate_milli_per_s * 1_000)
    }

    /// Two seconds of the rate.
    #[must_use]
    pub const fn burst(self) -> Micro {
        Micro::new((self.rate_milli_per_s * 1_000 * BURST_S).cast_signed())
    }

    /// A quarter of the rate.
    #[must_use]
    pub const fn guarantee(self) -> Rate {
        Rate::new(self.rate_milli_per_s * 1_000 / GUARANTEE_PARTS)
    }
}

/// A contract for each of `tenants`, whose requests these are. Together they are at most `capacity` times the mean load, unless the smallest
/// ones are more than that.
pub(crate) fn contracts(
    tenants: usize,
    requests: &[Request],
    length_us: u64,
    capacity: f64,
) -> Vec<Contract> {
    let windows = (length_us / 2).div_ceil(WINDOW_US).max(1);
    let mut counts = vec![vec![0_u32; usize::try_from(windows).unwrap_or(0)]; tenants];
    for request in requests {
        let window = usize::try_from(request.at_us / WINDOW_US).unwrap_or(usize::MAX);
        let count = counts
            .get_mut(request.tenant as usize)
            .and_then(|counts| counts.get_mut(window));
        if let Some(count) = count {
            *count += 1;
        }
    }
    let wanted_per_s: Vec<f64> = counts
        .iter_mut()
        .map(|counts| MARGIN * usual(counts) / seconds(WINDOW_US.min(length_us / 2 + 1)))
        .collect();
    let all_per_s: f64 = wanted_per_s.iter().sum();
    let capacity_per_s = capacity * requests.len() as f64 / seconds(length_us.max(1));
    let scale = if all_per_s > capacity_per_s {
        capacity_per_s / all_per_s
    } else {
        1.0
    };
    let contracts = wanted_per_s.into_iter().map(|per_s| Contract {
        rate_milli_per_s: ((per_s * scale * 1e3).round() as u64).max(RATE_MILLI_PER_S_LEAST),
    });
    contracts.collect()
}

/// What nearly all of the counts do not exceed.
fn usual(counts: &mut [u32]) -> f64 {
    counts.sort_unstable();
    let rank = (counts.len() as f64 * PART_OF_WINDOWS).ceil() as usize;
    counts
        .get(rank.saturating_sub(1))
        .map_or(0.0, |count| f64::from(*count))
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of one tenant each `gap_us`.
    fn steady(tenant: u32, gap_us: u64, length_us: u64) -> impl Iterator<Item = Request> {
        (0..length_us / gap_us).map(move |index| Request {
            at_us: index * gap_us,
            tenant,
        })
    }

    #[test]
    fn a_contract_is_a_fifth_above_what_is_usual_and_all_together_fit_into_the_capacity() {
        let length_us = 200_000_000;
        let requests: Vec<Request> = steady(0, 100_000, length_us)
            .chain(steady(1, 25_000, length_us))
            .chain(steady(2, 60_000_000, length_us))
            .collect();
        let ample = contracts(3, &requests, length_us, 10.0);
        let rates: Vec<u64> = ample.iter().map(|one| one.rate_milli_per_s).collect();
        assert_eq!(rates, [12_000, 48_000, 1_000]);
        assert_eq!(
            ample.first().map(|one| (one.burst(), one.guarantee())),
            Some((Micro::from_tokens(24), Rate::from_tokens_per_s(3)))
        );
        let scarce = contracts(3, &requests, length_us, 1.0);
        let sum: u64 = scarce.iter().map(|one| one.rate_milli_per_s).sum();
        assert!((50_000..52_100).contains(&sum), "{scarce:?}");
    }
}
