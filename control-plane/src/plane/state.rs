//! Everything that the control plane knows, and how it finds the limits of an account.

use super::alerts::Alerts;
use super::allocation::Allocations;
use super::audit::AuditLog;
use super::directory::Directory;
use super::export::EndedStep;
use super::fleet::Fleet;
use super::later::Later;
use super::models::ModelBook;
use super::policies::Policies;
use super::session::Terms;
use super::sync::Closing;
use super::sync::usage::Finished;
use super::tally::Tally;
use super::training::TrainingBook;
use crate::buckets::{Account, POOL_ACCOUNT, SessionNumber, StoredRow, Unsaved};
use crate::covariates::Means;
use crate::history::{Coverage, Ring, Series};
use crate::store::{Batch, Table};
use forebay_core::amount::Rate;
use forebay_core::policy::{ContractIndex, Limits};
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::CustomerForecast;
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;
use std::sync::Arc;

/// Keys of single values in the store.
pub(super) const META_SESSIONS: &[u8] = b"sessions";
pub(super) const META_COVERAGE: &[u8] = b"coverage";
pub(super) const META_STEP_MS: &[u8] = b"step_ms";

/// Rows that one sync writes of what was only reported: about so many at most, or this part of the number of accounts that wait.
const ROWS_SAVED_LATER: usize = 512;
const PARTS_OF_THE_QUEUE: usize = 8;

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
    /// Records of the audit log that are kept.
    pub audit_keep: usize,
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
    /// The last batch is on its way: nothing may change any more.
    pub is_stopped: bool,
    /// The gateways.
    pub fleet: Fleet,
    /// Since when an account that was never seen has been refilling; `None`: since ever, it starts full.
    pub newcomers_since: Option<TimeUs>,
    /// Usage history being written.
    pub ring: Ring,
    /// Covariates on their way to the ring.
    pub(crate) means: Means,
    /// Steps in which a gateway reported.
    pub coverage: Coverage,
    /// Number of the running step; goes back only when the wall clock was set back.
    pub step_now: u64,
    /// Customers with demand in the running step.
    pub active: HashSet<CustomerHash>,
    /// The step before, while not all customers are closed.
    pub closing: Option<Closing>,
    /// The newest step that is closed, by gateway.
    pub finished: Arc<Finished>,
    /// Batches handed to the journal by syncs.
    pub submitted: u64,
    /// Steps that have ended and are not known to be in the store, each with the batch that brings it there.
    pub ended: VecDeque<(u64, EndedStep)>,
    /// Models and releases.
    pub models: ModelBook,
    /// Trainings that have ended.
    pub training: TrainingBook,
    /// What is wrong with forecasts and models.
    pub alerts: Alerts,
    /// Who has a claim on how much of the pools.
    pub allocations: Allocations,
    /// Customers that are allocated nothing beyond their contracts, because they are unusual.
    pub capped: Arc<HashSet<CustomerHash>>,
    /// Who has changed what.
    pub audit: AuditLog,
    /// The newest forecast of each series, whichever gateway made it.
    pub forecasts: HashMap<Series, CustomerForecast>,
    /// Accounts that have changed only in what gateways reported.
    pub unsaved: Later,
    /// What gateways have admitted beyond contracts.
    pub over_admitted: Tally,
    /// Tokens that nobody could spend any more before they had flowed again.
    pub stranded: Tally,
    /// Syncs answered and refused since the start.
    pub syncs: u64,
    /// Syncs refused since the start.
    pub syncs_refused: u64,
}

impl Settings {
    /// How long a gateway may work with what a reply granted.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            lease_us: u64::from(self.lease_ttl_ms).saturating_mul(1_000),
            fallback_us: u64::from(self.fallback_ttl_ms).saturating_mul(1_000),
        }
    }
}

impl State {
    /// The limits of an account by resource; `None` where no policy says any.
    #[must_use]
    pub fn limits_of(&self, customer: CustomerHash) -> Option<Arc<[Limits]>> {
        self.standing_of(customer).map(|(limits, _)| limits)
    }

    /// The same, and whether the account is here: the buckets of strangers are the gateways' own.
    #[must_use]
    pub fn standing_of(&self, customer: CustomerHash) -> Option<(Arc<[Limits]>, bool)> {
        let table = self.policies.limits()?;
        if customer == POOL_ACCOUNT {
            return Some((table.pools(), true));
        }
        match self.directory.get(customer) {
            Some(member) => Some((table.contract(member.contract)?, true)),
            None => Some((table.unknown()?, false)),
        }
    }

    /// The account of a customer, made if need be. `None` when it is a stranger, and there are too many.
    pub fn account(
        &mut self,
        customer: CustomerHash,
        limits: &[Limits],
        now: TimeUs,
        max_other: usize,
    ) -> Option<&mut Account> {
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
        self.accounts.get_mut(&customer)
    }

