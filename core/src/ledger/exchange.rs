//! Exchanges with the ledger: read, decide, write back if nobody was faster, otherwise again.
//!
//! A draw touches two values, the pools and the customer's page, and shared data cannot change two atomically. So pool tokens
//! are taken first; if the page then turns out to have changed, they are given back and the draw starts again. A worker that
//! dies in between has lost tokens, never made any. The loop is here and not in the plugin so that it can be tested
//! with every interleaving.

use super::entry::{CustomerHash, Entry};
use super::failure::Failure;
use super::layout::{
    Key, Layout, LedgerSize, POLICY_KEY, POOL_KEY, Region, STATE_KEY, WORKERS_KEY,
};
use super::page::{Page, PageView};
use super::shared_data::{SetError, SharedData};
use super::state::State;
use super::workers::{WorkerId, Workers};
use crate::amount::Micro;
use crate::chunk::{Amounts, Chunk, Payer};
use crate::draw::{Conditions, draw};
use crate::error::CoreError;
use crate::lease::Lease;
use crate::limits::{CHUNK_LIFE_US, MAX_CAS_ATTEMPTS};
use crate::policy::Policy;
use crate::pool::{PoolChange, Pools};
use crate::resource::{PerResource, ResourceIndex};
use crate::settle::{charge, fold};
use crate::time::TimeUs;
use crate::verdict::{Denial, Reason, Verdict};

/// A worker's access to the ledger. It holds no tokens itself: only the last state read, and buffers that are used again.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: State,
    page: Vec<u8>,
    pools: Vec<u8>,
}

/// Where a customer's entry is. Its page lies in the buffer.
struct Located {
    key: Key,
    cas: Option<u32>,
    position: u16,
    entry: Entry,
}

// === impl Ledger ===

impl Ledger {
    /// Seeds the ledger, or joins the one that is there. Called when a plugin is configured, before any request.
    ///
    /// A new gateway that stands alone starts full. With a control plane it starts empty: what a customer may spend at once is
    /// granted, and a restart of Envoy must not be worth a burst. A ledger of another shape is replaced by empty pages on
    /// which nobody gets more than what flows from now on. Seeding twice at once is harmless: pages that exist are kept.
    pub fn seed(
        data: &mut impl SharedData,
        size: LedgerSize,
        policy: &Policy,
        lease: Lease,
        now: TimeUs,
    ) -> Result<Ledger, CoreError> {
        let wanted = State {
            layout: Layout::for_size(size),
            resources: policy.resources.len() as u8,
            resources_mark: State::resources_mark_of(
                policy
                    .resources
                    .iter()
                    .map(|resource| resource.name.as_str()),
            ),
            policy_epoch: policy.epoch,
            lease,
            seeded_at: now,
        };
        let mut ledger = Ledger {
            state: wanted,
            page: Vec::new(),
            pools: Vec::new(),
        };
        let found = data
            .get(STATE_KEY, &mut ledger.page)?
            .and_then(|_| State::decode(&ledger.page).ok());
        if let Some(found) = found
            && (found.layout, found.resources, found.resources_mark)
                == (wanted.layout, wanted.resources, wanted.resources_mark)
        {
            ledger.state = found;
            if found.mode() != wanted.mode()
                && !matches!(
                    (found.lease, lease),
                    (Lease::Granted { .. }, Lease::Waiting)
                )
            {
                ledger.edit_state(data, |state| state.lease = lease)?;
            }
            return Ok(ledger);
        }
        let is_new = data.get(STATE_KEY, &mut ledger.page)?.is_none();
        ledger.write_empty(data, policy, is_new, now)?;
        overwrite(data, STATE_KEY, &wanted.encode())?;
        Ok(ledger)
    }

    /// Joins a ledger that another plugin has seeded.
    pub fn open(data: &mut impl SharedData) -> Result<Ledger, CoreError> {
        let mut page = Vec::new();
        if data.get(STATE_KEY, &mut page)?.is_none() {
            return Err(CoreError::NotSeeded {
                key: STATE_KEY.to_owned(),
            });
        }
        Ok(Ledger {
            state: State::decode(&page)?,
            page,
            pools: Vec::new(),
        })
    }

    /// Reads the state again; called on each tick. Returns whether the policy epoch has changed.
    pub fn refresh(&mut self, data: &mut impl SharedData) -> Result<bool, CoreError> {
        if data.get(STATE_KEY, &mut self.page)?.is_none() {
            return Err(CoreError::NotSeeded {
                key: STATE_KEY.to_owned(),
            });
        }
        let before = self.state.policy_epoch;
        self.state = State::decode(&self.page)?;
        Ok(self.state.policy_epoch != before)
    }

