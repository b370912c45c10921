//! What forecasts are made from, as the state has it at a moment, and who asks for them.

use super::sync::usage::Finished;
use super::{Plane, State};
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::forecasts::{
    Book, ClosedStep, ContractGroups, Desk, ForecastsQuery, ForecastsView, Grouping, Linked, Wanted,
};
use crate::history::{Chunk, Coverage, Ring, Series, step_at};
use crate::store::{Row, StoreError, Table};
use forebay_core::policy::ContractIndex;
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// After so many steps in which no gateway has synced the wall clock says which step is the newest: nothing was asked for since, as far as anybody knows.
const SILENT_STEPS: u64 = 2;
/// Customers whose contracts are looked up at once: syncs wait meanwhile.
const MEMBERS_AT_ONCE: usize = 4_096;
/// The history is read in so many pieces, by the first bits of the customers' hashes: a store may keep changes waiting while rows are read.
const PIECE_SHIFT: u32 = 4;
/// A key of the history: customer, resource, chunk.
const KEY_BYTES: usize = 25;

/// A moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// The newest step of which all is known that will ever be.
    pub(crate) newest: u64,
    /// The policy in force, and how often history was imported.
    pub(crate) policy: u64,
    pub(crate) changes: u64,
    /// Names of resources.
    pub(crate) resources: Vec<String>,
    /// The step that was closed last.
    finished: Arc<Finished>,
}

// === impl Moment ===

impl Moment {
    /// The number of the step that was closed last.
    pub(crate) fn closed(&self) -> u64 {
        self.finished.step
    }

    /// That step.
    pub(crate) fn closed_step(&self) -> ClosedStep {
        let usage = self.finished.usage.iter();
        let usage = usage.filter(|usage| usage.customer != POOL_ACCOUNT);
        let usage = usage.map(|usage| {
            let resource = u8::try_from(usage.resource).unwrap_or(u8::MAX);
            let tokens = usage.demand as f64 / 1e6;
            (Series::new(usage.customer, resource), tokens as f32)
        });
        ClosedStep {
            step: self.finished.step,
            usage: usage.collect(),
        }
    }
}

// === impl Plane ===

impl Plane {
    /// Pieces of the history.
    pub(crate) const HISTORY_PIECES: u16 = 1 << (u16::BITS - PIECE_SHIFT);

