//! The next cycle: how it follows from the one before and from what was gathered.

use super::book::{Book, Cause, Closed, Entry, Sums};
use super::digest;
use super::gathered::{Candidate, Gathered};
use super::leavers::Leavers;
use super::months::Month;
use super::outlook::outlook_of;
use super::priorities::Priorities;
use super::trails::Trails;
use super::tuning::{Told, choose};
use super::views::CycleView;
use crate::forecasts::Book as Forecasts;
use crate::risk::Headroom;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::priority::Raise;
use forebay_sharing::{Customer, Held, Outlook, Terms, credits_of_newcomer};
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// Customers that are allocated anything; of more the smallest are left out.
const CUSTOMERS_MOST: usize = 100_000;
/// What a cycle goes by beside what it has gathered.
pub(crate) struct Seen<'a> {
    pub(crate) forecasts: &'a Forecasts,
    pub(crate) trails: &'a Trails,
    pub(crate) priorities: &'a Priorities,
    /// What came of the cycle before.
    pub(crate) told: &'a Told,
    pub(crate) headroom: &'a Headroom,
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
    let when = (seen.cause, seen.now_unix_ms);
    let (settings, tuning) = choose(&before, &rule, seen.told, when);
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
            let credits = match known {
                Some((_, (_, credits))) => *credits,
                // Whoever comes back goes on with what it had.
                None => {
                    let left_with = before.leavers.credits_of(candidate.hash, seen.now_unix_ms);
                    left_with.unwrap_or(newcomers_credits)
                }
            };
            let raise = rule.prioritize.map_or_else(Raise::default, |settings| {
                let priorities = seen.priorities;
                priorities.at(&settings, candidate.hash, seen.now_unix_ms)
            });
            Entry {
                hash: candidate.hash,
                customer: Customer {
                    priority: raise.priority(candidate.priority),
                    ..customer_of(&candidate, outlook, known.map(|(entry, _)| entry), credits)
                },
                parts: PerResource::default(),
                recalled_per_s: PerResource::default(),
                priority_of_policy: candidate.priority,
                raise,
                changed_in: number,
                sums: known.map_or_else(Sums::default, |(_, (sums, _))| *sums),
            }
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.hash);
    for extra in seen.headroom.in_force(policy, seen.now_unix_ms) {
        let (hash, resource, per_s) = extra.amount();
        let place = entries.binary_search_by_key(&hash, |entry| entry.hash);
        if let Some(entry) = place.ok().and_then(|place| entries.get_mut(place)) {
            *entry.customer.headroom_per_s.at_mut(resource) = per_s;
        }
    }
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
        settings,
        tuning,
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
    book.leavers = Leavers::after(&before, &balances, &book, newcomers_credits);
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
    use super::super::rule::Rule;
    use super::*;
    use crate::document::{Format, check};
    use crate::keys::Keys;
    use forebay_core::policy::Tier;
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;
    use std::collections::BTreeMap;

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
            lately: PerResource::default(),
            has_left: false,
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

    #[test]
    fn of_more_than_there_is_room_for_whoever_is_promised_something_is_in() {
        let asks = |per_s| PerResource::only_first(Outlook::of_demand(per_s));
        let numbered = |number: usize, guarantee_per_s| {
            let mut one = candidate(0, guarantee_per_s);
            one.hash.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
            one
        };
        // The last ones by hash ask for nothing, and are promised a little.
        let all = (0..CUSTOMERS_MOST + 3).map(|number| match number < CUSTOMERS_MOST {
            true => (numbered(number, 0.0), asks(1_000.0)),
            false => (numbered(number, 0.001), asks(0.0)),
        });
        let capacity_per_s = PerResource::only_first(100.0);
        let (chosen, left_out) = largest(all.collect(), &capacity_per_s, CUSTOMERS_MOST);
        assert_eq!((chosen.len(), left_out), (CUSTOMERS_MOST, 3));
        let promised = |(candidate, _): &&(Candidate, PerResource<Outlook>)| {
            candidate.terms.at(ResourceIndex::FIRST).guarantee_per_s > 0.0
        };
        assert_eq!(chosen.iter().filter(promised).count(), 3);
    }

    const CAPACITY_PER_S: f64 = 100.0;

    fn rule() -> Rule {
        let text = r#"{"version": 1, "sharing": {"interval_ms": 60000, "credits": true},
            "resources": {"requests": {"capacity_per_s": 100}},
            "contracts": {"free": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}}}}"#;
        let checked = check(text, Format::Json).unwrap();
        let keys = Keys::new(None, None).unwrap();
        Rule::of(&checked.sharing.unwrap(), &[], &[], &keys)
    }

    /// The cycle after another one, with those who ask for something.
    fn next(
        rule: &Arc<Rule>,
        before: &Arc<Book>,
        now_unix_ms: u64,
        asks: &[(u8, f64)],
    ) -> Arc<Book> {
        let candidates = asks.iter().map(|(number, per_s)| {
            let mut one = candidate(*number, f64::from(*number) * 5.0);
            *one.now_per_s.at_mut(ResourceIndex::FIRST) = *per_s;
            one.terms = PerResource::only_first(Terms {
                rate_per_s: CAPACITY_PER_S,
                ceiling_per_s: CAPACITY_PER_S,
                ..*one.terms.at(ResourceIndex::FIRST)
            });
            one
        });
        let gathered = Gathered {
            policy: 1,
            rule: Arc::clone(rule),
            resources: vec!["requests".to_owned()],
            policy_capacity_per_s: PerResource::only_first(CAPACITY_PER_S),
            capacity_per_s: PerResource::only_first(CAPACITY_PER_S),
            candidates: candidates.collect(),
            before: Arc::clone(before),
            live: Vec::new(),
        };
        let seen = Seen {
            forecasts: &Forecasts::default(),
            trails: &Trails::default(),
            priorities: &Priorities::default(),
            told: &Told::default(),
            headroom: &Headroom::default(),
            step_ms: 60_000,
            now_unix_ms,
            cause: Cause::Interval,
        };
        make(gathered, &seen).book
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
            ..ProptestConfig::default()
        })]

        /// Whoever leaves a cycle and comes back has the credits that it left with, however long it was away and whoever else comes and goes; and what is
        /// there changes hands and is not made.
        #[test]
        fn to_leave_and_come_back_neither_gains_nor_loses(
            cycles in prop::collection::vec(prop::collection::vec(prop::option::of(0.0..90.0), 4), 2..12),
            passed_ms in 1_000_u64..90_000,
        ) {
            let rule = Arc::new(rule());
            let mut book = Arc::new(Book::default());
            let mut now_unix_ms = 1_000_000_000_000;
            let mut balances: BTreeMap<CustomerHash, f64> = BTreeMap::new();
            for asks in cycles {
                now_unix_ms += passed_ms;
                for (entry, (_, credits)) in book.entries.iter().zip(book.settled(book.lasted_s(now_unix_ms))) {
                    balances.insert(entry.hash, credits);
                }
                let asks = (1_u8..).zip(asks);
                let asks: Vec<(u8, f64)> = asks.filter_map(|(number, per_s)| Some((number, per_s?))).collect();
                let had: Vec<f64> = book.entries.iter().map(|entry| balances[&entry.hash]).collect();
                let newcomers = credits_of_newcomer(&had);
                book = next(&rule, &book, now_unix_ms, &asks);
                prop_assert_eq!(book.entries.len(), asks.len());
                for entry in &book.entries {
                    let expected = balances.get(&entry.hash).copied().unwrap_or(newcomers);
                    prop_assert!((entry.customer.credits - expected).abs() < 1e-9, "{:?}", entry.hash);
                }
            }
        }
    }
}
