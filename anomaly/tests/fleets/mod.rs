//! Made-up fleets: customers of six kinds with nights, weekends, growth, bursts, timers and silence, and what is done to them.
//!
//! What abuse asks for comes on top of what the customer itself does, in multiples of its mean demand at that time: whoever has a
//! leaked key does not wait for its owner.

#![allow(dead_code, reason = "each test file uses its own part")]

use forebay_anomaly::{Around, Customer, Kind, Peers, Signs, Step, Verdict, Watch};

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const DAY: u64 = 1_440;
pub(crate) const CUSTOMERS: usize = 60;

/// One customer's ways.
#[derive(Clone, Debug)]
struct Ways {
    kind: usize,
    /// Tokens a minute.
    mean: f64,
    /// The wave of the day, and its place.
    daily: f64,
    phase: f64,
    /// Of its time zone, in days.
    zone: f64,
    weekend: f64,
    growth_a_week: f64,
    /// Of Gamma noise: small is wild.
    shape: f64,
    contract: f64,
    burst_left: f64,
    burst_times: f64,
    has_forecast: bool,
}

/// What is done to a customer in a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Done {
    /// Its mean demand, so many times on top.
    pub(crate) more: f64,
    /// So many times its mean demand is asked for and denied by the contract.
    pub(crate) denied: f64,
    pub(crate) keys_times: f64,
    pub(crate) event: Option<f64>,
}

pub(crate) const NOTHING: Done = Done {
    more: 0.0,
    denied: 0.0,
    keys_times: 1.0,
    event: None,
};

/// A fleet that lives on.
#[derive(Clone)]
pub(crate) struct Fleet {
    chance: Chance,
    ways: Vec<Ways>,
    pub(crate) minute: u64,
    pool_short_left: u64,
}

/// A fleet's customers as the control plane would watch them.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) watch: Watch,
    pub(crate) customers: Vec<Customer>,
    pub(crate) peers: Peers,
    pub(crate) verdicts: Vec<Verdict>,
    /// The highest share of others that have risen.
    pub(crate) risen_share: f64,
}

/// SplitMix64, and what is made of it.
#[derive(Clone)]
pub(crate) struct Chance(pub(crate) u64);

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let ways = (0..CUSTOMERS)
            .map(|number| {
                let kind = number % 6;
                let mean = 60.0 * (1.2 * chance.normal()).exp();
                Ways {
                    kind,
                    mean,
                    daily: [0.5, 1.0, 0.6, 0.8, 0.3, 0.5][kind],
                    phase: chance.uniform(),
                    zone: [0.0, -1.0 / 3.0, 1.0 / 3.0][number / 6 % 3],
                    weekend: [1.0, 0.7, 0.8, 0.3, 1.0, 0.6][kind],
                    growth_a_week: [0.0, 0.02, 0.0, 0.06, 0.0, 0.0][kind],
                    shape: [20.0, 5.0, 5.0, 10.0, 20.0, 0.7][kind],
                    contract: mean * (2.0 + 3.0 * chance.uniform()),
                    burst_left: 0.0,
                    burst_times: 1.0,
                    has_forecast: chance.uniform() < 0.5,
                }
            })
            .collect();
        Self {
            chance,
            ways,
            minute: 0,
            pool_short_left: 0,
        }
    }

    /// The next minute of all customers.
    pub(crate) fn next(&mut self, done: impl Fn(usize) -> Done) -> Vec<Step> {
        self.minute += 1;
        let minute = self.minute;
        let chance = &mut self.chance;
        if self.pool_short_left > 0 {
            self.pool_short_left -= 1;
        } else if chance.uniform() * (DAY as f64) < 1.0 {
            self.pool_short_left = 40;
        }
        let is_short = self.pool_short_left > 0;
        let customers = self.ways.iter_mut().enumerate();
        customers
            .map(|(number, ways)| ways.next(minute, is_short, done(number), chance))
            .collect()
    }
}

// === impl Ways ===

