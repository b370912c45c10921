//! Policy versions: validated at the door, numbered, and the newest one is in force.
//!
//! A version is never changed and the number is the epoch that gateways see, so "which policy denied me?" has an answer. Going
//! back to an older one makes a new version with the older document: epochs only grow.

use super::audit::{Deed, Done};
use super::limits::LimitsTable;
use super::rollout::{Rollout, rollout_runs};
use super::state::State;
use super::{Now, Plane};
use crate::allocation::Rule;
use crate::anomaly::Rule as AnomalyRule;
use crate::auth::Caller;
use crate::document::{CheckedPolicy, Format, check};
use crate::error::ApiError;
use crate::keys::Keys;
use crate::models::{digest_of, hex};
use crate::store::{Batch, StoreError, Table};
use axum::http::StatusCode;
use forebay_core::policy::{ContractIndex, Policy};
use forebay_wire::policy::PolicyDocument;
use prost::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Largest binary form of a policy's tables. A gateway reads no reply above 4 MiB, and the first part of a policy shares its reply
/// with 4096 customers and 2 MB of usage windows.
const MAX_ENCODED_BYTES: usize = 3 << 19;

/// Versions that are kept to go back to.
const MAX_VERSIONS: usize = 200;

/// How long somebody who wants a document waits for the store to take it.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
const RETRY_AFTER_S: u32 = 1;

/// About what is written of an account that a policy makes a customer's.
const ACCOUNT_BYTES: usize = 256;

/// A version in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionInfo {
    /// Its number, which is the policy epoch at the gateways.
    pub version: u64,
    /// When it was put in force.
    pub applied_at_unix_ms: u64,
    /// Customers that it lists.
    pub customers: usize,
    /// Its contracts.
    pub contracts: usize,
    /// The older version whose document it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// Percent of the customers that go by a newer policy; all others go by that of the version `base`. Absent: all go by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u8>,
    /// See `share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}

/// Why a version comes into force.
pub(super) enum VersionCause {
    /// Somebody has brought its document.
    Applied,
    /// Somebody wants the document of an older version back.
    Restores(u64),
    /// It has some customers go by a newer document, which is kept until all or none do.
    RollsOut {
        /// The version that it was made from.
        instead_of: u64,
        rollout: Rollout,
        document: String,
    },
    /// All customers go by the newer document.
    Promotes { instead_of: u64 },
    /// None do.
    RollsBack { instead_of: u64, base: u64 },
}

/// A version in the store.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct VersionRecord {
    /// The document, as JSON.
    #[prost(string, tag = "1")]
    pub document: String,
    /// The tables: their rows must not move when the version is loaded again.
    #[prost(bytes = "vec", tag = "2")]
    pub compiled: Vec<u8>,
    /// `VersionInfo`, as JSON.
    #[prost(string, tag = "3")]
    pub info: String,
}

/// The versions, and the one in force.
#[derive(Debug, Default)]
pub struct Policies {
    versions: BTreeMap<u64, VersionInfo>,
    active: Option<Active>,
    /// The policy that has a share of the customers.
    pub(super) rollout: Option<Rollout>,
    /// Versions of which nobody knows yet that they are durable: their documents may be in the journal only.
    unsettled: BTreeSet<u64>,
}

/// The policy in force.
#[derive(Debug)]
struct Active {
    policy: Policy,
    encoded: Vec<u8>,
    limits: LimitsTable,
    sharing: Option<Arc<Rule>>,
    anomaly: Option<Arc<AnomalyRule>>,
}

// === impl VersionCause ===

impl VersionCause {
    /// Whether it still makes sense: another request may have been faster.
    fn check(&self, policies: &Policies) -> Result<(), ApiError> {
        let instead_of = match self {
            Self::Applied | Self::Restores(_) => {
                let running = policies.rollout.as_ref();
                return running.map_or(Ok(()), |running| Err(rollout_runs(running)));
            }
            Self::RollsOut { instead_of, .. }
            | Self::Promotes { instead_of }
            | Self::RollsBack { instead_of, .. } => *instead_of,
        };
        if policies.active_epoch() == instead_of {
            return Ok(());
        }
        let message = "another policy has come into force meanwhile";
        let hint = "look at `forebay policy list`, then try again";
        Err(ApiError::conflict("policy_changed", message, hint))
    }

