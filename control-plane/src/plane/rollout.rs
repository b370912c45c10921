//! A policy at a share of the customers, until it is given to all of them or taken back.
//!
//! What is in force meanwhile is a version like any other, made of both policies ([`forebay_policy::merge`]), so that a restart or
//! another leader changes nobody's contract, and
//! gateways need not know of it. Each step is made anew from the older version and the newer document, which the store keeps: going back
//! gives back exactly what there was.
//!
//! A gateway that does not take what it is sent says so by what it asks for: it has applied the reply that brought the policy and has not
//! seen the policy. When one does so again
//! and again, the newer policy is taken back without waiting for anybody, as long as it has a share only.

use super::Plane;
use super::audit::Deed;
use super::kept::kept;
use super::policies::{VersionCause, VersionInfo, damaged};
use super::state::State;
use crate::auth::Caller;
use crate::buckets::Standing;
use crate::document::{CheckedPolicy, Format, check};
use crate::error::ApiError;
use crate::models::{digest_of, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_core::time::TimeUs;
use forebay_policy::{CustomerShare, merge};
use forebay_wire::policy::PolicyDocument;
use forebay_wire::sync::{PolicyDelta, SyncRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Keys of single values in the store: what is known of the roll-out, and the newer document. The document is large, and is read when a
/// step is made.
const META_ROLLOUT: &[u8] = b"policy_rollout";
const META_DOCUMENT: &[u8] = b"policy_rollout_document";

/// So often a gateway is sent a policy that it does not take: a reply may be spoilt, or the gateway be short of memory for a moment.
const REFUSALS: u8 = 3;

/// After the first failure to take a policy back it is tried again after this time, and after each further one after twice as long, up to
/// a minute: a document may be large.
const FIRST_PAUSE_US: u64 = 1_000_000;
const LONGEST_PAUSE_US: u64 = 60_000_000;

/// A policy at a share of the customers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollout {
    /// The version by which all others go.
    pub(super) base: u64,
    /// The version in force, made of both.
    pub(super) version: u64,
    /// Percent of the customers.
    percent: u8,
    /// SHA-256 of the newer document. It decides who is first.
    digest: String,
    /// When it began.
    since_unix_ms: u64,
    /// Customers that one of both lists, and those of them who go by the newer one.
    customers: usize,
    moved: usize,
    /// The gateway that does not take the version in force.
    #[serde(skip)]
    refused_by: Option<String>,
    /// When it is tried again to take it back, after that has failed so often.
    #[serde(skip)]
    again: Option<(TimeUs, u32)>,
}

/// A policy at a share of the customers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutView {
    /// The version by which all others go.
    pub base: u64,
    /// The version in force, made of both policies.
    pub version: u64,
    /// Percent of the customers.
    pub share: u8,
    /// SHA-256 of the newer document, as the server writes it.
    pub digest: String,
    /// When it began.
    pub since_unix_ms: u64,
    /// Customers that one of both policies lists.
    pub customers: usize,
    /// Those of them who go by the newer one.
    pub moved: usize,
    /// Gateways with the version in force, of those that are present.
    pub gateways_with_it: usize,
    /// Gateways that are present.
    pub gateways: usize,
}

/// Whether a gateway takes what it is sent of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicyOffer {
    epoch: u64,
    /// The reply that brought the beginning of it; none while no answer to that is awaited.
    sequence: Option<u64>,
    /// How often it was sent and not taken.
    refusals: u8,
}

// === impl PolicyOffer ===

impl PolicyOffer {
    /// Takes note of what a request says about what was sent before.
    pub(super) fn hear(&mut self, request: &SyncRequest) {
        let Some(sequence) = self.sequence else {
            return;
        };
        if request.policy_epoch_seen == self.epoch {
            (self.sequence, self.refusals) = (None, 0);
        } else if request.reply_applied >= sequence {
            self.sequence = None;
            self.refusals = self.refusals.saturating_add(1);
        }
    }

    /// Takes note of what a reply brings.
    pub(super) fn told(&mut self, delta: Option<&PolicyDelta>, sequence: u64) {
        let Some(delta) = delta.filter(|delta| delta.full) else {
            return;
        };
        if delta.epoch != self.epoch {
            self.refusals = 0;
        }
        (self.epoch, self.sequence) = (delta.epoch, Some(sequence));
    }

    fn refuses(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.refusals >= REFUSALS
    }
}

// === impl Rollout ===

impl Rollout {
    /// The roll-out whose version is the newest one.
    pub(super) fn load(store: &dyn Store, newest: u64) -> Result<Option<Self>, StoreError> {
        let Some(row) = store.get(Table::Meta, META_ROLLOUT)? else {
            return Ok(None);
        };
        let rollout: Self = serde_json::from_slice(&row).map_err(|error| StoreError::Damaged {
            what: "policy roll-out",
            reason: error.to_string(),
        })?;
        Ok(Some(rollout).filter(|rollout| rollout.version == newest))
    }

