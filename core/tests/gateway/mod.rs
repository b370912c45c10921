//! A gateway on a virtual clock: workers with chunks, the ledger in memory, ticks. What the plugin does, without a host.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of the gateway"
)]

use forebay_core::chunk::{Amounts, Payer};
use forebay_core::draw::Conditions;
use forebay_core::lease::Lease;
use forebay_core::ledger::{
    Entry, Install, LedgerSize, MemoryData, PolicyCustomer, ProtectedScan, Region, SetError,
    SharedData,
};
use forebay_core::policy::{
    Contract, ContractIndex, Limits, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use forebay_core::pool::Pools;
use forebay_core::{
    Chunk, CoreError, CustomerHash, Ledger, Micro, PerResource, Policy, Rate, ResourceIndex,
    TimeUs, Verdict,
};
use std::collections::{BTreeMap, VecDeque};

pub const FIRST: ResourceIndex = ResourceIndex::FIRST;
pub const TICK_US: u64 = 100_000;
/// The clock starts here and not at zero, as on a machine that has been up for a while.
pub const START: TimeUs = TimeUs(1_000_000_000);

pub fn tokens(tokens: i64) -> Micro {
    Micro::new(tokens * 1_000_000)
}

pub fn per_s(tokens: u64) -> Rate {
    Rate::from_tokens_per_s(tokens)
}

pub fn cost(amount: i64) -> Amounts {
    PerResource::only_first(tokens(amount))
}

pub fn customer(number: u64) -> CustomerHash {
    let mixed = splitmix(number);
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&mixed.to_le_bytes());
    hash[8..].copy_from_slice(&number.to_le_bytes());
    CustomerHash(hash)
}

/// A number that looks random, from a number: the whole of a test's randomness comes from its seed.
pub fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn contract(name: &str, tier: Tier, limits: &[Limits]) -> Contract {
    let mut per_resource = PerResource::default();
    for (slot, limits) in per_resource.iter_mut().zip(limits) {
        *slot = *limits;
    }
    Contract {
        name: name.to_owned(),
        tier,
        priority: 0,
        weight: 1,
        limits: per_resource,
    }
}

/// A policy over resources with the given capacities (tokens per second; `None` is no pool).
pub fn policy(capacities: &[Option<u64>], contracts: Vec<Contract>) -> Policy {
    let resource = |(number, capacity): (usize, &Option<u64>)| Resource {
        name: format!("resource-{number}"),
        pool: capacity.map(|capacity| PoolRule {
            capacity: per_s(capacity),
            depth: tokens(capacity as i64),
        }),
    };
    Policy {
        epoch: 1,
        dry_run: false,
        resources: capacities.iter().enumerate().map(resource).collect(),
        contracts,
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    }
}

/// Requests of one token until the first denial.
pub fn admitted(gateway: &mut Gateway, worker: usize, number: u64) -> i64 {
    let mut count = 0;
    while gateway
        .request(worker, number, &cost(1))
        .unwrap()
        .is_admitted()
    {
        count += 1;
    }
    count
}

/// What a rival worker does just before another worker's write.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    pub customer: u64,
    pub cost: Amounts,
}

/// Shared data in which rivals get in between, and calls fail when told to.
#[derive(Debug, Default)]
pub struct Racing {
    pub inner: MemoryData,
    pub rivals: VecDeque<Option<Rival>>,
    /// The next so many sets fail.
    pub fail_sets: u32,
    /// All sets fail after so many that succeed.
    pub fail_after: Option<u32>,
    pub admitted_by_rivals: Vec<(u64, Amounts)>,
    pub rules: Option<(Policy, TimeUs)>,
}

