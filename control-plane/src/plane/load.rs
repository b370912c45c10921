//! From the store to the state, at the start.

use super::StartError;
use super::alerts::Alerts;
use super::allocation::Allocations;
use super::audit::AuditLog;
use super::clock::Now;
use super::directory::{Directory, Override};
use super::fleet::{Fleet, GatewayRecord};
use super::kept::kept;
use super::later::Later;
use super::models::ModelBook;
use super::policies::{Policies, VersionInfo, VersionRecord};
use super::rollout::Rollout;
use super::state::{META_COVERAGE, META_SESSIONS, META_STEP_MS, Settings, State};
use super::sync::is_set_back;
use super::tally::Tally;
use super::training::TrainingBook;
use crate::allocation::Rule;
use crate::anomaly::Rule as AnomalyRule;
use crate::buckets::{
    Account, AccountRecord, Cause, Contract, POOL_ACCOUNT, Part, PartRecord, SessionNumber,
};
use crate::covariates::Means;
use crate::document::CheckedPolicy;
use crate::history::{Coverage, Ring, step_at};
use crate::keys::Keys;
use crate::store::{Batch, Start, Store, StoreError, Table, open_epoch};
use forebay_core::amount::Micro;
use forebay_core::policy::{ContractIndex, Policy};
use forebay_wire::key::CustomerHash;
use hashbrown::{HashMap, HashSet};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) fn load(
    store: &dyn Store,
    keys: &Keys,
    settings: &Settings,
    now: Now,
) -> Result<(State, Start), StartError> {
    // Before anything is written: a server that refuses to start must not spoil the start of the next one.
    check_step_length(store, settings)?;
    let start = open_epoch(store)?;
    keep_step_length(store, settings)?;
    let is_clean = !matches!(start, Start::Unclean { .. });
    let fleet = load_fleet(store, now)?;
    let (accounts, in_centres) = load_accounts(store, now, is_clean)?;
    let mut directory = Directory::new(now.unix_ms);
    store.visit(Table::Overrides, &mut |key, value| {
        let said: Override =
            serde_json::from_slice(value).map_err(|error| damaged("override", &error))?;
        directory.restore_override(hash_of(key)?, said);
        Ok(())
    })?;
    let policies = load_policies(store, keys, &mut directory)?;
    let others = accounts
        .keys()
        .filter(|hash| **hash != POOL_ACCOUNT && directory.get(**hash).is_none())
        .count();
    let mut stranded = Tally::default();
    for (customer, level) in in_centres {
        // The buckets of strangers are the gateways' own.
        if directory.get(customer).is_some() {
            stranded.add(Cause::ColdStart, level);
        }
    }
    let coverage = match store.get(Table::Meta, META_COVERAGE)? {
        Some(bytes) => Coverage::decode(&bytes, settings.history_steps)?,
        None => Coverage::new(settings.history_steps),
    };
    let (step_now, active) = open_step(&accounts, step_at(now.unix_ms, settings.step_ms));
    let mut state = State {
        policies,
        directory,
        accounts,
        others,
        others_dropped: 0,
        is_stopped: false,
        fleet,
        newcomers_since: (!is_clean).then_some(now.mono),
        ring: Ring::new(settings.history_steps),
        means: Means::default(),
        coverage,
        step_now,
        active,
        closing: None,
        finished: Arc::default(),
        submitted: 0,
        ended: VecDeque::new(),
        models: ModelBook::load(store)?,
        training: TrainingBook::load(store)?,
        alerts: Alerts::load(store, settings.step_ms, now)?,
        allocations: Allocations::load(store, now)?,
        capped: Arc::default(),
        audit: AuditLog::load(store)?,
        forecasts: HashMap::new(),
        unsaved: Later::default(),
        over_admitted: Tally::default(),
        stranded,
        syncs: 0,
        syncs_refused: 0,
    };
    refresh_accounts(&mut state, settings, now);
    Allocations::take_up(&mut state, settings, now.mono);
    tracing::info!(
        ?start,
        accounts = state.accounts.len(),
        policy = state.policies.active_epoch(),
        "the store is loaded"
    );
    Ok((state, start))
}

fn check_step_length(store: &dyn Store, settings: &Settings) -> Result<(), StartError> {
    let Some(bytes) = store.get(Table::Meta, META_STEP_MS)? else {
        return Ok(());
    };
    let bytes = bytes
        .as_slice()
        .try_into()
        .map_err(|error| damaged("step length", &error))?;
    let found_ms = u32::from_le_bytes(bytes);
    if found_ms == settings.step_ms {
        return Ok(());
    }
    Err(StartError::StepLength {
        found_ms,
        given_ms: settings.step_ms,
    })
}

fn keep_step_length(store: &dyn Store, settings: &Settings) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(Table::Meta, META_STEP_MS, settings.step_ms.to_le_bytes());
    store.commit(&batch)
}

fn load_fleet(store: &dyn Store, now: Now) -> Result<Fleet, StoreError> {
    let newest = match store.get(Table::Meta, META_SESSIONS)? {
        Some(bytes) => {
            let bytes = bytes.as_slice().try_into();
            u64::from_le_bytes(bytes.map_err(|error| damaged("number of sessions", &error))?)
        }
        None => 0,
    };
    let mut fleet = Fleet::from_number(newest);
    store.visit(Table::Gateways, &mut |key, value| {
        let id = std::str::from_utf8(key).map_err(|error| damaged("gateway", &error))?;
        let record = GatewayRecord::decode(value).map_err(|error| damaged("gateway", &error))?;
        fleet.restore(id.to_owned(), &record, now.mono);
        Ok(())
    })?;
    Ok(fleet)
}