    /// The state as last read.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Decides a request of `cost` and fills `chunk`. On an error nothing has been decided; the chunk is as before, or empty if
    /// what it held may have reached the pools.
    pub fn draw(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        customer: &CustomerHash,
        cost: &Amounts,
        chunk: &mut Chunk,
    ) -> Result<Verdict, CoreError> {
        let decided = self.exchange(data, conditions, customer, |pools, entry| {
            let drawn = draw(conditions, pools, entry, chunk, cost);
            (drawn, drawn.changes)
        });
        let retry_at = match decided {
            Ok(Some((drawn, entry))) => {
                chunk.contract = entry.contract;
                chunk.exempt = entry.flags.exempt;
                chunk.payers = drawn.payers;
                chunk.contended = entry.is_contended(conditions.policy);
                chunk.refilled(drawn.holdings, self.state.resources, conditions.now);
                if let Verdict::Denied(denial) = drawn.verdict {
                    chunk.remember(denial, *cost.at(denial.resource), conditions.now);
                }
                return Ok(drawn.verdict);
            }
            Ok(None) => TimeUs::NEVER,
            // Room for a stranger comes when other strangers have paid their debts and returned their chunks.
            Err(Failure::Whole(CoreError::PageFull { .. })) => {
                conditions.now.plus_us(CHUNK_LIFE_US)
            }
            Err(failure) => return Err(failure.settle(chunk, conditions.now)),
        };
        self.give_back_to_nobody(data, conditions, chunk)?;
        let denial = Denial {
            reason: Reason::Unknown,
            resource: ResourceIndex::FIRST,
            retry_at,
        };
        chunk.refilled(PerResource::default(), self.state.resources, conditions.now);
        chunk.remember(denial, Micro::ZERO, conditions.now);
        Ok(Verdict::Denied(denial))
    }

    /// Gives a chunk back: what is left in it, and its counts. On an error it is as before, or empty as after a draw.
    pub fn give_back(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        customer: &CustomerHash,
        chunk: &mut Chunk,
    ) -> Result<(), CoreError> {
        if chunk.is_settled() {
            return Ok(());
        }
        let folded = self.exchange(data, conditions, customer, |pools, entry| {
            pools.refill(conditions.policy, &conditions.lease, conditions.now);
            entry.refill(conditions.policy, &conditions.lease, conditions.now);
            ((), fold(conditions, pools, Some(entry), chunk))
        });
        match folded {
            Ok(Some(_)) => {}
            Ok(None) | Err(Failure::Whole(CoreError::PageFull { .. })) => {
                self.give_back_to_nobody(data, conditions, chunk)?
            }
            Err(failure) => return Err(failure.settle(chunk, conditions.now)),
        }
        chunk.emptied(conditions.now);
        Ok(())
    }

    /// Charges a settlement's difference that the worker's chunk could not pay or take, even into debt.
    pub fn charge(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        customer: &CustomerHash,
        difference: &Amounts,
        payer: Payer,
    ) -> Result<(), CoreError> {
        self.exchange(data, conditions, customer, |pools, entry| {
            pools.refill(conditions.policy, &conditions.lease, conditions.now);
            entry.refill(conditions.policy, &conditions.lease, conditions.now);
            ((), charge(conditions, pools, entry, difference, payer))
        })
        .map(|_| ())
        .map_err(Failure::into_error)
    }