impl SharedData for Racing {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        self.inner.get(key, into)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        if let (Some(Some(rival)), Some((policy, now))) = (self.rivals.pop_front(), &self.rules) {
            let mut ledger = Ledger::open(&mut self.inner).unwrap();
            let conditions = Conditions {
                policy,
                lease: ledger.state().lease,
                now: *now,
                workers: 8,
            };
            let hash = customer(rival.customer);
            let verdict = ledger
                .draw(
                    &mut self.inner,
                    &conditions,
                    &hash,
                    &rival.cost,
                    &mut Chunk::default(),
                )
                .unwrap();
            if verdict.is_admitted() {
                self.admitted_by_rivals.push((rival.customer, rival.cost));
            }
        }
        if self.fail_sets > 0 {
            self.fail_sets -= 1;
            return Err(SetError::Host(CoreError::Host {
                key: key.to_owned(),
                status: 10,
            }));
        }
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                return Err(SetError::Host(CoreError::Host {
                    key: key.to_owned(),
                    status: 10,
                }));
            }
            *left -= 1;
        }
        self.inner.set(key, value, cas)
    }
}

#[derive(Debug, Default)]
pub struct Worker {
    pub chunks: BTreeMap<u64, Chunk>,
}

#[derive(Debug)]
pub struct Gateway {
    pub policy: Policy,
    pub data: Racing,
    pub ledger: Ledger,
    pub workers: Vec<Worker>,
    pub now: TimeUs,
    pub scan: ProtectedScan,
    /// A scan of all pages runs on each tick.
    pub scans: bool,
    next_tick: TimeUs,
}

impl Gateway {
    /// A stand-alone gateway with `customers[n]` = contract of customer n.
    pub fn new(policy: Policy, workers: usize, customers: &[u16]) -> Gateway {
        let mut data = Racing::default();
        let size = LedgerSize {
            max_policy_customers: 32,
            max_other_customers: 4,
        };
        let ledger = Ledger::seed(&mut data, size, &policy, Lease::StandAlone, START).unwrap();
        let workers = (0..workers).map(|_| Worker::default()).collect();
        let mut gateway = Gateway {
            policy,
            data,
            ledger,
            workers,
            now: START,
            scan: ProtectedScan::default(),
            scans: true,
            next_tick: START.plus_us(TICK_US),
        };
        let list = customers.iter().enumerate();
        let list = list.map(|(number, index)| {
            PolicyCustomer::plain(customer(number as u64), ContractIndex(*index))
        });
        gateway.install(list.collect());
        gateway.scan_all();
        gateway
    }

