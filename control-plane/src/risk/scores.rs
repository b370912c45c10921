//! Pairs of a cycle with what a spike of the one would do to the other, the same between tiers and groups, and the headroom that follows.

use super::cast::cast;
use super::headroom::{Found, Headroom};
use super::study::{Studied, Study};
use crate::allocation::Book;
use forebay_core::resource::ResourceIndex;
use forebay_policy::Spillover;
use forebay_sharing::risk::{Pair, Question, between_labels, largest_pairs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pairs of a pool that are kept.
const PAIRS_MOST: usize = 1_000;
/// Groups that are scored against one another: those with most members.
const GROUPS_MOST: usize = 64;
/// The same scenarios each time: what changes between two cycles is what they go by, and not the draw.
const SEED: u64 = 1;

/// Pairs of labels, such as tiers.
#[derive(Clone, Debug, Default)]
pub(super) struct Labelled {
    pub(super) names: Vec<String>,
    /// Positions are places among the names.
    pub(super) pairs: Vec<Pair>,
}

/// A pool.
#[derive(Clone, Debug)]
pub(super) struct OfPool {
    pub(super) resource: ResourceIndex,
    pub(super) capacity_per_s: f64,
    /// Positions are places in the study; the largest score first.
    pub(super) pairs: Vec<Pair>,
    pub(super) tiers: Labelled,
    pub(super) groups: Labelled,
}

/// All pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scores {
    /// The cycle whose forecasts, capacities and settings they go by; 0: none yet.
    pub(super) cycle: u64,
    pub(super) at_unix_ms: u64,
    pub(super) pools: Vec<OfPool>,
    pub(super) headroom: Arc<Headroom>,
    pub(super) took_us: u64,
}

// === impl Scores ===

impl Scores {
    /// Of a cycle. `before` has the headroom that is in force.
    pub(super) fn of(
        study: &Study,
        book: &Book,
        rule: &Spillover,
        before: &Headroom,
        now_unix_ms: u64,
    ) -> Self {
        let pools: Vec<(&Studied, OfPool)> = study
            .pools
            .iter()
            .map(|studied| (studied, OfPool::of(studied, book)))
            .collect();
        let found: Vec<Found<'_>> = pools
            .iter()
            .map(|(studied, pool)| Found {
                resource: pool.resource,
                capacity_per_s: pool.capacity_per_s,
                customers: &studied.customers,
                pairs: &pool.pairs,
            })
            .collect();
        let headroom = before.after(book.policy, rule, &found, now_unix_ms);
        drop(found);
        Self {
            cycle: book.number,
            at_unix_ms: now_unix_ms,
            pools: pools.into_iter().map(|(_, pool)| pool).collect(),
            headroom: Arc::new(headroom),
            took_us: 0,
        }
    }
}

// === impl OfPool ===

impl OfPool {
    fn of(studied: &Studied, book: &Book) -> Self {
        let customers = cast(book, &studied.customers, studied.resource);
        let question = Question {
            resource: studied.resource,
            capacity_per_s: &book.capacity_per_s,
            customers: &customers,
            groups: &book.groups,
            settings: &book.settings,
            dependence: &studied.dependence,
        };
        let mut pairs = largest_pairs(&question, PAIRS_MOST, SEED);
        // Who is behind the study is the rest of a tier, and nobody.
        pairs.retain(|pair| pair.from.max(pair.to) < studied.customers.len());
        let tiers = customers
            .iter()
            .map(|customer| Some(usize::from(customer.tier.number())));
        Self {
            resource: studied.resource,
            capacity_per_s: *book.capacity_per_s.at(studied.resource),
            pairs,
            tiers: labelled(&question, tiers, |tier| format!("tier:{tier}"), 3),
            groups: labelled(
                &question,
                customers.iter().map(|customer| customer.group),
                |group| {
                    let name = book.group_names.get(group);
                    format!("group:{}", name.map_or("", String::as_str))
                },
                GROUPS_MOST,
            ),
        }
    }
}

/// Scores between the labels that most customers have.
fn labelled(
    question: &Question<'_>,
    of: impl Iterator<Item = Option<usize>>,
    name: impl Fn(usize) -> String,
    most: usize,
) -> Labelled {
    let of: Vec<Option<usize>> = of.collect();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for label in of.iter().flatten() {
        let count = counts.entry(*label).or_default();
        *count = count.saturating_add(1);
    }
    let mut chosen: Vec<usize> = counts.keys().copied().collect();
    chosen.sort_by_key(|label| std::cmp::Reverse(counts.get(label).copied()));
    chosen.truncate(most.min(question.customers.len()));
    chosen.sort_unstable();
    if chosen.len() < 2 {
        return Labelled::default();
    }
    let place = |label: Option<usize>| chosen.binary_search(&label?).ok();
    let labels: Vec<Option<usize>> = of.into_iter().map(place).collect();
    Labelled {
        pairs: between_labels(question, &labels, SEED),
        names: chosen.iter().map(|label| name(*label)).collect(),
    }
}
