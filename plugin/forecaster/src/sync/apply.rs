//! Putting a checked reply into the ledger, in pieces small enough for a tick.
//!
//! A reply can carry a policy of thousands of customers, so it becomes a list of pieces that are worked off over several ticks, and no
//! sync is sent meanwhile: the control plane is told which reply was applied *in full*, and sends again what was not. All pieces may be
//! repeated: grants are cumulative, an installation only adds what is missing, a lease only gets its ends.
//!
//! The order matters. The policy comes first, since its entries must exist before grants can reach them; the lease comes last, so that a
//! rate that was lowered is never refilled for a lease that was granted with the lower one. Where there is no lease, or the last one is
//! over, it comes before the grants instead: tokens of no lease would never end, and those of one that is over are void.

use std::collections::VecDeque;

use forebay_core::amount::{Micro, Rate};
use forebay_core::draw::Conditions;
use forebay_core::error::CoreError;
use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::{
    CustomerHash, Install, Layout, Ledger as CoreLedger, LedgerSize, Mode,
    PolicyCustomer as CoreCustomer, Region, STATE_KEY, State,
};
use forebay_core::policy::{ContractIndex, Policy};
use forebay_core::resource::ResourceIndex;
use forebay_core::time::TimeUs;
use forebay_wire::key;
use forebay_wire::sync::{
    BAN_FOREVER, FLAG_EXEMPT, FLAG_FROZEN, FLAG_REMOVED, Grant as WireGrant, PolicyDelta,
    PoolGrant, SyncReply,
};

use super::session::InFlight;
use crate::host::Host;
use crate::ledger::{Ledger, Shared};
use crate::limits::{FALLBACK_MS_MOST, LEASE_MS_MOST, POLICY_CUSTOMERS_TOTAL_MOST};
use crate::series::SeriesKey;
use crate::shadow::allocations;

/// Pages that one piece of an installation touches.
const PAGES_PER_PIECE: u32 = 4;

/// Allocations in one piece.
const ALLOCATIONS_PER_PIECE: usize = 64;

/// Pieces of replies that are not applied yet, and the policy that is being collected.
#[derive(Debug)]
pub struct Inbox {
    pieces: VecDeque<Piece>,
    /// Pages that grants of the reply under way have reached.
    granted_pages: Vec<u32>,
    collecting: Collecting,
    size: LedgerSize,
}

/// What has come of a policy so far.
#[derive(Debug, Default)]
struct Collecting {
    epoch: u64,
    cursor: u64,
    policy: Option<Policy>,
    customers: Vec<CoreCustomer>,
    removed: Vec<CustomerHash>,
    whole: bool,
}

#[derive(Debug)]
enum Piece {
    PutPolicy {
        policy: Box<Policy>,
    },
    Install {
        customers: Vec<CoreCustomer>,
        whole: bool,
    },
    Installing(Box<Install>),
    Remove(Vec<CustomerHash>),
    Epoch(u64),
    Grants(Vec<(CustomerHash, ResourceIndex, Grant)>),
    PageGrants {
        page: u32,
        grants: Vec<(CustomerHash, ResourceIndex, Grant)>,
    },
    Pools(Vec<(ResourceIndex, Grant)>),
    Lease {
        until: TimeUs,
        fallback_until: TimeUs,
        /// Only where there is none that is not over.
        first: bool,
    },
    Allocations(Vec<(SeriesKey, u64)>),
    Done {
        sequence: u64,
        allocation_cycle: u64,
    },
}

/// What one piece came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Applied {
    /// There is nothing to apply.
    Idle,
    /// A piece was applied.
    Piece,
    /// The ledger was seeded anew and lost what had been granted: it is another incarnation from here on.
    Reseeded,
    /// Grants reached so many holdings.
    Granted(u64),
    /// These have been allocated so much, in micro-tokens per second at all gateways together.
    Allocated(Vec<(SeriesKey, u64)>),
    /// The policy of this epoch is in force.
    Policy(u64),
    /// A reply is applied in full.
    Reply {
        /// Its sequence.
        sequence: u64,
        /// Pages of policy customers that its grants have reached.
        granted_pages: Vec<u32>,
        /// The cycle of which all allocations are applied with it; 0 if some are still to come.
        allocation_cycle: u64,
    },
    /// A piece could not be applied; the rest of the reply was dropped and will be sent again.
    Failed(CoreError),
}