    pub fn conditions(&self) -> Conditions<'static> {
        // The policy of a test lives as long as the test: a leak of a few hundred bytes keeps the borrows simple.
        let policy: &'static Policy = Box::leak(Box::new(self.policy.clone()));
        Conditions {
            policy,
            lease: self.ledger.state().lease,
            now: self.now,
            workers: self.workers.len() as u32,
        }
    }

    pub fn install(&mut self, customers: Vec<PolicyCustomer>) {
        let mut install = Install::new(&self.ledger, customers, true);
        let conditions = self.conditions();
        while !install
            .step(&mut self.ledger, &mut self.data, &conditions, 3)
            .unwrap()
        {}
    }

    /// Decides a request as a worker does: from the chunk, else remembered denial, else a draw.
    pub fn request(
        &mut self,
        worker: usize,
        number: u64,
        cost: &Amounts,
    ) -> Result<Verdict, CoreError> {
        let Gateway {
            policy,
            data,
            ledger,
            workers,
            now,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: ledger.state().lease,
            now: *now,
            workers: workers.len() as u32,
        };
        let chunk = workers[worker].chunks.entry(number).or_default();
        if let Some(verdict) = chunk.spend(cost) {
            return Ok(verdict);
        }
        if let Some(denial) = chunk.deny_again(cost, *now) {
            return Ok(Verdict::Denied(denial));
        }
        ledger.draw(data, &conditions, &customer(number), cost, chunk)
    }

    /// Who paid for the customer's last request to this worker.
    pub fn payer(&self, worker: usize, number: u64, resource: ResourceIndex) -> Payer {
        let chunk = self.workers[worker].chunks.get(&number);
        chunk.map_or(Payer::Contract, |chunk| *chunk.payers.at(resource))
    }

    /// Settles a difference as a worker does: from the chunk if it can pay, else in the ledger.
    pub fn settle(
        &mut self,
        worker: usize,
        number: u64,
        resource: ResourceIndex,
        difference: Micro,
        payer: Payer,
    ) {
        let Gateway {
            policy,
            data,
            ledger,
            workers,
            now,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: ledger.state().lease,
            now: *now,
            workers: workers.len() as u32,
        };
        let unpaid = match workers[worker].chunks.get_mut(&number) {
            Some(chunk) => chunk.settle(resource, difference, payer),
            None => difference,
        };
        if unpaid != Micro::ZERO {
            let mut amounts = Amounts::default();
            *amounts.at_mut(resource) = unpaid;
            ledger
                .charge(data, &conditions, &customer(number), &amounts, payer)
                .unwrap();
        }
    }

    /// Moves the clock on; every worker ticks when it is due.
    pub fn advance(&mut self, us: u64) {
        let end = self.now.plus_us(us);
        while self.next_tick <= end {
            self.now = self.next_tick;
            self.next_tick = self.next_tick.plus_us(TICK_US);
            self.tick();
        }
        self.now = end;
    }

    pub fn tick(&mut self) {
        for worker in 0..self.workers.len() {
            let due: Vec<u64> = self.workers[worker]
                .chunks
                .iter_mut()
                .filter_map(|(number, chunk)| chunk.is_due(self.now, TICK_US).then_some(*number))
                .collect();
            for number in due {
                self.give_back(worker, number);
            }
        }
        if self.scans {
            self.scan_all();
        }
    }

    pub fn give_back(&mut self, worker: usize, number: u64) {
        let Gateway {
            policy,
            data,
            ledger,
            workers,
            now,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: ledger.state().lease,
            now: *now,
            workers: workers.len() as u32,
        };
        if let Some(chunk) = workers[worker].chunks.get_mut(&number) {
            ledger
                .give_back(data, &conditions, &customer(number), chunk)
                .unwrap();
        }
    }

    pub fn give_back_all(&mut self) {
        for worker in 0..self.workers.len() {
            let numbers: Vec<u64> = self.workers[worker].chunks.keys().copied().collect();
            for number in numbers {
                self.give_back(worker, number);
            }
        }
    }

    /// A worker's VM traps and starts again: its chunks are lost.
    pub fn restart(&mut self, worker: usize) {
        self.workers[worker] = Worker::default();
    }

    pub fn scan_all(&mut self) {
        let Gateway {
            policy,
            data,
            ledger,
            workers,
            now,
            scan,
            ..
        } = self;
        let conditions = Conditions {
            policy,
            lease: ledger.state().lease,
            now: *now,
            workers: workers.len() as u32,
        };
        while !scan.step(ledger, data, &conditions, 64).unwrap() {}
    }

    pub fn edit(&mut self, number: u64, mut change: impl FnMut(&mut Entry)) {
        let hash = customer(number);
        let page = self.ledger.state().layout.page_of(Region::Policy, &hash);
        let mut found = false;
        let now = self.now;
        let edit = |page: &mut forebay_core::ledger::Page<'_>| {
            found = page.update(&hash, &mut change)?;
            Ok(found)
        };
        self.ledger
            .edit_page(&mut self.data, Region::Policy, page, now, edit)
            .unwrap();
        assert!(found, "customer {number} is not on its page");
    }

    /// The customer's entry as it would be now.
    pub fn entry(&mut self, number: u64) -> Entry {
        let hash = customer(number);
        let conditions = self.conditions();
        for region in [Region::Policy, Region::Other] {
            let page = self.ledger.state().layout.page_of(region, &hash);
            let view = self.ledger.view_page(&mut self.data, region, page).unwrap();
            if let Some(entry) = view
                .entries()
                .map(Result::unwrap)
                .find(|entry| entry.customer == hash)
            {
                let mut entry = entry;
                entry.refill(conditions.policy, &conditions.lease, conditions.now);
                return entry;
            }
        }
        panic!("customer {number} is on no page");
    }

    pub fn pools(&mut self) -> Pools {
        let conditions = self.conditions();
        self.ledger.pools(&mut self.data, &conditions).unwrap()
    }
}
