//! What a worker does ten times a second, so that requests need not: it looks at what is in force, gives back chunks that lie idle, and
//! carries counters to the proxy. One worker, the leader, also sets right the sums of protected stock.

use forebay_core::chunk::Chunk;
use forebay_core::error::CoreError;
use forebay_core::lease::Lease;
use forebay_core::ledger::{ProtectedScan, WorkerId};
use forebay_core::policy::Policy;
use forebay_core::time::TimeUs;

use crate::filter::{Desk, Filter};
use crate::host::{Host, LogLevel};
use crate::metrics::{Event, Metrics};

/// Time between two ticks, in milliseconds.
pub const TICK_MS: u32 = 100;

/// The same in microseconds.
const TICK_US: u64 = 100_000;

/// Ticks between two registrations: a worker counts as gone after five seconds.
const TICKS_PER_REGISTRATION: u64 = 10;

/// After this time, in microseconds, chunks may reach the end of their life before the next tick: see
/// [`forebay_core::chunk::Chunk::is_due`].
const OVERDUE_US: u64 = 2 * TICK_US;

/// Requests of a worker from one look at the clock to the next. So many less one may spend from chunks that the ledger has forgotten
/// when a worker goes on after it has stood still.
const REQUESTS_PER_LOOK: u32 = 32;

/// Pages that the leader reads in one tick.
const SCANNED_PAGES: u32 = 64;

impl Filter {
    /// Does what is due. Called every [`TICK_MS`].
    pub fn on_tick<H: Host>(&mut self, host: &mut H) {
        let now = host.now();
        self.tick.at = now;
        self.tick.requests = 0;
        let epoch_changed = match self.desk.ledger.refresh(host) {
            Ok(changed) => {
                self.tick.refused_ledger = None;
                changed || self.desk.ledger.state().policy_epoch != self.desk.policy.epoch
            }
            Err(error) => {
                self.refuse_ledger(host, error);
                false
            }
        };
        if epoch_changed {
            self.take_policy(host, now);
        }
        if self.tick.ticks.checked_rem(TICKS_PER_REGISTRATION) == Some(0) {
            self.register(host, now);
        }
        self.tick.ticks = self.tick.ticks.wrapping_add(1);
        self.desk.give_back_due(host, &mut self.metrics, now);
        if self.tick.is_leader {
            self.scan(host, now);
            self.watch_lease(host, now);
        }
        self.metrics.flush(host);
        let us = host.now().since(now);
        self.metrics.record_tick(host, us);
    }

    /// Ticks if that is overdue. Requests spend without a clock, and a proxy that was stopped for a while answers those that have
    /// queued up before any timer. A clock for each of them would cost more than the decision; one for many bounds what is spent.
    pub(crate) fn make_up_for_tick<H: Host>(&mut self, host: &mut H) {
        self.tick.requests = self.tick.requests.saturating_add(1);
        if self.tick.requests < REQUESTS_PER_LOOK {
            return;
        }
        self.tick.requests = 0;
        if host.now().since(self.tick.at) >= OVERDUE_US {
            self.on_tick(host);
        }
    }

    /// Gives everything back, for a configuration that is over. It has not ticked for a while, so it first looks at what is in force:
    /// under a lease or a policy that is over, customers would be refilled with what they no longer have.
    pub fn retire<H: Host>(&mut self, host: &mut H) {
        let now = host.now();
        match self.desk.ledger.refresh(host) {
            Ok(_) if self.desk.ledger.state().policy_epoch != self.desk.policy.epoch => {
                self.take_policy(host, now);
            }
            Ok(_) => self.desk.give_back_all(host, &mut self.metrics, now),
            Err(error) => self.refuse_ledger(host, error),
        }
        self.metrics.flush(host);
    }

    /// Registers the worker in the ledger and counts the others. On ticks only: Envoy tries a configuration in a VM that it throws
    /// away, and that VM would lead the others, without ever ticking, until it counts as gone.
    fn register<H: Host>(&mut self, host: &mut H, now: TimeUs) {
        let worker: WorkerId = self.tick.worker;
        // Without an answer the count stays as it was: it only sizes chunks.
        if let Ok(workers) = self.desk.ledger.register(host, worker, now) {
            self.desk.workers = workers.count(now);
            self.tick.is_leader = workers.leader(now) == Some(worker);
        }
    }

