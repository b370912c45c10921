//! Decisions: charges on several customers, all of them or none.
//!
//! A worker of the wasm filter keeps tokens in chunks so that most requests need no exchange with the ledger. Here an exchange is a
//! look-up in this process, so nothing is kept: each charge draws, and what it drew beyond its cost goes back at once. Memory then holds
//! nothing per caller, and what other clients may have is exact.

use crate::memory::Memory;
use forebay_core::chunk::{Amounts, Chunk, Payer};
use forebay_core::draw::Conditions;
use forebay_core::error::CoreError;
use forebay_core::lease::Lease;
use forebay_core::ledger::{CustomerHash, Entry, Ledger, Mode, ProtectedScan, Region, WorkerId};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::policy::{Limits, Policy, Unknown};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_core::verdict::Verdict;
use forebay_core::{Micro, Rate};
use forebay_wire::key::KeySecret;

/// Time between two looks at what is in force.
pub(crate) const TICK_MS: u64 = 100;

/// Ticks between two registrations as a worker.
const TICKS_PER_REGISTRATION: u64 = 10;

/// Pages that are read in one tick to set right the sums of what is protected.
const SCANNED_PAGES: u32 = 64;

/// What requests are counted in where nothing else is said and the policy has several resources.
pub const REQUESTS: &str = "requests";

/// A lease with no more than this left is as good as over for what is told to others.
const LEASE_LEFT_US: u64 = 3_000_000;

/// The one worker of this gateway.
const WORKER: WorkerId = WorkerId(1);

/// Whom strangers share a bucket with where the policy gives them one by network: no address is known here. NUL keeps it apart from
/// every key that a client can send, and it is the key of the wasm filter for clients whose address is not known.
const COMMONS_KEY: &[u8] = b"\0commons ";

/// A charge on one customer.
#[derive(Clone, Debug)]
pub struct Charge<'a> {
    /// The customer's key, as in the policy.
    pub key: &'a [u8],
    /// Name of the resource; without one [`REQUESTS`], or the only one of the policy.
    pub resource: Option<&'a str>,
    /// What it costs.
    pub amount: Micro,
}

/// How a customer stands, without charging it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Banned, frozen, or nobody of whom the policy knows.
    pub(crate) is_barred: bool,
    /// Admitted always.
    pub(crate) is_exempt: bool,
    /// The policy only counts.
    pub(crate) is_dry_run: bool,
    /// What could be drawn.
    pub(crate) available: Micro,
    /// What its bucket here holds; negative in debt.
    pub(crate) level: Micro,
    /// What its bucket here refills at.
    pub(crate) rate: Rate,
    /// What its bucket here can hold.
    pub(crate) depth: Micro,
    /// How long the rate is sure to hold.
    pub(crate) holds_us: u64,
    /// Whose bucket that is: a stranger may share one.
    pub(crate) account: Account,
}

/// A customer's bucket of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    customer: CustomerHash,
    resource: ResourceIndex,
}

/// What came of one charge.
#[derive(Clone, Copy, Debug)]
pub struct Ruling {
    /// What it would have been by itself.
    pub verdict: Verdict,
    /// The customer's contract for the resource, if it has one.
    pub limits: Option<Limits>,
    /// What is left in the customer's bucket here.
    pub remaining: Micro,
}

/// What came of all charges of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each charge, in order.
    pub rulings: Vec<Ruling>,
    /// Whether all of them were paid. If not, none was.
    pub is_admitted: bool,
    /// Whether the policy only counts: then the request may go on all the same.
    pub dry_run: bool,
    /// When this was decided.
    pub at: TimeUs,
}

/// Nothing can be decided yet, or any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The control plane has not answered yet.
    #[error(
        "the control plane has not sent a policy yet; the caller's own rule for failures decides"
    )]
    NoPolicy,
    /// The policy lacks a resource that was asked for.
    #[error("`{0}` is no resource of the policy in force")]
    NoResource(String),
    /// The ledger cannot be read or written.
    #[error("the ledger cannot be used: {0}")]
    Ledger(#[from] CoreError),
}

/// What decides.
#[derive(Debug)]
pub struct Desk {
    memory: Memory,
    secret: KeySecret,
    state: Option<Ready>,
    ticks: u64,
    scan: ProtectedScan,
}