    /// The same, in force as this version.
    pub(super) fn with_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Adds it to a batch, with the newer document.
    pub(super) fn save(&self, batch: &mut Batch, document: String) -> Result<(), ApiError> {
        let row = serde_json::to_vec(self).map_err(|error| damaged(&error))?;
        batch.put(Table::Meta, META_ROLLOUT, row);
        batch.put(Table::Meta, META_DOCUMENT, document);
        Ok(())
    }

    /// Removes it.
    pub(super) fn drop_from(batch: &mut Batch) {
        batch.delete(Table::Meta, META_ROLLOUT);
        batch.delete(Table::Meta, META_DOCUMENT);
    }

    /// Percent of the customers.
    pub(super) const fn percent(&self) -> u8 {
        self.percent
    }
}

/// Notes that a gateway refuses what is rolled out.
pub(super) fn watch_offer(state: &mut State, gateway: &str) {
    let session = state.fleet.session(gateway);
    let offer = session.map(|session| session.policy_offer);
    if let Some(rollout) = &mut state.policies.rollout
        && offer.is_some_and(|offer| offer.refuses(rollout.version))
    {
        rollout.refused_by.get_or_insert_with(|| gateway.to_owned());
    }
}

impl Plane {
    /// Puts a document in force for so many percent of the customers, or gives one that has a share already another share.
    ///
    /// # Errors
    /// When it is refused, differs in what holds for all customers, or another one has a share; what is in force stays.
    pub async fn roll_out_policy(
        &self,
        by: &Caller,
        text: &str,
        format: Format,
        percent: u8,
    ) -> Result<VersionInfo, ApiError> {
        let newer = self.check_policy(text, format)?.document;
        let document = serde_json::to_string(&newer).map_err(|error| damaged(&error))?;
        let digest = digest_of(document.as_bytes());
        let in_force = self.active_policy()?;
        let running = self.lock().policies.rollout.clone();
        let (base, since_unix_ms) = match running {
            None => (in_force, self.clock.now().unix_ms),
            Some(running) if running.digest == hex(&digest) => {
                (running.base, running.since_unix_ms)
            }
            Some(running) => return Err(rollout_runs(&running)),
        };
        let older = self.policy_document(base)?;
        let salt = digest
            .first_chunk()
            .map_or(0, |bytes| u128::from_be_bytes(*bytes));
        let share = CustomerShare::new(percent, salt);
        let both = merge(&older, &newer, &share).map_err(|error| {
            let hint = "apply to all what holds for all, then this policy to a share; the policy in force has not changed";
            let place = error.paths.first().cloned().unwrap_or_default();
            ApiError::invalid("not_for_a_share", error.to_string(), hint).at(place)
        })?;
        let (customers, moved) = count(&older, &newer, &share);
        let rollout = Rollout {
            base,
            version: 0,
            percent,
            digest: hex(&digest),
            since_unix_ms,
            customers,
            moved,
            refused_by: None,
            again: None,
        };
        let deed = Deed::new(by, "policy.roll_out", format!("sha256:{}", rollout.digest))
            .with("share", Some(percent))
            .with("base", Some(base))
            .with("moved", Some(moved));
        let cause = VersionCause::RollsOut {
            instead_of: in_force,
            rollout,
            document,
        };
        self.install_policy(deed, &recheck(both)?, cause).await
    }

    /// Gives the policy that has a share to all customers.
    ///
    /// # Errors
    /// When none has a share.
    pub async fn promote_policy(&self, by: &Caller) -> Result<VersionInfo, ApiError> {
        let rollout = self.running_rollout()?;
        let row = self.store.get(Table::Meta, META_DOCUMENT)?;
        let newer: PolicyDocument =
            serde_json::from_slice(&row.unwrap_or_default()).map_err(|error| damaged(&error))?;
        let deed = Deed::new(by, "policy.promote", format!("sha256:{}", rollout.digest));
        let cause = VersionCause::Promotes {
            instead_of: rollout.version,
        };
        self.install_policy(deed, &recheck(newer)?, cause).await
    }

    /// Takes the policy that has a share back: all customers go by the version before it.
    ///
    /// # Errors
    /// When none has a share.
    pub async fn roll_back_policy(&self, by: &Caller) -> Result<VersionInfo, ApiError> {
        let rollout = self.running_rollout()?;
        let deed = Deed::new(by, "policy.roll_back", format!("version {}", rollout.base));
        self.take_back(deed, &rollout).await
    }

