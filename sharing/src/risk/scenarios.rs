//! Scenarios of the next steps, and what the allocation makes of them.

use crate::allocation::{Outlook, Terms, allocate};
use crate::numbers::clean;
use crate::risk::chance::Chance;
use crate::risk::dependence::{Dependence, RANKS};
use crate::risk::pair::Party;
use crate::risk::score::Question;
use crate::risk::serve::{End, Stand, ends, stands};
use forebay_core::resource::PerResource;
use std::borrow::Cow;
use std::ops::Range;

/// How many joint scenarios a score is made of.
pub const SCENARIOS: usize = 2000;

/// Scenarios that are reckoned side by side.
const LANES: usize = 40;

/// Who lacks less than this part of its rate is not short.
const MATTERS: f32 = 0.01;

/// What parties do and lack in all scenarios.
pub(crate) struct Outcome {
    pub(crate) parties: Vec<Party>,
    /// All demand beyond the medians, at most, within the horizon.
    pub(crate) excess: Vec<f32>,
}

/// A forecast as a function of rank: exponential between its quantiles and beyond them, and below the median the mirror image of
/// what is above, as a ratio.
#[derive(Clone, Copy)]
struct Curve {
    median: f32,
    /// Per unit of `-ln(1 - p)`, from the median to the 0.9 quantile, and beyond.
    slopes: [f32; 2],
}

/// What is the same in all scenarios.
struct Scene<'a> {
    dependence: &'a Dependence,
    capacity: f32,
    stands: Vec<Stand>,
    curves: Vec<Curve>,
    levels: usize,
    /// Where each customer's demand lies in the buffer of a chunk, in lanes; blocks have one row for each offset.
    places: Vec<usize>,
    rows: usize,
    /// By rank, `-ln(1 - p)` above the median, and `ln p` below it.
    depths: Vec<f32>,
}

/// Sums over customers, for some scenarios and offsets.
struct Sums {
    used: Vec<f32>,
    demand: Vec<f32>,
    /// By level.
    wants: Vec<Vec<f32>>,
}

/// Plays all scenarios. A party is some customers together.
pub(crate) fn simulate(question: &Question, parties: &[Vec<usize>], seed: u64) -> Outcome {
    let scene = Scene::new(question);
    let medians: f32 = scene.curves.iter().map(|curve| curve.median).sum();
    let mut outcome = Outcome {
        parties: parties
            .iter()
            .map(|members| Party {
                now: Vec::with_capacity(SCENARIOS),
                short: Vec::with_capacity(SCENARIOS),
                excess: Vec::with_capacity(SCENARIOS),
                rate: members
                    .iter()
                    .map(|one| f64::from(scene.stands[*one].rate))
                    .sum(),
                spikes: match members[..] {
                    [one] => question.dependence.spikes(one),
                    _ => members
                        .iter()
                        .filter_map(|one| question.dependence.spikes(*one))
                        .max(),
                },
            })
            .collect(),
        excess: Vec::with_capacity(SCENARIOS),
    };
    let offsets = question.dependence.offsets().len();
    let mut demand = vec![0.0; scene.rows * LANES];
    let mut wants = demand.clone();
    let mut guesses = vec![0.0; scene.levels];
    for chunk in 0..SCENARIOS / LANES {
        scene.draw(&mut Chance::of_part(seed, chunk), &mut demand);
        let (alike, own) = scene.sum(&demand, &mut wants);
        let ends = scene.ends(&demand, &wants, &alike, &own, &mut guesses);
        for lane in 0..LANES {
            let all = own.demand.iter().skip(lane).step_by(LANES);
            let highest = all.copied().fold(f32::MIN, f32::max) + alike.demand[lane];
            outcome.excess.push((highest - medians).max(0.0));
        }
        for (party, members) in outcome.parties.iter_mut().zip(parties) {
            let (mut short, mut highest) = ([0.0_f32; LANES], [f32::MIN; LANES]);
            for offset in 0..offsets {
                let (mut lacks, mut asks) = ([0.0_f32; LANES], [0.0_f32; LANES]);
                for member in members {
                    let row = scene.row(&demand, *member, offset);
                    let stand = &scene.stands[*member];
                    let ends = &ends[offset * LANES..(offset + 1) * LANES];
                    for lane in 0..LANES {
                        asks[lane] += row[lane];
                        if ends[lane].is_some() {
                            lacks[lane] += stand.short(row[lane], ends[lane]);
                        }
                    }
                }
                if offset == 0 {
                    party.now.extend_from_slice(&asks);
                }
                for lane in 0..LANES {
                    short[lane] = short[lane].max(lacks[lane]);
                    highest[lane] = highest[lane].max(asks[lane]);
                }
            }
            let median: f32 = members.iter().map(|one| scene.curves[*one].median).sum();
            let least = party.rate as f32 * MATTERS;
            party
                .short
                .extend(short.map(|short| if short > least { short } else { 0.0 }));
            party.excess.extend(highest.map(|highest| highest - median));
        }
    }
    outcome
}

