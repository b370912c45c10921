//! Synthetic fleets whose demand does not change: what a good model loses on them, and how many of its quantiles hold.
//!
//! Each series is the exponential of a normal walk around a daily wave, and its forecast is the true 0.9 quantile given the step before,
//! so whatever sounds an alarm is a false one. Then the demand is changed, and what sounds none is missed.

#![allow(dead_code, reason = "each test file uses its own part")]

use forebay_alerts::{ModelRound, Round, Sums, Watch};

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const DAY_ROUNDS: u64 = 1_440;

/// The 0.9 quantile of a standard normal value.
const Z: f64 = 1.281_551_565_545;

/// A kind of demand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) name: &'static str,
    pub(crate) series: usize,
    /// How much of a step goes on in the next.
    pub(crate) inertia: f64,
    /// Spread of what is new in a step.
    pub(crate) spread: f64,
    /// Share of that which all series have in common.
    pub(crate) common: f64,
    /// How much the spread itself moves slowly: it is not the same all day.
    pub(crate) restless: f64,
    /// The wave of the day, of demand and of spread.
    pub(crate) daily: f64,
    /// By how much more it is on two days of seven.
    pub(crate) weekly: f64,
    /// One step in so many is a spike of ten spreads; 0: none.
    pub(crate) spike_of: u64,
}

pub(crate) const CALM: Demand = Demand {
    name: "20 customers that have nothing in common",
    series: 20,
    inertia: 0.7,
    spread: 0.3,
    common: 0.0,
    restless: 0.0,
    daily: 0.0,
    weekly: 0.0,
    spike_of: 0,
};

/// Each is harder than [`CALM`] in its own way.
pub(crate) const DEMANDS: [Demand; 7] = [
    CALM,
    Demand {
        name: "the same, with nights",
        daily: 0.8,
        ..CALM
    },
    Demand {
        name: "half of what is new is common to all",
        common: 0.5,
        daily: 0.5,
        ..CALM
    },
    Demand {
        name: "weekends of half as much spread again",
        daily: 0.5,
        weekly: 0.5,
        ..CALM
    },
    Demand {
        name: "spread that wanders over hours",
        restless: 0.3,
        daily: 0.5,
        ..CALM
    },
    Demand {
        name: "spikes of ten spreads, one step in 200",
        spike_of: 200,
        daily: 0.5,
        ..CALM
    },
    Demand {
        name: "2 customers",
        series: 2,
        daily: 0.5,
        ..CALM
    },
];

/// A fleet that lives on.
pub(crate) struct Fleet {
    demand: Demand,
    chance: Chance,
    levels: Vec<f64>,
    spread_walk: f64,
    pub(crate) minute: u64,
    /// By how much forecasts are too low, in logarithms.
    pub(crate) bias: f64,
    /// By how much what is new is more than it was.
    pub(crate) wilder: f64,
}

/// Normal values by Box and Muller from SplitMix64.
pub(crate) struct Chance(pub(crate) u64);

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(demand: Demand, seed: u64) -> Self {
        Self {
            demand,
            chance: Chance(seed),
            levels: vec![0.0; demand.series],
            spread_walk: 0.0,
            minute: 0,
            bias: 0.0,
            wilder: 1.0,
        }
    }

    /// What matures in the next minute.
    pub(crate) fn next(&mut self) -> Sums {
        let Demand {
            inertia,
            spread,
            common,
            restless,
            daily,
            weekly,
            spike_of,
            ..
        } = self.demand;
        self.minute += 1;
        let hour = (self.minute % DAY_ROUNDS) as f64 / 60.0;
        let wave = (hour / 24.0 * std::f64::consts::TAU).sin();
        let is_weekend = self.minute / DAY_ROUNDS % 7 >= 5;
        let weekly = if is_weekend { 1.0 + weekly } else { 1.0 };
        // Half of it is gone after three hours.
        self.spread_walk = 0.996 * self.spread_walk + 0.09 * self.chance.normal();
        let restless = (restless * self.spread_walk).exp();
        let spread = spread * (1.0 - 0.5 * daily * wave) * weekly * restless;
        let shared = self.chance.normal();
        let mut sums = Sums::default();
        let losses = &mut sums.losses[0];
        for level in &mut self.levels {
            let own = self.chance.normal();
            let mut new = common.sqrt() * shared + (1.0 - common).sqrt() * own;
            if spike_of > 0 && self.chance.uniform() * (spike_of as f64) < 1.0 {
                new += 10.0;
            }
            let expected = inertia * *level;
            *level = (expected + spread * self.wilder * new).min(8.0);
            let base = (daily * wave).exp() * 100.0;
            let usage = base * level.exp();
            let forecast = base * (expected + spread * Z - self.bias).exp();
            let miss = usage - forecast;
            sums.matured += 1.0;
            sums.covered += f64::from(u8::from(miss <= 0.0));
            losses.loss += if miss > 0.0 { 0.9 * miss } else { -0.1 * miss };
            losses.usage += usage;
        }
        sums
    }

    /// Lets the watch see the next minute.
    pub(crate) fn show(&mut self, watch: &mut Watch) {
        let sums = self.next();
        watch.observe(&Round {
            unix_ms: self.minute * MINUTE_MS,
            models: vec![ModelRound {
                model: "model".to_owned(),
                sums: Some(sums),
            }],
            ..Round::default()
        });
    }
}

// === impl Chance ===

impl Chance {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