// === impl Inbox ===

impl Inbox {
    /// Nothing to apply. `size` is used if the ledger must be seeded.
    #[must_use]
    pub fn new(size: LedgerSize) -> Self {
        Self {
            pieces: VecDeque::new(),
            granted_pages: Vec::new(),
            collecting: Collecting::default(),
            size,
        }
    }

    /// Whether everything is applied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether parts of a policy are missing.
    #[must_use]
    pub fn is_collecting(&self) -> bool {
        self.collecting.whole || !self.collecting.customers.is_empty()
    }

    /// Epoch and cursor of the last part of a policy, for the next request.
    #[must_use]
    pub fn policy_seen(&self) -> (u64, u64) {
        (self.collecting.epoch, self.collecting.cursor)
    }

    /// Cuts a checked reply into pieces. Returns the number of items that were refused as malformed.
    pub fn accept(
        &mut self,
        reply: &mut SyncReply,
        in_flight: &InFlight,
        ledger: &Ledger,
        host: &impl Host,
    ) -> u64 {
        let mut refused = 0_u64;
        if let Some(delta) = reply.policy.take() {
            refused = refused.saturating_add(self.collect(delta, ledger, host));
        }
        let lease = |first: bool| {
            let sent_at = TimeUs(in_flight.sent_at_us);
            let lease_us = u64::from(reply.lease_ttl_ms.min(LEASE_MS_MOST)).saturating_mul(1_000);
            let fallback_us =
                u64::from(reply.fallback_ttl_ms.min(FALLBACK_MS_MOST)).saturating_mul(1_000);
            let until = sent_at.plus_us(lease_us);
            let fallback_until = until.plus_us(fallback_us);
            (reply.lease_ttl_ms > 0).then_some(Piece::Lease {
                until,
                fallback_until,
                first,
            })
        };
        self.pieces.extend(lease(true));
        let grants: Vec<_> = reply.grants.iter().filter_map(customer_grant).collect();
        refused = refused.saturating_add(missing(reply.grants.len(), grants.len()));
        if !grants.is_empty() {
            self.pieces.push_back(Piece::Grants(grants));
        }
        let pools: Vec<_> = reply.pools.iter().filter_map(pool_grant).collect();
        refused = refused.saturating_add(missing(reply.pools.len(), pools.len()));
        if !pools.is_empty() {
            self.pieces.push_back(Piece::Pools(pools));
        }
        self.pieces.extend(lease(false));
        let holds_allocations = reply.allocation_ttl_ms > 0;
        if holds_allocations {
            let allocated: Vec<_> = reply
                .allocations
                .iter()
                .filter_map(allocations::read)
                .collect();
            refused = refused.saturating_add(missing(reply.allocations.len(), allocated.len()));
            let pieces = allocated.chunks(ALLOCATIONS_PER_PIECE);
            self.pieces
                .extend(pieces.map(|piece| Piece::Allocations(piece.to_vec())));
        }
        self.pieces.push_back(Piece::Done {
            sequence: reply.sequence,
            allocation_cycle: if holds_allocations {
                reply.allocation_cycle
            } else {
                0
            },
        });
        refused
    }

    /// Applies the next piece.
    pub fn work(&mut self, host: &impl Host, ledger: &mut Ledger, now_us: u64) -> Applied {
        let Some(piece) = self.pieces.pop_front() else {
            return Applied::Idle;
        };
        match self.apply(piece, host, ledger, now_us) {
            Ok(applied) => applied,
            Err(error) => {
                self.pieces.clear();
                self.granted_pages.clear();
                // What was collected may be half installed: ask for the whole policy again.
                self.collecting = Collecting::default();
                Applied::Failed(error)
            }
        }
    }