// === impl Curve ===

impl Curve {
    const HALF: f32 = std::f32::consts::LN_2;
    const NINE: f32 = std::f32::consts::LN_10;

    fn of(outlook: Outlook) -> Self {
        let [median, nine, most] = outlook.clean().quantiles_per_s.map(|value| value as f32);
        Self {
            median,
            slopes: [
                (nine - median) / (Self::NINE - Self::HALF),
                (most - nine) / Self::NINE,
            ],
        }
    }

    /// Depths to demand. In a loop of its own, so that it runs on several at once.
    fn bend(&self, depths: &mut [f32]) {
        for depth in depths {
            *depth = self.at(*depth);
        }
    }

    #[inline]
    fn at(&self, depth: f32) -> f32 {
        let [near, far] = self.slopes;
        let away = depth.abs();
        let high = self.median
            + near * (away.min(Self::NINE) - Self::HALF).max(0.0)
            + far * (away - Self::NINE).max(0.0);
        if depth >= 0.0 || high <= 0.0 {
            high
        } else {
            self.median * self.median / high
        }
    }
}

// === impl Scene ===

impl<'a> Scene<'a> {
    fn new(question: &Question<'a>) -> Self {
        let resource = question.resource;
        let mut customers = question.customers.to_vec();
        for customer in &mut customers {
            customer.headroom_per_s = PerResource::default();
        }
        let allocation = allocate(
            question.capacity_per_s,
            &customers,
            question.groups,
            question.settings,
        );
        let own: Vec<f64> = allocation
            .parts
            .iter()
            .map(|parts| parts.at(resource).allocated_per_s())
            .collect();
        let terms: Vec<Terms> = customers
            .iter()
            .map(|customer| customer.terms.at(resource).clean())
            .collect();
        let (levels, stands) = stands(&customers, &terms, &own);
        let offsets = question.dependence.offsets().len();
        let mut rows = 0;
        let places = (0..customers.len())
            .map(|customer| {
                let place = rows * LANES;
                rows += match question.dependence.block(customer) {
                    Some(_) => offsets,
                    None => 1,
                };
                place
            })
            .collect();
        let depths = (0..RANKS)
            .map(|rank| {
                let probability = (rank as f32 + 0.5) / RANKS as f32;
                if probability >= 0.5 {
                    -(1.0 - probability).ln()
                } else {
                    probability.ln()
                }
            })
            .collect();
        Self {
            dependence: question.dependence,
            capacity: clean(*question.capacity_per_s.at(resource)) as f32,
            curves: customers
                .iter()
                .map(|customer| Curve::of(*customer.outlook.at(resource)))
                .collect(),
            stands,
            levels,
            places,
            rows,
            depths,
        }
    }

    /// Draws demand: a moment of the history for each block, and a rank of its own for whoever is in none. Who is in none asks for the same
    /// at all steps of the horizon.
    fn draw(&self, chance: &mut Chance, demand: &mut [f32]) {
        let offsets = self.dependence.offsets();
        let moments: Vec<[usize; LANES]> = (0..self.dependence.block_count())
            .map(|_| std::array::from_fn(|_| chance.below(self.dependence.beginnings())))
            .collect();
        for (customer, curve) in self.curves.iter().enumerate() {
            let place = self.places[customer];
            match self.dependence.block(customer) {
                Some(block) => {
                    let rows = &mut demand[place..place + offsets.len() * LANES];
                    for (row, offset) in rows.chunks_mut(LANES).zip(offsets) {
                        for (value, moment) in row.iter_mut().zip(&moments[block]) {
                            let rank = match self.dependence.rank(customer, moment + offset) {
                                0 => chance.below(RANKS),
                                rank => usize::from(rank),
                            };
                            *value = self.depths[rank];
                        }
                        curve.bend(row);
                    }
                }
                None => {
                    for values in demand[place..place + LANES].chunks_mut(4) {
                        let mut bits = chance.bits();
                        for value in values {
                            *value = self.depths[bits as usize % RANKS];
                            bits >>= 16;
                        }
                    }
                    curve.bend(&mut demand[place..place + LANES]);
                }
            }
        }
    }