#[derive(Debug)]
struct Ready {
    ledger: Ledger,
    policy: Policy,
    workers: u32,
}

/// A charge that was drawn, with what it needs to be taken back.
struct Drawn {
    customer: CustomerHash,
    resource: ResourceIndex,
    cost: Amounts,
    chunk: Chunk,
    payer: Payer,
    is_admitted: bool,
}

// === impl Account ===

impl Account {
    #[cfg(test)]
    pub(crate) const fn of(customer: CustomerHash, resource: ResourceIndex) -> Self {
        Self { customer, resource }
    }
}

// === impl Desk ===

impl Desk {
    pub(crate) fn new(memory: Memory, secret: KeySecret) -> Self {
        Self {
            memory,
            secret,
            state: None,
            ticks: 0,
            scan: ProtectedScan::default(),
        }
    }

    /// Charges a request: everything, or nothing. Where `may_keep` is false something else stops the request: then each charge is judged
    /// by itself, and nothing is paid.
    ///
    /// # Errors
    /// When nothing could be decided; then nothing was charged.
    pub fn decide(&mut self, charges: &[Charge<'_>], may_keep: bool) -> Result<Outcome, NotReady> {
        let now = self.memory.now();
        let ready = ready(&mut self.state)?;
        let mut drawn = Vec::with_capacity(charges.len());
        let mut outcome = Outcome {
            rulings: Vec::with_capacity(charges.len()),
            is_admitted: may_keep,
            dry_run: ready.policy.dry_run,
            at: now,
        };
        let mut failed = None;
        for charge in charges {
            match ready.draw(&mut self.memory, &self.secret, charge, now) {
                Ok((one, ruling)) => {
                    outcome.is_admitted &= one.is_admitted;
                    outcome.rulings.push(ruling);
                    drawn.push(one);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let keeps = outcome.is_admitted && failed.is_none();
        for one in &mut drawn {
            // One that cannot be given back is lost, and must not keep the others from going back.
            if let Err(error) = ready.finish(&mut self.memory, one, keeps, now) {
                failed.get_or_insert(error.into());
            }
        }
        failed.map_or(Ok(outcome), Err)
    }

    /// The time by which everything here is decided.
    pub(crate) fn now(&self) -> TimeUs {
        self.memory.now()
    }

    /// Whether the policy only counts, if there is one.
    pub(crate) fn is_dry_run(&self) -> Option<bool> {
        self.state.as_ref().map(|ready| ready.policy.dry_run)
    }

    /// Charges what has been used already, into debt if it must be; a negative amount is given back.
    ///
    /// # Errors
    /// When it could not be charged.
    pub(crate) fn settle(&mut self, charge: &Charge<'_>) -> Result<(), NotReady> {
        let now = self.memory.now();
        let ready = ready(&mut self.state)?;
        let resource = ready.resource(charge.resource)?;
        let customer = ready.customer(&mut self.memory, &self.secret, charge.key)?;
        let mut amounts: Amounts = PerResource::default();
        *amounts.at_mut(resource) = charge.amount;
        let (conditions, ledger) = ready.parts(now);
        let memory = &mut self.memory;
        ledger.charge(memory, &conditions, &customer, &amounts, Payer::Contract)?;
        Ok(())
    }

    /// How a customer stands for a resource.
    ///
    /// # Errors
    /// When nothing can be said.
    pub(crate) fn look(&mut self, key: &[u8], resource: Option<&str>) -> Result<Look, NotReady> {
        let now = self.memory.now();
        let ready = ready(&mut self.state)?;
        let resource = ready.resource(resource)?;
        let customer = ready.customer(&mut self.memory, &self.secret, key)?;
        let account = Account { customer, resource };
        ready.look(&mut self.memory, account, now)
    }

    /// Looks at what is in force. Called every [`TICK_MS`].
    pub(crate) fn on_tick(&mut self) {
        let now = self.memory.now();
        if let Err(error) = self.follow(now)
            && self.state.take().is_some()
        {
            tracing::error!(%error, "the ledger of the quota gateway cannot be used");
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    fn follow(&mut self, now: TimeUs) -> Result<(), CoreError> {
        let memory = &mut self.memory;
        let Some(ready) = &mut self.state else {
            let mut ledger = match Ledger::open(memory) {
                Ok(ledger) => ledger,
                // The forecaster seeds it when the first policy has come.
                Err(CoreError::NotSeeded { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            if ledger.state().mode() == Mode::Waiting {
                return Ok(());
            }
            if let Some(policy) = ledger.read_policy(memory)? {
                self.state = Some(Ready {
                    ledger,
                    policy,
                    workers: 1,
                });
            }
            return Ok(());
        };
        ready.ledger.refresh(memory)?;
        if ready.ledger.state().policy_epoch != ready.policy.epoch
            && let Some(policy) = ready.ledger.read_policy(memory)?
        {
            ready.policy = policy;
            self.scan = ProtectedScan::default();
        }
        if self.ticks.is_multiple_of(TICKS_PER_REGISTRATION) {
            ready.workers = ready.ledger.register(memory, WORKER, now)?.count(now);
        }
        let has_pools = ready.policy.resources.iter().any(|one| one.pool.is_some());
        if has_pools {
            let (conditions, ledger) = ready.parts(now);
            self.scan.step(ledger, memory, &conditions, SCANNED_PAGES)?;
        }
        Ok(())
    }
}

/// A ledger that waits for grants has nothing to decide from, also when a policy with other resources has just begun it anew.
fn ready(state: &mut Option<Ready>) -> Result<&mut Ready, NotReady> {
    state
        .as_mut()
        .filter(|ready| ready.ledger.state().mode() != Mode::Waiting)
        .ok_or(NotReady::NoPolicy)
}

// === impl Ready ===

impl Ready {
    fn parts(&mut self, now: TimeUs) -> (Conditions<'_>, &mut Ledger) {
        let conditions = Conditions {
            policy: &self.policy,
            lease: self.ledger.state().lease,
            now,
            workers: self.workers,
        };
        (conditions, &mut self.ledger)
    }

    fn draw(
        &mut self,
        memory: &mut Memory,
        secret: &KeySecret,
        charge: &Charge<'_>,
        now: TimeUs,
    ) -> Result<(Drawn, Ruling), NotReady> {
        let resource = self.resource(charge.resource)?;
        let customer = self.customer(memory, secret, charge.key)?;
        let mut cost: Amounts = PerResource::default();
        *cost.at_mut(resource) = charge.amount;
        let mut chunk = Chunk::default();
        let (conditions, ledger) = self.parts(now);
        let verdict = ledger.draw(memory, &conditions, &customer, &cost, &mut chunk)?;
        let contract = self.policy.contract(chunk.contract);
        let ruling = Ruling {
            verdict,
            limits: contract
                .filter(|_| chunk.drawn_at.is_some())
                .map(|contract| *contract.limits.at(resource)),
            remaining: chunk.remaining(resource),
        };
        let drawn = Drawn {
            customer,
            resource,
            cost,
            payer: *chunk.payers.at(resource),
            chunk,
            is_admitted: verdict.is_admitted(),
        };
        Ok((drawn, ruling))
    }

    /// Gives back what was drawn beyond the cost, and the cost too unless it is kept.
    fn finish(
        &mut self,
        memory: &mut Memory,
        drawn: &mut Drawn,
        keeps: bool,
        now: TimeUs,
    ) -> Result<(), CoreError> {
        let (conditions, ledger) = self.parts(now);
        if drawn.is_admitted && !keeps {
            let back = Micro::ZERO.minus(*drawn.cost.at(drawn.resource));
            let unpaid = drawn.chunk.settle(drawn.resource, back, drawn.payer);
            if unpaid != Micro::ZERO {
                let mut amounts: Amounts = PerResource::default();
                *amounts.at_mut(drawn.resource) = unpaid;
                ledger.charge(memory, &conditions, &drawn.customer, &amounts, drawn.payer)?;
            }
        }
        ledger.give_back(memory, &conditions, &drawn.customer, &mut drawn.chunk)
    }

    fn look(
        &mut self,
        memory: &mut Memory,
        account: Account,
        now: TimeUs,
    ) -> Result<Look, NotReady> {
        let Account { customer, resource } = account;
        let lease = self.ledger.state().lease;
        let mut look = Look {
            is_barred: true,
            is_exempt: false,
            is_dry_run: self.policy.dry_run,
            available: Micro::ZERO,
            level: Micro::ZERO,
            rate: Rate::ZERO,
            depth: Micro::ZERO,
            holds_us: u64::MAX,
            account,
        };
        let found = match self.entry(memory, Region::Policy, &customer)? {
            Some(entry) => Some(entry),
            None => self.entry(memory, Region::Other, &customer)?,
        };
        let entry = match (found, self.policy.unknown_contract()) {
            (Some(mut entry), _) => {
                entry.refill(&self.policy, &lease, now);
                entry
            }
            // Its bucket is made, full, by the first draw.
            (None, Some(contract)) => {
                let mut entry = Entry::absent_since(customer, contract, now);
                entry.holdings.at_mut(resource).contract.level = Micro::new(i64::MAX);
                entry
            }
            (None, None) => return Ok(look),
        };
        look.is_barred = entry.barred_until(now).is_some();
        look.is_exempt = entry.flags.exempt;
        if let Some(contract) = self.policy.contract(entry.contract) {
            let terms = entry.terms(resource, contract.limits.at(resource), &lease);
            (look.rate, look.holds_us) = match lease {
                Lease::StandAlone => (terms.rate, u64::MAX),
                Lease::Granted { until, .. } if now.plus_us(LEASE_LEFT_US) < until => {
                    (terms.rate, until.since(now))
                }
                // About to end or over: what is told from here on must hold beyond it.
                Lease::Granted { fallback_until, .. } => {
                    (terms.fallback_rate, fallback_until.since(now))
                }
                Lease::Waiting => (Rate::ZERO, 0),
            };
            look.depth = terms.cap;
        }
        let level = entry.holdings.at(resource).contract.level;
        look.level = level.min(look.depth);
        look.available = look.level.at_least_zero();
        if self.policy.pool(resource).is_some() {
            let (conditions, ledger) = self.parts(now);
            let pools = ledger.pools(memory, &conditions)?;
            let in_pool = pools.pools.at(resource).bucket.level;
            look.available = look.available.min(in_pool).at_least_zero();
        }
        Ok(look)
    }

    fn entry(
        &mut self,
        memory: &mut Memory,
        region: Region,
        customer: &CustomerHash,
    ) -> Result<Option<Entry>, CoreError> {
        let page = self.ledger.state().layout.page_of(region, customer);
        let page = self.ledger.view_page(memory, region, page)?;
        page.entries()
            .find(|entry| {
                !entry
                    .as_ref()
                    .is_ok_and(|entry| entry.customer != *customer)
            })
            .transpose()
    }

    /// A resource by its name, or the one that requests are counted in.
    fn resource(&self, name: Option<&str>) -> Result<ResourceIndex, NotReady> {
        let name = match (name, self.policy.resources.as_slice()) {
            (Some(name), _) => name,
            (None, [_]) => return Ok(ResourceIndex::FIRST),
            (None, _) => REQUESTS,
        };
        let resources = self.policy.resources.iter();
        let found = ResourceIndex::first(MAX_RESOURCES)
            .zip(resources)
            .find(|(_, resource)| resource.name == name);
        found
            .map(|(index, _)| index)
            .ok_or_else(|| NotReady::NoResource(name.to_owned()))
    }

    fn customer(
        &mut self,
        memory: &mut Memory,
        secret: &KeySecret,
        key: &[u8],
    ) -> Result<CustomerHash, CoreError> {
        let customer = CustomerHash(secret.hash(key).0);
        let shares = matches!(self.policy.unknown, Unknown::Commons { .. });
        if shares && !self.is_listed(memory, &customer)? {
            return Ok(CustomerHash(secret.hash(COMMONS_KEY).0));
        }
        Ok(customer)
    }

    fn is_listed(
        &mut self,
        memory: &mut Memory,
        customer: &CustomerHash,
    ) -> Result<bool, CoreError> {
        let page = self.ledger.state().layout.page_of(Region::Policy, customer);
        let page = self.ledger.view_page(memory, Region::Policy, page)?;
        Ok(page.find(customer).is_some())
    }
}
