//! Everything that the control plane knows, and how it finds the limits of an account.

use super::directory::Directory;
use super::models::ModelBook;
use super::policies::Policies;
use super::session::Session;
use crate::buckets::{Account, POOL_ACCOUNT, Tenure};
use crate::history::{Coverage, Ring, Series};
use crate::store::{Batch, Table};
use forebay_core::amount::Rate;
use forebay_core::policy::{ContractIndex, Limits};
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{CustomerForecast, ModelStatus};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Keys of single values in the store.
pub(super) const META_SESSION: &[u8] = b"session";
pub(super) const META_COVERAGE: &[u8] = b"coverage";
pub(super) const META_STEP_MS: &[u8] = b"step_ms";

/// What the operator chose at the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long granted rates hold.
    pub lease_ttl_ms: u32,
    /// How long fallback rates hold after that.
    pub fallback_ttl_ms: u32,
    /// When gateways are told to sync.
    pub sync_interval_ms: u32,
    /// Real length of a step of usage history.
    pub step_ms: u32,
    /// Steps of usage history that are kept.
    pub history_steps: u64,
    /// Accounts of customers outside the policy.
    pub max_other_customers: usize,
}

/// The state.
#[derive(Debug)]
pub struct State {
    /// Policy versions and the one in force.
    pub policies: Policies,
    /// Policy customers.
    pub directory: Directory,
    /// Accounts by customer, and that of the pools.
    pub accounts: HashMap<CustomerHash, Account>,
    /// Accounts of customers outside the policy.
    pub others: usize,
    /// Reports that were dropped because there were too many such accounts.
    pub others_dropped: u64,
    /// The gateway that was let in last.
    pub session: Option<Session>,
    /// Whether it still holds what it was granted.
    pub tenure: Tenure,
    /// Since when an account that was never seen has been refilling; `None`: since ever, it starts full.
    pub newcomers_since: Option<TimeUs>,
    /// Usage history being written.
    pub ring: Ring,
    /// Steps in which a gateway reported.
    pub coverage: Coverage,
    /// Number of the running step; goes back only when the wall clock was set back.
    pub step_now: u64,
    /// Customers with demand in the running step.
    pub active: HashSet<CustomerHash>,
    /// Models and releases.
    pub models: ModelBook,
    /// The newest forecast of each series, as the gateway made it.
    pub forecasts: HashMap<Series, CustomerForecast>,
    /// What the gateway's forecaster said last.
    pub model_status: Option<ModelStatus>,
    /// Version of the gateway's plugin.
    pub gateway_version: String,
    /// Policy that is in force at the gateway.
    pub policy_epoch_applied: u64,
    /// Syncs answered and refused since the start.
    pub syncs: u64,
    /// Syncs refused since the start.
    pub syncs_refused: u64,
}

impl Settings {
    /// How long a gateway may spend after our reply, in microseconds.
    #[must_use]
    pub fn hold_us(&self) -> u64 {
        u64::from(self.lease_ttl_ms)
            .saturating_add(u64::from(self.fallback_ttl_ms))
            .saturating_mul(1_000)
    }
}

impl State {
    /// The limits of an account by resource; `None` where no policy says any.
    #[must_use]
    pub fn limits_of(&self, customer: CustomerHash) -> Option<Vec<Limits>> {
        let policy = self.policies.compiled()?;
        if customer == POOL_ACCOUNT {
            let pool = |resource: &forebay_core::policy::Resource| {
                let rule = resource.pool.map(|pool| (pool.capacity, pool.depth));
                rule.map_or(Limits::default(), |(capacity, depth)| {
                    Limits::plain(capacity, depth)
                })
            };
            return Some(policy.resources.iter().map(pool).collect());
        }
        let contract = self
            .directory
            .get(customer)
            .map(|member| member.contract)
            .or(policy.unknown_contract())?;
        self.limits_of_contract(contract)
    }

    fn limits_of_contract(&self, contract: ContractIndex) -> Option<Vec<Limits>> {
        let policy = self.policies.compiled()?;
        let row = policy.contract(contract)?;
        Some(
            row.limits
                .iter()
                .take(policy.resources.len())
                .copied()
                .collect(),
        )
    }

    /// The account of a customer in the present tenure, made if need be. `None` when it has no limits, or there are too many.
    pub fn account(
        &mut self,
        customer: CustomerHash,
        limits: &[Limits],
        now: TimeUs,
        max_other: usize,
    ) -> Option<&mut Account> {
        let tenure = self.tenure;
        if !self.accounts.contains_key(&customer) {
            let is_other = customer != POOL_ACCOUNT && self.directory.get(customer).is_none();
            if is_other && self.others >= max_other {
                self.others_dropped = self.others_dropped.saturating_add(1);
                return None;
            }
            self.others = self.others.saturating_add(usize::from(is_other));
            // A stranger that the operator said something about may have spent at the gateway without our knowing.
            let is_stranger = self
                .directory
                .get(customer)
                .is_some_and(|member| !member.in_policy);
            let since = is_stranger.then_some(now).or(self.newcomers_since);
            self.accounts
                .insert(customer, Account::new(limits, now, since));
        }
        let account = self.accounts.get_mut(&customer)?;
        account.enter(tenure);
        Some(account)
    }

    /// Customers whom the policy begins to list: what was moved to the gateway for them before does not come again.
    pub fn begin_lives(&mut self, batch: &mut Batch, customers: &[CustomerHash]) {
        for customer in customers {
            let account = self.accounts.get_mut(customer);
            if account.is_some_and(Account::begin_life) {
                self.save_account(batch, *customer);
            }
        }
    }

    /// Adds an account to a batch.
    pub fn save_account(&self, batch: &mut Batch, customer: CustomerHash) {
        if let Some(account) = self.accounts.get(&customer) {
            batch.put(
                Table::Accounts,
                customer.0,
                account.to_record().encode_to_vec(),
            );
        }
    }

    /// Adds all accounts to a batch.
    pub fn save_accounts(&mut self, batch: &mut Batch) {
        for customer in self.accounts.keys() {
            self.save_account(batch, *customer);
        }
        self.save_session(batch);
    }

    /// Adds session and tenure to a batch.
    pub fn save_session(&self, batch: &mut Batch) {
        if let Some(session) = &self.session {
            batch.put(
                Table::Meta,
                META_SESSION,
                session.to_record(self.tenure).encode_to_vec(),
            );
        }
    }

    /// Sum of the rates of all policy customers on a resource.
    #[must_use]
    pub fn contracted_rate(&self, resource: usize) -> Rate {
        let Some(policy) = self.policies.compiled() else {
            return Rate::ZERO;
        };
        let rate = |contract: ContractIndex| {
            let limits = policy
                .contract(contract)
                .and_then(|row| row.limits.iter().nth(resource));
            limits.map_or(Rate::ZERO, |limits| limits.rate)
        };
        self.directory.iter().fold(Rate::ZERO, |sum, (_, member)| {
            sum.plus(rate(member.contract))
        })
    }
}
