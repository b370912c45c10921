//! One cycle: what it was made from, what it gives, and how it follows from the one before.

use super::digest;
use super::gathered::{Candidate, Gathered};
use super::months::Month;
use super::rule::ttl_ms;
use super::trails::Trails;
use super::views::CycleView;
use crate::forecasts::Book as Forecasts;
use crate::history::Series;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{
    Allocation, Customer, Group, Held, Outlook, Part, Settings, Terms, allocate, credits_after,
    credits_of_newcomer,
};
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// Customers that are allocated anything; of more the smallest are left out.
const CUSTOMERS_MOST: usize = 100_000;
/// Who had an allocation and has none any more is remembered for so many cycles, so that gateways are told.
const GONE_FOR: u64 = 12;
/// No cycle.
pub(crate) const NEVER: u64 = 0;

/// Why a cycle was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its time had come.
    #[default]
    Interval,
    /// A policy came into force.
    Policy,
    /// A gateway was lost, came back or began to take part.
    Gateways,
    /// There is more or less of a resource than before.
    Capacity,
    /// A customer's demand has left its forecast, and stays there.
    Contention,
    /// Somebody asked for it.
    Asked,
}

/// A customer in a cycle.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) hash: CustomerHash,
    /// What was known of it.
    pub(crate) customer: Customer,
    /// What it got.
    pub(crate) parts: PerResource<Part>,
    /// What it had lent in the cycle before, and has back.
    pub(crate) recalled_per_s: PerResource<f64>,
    /// The cycle since which it has as much as it has.
    pub(crate) changed_in: u64,
    /// What it has lent and borrowed in the running month, up to this cycle.
    pub(crate) sums: Sums,
}

/// What was lent and borrowed in a month.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) month: Month,
    /// Tokens per second, times the seconds for which they were lent.
    pub(crate) lent: PerResource<f64>,
    pub(crate) borrowed: PerResource<f64>,
    /// Credits that came, less those that went.
    pub(crate) credits: f64,
}

/// Sums of a month that will not grow any more here.
pub(crate) type Closed = Vec<(CustomerHash, Sums)>;

/// What part of a pool is lent, by where it comes from. What is lent is what is borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lending {
    /// All of it, in tokens per second.
    pub(crate) lent_per_s: f64,
    /// Which part of what customers have of the pool is somebody's guarantee.
    pub(crate) of_pool: f64,
}

/// A cycle.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Counts up from 1; 0: there was none yet.
    pub(crate) number: u64,
    /// When it came into force.
    pub(crate) at_unix_ms: u64,
    pub(crate) cause: Cause,
    /// The policy that it goes by.
    pub(crate) policy: u64,
    pub(crate) interval_ms: u32,
    pub(crate) resources: Vec<String>,
    pub(crate) policy_capacity_per_s: PerResource<f64>,
    pub(crate) capacity_per_s: PerResource<f64>,
    pub(crate) reserve_per_s: PerResource<f64>,
    pub(crate) idle_per_s: PerResource<f64>,
    pub(crate) groups: Vec<Group>,
    pub(crate) group_names: Vec<String>,
    pub(crate) settings: Settings,
    /// By hash.
    pub(crate) entries: Vec<Entry>,
    /// Customers that there was no room for.
    pub(crate) left_out: usize,
    /// Who has had an allocation lately, by hash, and since which cycle no more. Not kept over a restart, after which gateways are told everything.
    pub(crate) gone: Vec<(CustomerHash, u64)>,
    /// SHA-256 of what it was made from, and of what it gives.
    pub(crate) inputs_digest: [u8; 32],
    pub(crate) result_digest: [u8; 32],
}

/// What a cycle goes by beside what it has gathered.
pub(crate) struct Seen<'a> {
    pub(crate) forecasts: &'a Forecasts,
    pub(crate) trails: &'a Trails,
    pub(crate) step_ms: u32,
    pub(crate) now_unix_ms: u64,
    pub(crate) cause: Cause,
}

/// A cycle that can be put in force, and sums of months that are over.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) book: Arc<Book>,
    /// In a line.
    pub(crate) line: CycleView,
    pub(crate) closed: Closed,
    /// Which gateways had a live lease.
    pub(crate) live: Vec<u64>,
}