    const fn restores(&self) -> Option<u64> {
        match self {
            Self::Restores(version) | Self::RollsBack { base: version, .. } => Some(*version),
            _ => None,
        }
    }

    const fn rollout(&self) -> Option<&Rollout> {
        match self {
            Self::RollsOut { rollout, .. } => Some(rollout),
            _ => None,
        }
    }
}

// === impl Policies ===

impl Policies {
    /// The policy in force.
    #[must_use]
    pub fn compiled(&self) -> Option<&Policy> {
        self.active.as_ref().map(|active| &active.policy)
    }

    /// Its binary form.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.active.as_ref().map_or(&[], |active| &active.encoded)
    }

    /// Its number; 0 for none.
    #[must_use]
    pub fn active_epoch(&self) -> u64 {
        self.compiled().map_or(0, |policy| policy.epoch)
    }

    /// What its accounts may be; `None` without a policy.
    pub(super) fn limits(&self) -> Option<&LimitsTable> {
        self.active.as_ref().map(|active| &active.limits)
    }

    /// How the pools are divided; `None` where they are not.
    pub(super) fn sharing(&self) -> Option<&Arc<Rule>> {
        self.active.as_ref()?.sharing.as_ref()
    }

    /// What is done about customers that behave as they never did; `None` where they are not watched.
    pub(super) fn anomaly(&self) -> Option<&Arc<AnomalyRule>> {
        self.active.as_ref()?.anomaly.as_ref()
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &VersionInfo> {
        self.versions.values()
    }

    pub(super) fn remember(&mut self, info: VersionInfo) {
        self.versions.insert(info.version, info);
    }

    /// Takes note that this version, and all before it, are durable.
    fn settle(&mut self, version: u64) {
        self.unsettled.retain(|unsettled| *unsettled > version);
    }

    pub(super) fn put_in_force(
        &mut self,
        policy: Policy,
        sharing: Option<Rule>,
        anomaly: Option<AnomalyRule>,
    ) {
        self.active = Some(Active {
            encoded: policy.encode(),
            limits: LimitsTable::of(&policy),
            sharing: sharing.map(Arc::new),
            anomaly: anomaly.map(Arc::new),
            policy,
        });
    }
}

impl Plane {
    /// Checks a document without keeping it.
    ///
    /// # Errors
    /// When it could not be put in force.
    pub fn check_policy(&self, text: &str, format: Format) -> Result<CheckedPolicy, ApiError> {
        let checked = check(text, format).map_err(|faults| {
            let place = faults
                .0
                .first()
                .map_or(String::new(), |fault| fault.path.clone());
            let hint = "correct it and try again; the policy in force has not changed";
            ApiError::invalid("policy_refused", faults.to_string(), hint).at(place)
        })?;
        same_resources(&self.lock(), &checked.compiled.policy)?;
        Ok(checked)
    }

    /// Puts a document in force as a new version.
    ///
    /// # Errors
    /// When it is refused; the policy in force stays.
    pub async fn apply_policy(
        &self,
        by: &Caller,
        text: &str,
        format: Format,
    ) -> Result<VersionInfo, ApiError> {
        let checked = self.check_policy(text, format)?;
        let digest = format!("sha256:{}", hex(&digest_of(text.as_bytes())));
        let deed = Deed::new(by, "policy.apply", digest)
            .with("customers", Some(checked.compiled.customers.len()))
            .with("contracts", Some(checked.document.contracts.len()));
        self.install_policy(deed, &checked, VersionCause::Applied)
            .await
    }

    /// Puts the document of an older version in force again, as a new version.
    ///
    /// # Errors
    /// When there is no such version.
    pub async fn activate_policy(
        &self,
        by: &Caller,
        version: u64,
    ) -> Result<VersionInfo, ApiError> {
        let text = serde_json::to_string(&self.policy_document(version)?)
            .map_err(|error| damaged(&error))?;
        let checked = self.check_policy(&text, Format::Json)?;
        let deed = Deed::new(by, "policy.activate", format!("version {version}"));
        let cause = VersionCause::Restores(version);
        self.install_policy(deed, &checked, cause).await
    }

