//! What a million policy customers cost, in memory and per decision.
//!
//! The ledger lies in an emulation of Envoy's shared data: a hash map from key to (bytes, compare-and-swap number), with the
//! value copied out on each get and in on each set. Keys lie in the map itself, as short `std::string`s do. A decision is the whole path: hash the key, look it up in the worker's
//! cache, on a miss compute the customer's keyed 128-bit hash and make room in the cache, then draw from the ledger with
//! compare-and-swap. Customers are drawn uniformly, so with a million of them practically every decision misses the cache
//! and finds its page cold in memory; with a thousand everything is warm. Each customer asks equally often in both
//! runs (on the virtual clock), so in both nearly every decision is a draw and chunks help neither.
//!
//! `admitted_of_allowance`: every customer asks for 2.5 times its contract. Allowance is what an exact token bucket per
//! customer, without pages, chunks or a cache, admits of the very same requests. `bytes_per_customer`: growth of the heap while a million customers are installed: pages,
//! keys, map, malloc overhead, and the pages for other customers.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it reads the clock, counts in the allocator, and a failed step must stop it"
)]

mod report;

use forebay_core::cache::{ChunkCache, Slot};
use forebay_core::chunk::Amounts;
use forebay_core::draw::Conditions;
use forebay_core::lease::Lease;
use forebay_core::ledger::{Install, LedgerSize, PolicyCustomer, SetError, SharedData};
use forebay_core::policy::{
    Contract, ContractIndex, Limits, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use forebay_core::{
    CoreError, CustomerHash, Ledger, Micro, PerResource, Policy, Rate, TimeUs, Verdict,
};
use report::{Counting, Row, cpu_ns, live_bytes, median, publish};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MANY: u64 = 1_000_000;
const FEW: u64 = 1_000;
const ROUNDS: u64 = 5;
const RATE_PER_S: u64 = 2;
const BURST: u64 = 5;
const DEMAND_PER_S: u64 = 5;
const TICK_US: u64 = 100_000;
const CACHE: usize = 2_048;

/// Shared data as Envoy keeps it.
#[derive(Default)]
struct EnvoyData {
    values: Mutex<HashMap<InlineKey, (Vec<u8>, u32)>>,
    last_cas: u32,
}

/// A key of up to 22 bytes, which is what libc++ keeps inside a `std::string`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InlineKey {
    bytes: [u8; 22],
    len: u8,
}

impl InlineKey {
    fn new(key: &str) -> InlineKey {
        let mut bytes = [0; 22];
        bytes[..key.len()].copy_from_slice(key.as_bytes());
        InlineKey {
            bytes,
            len: key.len() as u8,
        }
    }
}

impl Hash for InlineKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.bytes[..usize::from(self.len)]);
    }
}

impl SharedData for EnvoyData {
    /// As `SharedData::get` of the C++ host: a copy is made under the lock, and that is copied into the VM's memory.
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        let values = self.values.lock().unwrap();
        let found = values.get(&InlineKey::new(key)).cloned();
        drop(values);
        Ok(found.map(|(value, cas)| {
            into.clear();
            into.extend_from_slice(&value);
            cas
        }))
    }

    /// As `SharedData::set` of the C++ host: under the lock, a new string replaces the old.
    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        self.last_cas += 1;
        let mut values = self.values.lock().unwrap();
        let slot = values
            .entry(InlineKey::new(key))
            .or_insert_with(|| (Vec::new(), 0));
        if slot.1 != 0 && cas.is_some_and(|cas| cas != slot.1) {
            return Err(SetError::CasMismatch);
        }
        *slot = (value.to_vec(), self.last_cas);
        Ok(())
    }
}

struct Gateway {
    policy: Policy,
    data: EnvoyData,
    ledger: Ledger,
    cache: ChunkCache,
    customers: u64,
    random: u64,
    now: TimeUs,
    ledger_bytes: i64,
    admitted: u64,
    /// An exact token bucket per customer: level in micro-tokens, and when it was last brought up to date.
    exact: Vec<(u64, TimeUs)>,
    exactly_admitted: u64,
    cost: Amounts,
    key: Vec<u8>,
}

impl Gateway {
    fn new(customers: u64) -> Gateway {
        let policy = policy();
        let before = live_bytes();
        let mut data = EnvoyData::default();
        let now = TimeUs(1_000_000_000);
        let size = LedgerSize {
            max_policy_customers: customers,
            max_other_customers: 10_000,
        };
        let mut ledger = Ledger::seed(&mut data, size, &policy, Lease::StandAlone, now).unwrap();
        let conditions = Conditions {
            policy: &policy,
            lease: Lease::StandAlone,
            now,
            workers: 4,
        };
        let mut key = Vec::new();
        let list = (0..customers).map(|number| {
            write_key(&mut key, number);
            PolicyCustomer::plain(hash(&key), ContractIndex(0))
        });
        let mut install = Install::new(&ledger, list.collect(), true);
        while !install
            .step(&mut ledger, &mut data, &conditions, 1024)
            .unwrap()
        {}
        assert_eq!(install.done().added, customers);
        drop(install);
        let ledger_bytes = live_bytes() - before;
        Gateway {
            policy,
            data,
            ledger,
            cache: ChunkCache::new(CACHE, 11),
            customers,
            random: 1,
            now,
            ledger_bytes,
            admitted: 0,
            exact: vec![(BURST * 1_000_000, now); customers as usize],
            exactly_admitted: 0,
            cost: PerResource::only_first(Micro::from_tokens(1)),
            key,
        }
    }

