//! Bytes from outside: what is written is read back, and damaged bytes are an error, never a panic.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::deviation::Deviations;
use forebay_core::lease::{Gap, Lease};
use forebay_core::ledger::{Entry, EntryFlags, Layout, Page, PageView, State, WorkerId, Workers};
use forebay_core::policy::{ContractIndex, Limits, Policy, PoolRule, Tier, Unknown};
use forebay_core::pool::Pools;
use forebay_core::{CustomerHash, Micro, Rate, TimeUs};
use gateway::{contract, policy, tokens};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn any_policy() -> impl Strategy<Value = Policy> {
    let limits =
        (0..u64::pow(10, 18), 0..i64::pow(10, 18), 0..=100_u64).prop_map(|(rate, burst, part)| {
            Limits {
                guarantee: Rate::new(rate / 100 * part),
                ceiling: Rate::MAX,
                debt_limit: Micro::new(burst / 2),
                borrow_limit: Micro::new(burst / 3),
                ..Limits::plain(Rate::new(rate), Micro::new(burst))
            }
        });
    let rows = prop::collection::vec(
        (
            1..=3_u8,
            any::<u8>(),
            any::<u32>(),
            prop::collection::vec(limits, 4),
        ),
        1..6,
    );
    let pools = prop::collection::vec(prop::option::of((any::<u32>(), any::<u32>())), 1..=4);
    (any::<u64>(), any::<bool>(), rows, pools, 0..3_u8).prop_map(
        |(epoch, dry_run, rows, pools, unknown)| {
            let names: Vec<String> = (0..rows.len())
                .map(|row| format!("contract-{row}"))
                .collect();
            let contracts =
                rows.iter()
                    .zip(&names)
                    .map(|((tier, priority, weight, limits), name)| {
                        let mut row = contract(
                            name,
                            Tier::from_number(*tier).unwrap(),
                            &limits[..pools.len()],
                        );
                        (row.priority, row.weight) = (*priority, *weight);
                        row
                    });
            let mut policy = policy(&vec![None; pools.len()], contracts.collect());
            for (resource, pool) in policy.resources.iter_mut().zip(&pools) {
                resource.pool = pool.map(|(capacity, depth)| PoolRule {
                    capacity: Rate::new(u64::from(capacity)),
                    depth: Micro::new(i64::from(depth)),
                });
            }
            let contract = ContractIndex(0);
            policy.unknown = match unknown {
                0 => Unknown::Deny,
                1 => Unknown::DefaultContract(contract),
                _ => Unknown::Commons {
                    contract,
                    prefix_len_v4: 24,
                    prefix_len_v6: 48,
                },
            };
            (policy.epoch, policy.dry_run) = (epoch, dry_run);
            policy
        },
    )
}

/// An entry with a different number in each field, so that no two can be mistaken for each other.
fn entry(seed: u64) -> Entry {
    let mut next = seed;
    let mut number = || {
        next = gateway::splitmix(next);
        next >> 4
    };
    let mut entry = Entry {
        customer: CustomerHash(core::array::from_fn(|_| number() as u8)),
        at: TimeUs(number() >> 8),
        counted_since: TimeUs(number() >> 20 << 8),
        contract: ContractIndex(number() as u16),
        flags: EntryFlags {
            in_policy: seed.is_multiple_of(2),
            predicted: seed.is_multiple_of(3),
            granted: seed as u8 % 16,
            ..EntryFlags::default()
        },
        deviations: Deviations(number() as u8),
        ban_until_s: number() as u32,
        ..Entry::default()
    };
    for holding in entry.holdings.iter_mut() {
        for bucket in [
            &mut holding.contract,
            &mut holding.credit,
            &mut holding.shadow,
            &mut holding.borrow,
        ] {
            bucket.level = Micro::new(number() as i64 - i64::pow(2, 58));
            bucket.carry = (number() % 1_000_000) as u32;
        }
        holding.shadow_rate = Rate::new(number() % 1_000_000);
        holding.shadow_span_us = number() as u32;
        holding.admitted_cum = number();
        holding.denied_cum = number();
        holding.deviation_cum = number();
        holding.moved_cum = number();
        holding.terms.rate = Rate::new(number() % 1_000_000);
        holding.terms.cap = Micro::new(number() as i64);
        holding.terms.fallback_rate = Rate::new(number() % 1_000_000);
        holding.outstanding.current = Micro::new(number() as i64);
        holding.outstanding.previous = Micro::new(number() as i64);
    }
    entry
}

fn page(resources: u8, entries: &[u64]) -> Vec<u8> {
    let mut bytes = Page::empty(resources, None);
    let mut page = Page::open(&mut bytes, resources).unwrap();
    for seed in entries {
        page.push(&entry(*seed));
    }
    bytes
}