    fn row<'d>(&self, demand: &'d [f32], customer: usize, offset: usize) -> &'d [f32] {
        let place = match self.dependence.block(customer) {
            Some(_) => self.places[customer] + offset * LANES,
            None => self.places[customer],
        };
        &demand[place..place + LANES]
    }

    /// Sums over those whose demand is the same at all offsets, and over the others, offset by offset; and what everybody wants up to its rate.
    fn sum(&self, demand: &[f32], wants: &mut [f32]) -> (Sums, Sums) {
        let mut alike = Sums::new(self.levels, LANES);
        let mut own = Sums::new(self.levels, LANES * self.dependence.offsets().len());
        for (customer, stand) in self.stands.iter().enumerate() {
            let lanes = self.lanes(customer);
            let sums = match self.dependence.block(customer) {
                Some(_) => &mut own,
                None => &mut alike,
            };
            sums.add(stand, &demand[lanes.clone()], &mut wants[lanes]);
        }
        (alike, own)
    }

    /// Where a customer's demand lies, all offsets that it has.
    fn lanes(&self, customer: usize) -> Range<usize> {
        let place = self.places[customer];
        let offsets = match self.dependence.block(customer) {
            Some(_) => self.dependence.offsets().len(),
            None => 1,
        };
        place..place + offsets * LANES
    }

    /// Where the capacity ends in each scenario, offset by offset.
    fn ends(
        &self,
        demand: &[f32],
        wants: &[f32],
        alike: &Sums,
        own: &Sums,
        guesses: &mut [f32],
    ) -> Vec<Option<End>> {
        let both = |alike: &[f32], own: &[f32]| -> Vec<f32> {
            let alike = alike.iter().cycle();
            own.iter()
                .zip(alike)
                .map(|(own, alike)| own + alike)
                .collect()
        };
        let used = both(&alike.used, &own.used);
        let room = used.into_iter().map(|used| self.capacity - used).collect();
        let sums = alike.wants.iter().zip(&own.wants);
        let sums = sums.map(|(alike, own)| both(alike, own));
        let rows = |level: usize| -> Vec<(Cow<[f32]>, f32)> {
            let members = self.stands.iter().enumerate();
            members
                .filter(|(_, stand)| level == 0 || level == stand.level())
                .map(|(customer, stand)| {
                    let lanes = self.lanes(customer);
                    let row = if level == 0 {
                        let demand = demand[lanes].iter();
                        demand.map(|demand| stand.want(*demand, 0).0).collect()
                    } else {
                        Cow::from(&wants[lanes])
                    };
                    (row, stand.weight)
                })
                .collect()
        };
        ends(room, sums, rows, guesses)
    }
}

// === impl Sums ===

impl Sums {
    fn new(levels: usize, lanes: usize) -> Self {
        Self {
            used: vec![0.0; lanes],
            demand: vec![0.0; lanes],
            wants: vec![vec![0.0; lanes]; levels],
        }
    }

    fn add(&mut self, stand: &Stand, demand: &[f32], for_rate: &mut [f32]) {
        let (guarantees, classes) = self.wants.split_at_mut(1);
        let of_class = &mut classes[stand.level() - 1];
        let sums = self.used.iter_mut().zip(&mut self.demand);
        let wants = guarantees[0].iter_mut().zip(of_class);
        let rows = demand.iter().zip(for_rate);
        for (((used, sum), (guarantee, rate)), (demand, for_rate)) in sums.zip(wants).zip(rows) {
            let asks = stand.asks(*demand);
            *used += asks.of_own;
            *sum += demand;
            *guarantee += asks.for_guarantee;
            *rate += asks.for_rate;
            *for_rate = asks.for_rate;
        }
    }
}
