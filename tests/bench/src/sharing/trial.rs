//! All policies on one trace with one seed: everything that is compared sees the same requests and the same forecasts.

use std::collections::BTreeMap;

use forebay_core::policy::Tier;
use forebay_sharing::Settings;
use forebay_simulator::pool::{
    Arrivals, CYCLE_S, CentralName, Decider, Demand, Market, Mechanism, Plan, PoolFigures, Rule,
    Scheme, Spike, View, run,
};

use super::forecasts::outlooks;

/// Customers of a pool.
pub(crate) const CUSTOMERS: usize = 60;
/// Capacities, as multiples of the mean load of the first half.
pub(crate) const CAPACITIES: [f64; 3] = [1.15, 1.35, 1.70];
/// The one that bars are about.
pub(crate) const MIDDLE: f64 = 1.35;
/// The part of the capacity that is nobody's.
const RESERVE: f64 = 0.25;
/// How many times tier 3 asks for what it did, and for how many cycles.
const SPIKE_FACTOR: f64 = 12.0;
const SPIKE_CYCLES: usize = 12;
const CYCLE_MINUTES: usize = CYCLE_S / 60;

/// Demand by tenant and step.
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) step_s: usize,
    pub(crate) sub_step_s: usize,
    /// Whether bars are about it.
    pub(crate) has_bars: bool,
    pub(crate) tenants: Vec<Vec<f64>>,
}

/// An allocation that is compared.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) scheme: Scheme,
}

/// What is told apart: capacity in hundredths, mechanism, policy.
pub(crate) type Key = (u32, &'static str, &'static str);

/// What came of everything with one seed.
pub(crate) struct Trial {
    pub(crate) figures: BTreeMap<Key, PoolFigures>,
    /// The same in a spike of tier 3, at the middle capacity.
    pub(crate) spikes: BTreeMap<Key, PoolFigures>,
}

/// The allocations that are compared, ours as shipped first.
pub(crate) fn rows() -> Vec<Row> {
    let settings = Settings::default();
    let with_credits = Settings {
        with_credits: true,
        ..settings
    };
    let row = |name, rule, reserve_share, has_credit| Row {
        name,
        scheme: Scheme {
            rule,
            reserve_share,
            has_credit,
        },
    };
    let ours = |view| Rule::Ours(view, settings);
    vec![
        row("ours", ours(View::Forecast), RESERVE, true),
        row("ours_no_forecast", ours(View::LastDemand), RESERVE, true),
        row("ours_no_intervals", ours(View::Median), RESERVE, true),
        row("ours_no_reserve", ours(View::Forecast), 0.0, true),
        row(
            "ours_no_guarantee_credit",
            ours(View::Forecast),
            RESERVE,
            false,
        ),
        row(
            "ours_with_lending_credits",
            Rule::Ours(View::Forecast, with_credits),
            RESERVE,
            true,
        ),
        row("static", Rule::Static, RESERVE, false),
        row("reactive", Rule::Reactive, RESERVE, false),
        row("reactive_guarantee_credit", Rule::Reactive, RESERVE, true),
        row(
            "reactive_floors",
            Rule::ReactiveAboveGuarantees,
            RESERVE,
            false,
        ),
        row("forecast_leases", Rule::Quantile(0.9), RESERVE, false),
        row("kueue_like", Rule::Borrowing, RESERVE, false),
        row("static_no_reserve", Rule::Static, 0.0, false),
        row("reactive_no_reserve", Rule::Reactive, 0.0, false),
    ]
}

// === impl Trial ===

impl Trial {
    /// Everything with one seed.
    pub(crate) fn new(trace: &Trace, arrivals: Arrivals, seed: u64, rows: &[Row]) -> Self {
        let market = Market::new(&trace.tenants, trace.step_s, CUSTOMERS, seed);
        let minutes = market.minutes();
        let half = minutes / 2 / CYCLE_MINUTES * CYCLE_MINUTES;
        let demand = Demand::new(&market, arrivals, half..minutes, trace.sub_step_s, seed);
        let mut figures = BTreeMap::new();
        compare(&market, &demand, rows, &CAPACITIES, &mut figures);

        let spike = Spike {
            tier: Tier::Three,
            factor: SPIKE_FACTOR,
            from_minute: half + half / 2,
            minutes: SPIKE_CYCLES * CYCLE_MINUTES,
        };
        let market = market.with_spike(&spike);
        // From the cycle before it on: nobody knows of it when it begins.
        let from = spike.from_minute / CYCLE_MINUTES * CYCLE_MINUTES - CYCLE_MINUTES;
        let to = spike.from_minute + spike.minutes;
        let demand = Demand::new(&market, arrivals, from..to, trace.sub_step_s, seed);
        let mut spikes = BTreeMap::new();
        compare(&market, &demand, rows, &[MIDDLE], &mut spikes);
        Self { figures, spikes }
    }
}

fn compare(
    market: &Market,
    demand: &Demand,
    rows: &[Row],
    capacities: &[f64],
    figures: &mut BTreeMap<Key, PoolFigures>,
) {
    let outlooks = outlooks(demand);
    for times in capacities {
        let capacity_per_s = times * market.mean_per_s;
        let of = (times * 100.0).round() as u32;
        for central in CentralName::ALL {
            let found = run(market, demand, capacity_per_s, Decider::Central(central));
            figures.insert((of, "central", central.name()), found);
        }
        for row in rows {
            let plan = Plan::new(row.scheme, market, demand, &outlooks, capacity_per_s);
            for mechanism in Mechanism::ALL {
                let decider = Decider::Allocated(mechanism, &plan);
                let found = run(market, demand, capacity_per_s, decider);
                figures.insert((of, mechanism.name(), row.name), found);
            }
        }
    }
}