    /// Reads a page, for a worker that goes through all customers.
    pub fn view_page(
        &mut self,
        data: &mut impl SharedData,
        region: Region,
        page: u32,
    ) -> Result<PageView<'_>, CoreError> {
        let key = self.state.layout.key(region, page);
        if data.get(key.as_str(), &mut self.page)?.is_none() {
            return Err(CoreError::NotSeeded {
                key: key.as_str().to_owned(),
            });
        }
        PageView::open(&self.page, self.state.resources)
    }

    /// Changes a page. `edit` says whether it changed anything, and may run several times.
    pub fn edit_page(
        &mut self,
        data: &mut impl SharedData,
        region: Region,
        page: u32,
        now: TimeUs,
        mut edit: impl FnMut(&mut Page<'_>) -> Result<bool, CoreError>,
    ) -> Result<(), CoreError> {
        let key = self.state.layout.key(region, page);
        for _ in 0..MAX_CAS_ATTEMPTS {
            let cas = self.read_page(data, &key, now)?;
            let mut view = Page::open(&mut self.page, self.state.resources)?;
            let is_changed = edit(&mut view)?;
            // A page that had vanished is written in any case, so that it is there again.
            let is_there = cas.is_some();
            if (is_there && !is_changed) || write(data, key.as_str(), &self.page, cas)? {
                return Ok(());
            }
        }
        Err(contended(key.as_str()))
    }

    /// Reads the pools, brought up to date.
    pub fn pools(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
    ) -> Result<Pools, CoreError> {
        let (mut pools, _) = self.read_pools(data, conditions)?;
        pools.refill(conditions.policy, &conditions.lease, conditions.now);
        Ok(pools)
    }

    /// Changes the pools, brought up to date first. `edit` may run several times.
    pub fn edit_pools(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        mut edit: impl FnMut(&mut Pools),
    ) -> Result<(), CoreError> {
        for _ in 0..MAX_CAS_ATTEMPTS {
            let (mut pools, cas) = self.read_pools(data, conditions)?;
            pools.refill(conditions.policy, &conditions.lease, conditions.now);
            edit(&mut pools);
            if self.write_pools(data, &pools, cas)? {
                return Ok(());
            }
        }
        Err(contended(POOL_KEY))
    }

    /// Changes the state. `edit` may run several times.
    pub fn edit_state(
        &mut self,
        data: &mut impl SharedData,
        mut edit: impl FnMut(&mut State),
    ) -> Result<(), CoreError> {
        for _ in 0..MAX_CAS_ATTEMPTS {
            let cas = data.get(STATE_KEY, &mut self.page)?;
            if cas.is_some() {
                self.state = State::decode(&self.page)?;
            }
            edit(&mut self.state);
            if write(data, STATE_KEY, &self.state.encode(), cas)? {
                return Ok(());
            }
        }
        Err(contended(STATE_KEY))
    }

    /// Publishes a compiled policy to the other workers. Its customers are installed with [`super::Install`]; the epoch in
    /// the state is raised when they are.
    pub fn write_policy(
        &mut self,
        data: &mut impl SharedData,
        policy: &Policy,
    ) -> Result<(), CoreError> {
        overwrite(data, POLICY_KEY, &policy.encode())
    }

    /// The compiled policy, if there is one yet.
    pub fn read_policy(&mut self, data: &mut impl SharedData) -> Result<Option<Policy>, CoreError> {
        match data.get(POLICY_KEY, &mut self.page)? {
            None => Ok(None),
            Some(_) => Policy::decode(&self.page).map(Some),
        }
    }

    /// Registers a worker, or says that it is still there, and returns all of them.
    pub fn register(
        &mut self,
        data: &mut impl SharedData,
        worker: WorkerId,
        now: TimeUs,
    ) -> Result<Workers, CoreError> {
        for _ in 0..MAX_CAS_ATTEMPTS {
            let cas = data.get(WORKERS_KEY, &mut self.page)?;
            let mut workers = match cas {
                // A damaged list is no loss: every worker registers again within a tick.
                Some(_) => Workers::decode(&self.page).unwrap_or_default(),
                None => Workers::default(),
            };
            workers.seen(worker, now);
            if write(data, WORKERS_KEY, &workers.encode(), cas)? {
                return Ok(workers);
            }
        }
        Err(contended(WORKERS_KEY))
    }

    /// Runs `operate` on the customer's entry and the pools until both could be written. `None` if the customer is in no policy
    /// and such customers are denied.
    fn exchange<T>(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        customer: &CustomerHash,
        mut operate: impl FnMut(&mut Pools, &mut Entry) -> (T, PerResource<PoolChange>),
    ) -> Result<Option<(T, Entry)>, Failure> {
        let policy = conditions.policy;
        let has_pools = policy
            .resource_indexes()
            .any(|resource| policy.pool(resource).is_some());
        let mut key = None;
        for _ in 0..MAX_CAS_ATTEMPTS {
            let Some(Located {
                key: page_key,
                cas,
                position,
                mut entry,
            }) = self.locate(data, conditions, customer)?
            else {
                return Ok(None);
            };
            key = Some(page_key);
            let (mut pools, pool_cas) = if has_pools {
                self.read_pools(data, conditions)?
            } else {
                (Pools::default(), None)
            };
            let (outcome, changes) = operate(&mut pools, &mut entry);
            let moves =
                |resource| policy.pool(resource).is_some() && !changes.at(resource).is_nothing();
            let moves_pool = policy.resource_indexes().any(moves);
            if moves_pool && !self.write_pools(data, &pools, pool_cas)? {
                continue;
            }
            let written = Page::open(&mut self.page, self.state.resources)
                .map(|mut page| page.put(position, &entry))
                .and_then(|()| write(data, page_key.as_str(), &self.page, cas));
            if let Ok(true) = written {
                return Ok(Some((outcome, entry)));
            }
            if moves_pool {
                self.undo(data, conditions, &changes)
                    .map_err(Failure::Half)?;
            }
            written?;
        }
        Err(contended(key.as_ref().map_or("the ledger", Key::as_str)).into())
    }

    /// Finds the customer's entry: in the policy's region, otherwise among the others, where an absent one is added.
    /// `None` if the customer is in no policy and such customers are denied.
    fn locate(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        customer: &CustomerHash,
    ) -> Result<Option<Located>, CoreError> {
        let layout = self.state.layout;
        let key = layout.key(Region::Policy, layout.page_of(Region::Policy, customer));
        let cas = self.read_page(data, &key, conditions.now)?;
        let known = Page::open(&mut self.page, self.state.resources)?;
        if let Some(position) = known.view().find(customer) {
            return Ok(Some(Located {
                key,
                cas,
                position,
                entry: known.get(position)?,
            }));
        }
        let Some(contract) = conditions.policy.unknown_contract() else {
            return Ok(None);
        };
        let key = layout.key(Region::Other, layout.page_of(Region::Other, customer));
        let cas = self.read_page(data, &key, conditions.now)?;
        let mut others = Page::open(&mut self.page, self.state.resources)?;
        match others.find_or_add(
            customer,
            contract,
            conditions.policy,
            &conditions.lease,
            conditions.now,
        )? {
            Some((position, entry)) => Ok(Some(Located {
                key,
                cas,
                position,
                entry,
            })),
            None => Err(CoreError::PageFull {
                key: key.as_str().to_owned(),
            }),
        }
    }

    /// The customer has gone: its contract tokens are lost, but pool tokens are everyone's.
    fn give_back_to_nobody(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        chunk: &Chunk,
    ) -> Result<(), CoreError> {
        if chunk.is_settled() {
            return Ok(());
        }
        self.edit_pools(data, conditions, |pools| {
            fold(conditions, pools, None, chunk);
        })
    }

    fn read_page(
        &mut self,
        data: &mut impl SharedData,
        key: &Key,
        now: TimeUs,
    ) -> Result<Option<u32>, CoreError> {
        let cas = data.get(key.as_str(), &mut self.page)?;
        if cas.is_none() {
            // A page that vanished is replaced by an empty one on which nobody gets more than what flows from now on.
            self.page = Page::empty(self.state.resources, Some(now));
        }
        Ok(cas)
    }

    fn read_pools(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
    ) -> Result<(Pools, Option<u32>), CoreError> {
        match data.get(POOL_KEY, &mut self.pools)? {
            Some(cas) => Ok((Pools::decode(&self.pools, self.state.resources)?, Some(cas))),
            None => {
                // As with a page: what vanished comes back empty.
                let pools = Pools {
                    at: conditions.now,
                    ..Pools::default()
                };
                self.pools = pools.encode(self.state.resources);
                Ok((pools, None))
            }
        }
    }

    fn write_pools(
        &mut self,
        data: &mut impl SharedData,
        pools: &Pools,
        cas: Option<u32>,
    ) -> Result<bool, CoreError> {
        pools.write(&mut self.pools, self.state.resources);
        write(data, POOL_KEY, &self.pools, cas)
    }

    fn undo(
        &mut self,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        changes: &PerResource<PoolChange>,
    ) -> Result<(), CoreError> {
        self.edit_pools(data, conditions, |pools| {
            pools.undo(
                changes,
                conditions.policy,
                &conditions.lease,
                conditions.now,
            );
        })
    }

    fn write_empty(
        &mut self,
        data: &mut impl SharedData,
        policy: &Policy,
        is_new: bool,
        now: TimeUs,
    ) -> Result<(), CoreError> {
        let starts_full = is_new && self.state.lease == Lease::StandAlone;
        let empty = Page::empty(
            self.state.resources,
            if starts_full { None } else { Some(now) },
        );
        for region in [Region::Policy, Region::Other] {
            for page in 0..self.state.layout.pages(region) {
                let key = self.state.layout.key(region, page);
                if !is_new || data.get(key.as_str(), &mut self.page)?.is_none() {
                    overwrite(data, key.as_str(), &empty)?;
                }
            }
        }
        if !is_new || data.get(POOL_KEY, &mut self.page)?.is_none() {
            let pools = if starts_full {
                Pools::full(policy, now)
            } else {
                Pools {
                    at: now,
                    ..Pools::default()
                }
            };
            overwrite(data, POOL_KEY, &pools.encode(self.state.resources))?;
        }
        Ok(())
    }
}

/// Writes with compare-and-swap; `false` if another worker was faster. A key that was missing is written in any case.
fn write(
    data: &mut impl SharedData,
    key: &str,
    value: &[u8],
    cas: Option<u32>,
) -> Result<bool, CoreError> {
    match data.set(key, value, cas) {
        Ok(()) => Ok(true),
        Err(SetError::CasMismatch) => Ok(false),
        Err(SetError::Host(error)) => Err(error),
    }
}

fn overwrite(data: &mut impl SharedData, key: &str, value: &[u8]) -> Result<(), CoreError> {
    write(data, key, value, None).map(|_| ())
}

fn contended(key: &str) -> CoreError {
    CoreError::Contended {
        key: key.to_owned(),
        attempts: MAX_CAS_ATTEMPTS,
    }
}