    fn collect(&mut self, delta: PolicyDelta, ledger: &Ledger, host: &impl Host) -> u64 {
        if delta.full {
            let Ok(policy) = Policy::decode(&delta.compiled) else {
                return 1;
            };
            // The ledger is seeded for so many at once, on Envoy's main thread.
            let is_absurd = usize::try_from(delta.customers_total)
                .map_or(true, |total| total > POLICY_CUSTOMERS_TOTAL_MOST);
            if policy.check().is_err() || is_absurd {
                return 1;
            }
            self.collecting = Collecting {
                policy: Some(policy),
                whole: true,
                ..Collecting::default()
            };
            self.size.max_policy_customers =
                self.size.max_policy_customers.max(delta.customers_total);
        } else if delta.epoch != self.collecting.epoch && self.collecting.whole {
            // A part of something else than what is being collected: start over.
            self.collecting = Collecting::default();
            return 1;
        }
        self.collecting.epoch = delta.epoch;
        self.collecting.cursor = delta.cursor;
        let contracts = self
            .collecting
            .policy
            .as_ref()
            .or(ledger.policy())
            .map_or(0, |policy| policy.contracts.len());
        let (mut refused, wall_ms, now_us) = (0_u64, host.wall_ms(), host.monotonic_us());
        for customer in &delta.customers {
            let hash = CustomerHash(
                key::CustomerHash::from_parts(customer.hash_high, customer.hash_low).0,
            );
            if customer.flags & FLAG_REMOVED != 0 {
                self.collecting.removed.push(hash);
                continue;
            }
            let contract = u16::try_from(customer.contract)
                .ok()
                .filter(|row| usize::from(*row) < contracts);
            let room = self.collecting.customers.len() < POLICY_CUSTOMERS_TOTAL_MOST;
            let Some(contract) = contract.filter(|_| room) else {
                refused = refused.saturating_add(1);
                continue;
            };
            self.collecting.customers.push(CoreCustomer {
                customer: hash,
                contract: ContractIndex(contract),
                exempt: customer.flags & FLAG_EXEMPT != 0,
                frozen: customer.flags & FLAG_FROZEN != 0,
                ban_until: ban_until(customer.ban_until_unix_ms, wall_ms, now_us),
            });
        }
        if delta.complete {
            self.finish_collecting(delta.epoch);
        }
        refused
    }

    fn finish_collecting(&mut self, epoch: u64) {
        let whole = std::mem::take(&mut self.collecting.whole);
        if let Some(mut policy) = self.collecting.policy.take() {
            policy.epoch = epoch;
            self.pieces.push_back(Piece::PutPolicy {
                policy: Box::new(policy),
            });
        }
        let customers = std::mem::take(&mut self.collecting.customers);
        if whole || !customers.is_empty() {
            self.pieces.push_back(Piece::Install { customers, whole });
        }
        let removed = std::mem::take(&mut self.collecting.removed);
        if !removed.is_empty() {
            self.pieces.push_back(Piece::Remove(removed));
        }
        self.pieces.push_back(Piece::Epoch(epoch));
    }

    /// Groups grants by page, so that a page is read and written once for all of its customers.
    fn group(&mut self, mut grants: Vec<(CustomerHash, ResourceIndex, Grant)>, layout: &Layout) {
        let page_of = |customer: &CustomerHash| layout.page_of(Region::Policy, customer);
        grants.sort_by_key(|(customer, resource, _)| (page_of(customer), *customer, *resource));
        for group in grants.chunk_by(|a, b| page_of(&a.0) == page_of(&b.0)).rev() {
            if let Some((customer, _, _)) = group.first() {
                self.pieces.push_front(Piece::PageGrants {
                    page: page_of(customer),
                    grants: group.to_vec(),
                });
            }
        }
    }