/// Only as much of an entry as so many resources keep.
fn cut(mut entry: Entry, resources: u8) -> Entry {
    entry
        .holdings
        .iter_mut()
        .skip(usize::from(resources))
        .for_each(|holding| *holding = Default::default());
    entry
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: prop::sample::Index, bit: u8 },
    Cut { at: prop::sample::Index },
    Add { bytes: Vec<u8> },
    Replace { bytes: Vec<u8> },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        any::<prop::sample::Index>().prop_map(|at| Damage::Cut { at }),
        prop::collection::vec(any::<u8>(), 1..64).prop_map(|bytes| Damage::Add { bytes }),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Damage::Replace { bytes }),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::Flip { at, bit } => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Damage::Cut { at } => bytes.truncate(at.index(bytes.len())),
        Damage::Add { bytes: more } => bytes.extend_from_slice(more),
        Damage::Replace { bytes: other } => bytes.clone_from(other),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_policy_survives_its_binary_form(policy in any_policy()) {
        prop_assert_eq!(policy.check(), Ok(()));
        prop_assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }

    #[test]
    fn a_damaged_policy_is_refused_or_still_within_all_bounds(policy in any_policy(), damage in damage()) {
        if let Ok(policy) = Policy::decode(&damaged(policy.encode(), &damage)) {
            prop_assert_eq!(policy.check(), Ok(()));
        }
    }

    #[test]
    fn entries_survive_their_page(resources in 1..=4_u8, seeds in prop::collection::vec(any::<u64>(), 0..12)) {
        let bytes = page(resources, &seeds);
        let view = PageView::open(&bytes, resources).unwrap();
        let read: Vec<Entry> = view.entries().map(Result::unwrap).collect();
        let written: Vec<Entry> = seeds.iter().map(|seed| cut(entry(*seed), resources)).collect();
        prop_assert_eq!(&read, &written);
        for (position, seed) in seeds.iter().enumerate() {
            let first = seeds.iter().position(|other| other == seed).unwrap();
            prop_assert_eq!(view.find(&entry(*seed).customer), Some(first as u16), "entry {}", position);
        }
    }

    #[test]
    fn a_removed_entry_is_gone_and_the_others_stay(seeds in prop::collection::hash_set(any::<u64>(), 1..12), pick in any::<prop::sample::Index>()) {
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let mut bytes = page(1, &seeds);
        let mut page = Page::open(&mut bytes, 1).unwrap();
        let gone = pick.index(seeds.len());
        page.remove(gone as u16);
        let view = PageView::open(&bytes, 1).unwrap();
        for (position, seed) in seeds.iter().enumerate() {
            prop_assert_eq!(view.find(&entry(*seed).customer).is_some(), position != gone);
        }
    }

    #[test]
    fn a_damaged_page_never_panics_and_a_damaged_entry_still_draws(
        seeds in prop::collection::vec(any::<u64>(), 1..4),
        policy in any_policy(),
        damage in damage(),
        now in any::<u64>(),
    ) {
        let resources = policy.resources.len() as u8;
        let mut bytes = damaged(page(resources, &seeds), &damage);
        if let Ok(page) = Page::open(&mut bytes, resources) {
            for position in 0..page.len() {
                if let Ok(mut entry) = page.get(position) {
                    entry.contract = ContractIndex(0);
                    entry.refill(&policy, &Lease::StandAlone, TimeUs(now));
                    let _ = entry.is_evictable(&policy, TimeUs(now));
                }
            }
        }
    }

    #[test]
    fn damaged_pools_states_and_workers_never_panic(policy in any_policy(), damage in damage(), now in any::<u64>()) {
        let resources = policy.resources.len() as u8;
        let pools = Pools::full(&policy, TimeUs(5));
        prop_assert_eq!(Pools::decode(&pools.encode(resources), resources), Ok(pools));
        if let Ok(mut pools) = Pools::decode(&damaged(pools.encode(resources), &damage), resources) {
            pools.refill(&policy, &Lease::StandAlone, TimeUs(now));
        }
        for lease in [
            Lease::StandAlone,
            Lease::Waiting,
            Lease::Granted {
                from: TimeUs(1),
                gaps: core::array::from_fn(|gap| Gap { from: TimeUs(10 + gap as u64), until: TimeUs(20 + gap as u64) }),
                until: TimeUs(2),
                fallback_until: TimeUs(3),
                void_before: TimeUs(4),
            },
        ] {
            let state = State {
                layout: Layout { policy_pages_log2: 3, other_pages_log2: 20 },
                resources,
                resources_mark: 7,
                policy_epoch: 8,
                lease,
                seeded_at: TimeUs(9),
            };
            prop_assert_eq!(State::decode(&state.encode()), Ok(state));
            if let Ok(state) = State::decode(&damaged(state.encode().to_vec(), &damage)) {
                prop_assert!((1..=4).contains(&state.resources));
            }
        }
        let mut workers = Workers::default();
        workers.seen(WorkerId(1), TimeUs(2));
        if let Ok(workers) = Workers::decode(&damaged(workers.encode(), &damage)) {
            prop_assert!(workers.count(TimeUs(now)) >= 1);
        }
    }
}

#[test]
fn a_policy_outside_its_bounds_is_refused_with_the_field_that_is_wrong() {
    let plain = Limits::plain(gateway::per_s(10), tokens(5));
    let good = policy(&[None], vec![contract("gold", Tier::One, &[plain])]);
    let mut guarantee = good.clone();
    guarantee.contracts[0]
        .limits
        .iter_mut()
        .for_each(|limits| limits.guarantee = gateway::per_s(11));
    let mut twice = good.clone();
    twice.contracts.push(twice.contracts[0].clone());
    let nowhere = Policy {
        unknown: Unknown::DefaultContract(ContractIndex(1)),
        ..good.clone()
    };
    let nothing = Policy {
        resources: Vec::new(),
        ..good
    };
    for (policy, words) in [
        (
            guarantee,
            "guarantee is 11000000, allowed is at most the rate",
        ),
        (twice, "the name `gold` occurs twice"),
        (
            nowhere,
            "contract is 1, allowed is a row of the contract table",
        ),
        (nothing, "rows is 0, allowed is 1 to 4"),
    ] {
        let error = policy.check().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
