//! What an operator sees of a customer, and may do to one.

use super::audit::{Deed, Done};
use super::directory::Override;
use super::state::State;
use super::view::{CustomerView, view};
use super::{Now, Plane};
use crate::auth::Caller;
use crate::buckets::{Account, Contract, POOL_ACCOUNT, Roster};
use crate::error::ApiError;
use crate::store::{Batch, StoreError, Table};
use forebay_core::amount::Micro;
use forebay_wire::key::{CustomerHash, MAX_KEY_BYTES};
use forebay_wire::policy::Decimal;
use forebay_wire::sync::BAN_FOREVER;
use std::collections::BTreeSet;

/// What an operator may do to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerChange {
    /// Give tokens (or take some).
    Credit {
        /// Name of the resource; may be left out where there is one.
        resource: Option<String>,
        /// Tokens, up to 6 decimals; negative takes.
        micro: i64,
    },
    /// Fill all buckets and forgive debts.
    Reset,
    /// Deny everything until a wall-clock time.
    Ban {
        /// In ms; absent: without an end.
        until_unix_ms: Option<u64>,
    },
    /// End a ban, the policy's as well.
    Unban,
    /// Deny everything, without an end, keeping the buckets.
    Freeze,
    /// End a freeze, the policy's as well.
    Thaw,
    /// Admit everything, and count it.
    Exempt,
    /// End an exemption, the policy's as well.
    Unexempt,
}

// === impl CustomerChange ===

impl CustomerChange {
    fn deed(&self, by: &Caller, customer: CustomerHash) -> Deed {
        let object = format!("hash:{customer}");
        match self {
            Self::Credit { resource, micro } => Deed::new(by, "customer.credit", object)
                .with("tokens", Some(tokens(*micro)))
                .with("resource", resource.as_ref()),
            Self::Reset => Deed::new(by, "customer.reset", object),
            Self::Ban { until_unix_ms } => {
                Deed::new(by, "customer.ban", object).with("until_unix_ms", *until_unix_ms)
            }
            Self::Unban => Deed::new(by, "customer.unban", object),
            Self::Freeze => Deed::new(by, "customer.freeze", object),
            Self::Thaw => Deed::new(by, "customer.unfreeze", object),
            Self::Exempt => Deed::new(by, "customer.exempt", object),
            Self::Unexempt => Deed::new(by, "customer.unexempt", object),
        }
    }
}

/// Exact, as it was asked for.
fn tokens(micro: i64) -> String {
    let sign = if micro < 0 { "-" } else { "" };
    let size = Decimal::from_micro(micro.saturating_abs()).unwrap_or_default();
    format!("{sign}{size}")
}