    fn apply(
        &mut self,
        piece: Piece,
        host: &impl Host,
        ledger: &mut Ledger,
        now_us: u64,
    ) -> Result<Applied, CoreError> {
        let mut data = Shared(host);
        match piece {
            Piece::PutPolicy { policy } => {
                let lost_grants = put_policy(host, ledger, &policy, self.size, now_us)?;
                if !lost_grants {
                    return Ok(Applied::Piece);
                }
                // They are of an incarnation that is over, and all are said again to the new one.
                self.pieces
                    .retain(|piece| !matches!(piece, Piece::Allocations(_)));
                Ok(Applied::Reseeded)
            }
            Piece::Install { customers, whole } => {
                let (core, _) = ready(ledger, now_us)?;
                let install = Install::new(core, customers, whole);
                self.pieces.push_front(Piece::Installing(Box::new(install)));
                Ok(Applied::Piece)
            }
            Piece::Installing(mut install) => {
                let (core, conditions) = ready(ledger, now_us)?;
                if !install.step(core, &mut data, &conditions, PAGES_PER_PIECE)? {
                    self.pieces.push_front(Piece::Installing(install));
                }
                Ok(Applied::Piece)
            }
            Piece::Remove(mut customers) => {
                if let Some(customer) = customers.pop() {
                    remove(host, ledger, &customer, now_us)?;
                    self.pieces.push_front(Piece::Remove(customers));
                }
                Ok(Applied::Piece)
            }
            Piece::Epoch(epoch) => {
                let (core, _) = ready(ledger, now_us)?;
                core.edit_state(&mut data, |state| state.policy_epoch = epoch)?;
                Ok(Applied::Policy(epoch))
            }
            Piece::Grants(grants) => {
                // The ledger may have been seeded since the reply was cut: only now is it known what lies on which page.
                let layout = ready(ledger, now_us)?.0.state().layout;
                self.group(grants, &layout);
                Ok(Applied::Piece)
            }
            Piece::PageGrants { page, grants } => {
                let reached = apply_grants(host, ledger, page, &grants, now_us)?;
                self.granted_pages.push(page);
                Ok(Applied::Granted(reached))
            }
            Piece::Pools(pools) => {
                let Some((core, conditions)) = ledger.at(now_us) else {
                    // Before the first policy there are no pools, and a reply that did not reach them is not applied in full.
                    self.pieces.clear();
                    return Ok(Applied::Piece);
                };
                core.edit_pools(&mut data, &conditions, |all| {
                    for (resource, grant) in &pools {
                        all.apply_grant(
                            *resource,
                            grant,
                            conditions.policy,
                            &conditions.lease,
                            conditions.now,
                        );
                    }
                })?;
                Ok(Applied::Piece)
            }
            Piece::Lease {
                until,
                fallback_until,
                first,
            } => {
                // Before the first policy there is nothing to lease yet, and each reply says it again.
                let Some((core, conditions)) = ledger.at(now_us) else {
                    return Ok(Applied::Piece);
                };
                let now = conditions.now;
                let is_none = conditions.lease == Lease::Waiting || conditions.lease.is_over(now);
                if first && !is_none {
                    return Ok(Applied::Piece);
                }
                core.edit_state(&mut data, |state| {
                    state.lease = state.lease.renewed(now, until, fallback_until)
                })?;
                Ok(Applied::Piece)
            }
            Piece::Allocations(allocated) => Ok(Applied::Allocated(allocated)),
            Piece::Done {
                sequence,
                allocation_cycle,
            } => Ok(Applied::Reply {
                sequence,
                granted_pages: std::mem::take(&mut self.granted_pages),
                allocation_cycle,
            }),
        }
    }
}

/// Seeds the ledger if there is none for these resources (one that cannot be read is left alone), and puts the policy in place of the one before. Contracts keep their rows from
/// one policy to the next (the control plane sees to it), so entries that are not installed yet stay right. Returns true when granted
/// tokens were lost with the ledger before.
fn put_policy(
    host: &impl Host,
    ledger: &mut Ledger,
    policy: &Policy,
    size: LedgerSize,
    now_us: u64,
) -> Result<bool, CoreError> {
    if let Some(error) = ledger.unreadable() {
        return Err(error.clone());
    }
    let mut data = Shared(host);
    let mark = State::resources_mark_of(
        policy
            .resources
            .iter()
            .map(|resource| resource.name.as_str()),
    );
    let fits = ledger
        .state()
        .is_some_and(|state| state.resources_mark == mark && state.mode() != Mode::StandAlone);
    let lost_grants = !fits
        && ledger
            .state()
            .is_some_and(|state| state.mode() == Mode::Granted);
    if !fits {
        // Nothing of the policy is on the pages yet: epoch 0.
        let unapplied = Policy {
            epoch: 0,
            ..policy.clone()
        };
        ledger.adopt(CoreLedger::seed(
            &mut data,
            size,
            &unapplied,
            Lease::Waiting,
            TimeUs(now_us),
        )?);
    }
    let Some(core) = ledger.core_mut() else {
        return Err(not_seeded());
    };
    core.write_policy(&mut data, policy)?;
    ledger.reread_policy(host);
    Ok(lost_grants)
}