    /// How things stand; `None` without a policy, and when the server stops.
    pub(crate) fn moment(&self) -> Option<Moment> {
        let changes = self.forecasts.changes();
        let last = step_at(self.clock.now().unix_ms, self.settings.step_ms).checked_sub(1)?;
        let (closed, policy, resources, finished) = {
            let state = self.lock();
            let names = state.policies.compiled()?.resources.iter();
            let names: Vec<String> = names.map(|resource| resource.name.clone()).collect();
            if state.is_stopped {
                return None;
            }
            let finished = Arc::clone(&state.finished);
            let policy = state.policies.active_epoch();
            (state.newest_closed(), policy, names, finished)
        };
        let is_running = (last.saturating_sub(SILENT_STEPS)..=last).contains(&closed);
        Some(Moment {
            newest: if is_running { closed } else { last },
            policy,
            changes,
            resources,
            finished,
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.lock().coverage.clone()
    }

    /// The groups of the policy in force, with as many contracts among them at most: those that most customers have, after that of strangers. Linked accounts
    /// come to that, with at most as many sums.
    pub(crate) fn grouping(&self, contracts_most: usize) -> Grouping {
        let (contracts, rule) = {
            let state = self.lock();
            (
                contract_groups(&state, contracts_most),
                state.policies.sharing().cloned(),
            )
        };
        let rule = rule.filter(|rule| !rule.groups.is_empty());
        let linked = rule.map(|rule| {
            let members: Vec<(CustomerHash, usize)> = rule.members().collect();
            let members = members.chunks(MEMBERS_AT_ONCE).flat_map(|some| {
                let customers: Vec<CustomerHash> =
                    some.iter().map(|(customer, _)| *customer).collect();
                let groups = some.iter().map(|(_, group)| *group);
                groups
                    .zip(self.contracts_of(&customers))
                    .collect::<Vec<_>>()
            });
            Linked::choose(rule.clone(), members, contracts_most)
        });
        Grouping { contracts, linked }
    }

    /// The contracts of customers.
    pub(crate) fn contracts_of(&self, customers: &[CustomerHash]) -> Vec<Option<ContractIndex>> {
        let state = self.lock();
        let unknown = state
            .policies
            .compiled()
            .and_then(|policy| policy.unknown_contract());
        let contract = |customer: &CustomerHash| {
            let member = state.directory.get(*customer);
            member.map(|member| member.contract).or(unknown)
        };
        customers.iter().map(contract).collect()
    }

    /// Rows of the history of whole customers, by key.
    pub(crate) fn history_piece(&self, piece: u16) -> Result<Vec<Row>, StoreError> {
        let from = (piece << PIECE_SHIFT).to_be_bytes();
        let last = (piece << PIECE_SHIFT) | (u16::MAX >> (u16::BITS - PIECE_SHIFT));
        let mut to = vec![u8::MAX; KEY_BYTES];
        to.splice(..2, last.to_be_bytes());
        self.store.range(Table::History, &from, &to)
    }

    /// Usage of a series as far as the store has it; NaN where that cannot be read.
    pub(crate) fn usage_from_store(
        &self,
        series: Series,
        from: u64,
        to: u64,
    ) -> Result<Vec<Option<f32>>, StoreError> {
        let usage = Ring::read(&*self.store, series, from, to)?;
        let is_damaged = |step: u64| usage.damaged.contains(&Chunk::number_of(step));
        let steps = usage.values.iter().zip(usage.first_step..);
        // What is there and cannot be read is no silence.
        let known =
            steps.map(|(value, step)| value.or_else(|| is_damaged(step).then_some(f32::NAN)));
        Ok(known.collect())
    }

    pub(crate) fn forecast_desk(&self) -> &Desk {
        &self.forecasts
    }

    /// The newest forecasts.
    pub(crate) fn forecast_book(&self) -> Arc<Book> {
        self.forecasts.book()
    }

    /// Forecasts of customers and groups.
    ///
    /// # Errors
    /// When the query cannot be understood, or there is no forecast of whom it names.
    pub fn forecasts(&self, query: &ForecastsQuery) -> Result<ForecastsView, ApiError> {
        let resource_of = |name: &str| {
            let index = super::customers::resource_index(&self.lock(), Some(name))?;
            Ok(u8::try_from(index).unwrap_or(u8::MAX))
        };
        let wanted = Wanted::of(query, |key| self.hash_of(key), resource_of)?;
        self.forecast_book().view(&wanted, self.settings.step_ms)
    }
}

/// What groups depend on of each contract, by its row.
fn contract_groups(state: &State, contracts_most: usize) -> Vec<ContractGroups> {
    let Some(policy) = state.policies.compiled() else {
        return Vec::new();
    };
    let mut customers = vec![0_usize; policy.contracts.len()];
    for (_, member) in state.directory.iter() {
        if let Some(count) = customers.get_mut(usize::from(member.contract.0)) {
            *count = count.saturating_add(1);
        }
    }
    if let Some(unknown) = policy.unknown_contract()
        && let Some(count) = customers.get_mut(usize::from(unknown.0))
    {
        *count = usize::MAX;
    }
    let mut by_size: Vec<usize> = (0..customers.len()).collect();
    by_size.sort_by_key(|row| std::cmp::Reverse(customers.get(*row).copied()));
    by_size.truncate(contracts_most);
    let contracts = policy.contracts.iter().enumerate();
    let contracts = contracts.map(|(row, contract)| ContractGroups {
        tier: contract.tier.number(),
        own: by_size.contains(&row).then(|| contract.name.clone()),
    });
    contracts.collect()
}
