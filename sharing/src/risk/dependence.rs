//! What links mean for scenarios: which accounts have to be looked at together, and what they did together.

use crate::risk::links::Link;
use crate::risk::residuals::Residuals;
use std::collections::BTreeSet;

/// Ranks of demand in parts of this. 0 is a step of which nothing is known.
pub(crate) const RANKS: usize = 1 << 16;

/// A spike is demand above this quantile.
pub(crate) const SPIKE: f64 = 0.9;

/// What accounts did together, ready for scenarios of the next steps.
///
/// Linked accounts are in one block, and with them whoever is linked to those. Within a block everything that happened together stays together,
/// tails, delays and causes in common included; between blocks nothing does. Who is linked to nobody is a block by itself, so that its spikes last as
/// long as they used to; but in a large fleet, where its part of the pool is small, it is in none, and asks for one amount all the time.
#[derive(Clone, Debug)]
pub struct Dependence {
    steps: usize,
    /// Steps after a spike at which its consequences are looked for, 0 first.
    offsets: Vec<usize>,
    /// For each customer.
    blocks: Vec<Option<u32>>,
    block_count: usize,
    ranks: Vec<Vec<u16>>,
    /// How many spikes there were, as far as they lie apart.
    spikes: Vec<usize>,
    /// In both directions: where one follows the other, the moments know what the other does, too.
    links: BTreeSet<(usize, usize)>,
}

/// Up to this many customers, everybody's history and every pair is looked at.
pub(crate) const SMALL_FLEET: usize = 300;

/// The horizon is looked at in this many places at most, in a small fleet and in a large one.
const MOST_OFFSETS: [usize; 2] = [24, 4];

// === impl Dependence ===

impl Dependence {
    /// Of the same history and horizon as the links.
    #[must_use]
    pub fn of(residuals: &Residuals, links: &[Link], reach_steps: usize) -> Self {
        let customers = residuals.customers();
        if residuals.steps() == 0 {
            return Self::unknown(customers);
        }
        let links: BTreeSet<(usize, usize)> = links
            .iter()
            .flat_map(|link| [(link.from, link.to), (link.to, link.from)])
            .filter(|(from, to)| from.max(to) < &customers)
            .collect();
        let reach = reach_steps.min(residuals.steps().saturating_sub(1));
        let is_small = customers <= SMALL_FLEET;
        let [of_small, of_large] = MOST_OFFSETS;
        let count = if is_small { of_small } else { of_large }.min(reach + 1);
        let offsets = (0..count)
            .map(|at| (at * reach).div_ceil((count - 1).max(1)))
            .collect();
        let (blocks, block_count) = blocks(customers, &links, is_small);
        let mut ranks = vec![Vec::new(); customers];
        let mut spikes = vec![0; customers];
        for (customer, _) in blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.is_some())
        {
            ranks[customer] = ranks_of(&residuals.values[customer]);
            spikes[customer] = spikes_in(&ranks[customer], reach);
        }
        Self {
            steps: residuals.steps(),
            offsets,
            blocks,
            block_count,
            ranks,
            spikes,
            links,
        }
    }

    /// Without any history: nobody has to do with anybody, as far as is known, and they meet in the pool only.
    #[must_use]
    pub fn unknown(customers: usize) -> Self {
        Self {
            steps: 1,
            offsets: vec![0],
            blocks: vec![None; customers],
            block_count: 0,
            ranks: vec![Vec::new(); customers],
            spikes: vec![0; customers],
            links: BTreeSet::new(),
        }
    }

    pub(crate) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// How many steps of the history have the whole horizon behind them.
    pub(crate) fn beginnings(&self) -> usize {
        self.steps - self.offsets.last().copied().unwrap_or(0)
    }

    pub(crate) fn block_count(&self) -> usize {
        self.block_count
    }

    pub(crate) fn block(&self, customer: usize) -> Option<usize> {
        let block = self.blocks.get(customer).copied().flatten();
        block.map(|block| block as usize)
    }

    pub(crate) fn rank(&self, customer: usize, step: usize) -> u16 {
        self.ranks[customer][step]
    }

    pub(crate) fn links(&self) -> &BTreeSet<(usize, usize)> {
        &self.links
    }

    /// Whether what two accounts do together in scenarios is known, or chance: linked, or certain to be independent.
    pub(crate) fn is_known(&self, from: usize, to: usize) -> bool {
        let (left, right) = (self.block(from), self.block(to));
        left.is_none() || left != right || self.links.contains(&(from, to))
    }

    /// How many independent spikes what is said of a customer's spikes goes back to; none where scenarios make them up.
    pub(crate) fn spikes(&self, customer: usize) -> Option<usize> {
        self.block(customer).map(|_| self.spikes[customer])
    }
}

/// Linked accounts and those that are linked to them, as blocks.
fn blocks(
    customers: usize,
    links: &BTreeSet<(usize, usize)>,
    with_everybody: bool,
) -> (Vec<Option<u32>>, usize) {
    let mut leads: Vec<usize> = (0..customers).collect();
    let find = |leads: &mut Vec<usize>, mut at: usize| {
        while leads[at] != at {
            leads[at] = leads[leads[at]];
            at = leads[at];
        }
        at
    };
    let mut is_linked = vec![with_everybody; customers];
    for (from, to) in links {
        let (left, right) = (find(&mut leads, *from), find(&mut leads, *to));
        leads[left.max(right)] = left.min(right);
        is_linked[*from] = true;
        is_linked[*to] = true;
    }
    let mut numbers = vec![None; customers];
    let mut count = 0;
    let mut blocks = vec![None; customers];
    for customer in (0..customers).filter(|customer| is_linked[*customer]) {
        let lead = find(&mut leads, customer);
        let number = *numbers[lead].get_or_insert_with(|| {
            count += 1;
            count - 1
        });
        blocks[customer] = Some(number);
    }
    (blocks, count as usize)
}

fn ranks_of(values: &[f32]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..values.len())
        .filter(|step| !values[*step].is_nan())
        .collect();
    order.sort_unstable_by(|left, right| values[*left].total_cmp(&values[*right]));
    let mut ranks = vec![0; values.len()];
    for (place, step) in order.iter().enumerate() {
        let rank = (place * 2 + 1) * RANKS / (order.len() * 2);
        ranks[*step] = rank.clamp(1, RANKS - 1) as u16;
    }
    ranks
}

/// Runs of spikes that lie further apart than the horizon.
fn spikes_in(ranks: &[u16], reach: usize) -> usize {
    let line = (SPIKE * RANKS as f64) as u16;
    let mut quiet = reach + 1;
    let mut spikes = 0;
    for rank in ranks {
        if *rank > line {
            spikes += usize::from(quiet > reach);
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    spikes
}