// === impl Cause ===

impl Cause {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Interval,
        Self::Policy,
        Self::Gateways,
        Self::Capacity,
        Self::Contention,
        Self::Asked,
    ];

    /// As in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Policy => "policy",
            Self::Gateways => "gateways",
            Self::Capacity => "capacity",
            Self::Contention => "contention",
            Self::Asked => "asked",
        }
    }
}

// === impl Sums ===

impl Sums {
    fn is_nothing(&self) -> bool {
        let amounts = self.lent.iter().chain(self.borrowed.iter());
        amounts.chain([&self.credits]).all(|amount| *amount == 0.0)
    }
}

// === impl Lending ===

impl Lending {
    /// What a part has of others' guarantees, by reason: linked accounts', as headroom, and for what it asks for.
    pub(crate) fn borrowed_per_s(&self, part: &Part) -> [f64; 3] {
        [
            part.shared_per_s,
            part.headroom_per_s * self.of_pool,
            (part.bought_per_s + part.borrowed_per_s) * self.of_pool,
        ]
    }
}

// === impl Book ===

impl Book {
    /// The entry of a customer.
    pub(crate) fn entry(&self, customer: CustomerHash) -> Option<&Entry> {
        let place = self
            .entries
            .binary_search_by(|entry| entry.hash.cmp(&customer));
        self.entries.get(place.ok()?)
    }

    /// Whether gateways may have to be told something about a customer.
    pub(crate) fn speaks_of(&self, customer: CustomerHash) -> bool {
        let is_gone = || {
            let place = self.gone.binary_search_by(|(gone, _)| gone.cmp(&customer));
            place.is_ok()
        };
        self.entry(customer).is_some() || is_gone()
    }

    /// Resources that are divided.
    pub(crate) fn divided(&self) -> impl Iterator<Item = ResourceIndex> {
        let resources = ResourceIndex::first(self.resources.len());
        resources.filter(|resource| *self.policy_capacity_per_s.at(*resource) > 0.0)
    }

    /// The name of a resource.
    pub(crate) fn name_of(&self, resource: ResourceIndex) -> &str {
        let name = self.resources.get(resource.position());
        name.map_or("", String::as_str)
    }

    /// How lending stands on a resource.
    pub(crate) fn lending(&self, resource: ResourceIndex) -> Lending {
        let parts = || self.entries.iter().map(|entry| entry.parts.at(resource));
        let lent_per_s: f64 = parts().map(|part| part.lent_per_s).sum();
        let shared: f64 = parts().map(|part| part.shared_per_s).sum();
        let of_pool: f64 = parts().map(Part::of_pool_per_s).sum();
        let lent_to_pool = (lent_per_s - shared).max(0.0);
        Lending {
            lent_per_s,
            of_pool: if of_pool > 0.0 {
                (lent_to_pool / of_pool).min(1.0)
            } else {
                0.0
            },
        }
    }

    /// What the same inputs give.
    pub(crate) fn replay(&self) -> Allocation {
        let customers: Vec<Customer> = self
            .entries
            .iter()
            .map(|entry| entry.customer.clone())
            .collect();
        allocate(
            &self.capacity_per_s,
            &customers,
            &self.groups,
            &self.settings,
        )
    }

    /// What it gives.
    pub(crate) fn allocation(&self) -> Allocation {
        Allocation {
            parts: self.entries.iter().map(|entry| entry.parts).collect(),
            reserve_per_s: self.reserve_per_s,
            idle_per_s: self.idle_per_s,
        }
    }

