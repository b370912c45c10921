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