/// What lay in the centre of accounts when the server was killed.
type InCentres = Vec<(CustomerHash, Micro)>;

fn load_accounts(
    store: &dyn Store,
    now: Now,
    is_clean: bool,
) -> Result<(HashMap<CustomerHash, Account>, InCentres), StoreError> {
    let mut accounts = HashMap::new();
    let mut in_centres = Vec::new();
    store.visit(Table::Accounts, &mut |key, value| {
        let record = AccountRecord::decode(value).map_err(|error| damaged("account", &error))?;
        let customer = hash_of(key)?;
        if !is_clean && customer != POOL_ACCOUNT {
            // After an unclean stop nothing counts that was in the centre.
            for holding in &record.holdings {
                in_centres.push((customer, Micro::new(holding.level_micro)));
            }
        }
        accounts.insert(customer, Account::from_record(&record, now.mono, is_clean));
        Ok(())
    })?;
    store.visit(Table::Parts, &mut |key, value| {
        let (customer, session) = part_of(key)?;
        let record = PartRecord::decode(value).map_err(|error| damaged("part", &error))?;
        let account: &mut Account = accounts
            .get_mut(&customer)
            .ok_or_else(|| damaged("part", &"its account is missing"))?;
        account.restore(Part::from_record(session, &record), now.mono);
        Ok(())
    })?;
    Ok((accounts, in_centres))
}

fn load_policies(
    store: &dyn Store,
    keys: &Keys,
    directory: &mut Directory,
) -> Result<Policies, StoreError> {
    let mut policies = Policies::default();
    let mut newest = None;
    store.visit(Table::Policies, &mut |_, value| {
        let record = VersionRecord::decode(value).map_err(|error| damaged("policy", &error))?;
        let info: VersionInfo =
            serde_json::from_str(&record.info).map_err(|error| damaged("policy", &error))?;
        policies.remember(info);
        // Rows come by version, so the last one is the newest.
        newest = Some(record);
        Ok(())
    })?;
    let Some(record) = newest else {
        return Ok(policies);
    };
    let CheckedPolicy {
        compiled,
        sharing,
        anomaly,
        ..
    } = kept(&record).map_err(|error| damaged("policy", &error))?;
    let policy = Policy::decode(&record.compiled).map_err(|error| damaged("policy", &error))?;
    let row_of = |name: &str| {
        policy
            .contracts
            .iter()
            .position(|contract| contract.name == name)
    };
    let rows = compiled.policy.contracts.iter().map(|contract| {
        let row = row_of(&contract.name).and_then(|row| u16::try_from(row).ok());
        row.map(ContractIndex)
            .ok_or_else(|| damaged("policy", &"its tables lack a contract of its document"))
    });
    let moved: Vec<ContractIndex> = rows.collect::<Result<_, _>>()?;
    directory.replace(&compiled.customers, &moved, policy.unknown_contract(), keys);
    let rule = sharing.map(|sharing| Rule::of(&sharing, &compiled.customers, &moved, keys));
    let anomaly = anomaly.map(|anomaly| AnomalyRule::of(&anomaly, &moved));
    policies.rollout = Rollout::load(store, policy.epoch)?;
    policies.put_in_force(policy, rule, anomaly);
    Ok(policies)
}

/// Central buckets refill from now on with what the parts leave of them, not with what they had when they were saved.
fn refresh_accounts(state: &mut State, settings: &Settings, now: Now) {
    let roster = state.fleet.roster(settings.terms(), now.mono);
    let customers: Vec<CustomerHash> = state.accounts.keys().copied().collect();
    for customer in customers {
        let limits = state.limits_of(customer);
        if let (Some(limits), Some(account)) = (limits, state.accounts.get_mut(&customer)) {
            let contract = Contract {
                customer,
                limits: &limits,
                expected_per_s: &[],
                roster: &roster,
            };
            account.refresh(&contract);
            account.release(&contract, now.mono);
        }
    }
}

/// The step that was running when the last run ended, and who had demand in it. What was counted under a clock that has been set back
/// since does not say when that was.
fn open_step(
    accounts: &HashMap<CustomerHash, Account>,
    step_of_clock: u64,
) -> (u64, HashSet<CustomerHash>) {
    let step_of = |account: &Account| {
        account
            .holdings
            .iter()
            .map(|holding| holding.usage.step)
            .filter(|step| !is_set_back(*step, step_of_clock))
            .max()
            .unwrap_or(0)
    };
    let step = accounts.values().map(step_of).max().unwrap_or(0);
    let active = accounts
        .iter()
        .filter(|(_, account)| step_of(account) == step && step > 0);
    (step, active.map(|(hash, _)| *hash).collect())
}

fn hash_of(key: &[u8]) -> Result<CustomerHash, StoreError> {
    key.try_into()
        .map(CustomerHash)
        .map_err(|error| damaged("customer hash", &error))
}

/// What [`super::state::part_key`] put together.
fn part_of(key: &[u8]) -> Result<(CustomerHash, SessionNumber), StoreError> {
    let parts = key
        .split_first_chunk()
        .and_then(|(customer, session)| Some((customer, session.try_into().ok()?)));
    parts
        .map(|(customer, session)| (CustomerHash(*customer), u64::from_be_bytes(session)))
        .ok_or_else(|| damaged("part", &"its key is not a customer and a session"))
}

fn damaged(what: &'static str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        what,
        reason: error.to_string(),
    }
}
