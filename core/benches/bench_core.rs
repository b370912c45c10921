//! What a decision from a chunk costs, native.
//!
//! A decision here is everything between having the key's bytes in hand and having the verdict: hashing the key, finding the
//! customer in the worker's cache, comparing and subtracting. 1000 customers in random order, one resource, cost 1,
//! chunks large enough that no draw happens while measuring. Not in it: reading the key from the request (the host's
//! business), and draws, whose cost is reported apart (`draw_ns`: the exchange with an in-memory ledger, pool included).
#![allow(
    unsafe_code,
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it reads the clock, counts in the allocator, and a failed step must stop it"
)]

mod report;

use forebay_core::cache::ChunkCache;
use forebay_core::chunk::Amounts;
use forebay_core::draw::Conditions;
use forebay_core::lease::Lease;
use forebay_core::ledger::{Install, LedgerSize, MemoryData, PolicyCustomer};
use forebay_core::policy::{
    Contract, ContractIndex, Limits, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use forebay_core::{CustomerHash, Ledger, Micro, PerResource, Policy, Rate, TimeUs};
use report::{Counting, Row, allocations, cpu_ns, median, publish};
use std::hint::black_box;
use std::process::Command;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CUSTOMERS: usize = 1000;
const DECISIONS: usize = 2_000_000;
const ROUNDS: usize = 9;
const DRAWS: usize = 100;

fn policy() -> Policy {
    let limits = Limits::plain(
        Rate::from_tokens_per_s(1_000_000_000),
        Micro::from_tokens(1_000_000_000),
    );
    Policy {
        epoch: 1,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".to_owned(),
            pool: Some(PoolRule {
                capacity: Rate::MAX,
                depth: Micro::MAX,
            }),
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

struct Bench {
    policy: Policy,
    data: MemoryData,
    ledger: Ledger,
    cache: ChunkCache,
    keys: Vec<Vec<u8>>,
    order: Vec<u16>,
    cost: Amounts,
    now: TimeUs,
}

impl Bench {
    fn new() -> Bench {
        let policy = policy();
        let mut data = MemoryData::default();
        let now = TimeUs(1_000_000_000);
        let mut ledger = Ledger::seed(
            &mut data,
            LedgerSize::default(),
            &policy,
            Lease::StandAlone,
            now,
        )
        .unwrap();
        let customers = (0..CUSTOMERS)
            .map(|number| PolicyCustomer::plain(hash(number), ContractIndex(0)))
            .collect();
        let mut install = Install::new(&ledger, customers, true);
        let conditions = Conditions {
            policy: &policy,
            lease: Lease::StandAlone,
            now,
            workers: 1,
        };
        while !install
            .step(&mut ledger, &mut data, &conditions, 1024)
            .unwrap()
        {}
        let keys = (0..CUSTOMERS)
            .map(|number| format!("customer-{number:06}").into_bytes())
            .collect();
        let mut seed = 7_u64;
        let order = (0..1 << 16)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((seed >> 33) as usize % CUSTOMERS) as u16
            })
            .collect();
        let cache = ChunkCache::new(4096, 11);
        let cost = PerResource::only_first(Micro::from_tokens(1));
        Bench {
            policy,
            data,
            ledger,
            cache,
            keys,
            order,
            cost,
            now,
        }
    }

    /// One draw for each customer.
    fn draw_all(&mut self) {
        let Bench {
            policy,
            data,
            ledger,
            cache,
            keys,
            cost,
            now,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: Lease::StandAlone,
            now: *now,
            workers: 1,
        };
        for (number, key) in keys.iter().enumerate() {
            let slot = cache.add(key, hash(number), |_| {}).unwrap();
            let verdict = ledger
                .draw(data, &conditions, &slot.customer, cost, &mut slot.chunk)
                .unwrap();
            assert!(verdict.is_admitted());
        }
    }

    /// Draws until the chunks hold more than a round spends.
    fn fill(&mut self) {
        self.draw_all();
        for slot in self.cache.slots_mut() {
            slot.chunk
                .holdings
                .iter_mut()
                .take(1)
                .for_each(|holding| holding.plain = Micro::from_tokens(1_000_000_000));
        }
    }

    #[inline(never)]
    fn decide(&mut self, decisions: usize) -> u64 {
        let mut admitted = 0_u64;
        for step in 0..decisions {
            let number = usize::from(self.order[step & (self.order.len() - 1)]);
            let key = black_box(self.keys[number].as_slice());
            let verdict = self
                .cache
                .get_mut(key)
                .and_then(|slot| slot.chunk.spend(&self.cost));
            admitted += u64::from(verdict.is_some_and(|verdict| verdict.is_admitted()));
        }
        admitted
    }
}

fn hash(number: usize) -> CustomerHash {
    CustomerHash(
        (number as u128)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_le_bytes(),
    )
}

/// Instructions of one decision by callgrind: a run of many less a run of few. `None` without valgrind.
fn instructions() -> Option<f64> {
    let collected = |decisions: &str| -> Option<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?)
            .args(["--decisions", decisions])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("Collected"))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    Some((collected("300000")? - collected("100000")?) / 200_000.0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut bench = Bench::new();
    bench.fill();
    if let [_, flag, decisions] = arguments.as_slice()
        && flag == "--decisions"
    {
        black_box(bench.decide(decisions.parse().unwrap()));
        return;
    }
    assert_eq!(bench.decide(DECISIONS), DECISIONS as u64);
    let (mut decision_ns, mut draw_ns) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let (mut allocated, mut drawn_allocated) = (0, 0);
    let before = allocations();
    black_box((cpu_ns(), cpu_ns()));
    let reading = allocations() - before;
    for _ in 0..ROUNDS {
        let before = allocations();
        let start_ns = cpu_ns();
        black_box(bench.decide(DECISIONS));
        decision_ns.push((cpu_ns() - start_ns) as f64 / DECISIONS as f64);
        // Reading the CPU time allocates; two readings without decisions in between show how much.
        allocated += allocations() - before - reading;
        bench.now = bench.now.plus_us(1_000);
        let before = allocations();
        let start_ns = cpu_ns();
        for _ in 0..DRAWS {
            bench.draw_all();
        }
        draw_ns.push((cpu_ns() - start_ns) as f64 / (DRAWS * CUSTOMERS) as f64);
        drawn_allocated += allocations() - before - reading;
        bench.fill();
    }
    let mut rows = vec![
        Row {
            field: "decision_ns",
            value: median(&mut decision_ns),
            bar: Some(("<=", 30.0)),
        },
        Row {
            field: "allocations",
            value: allocated as f64,
            bar: Some(("<=", 0.0)),
        },
        Row {
            field: "draw_ns",
            value: median(&mut draw_ns),
            bar: None,
        },
        Row {
            field: "draw_allocations",
            value: drawn_allocated as f64 / (ROUNDS * DRAWS * CUSTOMERS) as f64,
            bar: None,
        },
    ];
    if let Some(instructions) = instructions() {
        rows.insert(
            2,
            Row {
                field: "instructions",
                value: instructions,
                bar: None,
            },
        );
    }
    if !publish("bench-core", &rows) {
        std::process::exit(1);
    }
}