    pub(super) async fn install_policy(
        &self,
        deed: Deed,
        checked: &CheckedPolicy,
        cause: VersionCause,
    ) -> Result<VersionInfo, ApiError> {
        let document = serde_json::to_string(&checked.document).map_err(|error| damaged(&error))?;
        // Only strangers' accounts begin another life.
        let begun = self.lock().others.min(checked.compiled.customers.len());
        let tables = checked.compiled.policy.encode().len();
        let newer = match &cause {
            VersionCause::RollsOut { document, .. } => document.len(),
            _ => 0,
        };
        let accounts = begun.saturating_mul(ACCOUNT_BYTES);
        self.make_room([document.len(), tables, accounts, newer].iter().sum())?;
        let info = self
            .change(deed, |state, batch, now| {
                install(state, batch, now, &self.keys, checked, document, cause)
            })
            .await?;
        self.lock().policies.settle(info.version);
        Ok(info)
    }

    /// Waits until the store has the document of a version, so that it can be read: a version is in force before it is durable.
    ///
    /// # Errors
    /// 503 `not_yet_durable` when the store does not take it.
    pub(crate) async fn policy_settled(&self, version: u64) -> Result<(), ApiError> {
        let (receipt, newest) = {
            let state = self.lock();
            if !state.policies.unsettled.contains(&version) {
                return Ok(());
            }
            (self.journal.all_so_far(), state.policies.active_epoch())
        };
        match timeout(SETTLED_WITHIN, receipt.durable()).await {
            Ok(Ok(())) => {
                self.lock().policies.settle(newest);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(not_yet_durable(version)),
        }
    }

    /// All versions, newest first.
    #[must_use]
    pub fn policy_versions(&self) -> Vec<VersionInfo> {
        self.lock().policies.versions().rev().cloned().collect()
    }

    /// Number of the version in force.
    ///
    /// # Errors
    /// When no policy was ever applied.
    pub fn active_policy(&self) -> Result<u64, ApiError> {
        match self.lock().policies.active_epoch() {
            0 => Err(ApiError::not_found(
                "no_policy",
                "no policy has been applied yet",
                "run `forebay policy apply FILE`",
            )),
            epoch => Ok(epoch),
        }
    }

    /// The document of a version.
    ///
    /// # Errors
    /// When there is no such version, or it is not durable yet.
    pub fn policy_document(&self, version: u64) -> Result<PolicyDocument, ApiError> {
        let record = self.policy_record(version)?;
        serde_json::from_str(&record.document).map_err(|error| damaged(&error))
    }

    pub(super) fn policy_record(&self, version: u64) -> Result<VersionRecord, ApiError> {
        let record = self
            .store
            .get(Table::Policies, &version.to_be_bytes())?
            .ok_or_else(|| {
                if self.lock().policies.unsettled.contains(&version) {
                    return not_yet_durable(version);
                }
                let message = format!("there is no policy version {version}");
                ApiError::not_found(
                    "no_such_version",
                    message,
                    "`forebay policy list` shows the versions that are kept",
                )
            })?;
        VersionRecord::decode(record.as_slice()).map_err(|error| damaged(&error))
    }
}

/// Entries of the ledger and accounts count by resource index. Another set of resources would need all of them rewritten at one
/// moment everywhere, so it is refused.
fn same_resources(state: &State, policy: &Policy) -> Result<(), ApiError> {
    let names = |policy: &Policy| {
        policy
            .resources
            .iter()
            .map(|resource| resource.name.clone())
            .collect::<Vec<_>>()
    };
    let Some(active) = state.policies.compiled().map(names) else {
        return Ok(());
    };
    let wanted = names(policy);
    if active == wanted {
        return Ok(());
    }
    let message = format!(
        "has the resources {}, but those in force are {}",
        wanted.join(", "),
        active.join(", ")
    );
    let hint = "the set of resources is fixed with the first policy: keep it, or start a server with an empty --data directory";
    Err(ApiError::conflict("resources_changed", message, hint).at("resources"))
}

/// Contracts keep their rows. Those that have gone keep theirs as well, for entries that still point there, as long as that fits.
fn align(policy: &mut Policy, previous: &Policy) -> Vec<ContractIndex> {
    let fresh = policy.clone();
    let moved = policy.keep_indexes_of(previous);
    if policy.encode().len() <= MAX_ENCODED_BYTES {
        return moved;
    }
    *policy = fresh;
    policy.keep_indexes_within(previous, previous.contracts.len())
}

fn install(
    state: &mut State,
    batch: &mut Batch,
    now: Now,
    keys: &Keys,
    checked: &CheckedPolicy,
    document: String,
    cause: VersionCause,
) -> Result<Done<VersionInfo>, ApiError> {
    // Again, because another request may have been faster since the check.
    cause.check(&state.policies)?;
    same_resources(state, &checked.compiled.policy)?;
    let mut policy = checked.compiled.policy.clone();
    let moved = match state.policies.compiled() {
        Some(previous) => align(&mut policy, previous),
        None => (0..=u16::MAX)
            .map(ContractIndex)
            .take(policy.contracts.len())
            .collect(),
    };
    let newest = state
        .policies
        .versions()
        .next_back()
        .map_or(0, |info| info.version);
    policy.epoch = newest.max(state.policies.active_epoch()).saturating_add(1);
    policy.check().map_err(|error| {
        ApiError::invalid(
            "policy_refused",
            error.to_string(),
            "report this: the door let it through",
        )
    })?;
    let encoded = policy.encode();
    if encoded.len() > MAX_ENCODED_BYTES {
        let message = format!(
            "contracts make tables of {} bytes, gateways take at most {MAX_ENCODED_BYTES}",
            encoded.len()
        );
        let hint = "let customers share contracts; the policy in force has not changed";
        return Err(ApiError::invalid("policy_refused", message, hint).at("contracts"));
    }
    let info = VersionInfo {
        version: policy.epoch,
        applied_at_unix_ms: now.unix_ms,
        customers: checked.compiled.customers.len(),
        contracts: checked.document.contracts.len(),
        restores: cause.restores(),
        share: cause.rollout().map(Rollout::percent),
        base: cause.rollout().map(|rollout| rollout.base),
    };
    let record = VersionRecord {
        document,
        compiled: encoded,
        info: serde_json::to_string(&info).map_err(|error| damaged(&error))?,
    };
    batch.put(
        Table::Policies,
        info.version.to_be_bytes(),
        record.encode_to_vec(),
    );
    let listed = state.directory.replace(
        &checked.compiled.customers,
        &moved,
        policy.unknown_contract(),
        keys,
    );
    state.begin_lives(batch, &listed, now.mono);
    state.count_others();
    state.policies.rollout = match cause {
        VersionCause::RollsOut {
            rollout, document, ..
        } => {
            let rollout = rollout.with_version(info.version);
            rollout.save(batch, document)?;
            Some(rollout)
        }
        _ => {
            Rollout::drop_from(batch);
            None
        }
    };
    let sharing = checked.sharing.as_ref();
    let rule = sharing.map(|sharing| Rule::of(sharing, &checked.compiled.customers, &moved, keys));
    let anomaly = checked.anomaly.as_ref();
    let anomaly = anomaly.map(|anomaly| AnomalyRule::of(anomaly, &moved));
    state.policies.put_in_force(policy, rule, anomaly);
    state.policies.remember(info.clone());
    state.policies.unsettled.insert(info.version);
    // The version that a share may go back to is kept however often the share changes.
    let base = info.base.unwrap_or(u64::MAX);
    while state.policies.versions.len() > MAX_VERSIONS
        && let Some((oldest, _)) = state.policies.versions.first_key_value()
        && *oldest < base
    {
        let oldest = *oldest;
        state.policies.versions.remove(&oldest);
        state.policies.unsettled.remove(&oldest);
        batch.delete(Table::Policies, oldest.to_be_bytes());
    }
    tracing::info!(
        version = info.version,
        customers = info.customers,
        "a policy is in force"
    );
    let outcome = format!("version {}", info.version);
    Ok(Done::new(info, outcome))
}

fn not_yet_durable(version: u64) -> ApiError {
    let message = format!(
        "policy version {version} is not yet durable: the store has not taken its document"
    );
    let hint =
        "try again when the store takes changes again: look at the server's disk and its log";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ApiError::new(status, "not_yet_durable", message, hint).retry_after_s(RETRY_AFTER_S)
}

pub(super) fn damaged(error: &dyn std::fmt::Display) -> ApiError {
    StoreError::Damaged {
        what: "policy",
        reason: error.to_string(),
    }
    .into()
}
