//! A made-up fleet whose couplings are known, because they were planted, and what they really do, because there is enough of it to count.
// Each test takes what it needs.
#![allow(dead_code)]
// As in tests, but a benchmark includes it, too.
#![allow(clippy::indexing_slicing)]

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Lend, Outlook, Settings, Terms, allocate};

pub(crate) const RESOURCE: ResourceIndex = ResourceIndex::FIRST;
pub(crate) const STEP_S: u32 = 300;
pub(crate) const DAY: usize = 288;
pub(crate) const TWO_WEEKS: usize = 14 * DAY;
/// Half an hour.
pub(crate) const REACH: usize = 6;

pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.uniform() * count as f64) as usize
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Bursts in a day of whoever others follow, of a common shock, and of those that follow or share it by themselves.
const OFTEN: f64 = 3.0;
const SELDOM: f64 = 0.3;

/// Demand as it comes about.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) bases: Vec<f64>,
    /// Bursts of its own that each customer has in a day.
    pub(crate) bursts_a_day: Vec<f64>,
    /// Who is followed by whom, after how many steps, and how often.
    pub(crate) drives: Vec<(usize, usize, usize, f64)>,
    /// Customers that burst together, `OFTEN` a day.
    pub(crate) shocks: Vec<Vec<usize>>,
    /// Customers whose demand is tripled for two hours, in step, on some days.
    pub(crate) campaign: Vec<usize>,
}

impl Fleet {
    /// Customers of different sizes, a sixth of which follow another one and a sixth of which burst together.
    pub(crate) fn planted(customers: usize, seed: u64) -> Self {
        let mut chance = Chance(seed);
        let bases = (0..customers)
            .map(|_| 100.0 * (0.25 * chance.normal()).exp())
            .collect();
        let sixth = customers / 6;
        let drives: Vec<(usize, usize, usize, f64)> = (0..sixth)
            .map(|pair| (pair, customers / 2 + pair, 1 + pair % 4, 0.85))
            .collect();
        let group = |first: usize| (first..first + 3).collect();
        let shocks: Vec<Vec<usize>> = (0..sixth / 3).map(|at| group(sixth + 3 * at)).collect();
        let mut bursts_a_day = vec![1.0; customers];
        for (from, to, _, _) in &drives {
            bursts_a_day[*from] = OFTEN;
            bursts_a_day[*to] = SELDOM;
        }
        for member in shocks.iter().flatten() {
            bursts_a_day[*member] = SELDOM;
        }
        Self {
            bases,
            bursts_a_day,
            drives,
            shocks,
            campaign: Vec::new(),
        }
    }

    /// Nobody has to do with anybody.
    pub(crate) fn independent(customers: usize, seed: u64) -> Self {
        let mut fleet = Self::planted(customers, seed);
        fleet.drives.clear();
        fleet.shocks.clear();
        fleet
    }