    /// Sums and credits of its customers once it has been in force for some time.
    fn settled(&self, seconds: f64) -> Vec<(Sums, f64)> {
        let customers: Vec<Customer> = self
            .entries
            .iter()
            .map(|entry| entry.customer.clone())
            .collect();
        let allocation = self.allocation();
        let credits = credits_after(&self.capacity_per_s, &customers, &allocation, seconds);
        let month = Month::at(self.at_unix_ms);
        let lendings: Vec<(ResourceIndex, Lending)> = self
            .divided()
            .map(|resource| (resource, self.lending(resource)))
            .collect();
        let settled = self.entries.iter().zip(credits).map(|(entry, credits)| {
            let mut sums = entry.sums;
            sums.month = month;
            sums.credits += credits - entry.customer.credits;
            for (resource, lending) in &lendings {
                let part = entry.parts.at(*resource);
                *sums.lent.at_mut(*resource) += part.lent_per_s * seconds;
                let borrowed: f64 = lending.borrowed_per_s(part).iter().sum();
                *sums.borrowed.at_mut(*resource) += borrowed * seconds;
            }
            (sums, credits)
        });
        settled.collect()
    }

    /// For how long it was in force. While the server was away, or no cycle could be made, allocations ended by themselves.
    fn lasted_s(&self, now_unix_ms: u64) -> f64 {
        if self.number == NEVER {
            return 0.0;
        }
        let lasted_ms = now_unix_ms.saturating_sub(self.at_unix_ms);
        lasted_ms.min(u64::from(ttl_ms(self.interval_ms))) as f64 / 1e3
    }
}