    /// Decides so many requests of customers drawn uniformly; the clock moves on so that each asks `DEMAND_PER_S` times a second.
    fn run(&mut self, decisions: u64) -> f64 {
        let mut spent_ns = 0;
        let per_tick = self.customers * DEMAND_PER_S * TICK_US / 1_000_000;
        let mut left = decisions;
        while left > 0 {
            let batch = left.min(per_tick);
            let (start_at, seed) = (self.now, self.random);
            let start_ns = cpu_ns();
            for step in 0..batch {
                let number = self.next(start_at, step, per_tick);
                self.decide(number);
            }
            spent_ns += cpu_ns() - start_ns;
            // The same requests once more, by the exact buckets, outside the measured time.
            self.random = seed;
            for step in 0..batch {
                let number = self.next(start_at, step, per_tick);
                self.decide_exactly(number);
            }
            self.now = start_at.plus_us(batch * TICK_US / per_tick);
            self.tick();
            left -= batch;
        }
        spent_ns as f64 / decisions as f64
    }

    fn decide(&mut self, number: u64) {
        let Gateway {
            policy,
            data,
            ledger,
            cache,
            cost,
            key,
            now,
            ..
        } = self;
        write_key(key, number);
        let conditions = Conditions {
            policy,
            lease: Lease::StandAlone,
            now: *now,
            workers: 4,
        };
        let quick = cache.get_mut(key).and_then(|slot| {
            let spent = slot.chunk.spend(cost);
            spent.or_else(|| slot.chunk.deny_again(cost, *now).map(Verdict::Denied))
        });
        let verdict = quick.unwrap_or_else(|| {
            let evicted = |slot: &mut Slot| {
                ledger
                    .give_back(data, &conditions, &slot.customer, &mut slot.chunk)
                    .unwrap();
            };
            let slot = cache.add(key, hash(key), evicted).unwrap();
            ledger
                .draw(data, &conditions, &slot.customer, cost, &mut slot.chunk)
                .unwrap()
        });
        self.admitted += u64::from(verdict.is_admitted());
    }

    fn tick(&mut self) {
        let Gateway {
            policy,
            data,
            ledger,
            cache,
            now,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: Lease::StandAlone,
            now: *now,
            workers: 4,
        };
        for slot in cache.slots_mut() {
            if slot.chunk.is_due(*now, TICK_US) {
                ledger
                    .give_back(data, &conditions, &slot.customer, &mut slot.chunk)
                    .unwrap();
            }
        }
    }

    /// The next request: moves the clock, and says whose it is.
    fn next(&mut self, start_at: TimeUs, step: u64, per_tick: u64) -> u64 {
        self.now = start_at.plus_us(step * TICK_US / per_tick);
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.random) * u128::from(self.customers)) >> 64) as u64
    }

    fn decide_exactly(&mut self, number: u64) {
        let (level, at) = &mut self.exact[number as usize];
        *level = (*level + RATE_PER_S * self.now.since(*at)).min(BURST * 1_000_000);
        *at = self.now;
        if *level >= 1_000_000 {
            *level -= 1_000_000;
            self.exactly_admitted += 1;
        }
    }
}

fn policy() -> Policy {
    let limits = Limits::plain(
        Rate::from_tokens_per_s(RATE_PER_S),
        Micro::from_tokens(BURST),
    );
    let capacity = Rate::from_tokens_per_s(MANY * DEMAND_PER_S * 10);
    let pool = Some(PoolRule {
        capacity,
        depth: capacity.amount_in(1_000_000),
    });
    Policy {
        epoch: 1,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".to_owned(),
            pool,
        }],
        contracts: vec![Contract {
            name: "gold".to_owned(),
            tier: Tier::One,
            priority: 0,
            weight: 1,
            limits: PerResource::only_first(limits),
        }],
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    }
}

fn write_key(key: &mut Vec<u8>, number: u64) {
    key.clear();
    key.extend_from_slice(b"customer-");
    let mut rest = number;
    for _ in 0..7 {
        key.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
}

fn hash(key: &[u8]) -> CustomerHash {
    let mut hasher = SipHasher24::new_with_keys(1, 2);
    hasher.write(key);
    CustomerHash(hasher.finish128().as_bytes())
}

fn main() {
    let mut many = Gateway::new(MANY);
    let bytes_per_customer = many.ledger_bytes as f64 / MANY as f64;
    let mut few = Gateway::new(FEW);
    let decisions = MANY * DEMAND_PER_S * 2 / 5;
    let (mut ratios, mut many_ns, mut few_ns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (of_many, of_few) = (many.run(decisions), few.run(decisions));
        ratios.push(of_many / of_few);
        many_ns.push(of_many);
        few_ns.push(of_few);
    }
    let admitted = many.admitted as f64 / many.exactly_admitted as f64;
    let reached = publish(
        "bench-scale",
        &[
            Row {
                field: "bytes_per_customer",
                value: bytes_per_customer,
                bar: Some(("<=", 200.0)),
            },
            Row {
                field: "admitted_of_allowance",
                value: admitted,
                bar: Some((">=", 0.99)),
            },
            Row {
                field: "cost_1m_over_1k",
                value: median(&mut ratios),
                bar: Some(("<=", 1.5)),
            },
            Row {
                field: "decision_1m_ns",
                value: median(&mut many_ns),
                bar: None,
            },
            Row {
                field: "decision_1k_ns",
                value: median(&mut few_ns),
                bar: None,
            },
        ],
    );
    if !reached {
        std::process::exit(1);
    }
}