    /// Takes a policy back that a gateway refuses. Returns the version that is in force then, if it did. What has failed is tried again
    /// after a while, and said once.
    ///
    /// # Errors
    /// When the version before cannot be put in force again, or the store cannot be read or written.
    pub async fn watch_rollout(&self) -> Result<Option<VersionInfo>, ApiError> {
        let running = self.lock().policies.rollout.clone();
        let Some((rollout, gateway)) =
            running.and_then(|rollout| Some((rollout.clone(), rollout.refused_by?)))
        else {
            return Ok(None);
        };
        let now = self.clock.now().mono;
        let failures = match rollout.again {
            Some((again, _)) if now < again => return Ok(None),
            Some((_, failures)) => failures,
            None => 0,
        };
        if failures == 0 {
            tracing::warn!(%gateway, version = rollout.version, "a gateway refuses the policy that has a share: it is taken back");
        }
        let object = format!("version {}", rollout.base);
        let deed =
            Deed::of_the_server("policy.roll_back", object).with("refused_by", Some(gateway));
        let taken = self.take_back(deed, &rollout).await;
        if let Err(error) = &taken {
            if failures == 0 && !self.is_stopped() {
                tracing::warn!(%error, hint = error.hint, "a policy that a gateway refuses is not taken back; it is tried again and again");
            }
            let pause_us = FIRST_PAUSE_US << failures.min(6);
            let again = now.plus_us(pause_us.min(LONGEST_PAUSE_US));
            let mut state = self.lock();
            let running = state.policies.rollout.as_mut();
            if let Some(running) = running.filter(|running| running.version == rollout.version) {
                running.again = Some((again, failures.saturating_add(1)));
            }
        }
        taken.map(Some)
    }

    /// The policy that has a share, if one does.
    #[must_use]
    pub fn rollout(&self) -> Option<RolloutView> {
        let state = self.lock();
        let rollout = state.policies.rollout.as_ref()?;
        let (terms, now) = (self.settings.terms(), self.clock.now().mono);
        let sessions = state.fleet.sessions().map(|(_, session)| session);
        let present: Vec<u64> = sessions
            .filter(|session| matches!(session.standing(terms, now), Standing::Present(_)))
            .map(|session| session.policy_epoch_applied)
            .collect();
        let with_it = present.iter().filter(|epoch| **epoch == rollout.version);
        Some(RolloutView {
            base: rollout.base,
            version: rollout.version,
            share: rollout.percent,
            digest: rollout.digest.clone(),
            since_unix_ms: rollout.since_unix_ms,
            customers: rollout.customers,
            moved: rollout.moved,
            gateways_with_it: with_it.count(),
            gateways: present.len(),
        })
    }

    async fn take_back(&self, deed: Deed, rollout: &Rollout) -> Result<VersionInfo, ApiError> {
        let record = self.policy_record(rollout.base)?;
        let older = kept(&record).map_err(|error| {
            let message = format!("version {} cannot be put in force again: {error}", rollout.base);
            let hint = "`forebay policy promote` gives the newer policy to all; then apply a corrected one; nothing has changed";
            ApiError::invalid("policy_refused", message, hint)
        })?;
        let cause = VersionCause::RollsBack {
            instead_of: rollout.version,
            base: rollout.base,
        };
        self.install_policy(deed, &older, cause).await
    }

    fn running_rollout(&self) -> Result<Rollout, ApiError> {
        let running = self.lock().policies.rollout.clone();
        running.ok_or_else(|| {
            ApiError::conflict(
                "no_rollout",
                "no policy is in force for a share of the customers",
                "`forebay policy apply FILE --share 10%` begins with one",
            )
        })
    }
}

/// What is made of documents that were checked is checked as well: guarantees of both together may be more than there is.
fn recheck(document: PolicyDocument) -> Result<CheckedPolicy, ApiError> {
    let text = serde_json::to_string(&document).map_err(|error| damaged(&error))?;
    check(&text, Format::Json).map_err(|faults| {
        let faults: Vec<String> = faults
            .0
            .iter()
            .map(|fault| format!("{} {}", fault.path, fault.message))
            .collect();
        let message = format!(
            "with some customers by one policy and some by the other: {}",
            faults.join("; ")
        );
        let hint = "choose another share, or apply the policy to all customers; the policy in force has not changed";
        ApiError::invalid("policy_refused", message, hint)
    })
}

fn count(older: &PolicyDocument, newer: &PolicyDocument, share: &CustomerShare) -> (usize, usize) {
    let all = older.customers.iter().chain(&newer.customers);
    let keys: BTreeSet<&str> = all.map(|customer| customer.key.as_str()).collect();
    let moved = keys.iter().filter(|key| share.takes(key));
    (keys.len(), moved.count())
}

/// A policy has a share of the customers, and who would put another in force decides about it first.
pub(super) fn rollout_runs(rollout: &Rollout) -> ApiError {
    let message = format!(
        "another policy is in force for {} % of the customers",
        rollout.percent
    );
    let hint = "`forebay policy promote` gives it to all, `forebay policy rollback` takes it back";
    ApiError::conflict("rollout_runs", message, hint)
}