    /// Takes over the policy in force. What was drawn under the old one goes back first, so that bans and lower limits bind at once.
    fn take_policy<H: Host>(&mut self, host: &mut H, now: TimeUs) {
        let epoch = self.desk.ledger.state().policy_epoch;
        let refused = match self.desk.ledger.read_policy(host) {
            Ok(Some(policy)) => {
                if policy.epoch == self.desk.policy.epoch {
                    return;
                }
                let keeps_resources = has_same_resources(&policy, &self.desk.policy);
                self.desk.policy = policy;
                if keeps_resources {
                    self.desk.give_back_all(host, &mut self.metrics, now);
                } else {
                    self.desk.lose_all(&mut self.metrics);
                }
                // Pages that the scan has passed may have new customers: it starts again, or it would take away what they protect.
                self.tick.scan = ProtectedScan::default();
                self.bind_policy(host);
                return;
            }
            Ok(None) => String::from("there is none"),
            Err(error) => error.to_string(),
        };
        if self.tick.refused_epoch.replace(epoch) != Some(epoch) {
            self.metrics.count_event(Event::PolicyRefused);
            host.log(
                LogLevel::Error,
                &format!("policy of epoch {epoch} cannot be used, the last one stays: {refused}"),
            );
        }
    }

    /// What this worker holds and knows stays as it was; draws fail, and are denied, until the ledger can be read again.
    fn refuse_ledger<H: Host>(&mut self, host: &mut H, error: CoreError) {
        self.metrics.count_event(Event::LedgerRefused);
        if self.tick.refused_ledger.as_ref() != Some(&error) {
            host.log(
                LogLevel::Error,
                &format!("the ledger cannot be read: {error}. If another build of Forebay writes it, deploy admission.wasm and forecaster.wasm of one release"),
            );
            self.tick.refused_ledger = Some(error);
        }
    }

    /// The forecaster renews the lease with every sync, so a lease that ends is how workers see that it has stopped: Envoy does not
    /// start a singleton again whose VM has trapped.
    fn watch_lease<H: Host>(&mut self, host: &mut H, now: TimeUs) {
        let lease = self.desk.ledger.state().lease;
        let is_lapsed = matches!(lease, Lease::Granted { .. }) && !lease.is_live(now);
        if is_lapsed && !self.tick.is_lapsed {
            self.metrics.count_event(Event::LeaseLapsed);
            host.log(
                LogLevel::Error,
                "the control plane's lease has ended: customers refill at their fallback rates until those end too. Either the control plane cannot be reached, or the forecaster has stopped; if its log ends, restart Envoy",
            );
        }
        self.tick.is_lapsed = is_lapsed;
    }

    fn scan<H: Host>(&mut self, host: &mut H, now: TimeUs) {
        let (conditions, ledger, _) = self.desk.parts(now);
        if conditions
            .policy
            .resources
            .iter()
            .all(|resource| resource.pool.is_none())
        {
            return;
        }
        // A page that cannot be read is read again with the next tick.
        let _ = self
            .tick
            .scan
            .step(ledger, host, &conditions, SCANNED_PAGES);
    }
}

// === impl Desk ===

impl Desk {
    fn give_back_due<H: Host>(&mut self, host: &mut H, metrics: &mut Metrics, now: TimeUs) {
        let (conditions, ledger, cache) = self.parts(now);
        // All slots are looked at: the ledger counts a chunk that is older than its life as gone.
        for slot in cache
            .slots_mut()
            .filter_map(|slot| slot.chunk.is_due(now, TICK_US).then_some(slot))
        {
            let returned = ledger
                .give_back(host, &conditions, &slot.customer, &mut slot.chunk)
                .is_ok();
            if returned {
                metrics.count_event(Event::ChunkReturned);
            } else {
                // The ledger forgets the chunk at the end of its life, so the worker may not spend it any longer.
                slot.chunk = Chunk::default();
                metrics.count_event(Event::ChunkLost);
            }
        }
    }

    fn give_back_all<H: Host>(&mut self, host: &mut H, metrics: &mut Metrics, now: TimeUs) {
        let (conditions, ledger, cache) = self.parts(now);
        for slot in cache.slots_mut() {
            if ledger
                .give_back(host, &conditions, &slot.customer, &mut slot.chunk)
                .is_err()
            {
                metrics.count_event(Event::ChunkLost);
            }
        }
        cache.clear();
    }
    /// Drops every chunk: what is in them are tokens of resources that the policy in force does not have, or has in other places.
    fn lose_all(&mut self, metrics: &mut Metrics) {
        for slot in self.cache.slots_mut() {
            if !slot.chunk.is_settled() {
                metrics.count_event(Event::ChunkLost);
            }
        }
        self.cache.clear();
    }
}

fn has_same_resources(one: &Policy, other: &Policy) -> bool {
    let names = one.resources.iter().map(|resource| &resource.name);
    names.eq(other.resources.iter().map(|resource| &resource.name))
}