impl Ways {
    /// What it asks for in this minute on average.
    fn mean_at(&self, minute: u64) -> f64 {
        let day = minute as f64 / DAY as f64;
        let wave = self.daily * (std::f64::consts::TAU * (day + self.phase)).sin();
        // Of seven days it begins on the sixth, within some hours.
        let week_day = (day + self.zone + 7.0) % 7.0;
        let hours_in = 24.0 * (week_day - 5.0);
        let is_weekend = if week_day < 3.0 {
            hours_in + 5.0 * 24.0
        } else {
            hours_in
        };
        let share = if week_day < 3.0 {
            1.0 / (1.0 + is_weekend.exp())
        } else {
            1.0 / (1.0 + (-is_weekend).exp())
        };
        let weekend = self.weekend.powf(share);
        let grown = (1.0 + self.growth_a_week).powf(day / 7.0);
        self.mean * wave.exp() * weekend * grown
    }

    fn next(&mut self, minute: u64, is_short: bool, done: Done, chance: &mut Chance) -> Step {
        let mean = self.mean_at(minute);
        let noise = chance.gamma(self.shape) / self.shape;
        let mut own = match self.kind {
            // Bursts of minutes, some times a day.
            2 => {
                if self.burst_left > 0.0 {
                    self.burst_left -= 1.0;
                } else if chance.uniform() < 1.0 / 300.0 {
                    self.burst_left = 5.0 * chance.gamma(2.0);
                    self.burst_times = 1.0 + chance.gamma(2.0);
                }
                let times = if self.burst_left > 0.0 {
                    self.burst_times
                } else {
                    1.0
                };
                mean * times * noise
            }
            // All at once at each half hour.
            4 => mean * noise * if minute.is_multiple_of(30) { 25.0 } else { 0.2 },
            // Mostly nothing.
            5 => {
                let is_awake = chance.uniform() < 0.15;
                if is_awake { mean / 0.15 * noise } else { 0.0 }
            }
            _ => mean * noise,
        };
        own += mean * done.more * chance.gamma(10.0) / 10.0;
        let own = own.round();
        let burst_contract = self.contract * if self.kind == 4 { 30.0 } else { 1.0 };
        let denied_extra = (mean * done.denied).round();
        let denied_contract = (own - burst_contract).max(0.0) + denied_extra;
        let denied_pool = if is_short { (0.3 * own).round() } else { 0.0 };
        let keys = 2.0 + 0.5 * own.sqrt() * chance.gamma(20.0) / 20.0;
        Step {
            unix_ms: minute * MINUTE_MS,
            asked: own + denied_extra + denied_pool,
            denied_contract,
            denied_pool,
            keys: Some((keys * done.keys_times).round()),
            forecast_high: self.has_forecast.then_some(1.6 * mean),
            event_factor: done.event,
        }
    }
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(step_ms: u32, customers: usize) -> Self {
        let watch = Watch::new(step_ms);
        Self {
            watch,
            customers: vec![Customer::default(); customers],
            peers: Peers::new(&watch),
            verdicts: Vec::new(),
            risen_share: 0.0,
        }
    }

    /// As the control plane does it: signs of all, then verdicts.
    pub(crate) fn observe(&mut self, steps: &[Step]) {
        self.peers.begin();
        let signs: Vec<Option<Signs>> = self
            .customers
            .iter_mut()
            .zip(steps)
            .map(|(customer, step)| self.watch.observe(customer, step))
            .collect();
        signs
            .iter()
            .flatten()
            .for_each(|signs| self.peers.add(signs));
        self.verdicts.clear();
        self.risen_share = 0.0;
        for (customer, signs) in self.customers.iter_mut().zip(&signs) {
            let signs = signs.as_ref().unwrap();
            let around: Around = self.peers.around(signs);
            self.risen_share = self.risen_share.max(around.risen_share);
            let verdict = self.watch.judge(customer, signs, around);
            self.verdicts.push(verdict);
        }
    }

    /// Which customers have been flagged in this step and not before.
    pub(crate) fn new_flags(&self, unix_ms: u64) -> impl Iterator<Item = usize> {
        let flags = self.verdicts.iter().enumerate();
        flags.filter_map(move |(number, verdict)| {
            let is_new = verdict.kind == Kind::Unusual && verdict.since_unix_ms == Some(unix_ms);
            is_new.then_some(number)
        })
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

    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// By Marsaglia and Tsang.
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.uniform()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = self.normal();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 {
                let uniform = 1.0 - self.uniform();
                if uniform.ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
                    return d * v;
                }
            }
        }
    }
}
