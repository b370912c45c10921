//! The next cycle: how it follows from the one before and from what was gathered.

use super::book::{Book, Cause, Closed, Entry, Sums};
use super::digest;
use super::gathered::{Candidate, Gathered};
use super::months::Month;
use super::outlook::outlook_of;
use super::trails::Trails;
use super::views::CycleView;
use crate::forecasts::Book as Forecasts;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Held, Outlook, Terms, credits_of_newcomer};
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// Customers that are allocated anything; of more the smallest are left out.
const CUSTOMERS_MOST: usize = 100_000;
/// Who had an allocation and has none any more is remembered for so many cycles, so that gateways are told.
const GONE_FOR: u64 = 12;
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
