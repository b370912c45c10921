//! What the control plane would forecast of each customer at the start of each cycle: the mixture of simple methods, one cycle ahead.

use forebay_families::{
    Family, Forecasts, Frame, History, MixtureSettings, Priors, QUANTILES, SIMPLE, mix,
};
use forebay_sharing::Outlook;
use forebay_simulator::pool::{CYCLE_S, Demand};

/// Cycles of a day, and of the season where less than a day is known.
const DAY: usize = 86_400 / CYCLE_S;
const HOUR: usize = 3_600 / CYCLE_S;
/// Cycles whose errors make the simple methods' quantiles.
const ERRORS: usize = 288;
/// Cycles that the mixture has learned from when the first forecast counts.
const LEARNED: usize = 600;

/// `[cycle][customer]`: made from what was asked for before the cycle, and nothing later.
pub(crate) fn outlooks(demand: &Demand) -> Vec<Vec<Outlook>> {
    let (usage_per_s, first) = demand.usage_per_s();
    let mut outlooks = vec![Vec::with_capacity(demand.customers); demand.cycles()];
    for usage in usage_per_s {
        let of_customer = forecast(usage, first);
        for (cycle, outlooks) in outlooks.iter_mut().enumerate() {
            let origin = first + cycle - 1;
            let row = of_customer
                .as_ref()
                .map(|forecasts| forecasts.of(origin, 1));
            outlooks.push(outlook(row, usage[origin]));
        }
    }
    outlooks
}

/// Forecasts from the ends of the cycles from just before `first` on.
fn forecast(usage: &[f64], first: usize) -> Option<Forecasts> {
    let frame = Frame {
        season: if first > DAY { DAY } else { HOUR },
        long_season: (first > 8 * DAY).then_some(7 * DAY),
        horizons: 1,
        error_rows: ERRORS,
    };
    // No family may see more than what is known; its last value is only there to be forecast.
    let history = History::new(0, CYCLE_S as u32, usage.to_vec());
    let origins = first.saturating_sub(1 + LEARNED)..=usage.len().saturating_sub(2);
    let forecasts = SIMPLE.map(|family| family.forecast(&history, &frame, origins.clone()));
    let families: Vec<Option<&Forecasts>> = forecasts.iter().map(Option::as_ref).collect();
    let settings = MixtureSettings::default();
    mix(&history, &frame, &families, &Priors::equal(), &settings)
}

/// A row of quantiles; the last demand where there is none.
fn outlook(row: Option<&[f32]>, last_per_s: f64) -> Outlook {
    match row {
        Some([_, median, nine_tenths, upper]) if median.is_finite() => Outlook {
            quantiles_per_s: [*median, *nine_tenths, *upper].map(f64::from),
        },
        _ => Outlook::of_demand(last_per_s),
    }
}

const _: () = assert!(QUANTILES.len() == 4);

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::policy::Tier;
    use forebay_simulator::pool::{Arrivals, Market, Spike};

    const MINUTES: usize = 4 * 24 * 60;
    const CYCLE_MINUTES: usize = CYCLE_S / 60;

    /// The second two days of four tenants with a daily wave.
    fn demand(market: &Market) -> Demand {
        Demand::new(market, Arrivals::Bursty, MINUTES / 2..MINUTES, 10, 1)
    }

    #[test]
    fn what_comes_later_moves_no_forecast() {
        let tenants: Vec<Vec<f64>> = (0..4)
            .map(|tenant| {
                let wave = |minute: usize| {
                    let day = minute as f64 / (24.0 * 60.0) + 0.2 * f64::from(tenant);
                    600.0 + 300.0 * (day * std::f64::consts::TAU).sin()
                };
                (0..MINUTES).map(wave).collect()
            })
            .collect();
        let market = Market::new(&tenants, 60, tenants.len(), 1);
        // From this scored cycle on everything is different.
        let changed = 100;
        let mut other = market.clone();
        for tier in [Tier::One, Tier::Two, Tier::Three] {
            other = other.with_spike(&Spike {
                tier,
                factor: 3.0,
                from_minute: MINUTES / 2 + changed * CYCLE_MINUTES,
                minutes: MINUTES,
            });
        }
        for (buyer, was) in other.buyers.iter_mut().zip(&market.buyers) {
            buyer.contract_per_s = was.contract_per_s;
        }
        let (now, later) = (demand(&market), demand(&other));
        let (one, two) = (outlooks(&now), outlooks(&later));
        assert_eq!(one[..=changed], two[..=changed]);
        assert!(one[changed + 1..] != two[changed + 1..]);
        // They are forecasts, and not the last demand for want of one.
        let has_interval = |outlook: &Outlook| outlook.upper_per_s() > outlook.at(0.5);
        assert!(one[..=changed].iter().flatten().all(has_interval));
    }
}