    /// Ordered pairs between which something was planted, in either direction.
    pub(crate) fn planted_pairs(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (from, to, _, _) in &self.drives {
            pairs.extend([(*from, *to), (*to, *from)]);
        }
        for members in &self.shocks {
            for from in members {
                pairs.extend(
                    members
                        .iter()
                        .filter(|to| *to != from)
                        .map(|to| (*from, *to)),
                );
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    pub(crate) fn campaign_at(step: usize) -> bool {
        // A different hour on each of the days that have one.
        let day = step / DAY;
        let from = day * DAY + (day * 67) % (DAY - 24);
        day % 2 == 1 && (from..from + 24).contains(&step)
    }

    /// Demand in tokens per second, with or without the day's and the week's season.
    pub(crate) fn demand(&self, steps: usize, with_season: bool, seed: u64) -> Vec<Vec<f32>> {
        let mut chance = Chance(seed);
        let customers = self.bases.len();
        let mut burst = vec![vec![1.0_f64; steps]; customers];
        let mut begins: Vec<(usize, usize)> = Vec::new();
        for step in 0..steps {
            for customer in 0..customers {
                if chance.happens(self.bursts_a_day[customer] / DAY as f64) {
                    begins.push((customer, step));
                }
            }
            for members in &self.shocks {
                if chance.happens(OFTEN / DAY as f64) {
                    for member in members {
                        if chance.happens(0.85) {
                            begins.push((*member, step));
                        }
                    }
                }
            }
        }
        let mut next = 0;
        while let Some((customer, step)) = begins.get(next).copied() {
            next += 1;
            for (_, to, lag, often) in self.drives.iter().filter(|drive| drive.0 == customer) {
                if chance.happens(*often) {
                    begins.push((*to, step + lag));
                }
            }
            let height = 1.8 + 0.7 * chance.uniform();
            let length = 3 + chance.below(4);
            for burst in burst[customer].iter_mut().skip(step).take(length) {
                *burst = burst.max(height);
            }
        }
        (0..customers)
            .map(|customer| {
                let mut noise = 0.0;
                (0..steps)
                    .map(|step| {
                        noise = 0.8 * noise + 0.12 * 0.6 * chance.normal();
                        let season = if with_season { season(step) } else { 1.0 };
                        let campaign = self.campaign.contains(&customer);
                        let lift = if campaign && Self::campaign_at(step) {
                            3.0
                        } else {
                            1.0
                        };
                        let log: f64 = noise;
                        (self.bases[customer] * season * log.exp() * burst[customer][step] * lift)
                            as f32
                    })
                    .collect()
            })
            .collect()
    }
}

fn season(step: usize) -> f64 {
    let day = (step % DAY) as f64 / DAY as f64;
    let week = if step / DAY % 7 < 5 { 1.0 } else { 0.6 };
    week * (1.0 + 0.5 * (std::f64::consts::TAU * (day - 0.4)).sin())
}

pub(crate) fn quantile(values: &[f32], probability: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    f64::from(sorted[((sorted.len() as f64 * probability) as usize).min(sorted.len() - 1)])
}

/// Customers with forecasts that are right by themselves: the quantiles of what they do. Tiers 2 and 3 by turns of six.
pub(crate) fn customers(demand: &[Vec<f32>]) -> Vec<Customer> {
    demand
        .iter()
        .enumerate()
        .map(|(at, demand)| {
            let quantiles_per_s = [0.5, 0.9, 0.99].map(|at| quantile(demand, at));
            let usual = quantiles_per_s[0];
            Customer {
                tier: if at % 6 == 5 { Tier::One } else { Tier::Two },
                priority: 0,
                weight: 1.0,
                group: None,
                terms: PerResource::only_first(Terms {
                    guarantee_per_s: 0.6 * usual,
                    rate_per_s: 3.0 * usual,
                    ceiling_per_s: 3.0 * usual,
                    lend: Lend::Auto,
                }),
                outlook: PerResource::only_first(Outlook { quantiles_per_s }),
                headroom_per_s: PerResource::default(),
                held: PerResource::default(),
                credits: 0.0,
            }
        })
        .collect()
}

/// What all ask for as a rule.
pub(crate) fn medians(customers: &[Customer]) -> f64 {
    let outlooks = customers
        .iter()
        .map(|customer| customer.outlook.at(RESOURCE));
    outlooks.map(|outlook| outlook.quantiles_per_s[0]).sum()
}

pub(crate) fn settings() -> Settings {
    Settings {
        reserve_share: 0.05,
        ..Settings::default()
    }
}

/// What each customer is short of at each step of `demand`, reckoned with nothing of the crate but `allocate`.
pub(crate) fn shortages(
    capacity_per_s: f64,
    customers: &[Customer],
    demand: &[Vec<f32>],
) -> Vec<Vec<f64>> {
    let allocation = allocate(
        &PerResource::only_first(capacity_per_s),
        customers,
        &[],
        &settings(),
    );
    let own: Vec<f64> = allocation
        .parts
        .iter()
        .map(|parts| parts.at(RESOURCE).allocated_per_s())
        .collect();
    let steps = demand[0].len();
    let mut short = vec![vec![0.0; steps]; customers.len()];
    for step in 0..steps {
        let due: Vec<f64> = customers
            .iter()
            .zip(demand)
            .map(|(customer, demand)| {
                f64::from(demand[step]).min(customer.terms.at(RESOURCE).rate_per_s)
            })
            .collect();
        let mut served: Vec<f64> = due
            .iter()
            .zip(&own)
            .map(|(due, own)| due.min(*own))
            .collect();
        let mut left = capacity_per_s - served.iter().sum::<f64>();
        let guarantee = |at: usize| {
            customers[at]
                .terms
                .at(RESOURCE)
                .guarantee_per_s
                .min(due[at])
        };
        let all: Vec<usize> = (0..customers.len()).collect();
        pour(&mut left, &mut served, &all, &guarantee);
        for tier in [Tier::One, Tier::Two, Tier::Three] {
            let class: Vec<usize> = all
                .iter()
                .copied()
                .filter(|at| customers[*at].tier == tier)
                .collect();
            pour(&mut left, &mut served, &class, &|at| due[at]);
        }
        for (at, short) in short.iter_mut().enumerate() {
            let lacks = due[at] - served[at];
            if lacks > 0.01 * customers[at].terms.at(RESOURCE).rate_per_s {
                short[step] = lacks;
            }
        }
    }
    short
}

fn pour(left: &mut f64, served: &mut [f64], class: &[usize], upto: &dyn Fn(usize) -> f64) {
    let wants: Vec<f64> = class
        .iter()
        .map(|at| (upto(*at) - served[*at]).max(0.0))
        .collect();
    let sum: f64 = wants.iter().sum();
    let (mut low, mut high) = (0.0, wants.iter().copied().fold(0.0, f64::max));
    if sum > *left {
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            let used: f64 = wants.iter().map(|want| want.min(middle)).sum();
            if used > *left {
                high = middle
            } else {
                low = middle
            }
        }
    } else {
        low = high;
    }
    for (at, want) in class.iter().zip(wants) {
        served[*at] += want.min(low);
        *left -= want.min(low);
    }
    *left = left.max(0.0);
}

/// Whether a customer is short at a step or within the horizon after it.
pub(crate) fn within_reach(short: &[f64]) -> Vec<bool> {
    (0..short.len() - REACH)
        .map(|step| short[step..=step + REACH].iter().any(|short| *short > 0.0))
        .collect()
}

/// What a pair really does: the probability that the second is short within the horizon when the first spikes, and at any time.
pub(crate) fn truth(demand: &[f32], short: &[bool]) -> (f64, f64) {
    let line = quantile(demand, 0.9) as f32;
    let (mut spikes, mut hits, mut all) = (0.0, 0.0, 0.0);
    for (step, is_short) in short.iter().enumerate() {
        let is_short = f64::from(u8::from(*is_short));
        all += is_short;
        if demand[step] > line {
            spikes += 1.0;
            hits += is_short;
        }
    }
    (hits / spikes, all / short.len() as f64)
}

pub(crate) fn pearson(left: &[f32], right: &[f32]) -> f64 {
    let count = left.len() as f64;
    let mean = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let (l, r) = (mean(left), mean(right));
    let mut sums = [0.0; 3];
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (f64::from(*left) - l, f64::from(*right) - r);
        for (sum, value) in sums
            .iter_mut()
            .zip([left * right, left * left, right * right])
        {
            *sum += value;
        }
    }
    sums[0] / (sums[1] * sums[2]).sqrt()
}
