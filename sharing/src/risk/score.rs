//! What the score is asked of, and the pairs that it is for.

use crate::allocation::{Customer, Group, Settings};
use crate::numbers::clean;
use crate::risk::dependence::{Dependence, SMALL_FLEET};
use crate::risk::discovery::{FALSE_SHARE, found};
use crate::risk::pair::{Pair, spikes};
use crate::risk::scenarios::simulate;
use forebay_core::resource::{PerResource, ResourceIndex};

/// What the score is asked of: the same that [`crate::allocate`] is given, and what is known of how customers hang together.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The pool that is shared.
    pub resource: ResourceIndex,
    /// Of all resources, in tokens per second.
    pub capacity_per_s: &'a PerResource<f64>,
    /// Their outlooks are the forecasts. Headroom that they have from earlier scores does not count, or it would argue itself away.
    pub customers: &'a [Customer],
    /// Linked accounts.
    pub groups: &'a [Group],
    /// How the cycle divides.
    pub settings: &'a Settings,
    /// From the same customers' history, in the same order.
    pub dependence: &'a Dependence,
}

/// The pairs of customers with the largest scores above 0, the largest first, at most `most` of them. In a fleet of more than 300 only linked
/// pairs are looked at.
#[must_use]
pub fn largest_pairs(question: &Question, most: usize, seed: u64) -> Vec<Pair> {
    if !question.has_pool() {
        return Vec::new();
    }
    let customers = question.customers.len();
    let dependence = question.dependence;
    let with_all = customers <= SMALL_FLEET;
    let is_linked = |customer: &usize| with_all || dependence.block(*customer).is_some();
    let parties: Vec<Vec<usize>> = (0..customers)
        .filter(is_linked)
        .map(|one| vec![one])
        .collect();
    let outcome = simulate(question, &parties, seed);
    let mut place = vec![None; customers];
    for (at, members) in parties.iter().enumerate() {
        place[members[0]] = Some(at);
    }
    let pairs: Vec<(usize, usize)> = if with_all {
        (0..customers)
            .flat_map(|from| (0..customers).map(move |to| (from, to)))
            .filter(|(from, to)| from != to && dependence.is_known(*from, *to))
            .collect()
    } else {
        let links = dependence.links().iter().copied();
        links
            .filter(|(from, to)| from.max(to) < &customers)
            .collect()
    };
    let tests = pairs.len() as f64;
    let mut spikes_of: (usize, Vec<u32>) = (usize::MAX, Vec::new());
    let mut scored: Vec<Pair> = pairs
        .into_iter()
        .filter_map(|(from, to)| {
            let (spiker, other) = (&outcome.parties[place[from]?], &outcome.parties[place[to]?]);
            if !other.short.iter().any(|short| *short > 0.0) {
                return None;
            }
            if spikes_of.0 != from {
                spikes_of = (from, spikes(&spiker.now));
            }
            let pair = Pair::of((from, spiker), &spikes_of.1, (to, other), &outcome.excess);
            (pair.score > 0.0).then_some(pair)
        })
        .collect();
    // Who is not linked meets the other in the pool only; most of what scenarios show of that is the chance of scenarios.
    let is_linked = |pair: &Pair| dependence.links().contains(&(pair.from, pair.to));
    let p_values: Vec<f64> = scored.iter().map(|pair| pair.p_value).collect();
    let mut is_found = found(&p_values, tests, FALSE_SHARE).into_iter();
    scored.retain(|pair| is_found.next() == Some(true) || is_linked(pair));
    sort(&mut scored);
    scored.truncate(most);
    scored
}

/// Scores between labels, such as tiers, regions or business units: whether a spike of all accounts with one of them together leaves accounts
/// with the other short. `labels` has a number for each customer, counted from 0, or none.
#[must_use]
pub fn between_labels(question: &Question, labels: &[Option<usize>], seed: u64) -> Vec<Pair> {
    if !question.has_pool() {
        return Vec::new();
    }
    let mut parties = Vec::new();
    for (customer, label) in labels.iter().enumerate().take(question.customers.len()) {
        if let Some(label) = label.filter(|label| *label < question.customers.len()) {
            if parties.len() <= label {
                parties.resize(label + 1, Vec::new());
            }
            parties[label].push(customer);
        }
    }
    let outcome = simulate(question, &parties, seed);
    let mut scored = Vec::new();
    for (from, spiker) in outcome.parties.iter().enumerate() {
        let spikes = spikes(&spiker.now);
        for (to, other) in outcome
            .parties
            .iter()
            .enumerate()
            .filter(|(to, _)| *to != from)
        {
            let pair = Pair::of((from, spiker), &spikes, (to, other), &outcome.excess);
            if pair.score > 0.0 {
                scored.push(pair);
            }
        }
    }
    sort(&mut scored);
    scored
}

fn sort(pairs: &mut [Pair]) {
    pairs.sort_by(|left, right| {
        let places = (left.from, left.to).cmp(&(right.from, right.to));
        right.score.total_cmp(&left.score).then(places)
    });
}

// === impl Question ===

impl Question<'_> {
    /// A capacity of 0 is none: nothing is shared, and nobody is short because of anybody.
    fn has_pool(&self) -> bool {
        clean(*self.capacity_per_s.at(self.resource)) > 0.0
    }
}