    /// What is expected of a customer in the whole fleet in the running step, by resource, in tokens per second: the forecast's upper
    /// quantile, 0 where there is none. Empty where there is none at all.
    #[must_use]
    pub fn expected_per_s(&self, customer: CustomerHash, resources: usize) -> Vec<f64> {
        if self.forecasts.is_empty() {
            return Vec::new();
        }
        let resources = (0..=u8::MAX).take(resources);
        let expected = resources.map(|resource| {
            let forecast = self.forecasts.get(&Series::new(customer, resource));
            forecast.map_or(0.0, |forecast| f64::from(forecast.high_per_s))
        });
        expected.collect()
    }

    /// Whether the customer's buckets are the gateways' own, and nothing of them is here.
    #[must_use]
    pub fn is_stranger(&self, customer: CustomerHash) -> bool {
        customer != POOL_ACCOUNT && self.directory.get(customer).is_none()
    }

    /// Customers whom the policy begins to list: what was moved to gateways for them before does not come again.
    pub fn begin_lives(&mut self, batch: &mut Batch, customers: &[CustomerHash], now: TimeUs) {
        let had_buckets = self
            .policies
            .compiled()
            .is_some_and(|policy| policy.unknown_contract().is_some());
        for customer in customers {
            let account = self.accounts.get_mut(customer);
            if account.is_some_and(|account| account.begin_life(had_buckets, now)) {
                self.save_account(batch, *customer);
            }
        }
    }

    /// Counts the accounts of strangers again: a policy has made some of them customers, or customers strangers.
    pub fn count_others(&mut self) {
        let others = self.accounts.keys().filter(|hash| self.is_stranger(**hash));
        self.others = others.count();
    }

    /// Adds what has changed of an account to a batch.
    pub fn save_account(&mut self, batch: &mut Batch, customer: CustomerHash) {
        if let Some(account) = self.accounts.get_mut(&customer) {
            account.row = StoredRow::Fresh;
            batch.put_message(Table::Accounts, &[&customer.0], &account.to_record());
            save_parts(batch, customer, account, Unsaved::Reports);
        }
    }

    /// Adds what gateways may be working with from now on to a batch, as far as it has changed. The rest of the account follows later: after an
    /// unclean stop nothing counts that was in its centre.
    pub fn save_grants(&mut self, batch: &mut Batch, customer: CustomerHash, now: TimeUs) {
        match self.accounts.get_mut(&customer) {
            Some(account) if account.is_row_saved() => {
                account.row = StoredRow::Stale;
                save_parts(batch, customer, account, Unsaved::Grants);
                self.save_later(customer, now);
            }
            Some(_) => {
                self.save_account(batch, customer);
            }
            None => {}
        }
    }

    /// Notes that an account has changed in what a gateway reported. That need not be durable at once: a server that is killed is told it
    /// again, and counts it as if it had not been reported before.
    pub fn save_later(&mut self, customer: CustomerHash, now: TimeUs) {
        if let Some(account) = self.accounts.get_mut(&customer)
            && !std::mem::replace(&mut account.is_queued, true)
        {
            self.unsaved.note(customer, now);
        }
    }

    /// Adds accounts to a batch that have waited for long enough; after a time without syncs not all of them at once.
    pub fn save_some(&mut self, batch: &mut Batch, now: TimeUs) {
        let rows = ROWS_SAVED_LATER.max(self.unsaved.len() / PARTS_OF_THE_QUEUE);
        let most = batch.len().saturating_add(rows);
        while batch.len() < most
            && let Some(customer) = self.unsaved.pop_due(now)
        {
            let Some(account) = self.accounts.get_mut(&customer) else {
                continue;
            };
            account.is_queued = false;
            if account.is_unsaved() {
                self.save_account(batch, customer);
            }
        }
    }

    /// Adds all accounts to a batch.
    pub fn save_accounts(&mut self, batch: &mut Batch) {
        let customers: Vec<CustomerHash> = self.accounts.keys().copied().collect();
        for customer in customers {
            self.save_account(batch, customer);
        }
        let ids: Vec<String> = self.fleet.sessions().map(|(id, _)| id.to_owned()).collect();
        for id in ids {
            self.save_gateway(batch, &id);
        }
    }

    /// Adds a gateway to a batch.
    pub fn save_gateway(&self, batch: &mut Batch, id: &str) {
        match self.fleet.to_record(id) {
            Some(record) => batch.put_message(Table::Gateways, &[id.as_bytes()], &record),
            None => batch.delete(Table::Gateways, id.as_bytes()),
        }
        batch.put(
            Table::Meta,
            META_SESSIONS,
            self.fleet.newest().to_le_bytes(),
        );
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

/// Adds those parts of an account to a batch of which `least` or more is unsaved, and deletes those that have gone.
fn save_parts(batch: &mut Batch, customer: CustomerHash, account: &mut Account, least: Unsaved) {
    let (parts, gone) = account.take_unsaved(least);
    for part in parts {
        let session = part.session().to_be_bytes();
        batch.put_message(Table::Parts, &[&customer.0, &session], &part.to_record());
    }
    for session in gone {
        batch.delete(Table::Parts, part_key(customer, session));
    }
}

/// The key of a part: parts of an account lie together, in the order of their sessions.
pub(super) fn part_key(customer: CustomerHash, session: SessionNumber) -> Vec<u8> {
    [&customer.0[..], &session.to_be_bytes()[..]].concat()
}