impl Plane {
    /// The hash of a customer: from its key, or written out behind `hash:`.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn hash_of(&self, key: &str) -> Result<CustomerHash, ApiError> {
        if let Some(hash) = key.strip_prefix("hash:") {
            let hint = "give the 32 hexadecimal digits of a customer hash behind `hash:`, or the customer's key itself";
            return hash
                .parse()
                .map_err(|_| ApiError::malformed("this is no hash of a customer", hint).at("key"));
        }
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let message = format!(
                "the key is {} bytes long, allowed are 1 to {MAX_KEY_BYTES}",
                key.len()
            );
            return Err(ApiError::malformed(message, "no customer has such a key").at("key"));
        }
        Ok(self.keys.hash(key))
    }

    /// Shows a customer.
    ///
    /// # Errors
    /// When nothing is known of it.
    pub fn customer(&self, customer: CustomerHash) -> Result<CustomerView, ApiError> {
        let now = self.now();
        let state = self.lock();
        view(&state, &self.roster(&state, now), customer, now)
    }

    /// Customers by hash, starting behind `after`: those of the policy and those that were ever seen.
    #[must_use]
    pub fn customers(&self, after: Option<CustomerHash>, limit: usize) -> Vec<CustomerView> {
        let now = self.now();
        let state = self.lock();
        // Without a contract for them, nothing can be shown of strangers.
        let unknown = state
            .policies
            .compiled()
            .and_then(|policy| policy.unknown_contract());
        let strangers = state.accounts.keys().copied().filter(|hash| {
            unknown.is_some() && *hash != POOL_ACCOUNT && state.directory.get(*hash).is_none()
        });
        let hashes = state
            .directory
            .iter()
            .map(|(hash, _)| hash)
            .chain(strangers);
        let behind = hashes.filter(|hash| after.is_none_or(|after| *hash > after));
        let roster = self.roster(&state, now);
        smallest(behind, limit)
            .into_iter()
            .filter_map(|hash| view(&state, &roster, hash, now).ok())
            .collect()
    }

    /// Changes a customer.
    ///
    /// # Errors
    /// When nothing is known of it, or the change makes no sense.
    pub async fn change_customer(
        &self,
        by: &Caller,
        customer: CustomerHash,
        change: CustomerChange,
    ) -> Result<CustomerView, ApiError> {
        self.change(change.deed(by, customer), |state, batch, now| {
            if customer == POOL_ACCOUNT {
                let message = "this is the account of the pools and not a customer's";
                let hint = "change the capacity of a resource in the policy";
                return Err(ApiError::malformed(message, hint).at("key"));
            }
            view(state, &self.roster(state, now), customer, now)?;
            match change {
                CustomerChange::Credit { resource, micro } => {
                    let resource = resource_index(state, resource.as_deref())?;
                    self.adjust(state, batch, customer, now, |account, contract| {
                        account.credit(contract, resource, Micro::new(micro));
                    })?;
                }
                CustomerChange::Reset => {
                    self.adjust(state, batch, customer, now, |account, contract| {
                        for resource in 0..contract.limits.len() {
                            account.refill(contract, resource);
                        }
                    })?;
                }
                CustomerChange::Ban { until_unix_ms } => {
                    if until_unix_ms.is_some_and(|until| until <= now.unix_ms) {
                        let message = "a ban until a time that has passed bans nobody";
                        let hint = "say a time to come in Unix seconds, or lift a ban with `unban`";
                        return Err(
                            ApiError::invalid("ban_is_over", message, hint).at("until_unix_s")
                        );
                    }
                    let until = Some(until_unix_ms.unwrap_or(BAN_FOREVER));
                    say(state, batch, customer, now, |said| {
                        said.ban_until_unix_ms = until
                    })?;
                }
                CustomerChange::Unban => say(state, batch, customer, now, |said| {
                    said.ban_until_unix_ms = Some(0)
                })?,
                CustomerChange::Freeze => {
                    say(state, batch, customer, now, |said| said.frozen = Some(true))?
                }
                CustomerChange::Thaw => say(state, batch, customer, now, |said| {
                    said.frozen = Some(false)
                })?,
                CustomerChange::Exempt => {
                    say(state, batch, customer, now, |said| said.exempt = Some(true))?
                }
                CustomerChange::Unexempt => say(state, batch, customer, now, |said| {
                    said.exempt = Some(false)
                })?,
            }
            let view = view(state, &self.roster(state, now), customer, now)?;
            let outcome = view.outcome();
            Ok(Done::new(view, outcome))
        })
        .await
    }
}

impl Plane {
    pub(super) fn roster(&self, state: &State, now: Now) -> Roster {
        state.fleet.roster(self.settings.terms(), now.mono)
    }