/// The next cycle.
pub(crate) fn make(gathered: Gathered, seen: &Seen<'_>) -> Made {
    let Gathered {
        policy,
        rule,
        resources,
        policy_capacity_per_s,
        capacity_per_s,
        candidates,
        before,
        live,
    } = gathered;
    let number = before.number.saturating_add(1);
    let settled = before.settled(before.lasted_s(seen.now_unix_ms));
    let balances: Vec<f64> = settled.iter().map(|(_, credits)| *credits).collect();
    let newcomers_credits = credits_of_newcomer(&balances);
    let settled_of = |hash: CustomerHash| {
        let place = before
            .entries
            .binary_search_by(|entry| entry.hash.cmp(&hash));
        let place = place.ok()?;
        Some((before.entries.get(place)?, settled.get(place)?))
    };
    let expected = candidates.into_iter().filter_map(|candidate| {
        let outlook = outlook_of(&candidate, &before, seen, (&resources, rule.interval_ms));
        let is_wanted = outlook.iter().any(|outlook| outlook.upper_per_s() > 0.0);
        (candidate.is_listed || is_wanted).then_some((candidate, outlook))
    });
    let (chosen, left_out) = largest(expected.collect(), &policy_capacity_per_s, CUSTOMERS_MOST);
    let mut entries: Vec<Entry> = chosen
        .into_iter()
        .map(|(candidate, outlook)| {
            let known = settled_of(candidate.hash);
            Entry {
                hash: candidate.hash,
                customer: customer_of(&candidate, outlook, known.map(|(entry, _)| entry), {
                    known.map_or(newcomers_credits, |(_, (_, credits))| *credits)
                }),
                parts: PerResource::default(),
                recalled_per_s: PerResource::default(),
                changed_in: number,
                sums: known.map_or_else(Sums::default, |(_, (sums, _))| *sums),
            }
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.hash);
    let mut book = Book {
        number,
        at_unix_ms: seen.now_unix_ms,
        cause: seen.cause,
        policy,
        interval_ms: rule.interval_ms,
        resources,
        policy_capacity_per_s,
        capacity_per_s,
        groups: rule.groups.clone(),
        group_names: rule.group_names.clone(),
        settings: rule.settings,
        entries,
        left_out,
        ..Book::default()
    };
    let allocation = book.replay();
    book.reserve_per_s = allocation.reserve_per_s;
    book.idle_per_s = allocation.idle_per_s;
    for (entry, parts) in book.entries.iter_mut().zip(allocation.parts) {
        entry.parts = parts;
        if let Some((had, _)) = settled_of(entry.hash) {
            entry.follow(had);
        }
    }
    book.gone = gone(&before, &book);
    let month = Month::at(seen.now_unix_ms);
    let closed = close(&before, &settled, &mut book, month);
    book.inputs_digest = digest::of_inputs(&book);
    book.result_digest = digest::of_result(&book);
    Made {
        line: CycleView::of(&book),
        book: Arc::new(book),
        closed,
        live,
    }
}

/// What a customer is expected to ask for: by the forecast of the first horizon that is not shorter than a cycle, unless more is asked for at this moment than
/// its 0.99 quantile, or there is none; then by what was measured.
fn outlook_of(
    candidate: &Candidate,
    before: &Book,
    seen: &Seen<'_>,
    (resources, interval_ms): (&[String], u32),
) -> PerResource<Outlook> {
    let mut outlooks = PerResource::default();
    if candidate.is_denied {
        return outlooks;
    }
    for (resource, index) in ResourceIndex::first(resources.len()).zip(0_u8..) {
        let now_per_s = *candidate.now_per_s.at(resource);
        let forecast = seen.forecasts.mean_of(
            candidate.hash,
            index,
            u64::from(interval_ms),
            (seen.step_ms, seen.now_unix_ms),
        );
        let series = Series::new(candidate.hash, index);
        *outlooks.at_mut(resource) = match forecast {
            Some(quantiles_per_s) if quantiles_per_s.last() >= Some(&now_per_s) => {
                Outlook { quantiles_per_s }
            }
            _ => seen.trails.outlook(series, now_per_s),
        };
        // A server that has just started knows no steps yet; the cycle before did.
        if seen.trails.is_new()
            && forecast.is_none()
            && let Some(entry) = before.entry(candidate.hash)
        {
            let expected = entry.customer.outlook.at(resource).quantiles_per_s;
            let outlook = outlooks.at_mut(resource);
            for (quantile, before) in outlook.quantiles_per_s.iter_mut().zip(expected) {
                *quantile = quantile.max(before);
            }
        }
    }
    outlooks
}

/// So many at most, those with the largest guarantees and then outlooks within their ceilings, in parts of the capacities. Guarantees first: who
/// asks for much would have who was promised something left out.
fn largest(
    mut expected: Vec<(Candidate, PerResource<Outlook>)>,
    capacity_per_s: &PerResource<f64>,
    most: usize,
) -> (Vec<(Candidate, PerResource<Outlook>)>, usize) {
    let left_out = expected.len().saturating_sub(most);
    if left_out > 0 {
        let size = |(candidate, outlook): &(Candidate, PerResource<Outlook>)| -> (f64, f64) {
            let of_each = candidate.terms.iter().zip(outlook.iter());
            let of_each = of_each.zip(capacity_per_s.iter());
            let of_each = of_each.filter(|(_, capacity)| **capacity > 0.0);
            of_each.fold(
                (0.0, 0.0),
                |(promised, asked), ((terms, outlook), capacity)| {
                    let wants_per_s = outlook.upper_per_s().min(terms.ceiling_per_s);
                    (
                        promised + terms.guarantee_per_s / capacity,
                        asked + wants_per_s / capacity,
                    )
                },
            )
        };
        // Equal ones by hash, or the choice would be another one each time.
        expected.sort_by(|one, other| {
            let (sizes, others) = (size(one), size(other));
            let by_size = others.0.total_cmp(&sizes.0);
            let by_size = by_size.then_with(|| others.1.total_cmp(&sizes.1));
            by_size.then_with(|| one.0.hash.cmp(&other.0.hash))
        });
        expected.truncate(most);
    }
    (expected, left_out)
}

fn customer_of(
    candidate: &Candidate,
    outlook: PerResource<Outlook>,
    before: Option<&Entry>,
    credits: f64,
) -> Customer {
    let mut held = PerResource::default();
    if let Some(before) = before {
        for resource in ResourceIndex::first(before.parts.iter().len()) {
            let part = before.parts.at(resource);
            *held.at_mut(resource) = Held {
                per_s: part.allocated_per_s(),
                is_releasing: part.is_releasing,
            };
        }
    }
    let terms = match candidate.is_denied {
        true => PerResource::<Terms>::default(),
        false => candidate.terms,
    };
    Customer {
        tier: candidate.tier,
        priority: candidate.priority,
        weight: candidate.weight,
        group: candidate.group,
        terms,
        outlook,
        headroom_per_s: PerResource::default(),
        // Who is frozen keeps nothing for a while either.
        held: if candidate.is_denied {
            PerResource::default()
        } else {
            held
        },
        credits,
    }
}

/// Who had something, and is in no cycle any more.
fn gone(before: &Book, book: &Book) -> Vec<(CustomerHash, u64)> {
    let had_something = before.entries.iter().filter(|entry| {
        let mut parts = entry.parts.iter();
        parts.any(|part| part.allocated_per_s() > 0.0)
    });
    let left = had_something.map(|entry| (entry.hash, book.number));
    let still = before.gone.iter().copied();
    let is_gone = |(hash, since): &(CustomerHash, u64)| {
        book.entry(*hash).is_none() && since.saturating_add(GONE_FOR) > book.number
    };
    let mut gone: Vec<(CustomerHash, u64)> = still.chain(left).filter(is_gone).collect();
    if gone.len() > CUSTOMERS_MOST {
        gone.sort_unstable_by_key(|(_, since)| std::cmp::Reverse(*since));
        gone.truncate(CUSTOMERS_MOST);
    }
    gone.sort_unstable_by_key(|(hash, _)| *hash);
    gone
}

/// Takes sums of a month that is over, and of customers that are gone, out of the book.
fn close(before: &Book, settled: &[(Sums, f64)], book: &mut Book, month: Month) -> Closed {
    let mut closed = Closed::new();
    let left = before.entries.iter().zip(settled);
    for (entry, (sums, _)) in left.filter(|(entry, _)| book.entry(entry.hash).is_none()) {
        closed.push((entry.hash, *sums));
    }
    for entry in &mut book.entries {
        if entry.sums.month != month {
            closed.push((entry.hash, entry.sums));
            entry.sums = Sums {
                month,
                ..Sums::default()
            };
        }
    }
    closed.retain(|(_, sums)| !sums.is_nothing());
    closed
}

// === impl Entry ===

impl Entry {
    /// What it is told to gateways, in micro-tokens per second. Rounded down, so that all together are no more than there is.
    pub(crate) fn rate_micro_per_s(&self, resource: ResourceIndex) -> u64 {
        let per_s = self.parts.at(resource).allocated_per_s();
        // From a float a negative number becomes 0, and none is too large.
        (per_s * 1e6) as u64
    }

    /// What follows from the cycle before.
    fn follow(&mut self, before: &Self) {
        let mut is_same = true;
        for resource in ResourceIndex::first(self.parts.iter().len()) {
            is_same &= self.rate_micro_per_s(resource) == before.rate_micro_per_s(resource);
            let (part, had) = (self.parts.at(resource), before.parts.at(resource));
            let no_more_lent = had.lent_per_s - part.lent_per_s;
            let kept_more = part.kept_per_s - had.kept_per_s;
            *self.recalled_per_s.at_mut(resource) = no_more_lent.min(kept_more).max(0.0);
        }
        if is_same {
            self.changed_in = before.changed_in;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::policy::Tier;

    fn candidate(number: u8, guarantee_per_s: f64) -> Candidate {
        Candidate {
            hash: CustomerHash([number; 16]),
            is_listed: true,
            is_denied: false,
            tier: Tier::One,
            priority: 0,
            weight: 1.0,
            group: None,
            terms: PerResource::only_first(Terms {
                guarantee_per_s,
                ..Terms::default()
            }),
            now_per_s: PerResource::default(),
        }
    }

    #[test]
    fn when_there_are_too_many_the_smallest_are_left_out() {
        let asks = |per_s| PerResource::only_first(Outlook::of_demand(per_s));
        let all = vec![
            (candidate(1, 0.0), asks(5.0)),
            (candidate(2, 7.0), asks(0.0)),
            (candidate(3, 0.0), asks(4.0)),
            (candidate(4, 0.0), asks(5.0)),
        ];
        let capacity_per_s = PerResource::only_first(100.0);
        let (chosen, left_out) = largest(all.clone(), &capacity_per_s, 2);
        let chosen: Vec<u8> = chosen
            .iter()
            .map(|(candidate, _)| candidate.hash.0[0])
            .collect();
        assert_eq!((chosen, left_out), (vec![2, 1], 2));
        assert_eq!(largest(all, &capacity_per_s, 4).1, 0);
    }
}