fn apply_grants(
    host: &impl Host,
    ledger: &mut Ledger,
    page: u32,
    grants: &[(CustomerHash, ResourceIndex, Grant)],
    now_us: u64,
) -> Result<u64, CoreError> {
    let (core, conditions) = ready(ledger, now_us)?;
    let mut reached = 0;
    core.edit_page(
        &mut Shared(host),
        Region::Policy,
        page,
        conditions.now,
        |page| {
            reached = 0;
            for (customer, resource, grant) in grants {
                // A customer that left the policy in the meantime has no entry, and its grant is void.
                let Some(position) = page.view().find(customer) else {
                    continue;
                };
                let mut entry = page.get(position)?;
                entry.apply_grant(
                    *resource,
                    grant,
                    conditions.policy,
                    &conditions.lease,
                    conditions.now,
                );
                page.put(position, &entry);
                reached = u64::saturating_add(reached, 1);
            }
            Ok(reached > 0)
        },
    )?;
    Ok(reached)
}

fn remove(
    host: &impl Host,
    ledger: &mut Ledger,
    customer: &CustomerHash,
    now_us: u64,
) -> Result<(), CoreError> {
    let (core, conditions) = ready(ledger, now_us)?;
    let page = core.state().layout.page_of(Region::Policy, customer);
    core.edit_page(
        &mut Shared(host),
        Region::Policy,
        page,
        conditions.now,
        |page| {
            let Some(position) = page.view().find(customer) else {
                return Ok(false);
            };
            page.remove(position);
            page.note_eviction(conditions.now);
            Ok(true)
        },
    )
}

fn ready(ledger: &mut Ledger, now_us: u64) -> Result<(&mut CoreLedger, Conditions<'_>), CoreError> {
    ledger.at(now_us).ok_or_else(not_seeded)
}

fn not_seeded() -> CoreError {
    CoreError::NotSeeded {
        key: STATE_KEY.to_owned(),
    }
}

fn resource_of(index: u32) -> Option<ResourceIndex> {
    ResourceIndex::new(usize::try_from(index).ok()?)
}

fn customer_grant(grant: &WireGrant) -> Option<(CustomerHash, ResourceIndex, Grant)> {
    let customer = CustomerHash(key::CustomerHash::from_parts(grant.hash_high, grant.hash_low).0);
    let terms = GrantTerms {
        rate: Rate::new(grant.rate_micro_per_s),
        cap: bounded(grant.local_cap_micro),
        fallback_rate: Rate::new(grant.fallback_rate_micro_per_s),
    };
    let (granted_cum, adjust_cum) = (grant.granted_cum_micro, grant.adjust_cum_micro);
    Some((
        customer,
        resource_of(grant.resource)?,
        Grant {
            terms,
            granted_cum,
            adjust_cum,
            base_cum: grant.base_cum_micro,
        },
    ))
}

fn pool_grant(grant: &PoolGrant) -> Option<(ResourceIndex, Grant)> {
    let terms = GrantTerms {
        rate: Rate::new(grant.rate_micro_per_s),
        cap: bounded(grant.local_cap_micro),
        fallback_rate: Rate::new(grant.fallback_rate_micro_per_s),
    };
    Some((
        resource_of(grant.resource)?,
        Grant {
            terms,
            granted_cum: grant.granted_cum_micro,
            adjust_cum: 0,
            // A pool is never dropped: the resources of a policy are fixed, and a pool that is switched off keeps its sums.
            base_cum: 0,
        },
    ))
}

fn bounded(micro: u64) -> Micro {
    Micro::new(i64::try_from(micro).unwrap_or(i64::MAX)).min(Micro::MAX)
}

/// The end of a ban on the monotonic clock: the wall clock is asked once, here, and may jump afterwards without ending anything early.
fn ban_until(ban_until_unix_ms: u64, wall_ms: u64, now_us: u64) -> Option<TimeUs> {
    match ban_until_unix_ms {
        BAN_FOREVER => Some(TimeUs::NEVER),
        end_ms if end_ms > wall_ms => {
            Some(TimeUs(now_us).plus_us(end_ms.saturating_sub(wall_ms).saturating_mul(1_000)))
        }
        _ => None,
    }
}

fn missing(came: usize, kept: usize) -> u64 {
    u64::try_from(came.saturating_sub(kept)).unwrap_or(u64::MAX)
}