    /// Changes the buckets of an account, and tells gateways about it.
    fn adjust(
        &self,
        state: &mut State,
        batch: &mut Batch,
        customer: CustomerHash,
        now: Now,
        change: impl FnOnce(&mut Account, &Contract<'_>),
    ) -> Result<(), ApiError> {
        let unknown = || {
            ApiError::not_found(
                "no_such_customer",
                "the customer has no contract",
                "list it in the policy",
            )
            .at("key")
        };
        let limits = state.limits_of(customer).ok_or_else(unknown)?;
        if state.is_stranger(customer) {
            let message = "the customer is not in the policy: its bucket is the gateway's own and cannot be adjusted from here";
            return Err(ApiError::conflict(
                "not_in_policy",
                message,
                "list it in the policy first",
            )
            .at("key"));
        }
        let roster = self.roster(state, now);
        let contract = Contract {
            customer,
            limits: &limits,
            expected_per_s: &[],
            roster: &roster,
        };
        let account = state
            .account(customer, &limits, now.mono, 0)
            .ok_or_else(unknown)?;
        change(account, &contract);
        for session in state.fleet.sessions_mut() {
            session.pending.insert(customer);
        }
        state.save_account(batch, customer);
        Ok(())
    }
}

/// The first `limit` of them in order, without holding or sorting the others: this runs under the lock, and they may be a million.
pub(super) fn smallest<T: Ord>(all: impl Iterator<Item = T>, limit: usize) -> BTreeSet<T> {
    let mut kept = BTreeSet::new();
    for one in all {
        if kept.len() >= limit {
            // Most are larger than all that is kept, so this is one comparison for them.
            if kept.last().is_none_or(|last| one >= *last) {
                continue;
            }
            kept.pop_last();
        }
        kept.insert(one);
    }
    kept
}

pub(super) fn resource_index(state: &State, name: Option<&str>) -> Result<usize, ApiError> {
    let resources = state
        .policies
        .compiled()
        .map_or(&[][..], |policy| &policy.resources);
    let known = || {
        resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, resources) {
        (_, []) => Err(ApiError::not_found(
            "no_policy",
            "no policy has been applied yet, so there are no resources",
            "run `forebay policy apply FILE`",
        )),
        (None, [_]) => Ok(0),
        (None, _) => {
            let hint = format!("name one of: {}", known());
            Err(ApiError::malformed(
                "the policy has several resources and the request names none",
                hint,
            )
            .at("resource"))
        }
        (Some(name), _) => resources
            .iter()
            .position(|resource| resource.name == name)
            .ok_or_else(|| {
                ApiError::invalid(
                    "no_such_resource",
                    format!("`{name}` is not a resource"),
                    format!("use one of: {}", known()),
                )
                .at("resource")
            }),
    }
}

fn say(
    state: &mut State,
    batch: &mut Batch,
    customer: CustomerHash,
    now: Now,
    change: impl FnOnce(&mut Override),
) -> Result<(), ApiError> {
    let mut said = state.directory.override_of(customer);
    change(&mut said);
    let unknown = state
        .policies
        .compiled()
        .and_then(|policy| policy.unknown_contract());
    let value = serde_json::to_vec(&said).map_err(|error| {
        ApiError::from(StoreError::Damaged {
            what: "override",
            reason: error.to_string(),
        })
    })?;
    batch.put(Table::Overrides, customer.0, value);
    if state.directory.set_override(customer, said, unknown) {
        state.begin_lives(batch, &[customer], now.mono);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::cmp::Ordering;

    /// Counts how often it is compared.
    struct Counted<'a>(u64, &'a Cell<usize>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }

    impl Eq for Counted<'_> {}

    #[test]
    fn a_page_of_a_long_list_costs_about_one_comparison_for_each_that_is_not_on_it() {
        let compared = Cell::new(0);
        let scrambled = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let all = (0..100_000).map(|n| Counted(scrambled(n), &compared));
        assert_eq!(smallest(all, 10).len(), 10);
        assert!(compared.get() < 110_000, "{}", compared.get());
    }

    proptest! {
        #[test]
        fn a_page_is_the_beginning_of_the_sorted_list(all: BTreeSet<u8>, seed: u64, limit in 0..40_usize) {
            let mut mixed: Vec<u8> = all.iter().copied().collect();
            mixed.sort_by_key(|one| u64::from(*one).wrapping_add(1).wrapping_mul(seed | 1));
            let expected: BTreeSet<u8> = all.iter().copied().take(limit).collect();
            prop_assert_eq!(smallest(mixed.into_iter(), limit), expected);
        }
    }
}
