//! Two policies in one: the customers of a share go by the newer one, all others by the older one.
//!
//! A policy that is tried at a share of the gateways was the worse alternative: a customer's contract is divided among gateways, so two of
//! them under different contracts
//! would each hold a part of another whole, and their sum would be that of neither. By customer, each contract is one at all gateways, and
//! gateways need not know
//! that two policies are in force: what they get is one document.
//!
//! What holds for all customers at once (resources, the section for unknown customers, shadow buckets, sharing, anomalies, events, groups
//! that both policies have) cannot differ between two
//! customers, so it must be the same in both.

use forebay_core::limits::MAX_NAME_BYTES;
use forebay_wire::key::KeySecret;
use forebay_wire::policy::{Customer, Named, PolicyDocument};
use std::collections::{BTreeMap, BTreeSet};

/// Places that are listed of those that differ.
const MAX_LISTED: usize = 20;
const PERCENT_ALL: u8 = 100;
/// Part of a hash that decides: what is left of a hundred is of no account.
const HUNDREDTH: u64 = u64::MAX / PERCENT_ALL as u64;

/// Which customers go by the newer policy. The same ones at each time and in each process; of a larger share all of a smaller one's, and
/// more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerShare {
    percent: u8,
    hasher: KeySecret,
}

/// The policies differ in what holds for all customers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} not the same as in the policy in force, and cannot be so for a part of the customers: put that in force for all of them first",
    listed(.paths)
)]
pub struct NotForAShare {
    /// Places in the documents; at least one.
    pub paths: Vec<String>,
}

// === impl CustomerShare ===

impl CustomerShare {
    /// So many percent; more than a hundred are all. Another salt makes it other customers.
    #[must_use]
    pub fn new(percent: u8, salt: u128) -> Self {
        // 32 hexadecimal digits are a secret, always.
        let hasher = KeySecret::from_hex(&format!("{salt:032x}"));
        Self {
            percent,
            hasher: hasher.unwrap_or_else(|_| KeySecret::development()),
        }
    }

    /// Whether the customer with this key is one of them.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        if self.percent >= PERCENT_ALL {
            return true;
        }
        let (place, _) = self.hasher.hash(key.as_bytes()).parts();
        place < HUNDREDTH.saturating_mul(u64::from(self.percent))
    }
}

/// A document in which the customers of a share are treated exactly as by `newer`, and all others exactly as by `older`. Of no customers
/// that is `older` itself, of all
/// of them `newer`.
///
/// A contract that both have under one name and that is not the same in both stands there twice; that of `newer` then has `.new` behind
/// its name.
/// The document is to be compiled as any other: guarantees of both together may be more than there is, although each policy fits by itself.
///
/// # Errors
/// When the policies differ in what holds for all customers.
pub fn merge(
    older: &PolicyDocument,
    newer: &PolicyDocument,
    share: &CustomerShare,
) -> Result<PolicyDocument, NotForAShare> {
    let paths = differences(older, newer);
    if !paths.is_empty() {
        return Err(NotForAShare { paths });
    }
    match share.percent {
        0 => return Ok(older.clone()),
        PERCENT_ALL.. => return Ok(newer.clone()),
        _ => {}
    }
    let mut merged = PolicyDocument {
        customers: Vec::with_capacity(older.customers.len()),
        ..older.clone()
    };
    let renamed = add_contracts(&mut merged, newer);
    for event in &mut merged.events {
        let also: Vec<String> = event
            .contracts
            .iter()
            .filter_map(|name| renamed.get(name.as_str()).cloned())
            .collect();
        event.contracts.extend(also);
    }
    for (name, group) in newer.groups.iter() {
        if merged.groups.get(name).is_none() {
            merged.groups.insert(name, group.clone());
        }
    }
    let as_newer = |customer: &Customer| Customer {
        contract: renamed
            .get(customer.contract.as_str())
            .unwrap_or(&customer.contract)
            .clone(),
        ..customer.clone()
    };
    let by_key: BTreeMap<&str, &Customer> = newer
        .customers
        .iter()
        .map(|customer| (customer.key.as_str(), customer))
        .collect();
    let known: BTreeSet<&str> = older
        .customers
        .iter()
        .map(|customer| customer.key.as_str())
        .collect();
    for customer in &older.customers {
        match share.takes(&customer.key) {
            false => merged.customers.push(customer.clone()),
            true => {
                let customer = by_key.get(customer.key.as_str());
                merged
                    .customers
                    .extend(customer.map(|customer| as_newer(customer)));
            }
        }
    }
    let added = newer.customers.iter();
    let added = added.filter(|customer| !known.contains(customer.key.as_str()));
    let added = added.filter(|customer| share.takes(&customer.key));
    merged.customers.extend(added.map(as_newer));
    Ok(merged)
}

/// Adds the contracts of a policy, and returns the names of those that have another one there. It does not depend on the share: while that
/// grows, rows and names stay.
fn add_contracts<'a>(
    merged: &mut PolicyDocument,
    newer: &'a PolicyDocument,
) -> BTreeMap<&'a str, String> {
    let mut renamed = BTreeMap::new();
    for (name, contract) in newer.contracts.iter() {
        match merged.contracts.get(name) {
            None => merged.contracts.insert(name, contract.clone()),
            Some(older) if older == contract => {}
            Some(_) => {
                let free = free_name(name, &merged.contracts, &newer.contracts);
                merged.contracts.insert(free.clone(), contract.clone());
                renamed.insert(name, free);
            }
        }
    }
    renamed
}

fn free_name<T>(name: &str, merged: &Named<T>, newer: &Named<T>) -> String {
    let mut ending = String::from(".new");
    let mut tried = 1_u32;
    loop {
        let room = MAX_NAME_BYTES.saturating_sub(ending.len());
        // Names are ASCII.
        let start: String = name.chars().take(room).collect();
        let free = format!("{start}{ending}");
        if merged.get(&free).is_none() && newer.get(&free).is_none() {
            return free;
        }
        tried = tried.saturating_add(1);
        ending = format!(".new{tried}");
    }
}

/// Where the policies differ in what holds for all customers. All fields are named, so that one that is added has to be thought of here.
fn differences(older: &PolicyDocument, newer: &PolicyDocument) -> Vec<String> {
    let PolicyDocument {
        version,
        dry_run,
        unknown,
        resources: _,
        shadow,
        sharing,
        anomaly,
        events,
        groups: _,
        contracts: _,
        customers: _,
    } = older;
    let mut paths = Vec::new();
    for (place, is_same) in [
        ("version", *version == newer.version),
        ("dry_run", *dry_run == newer.dry_run),
        ("unknown", *unknown == newer.unknown),
        ("shadow", *shadow == newer.shadow),
        ("sharing", *sharing == newer.sharing),
        ("anomaly", *anomaly == newer.anomaly),
        ("events", *events == newer.events),
    ] {
        if !is_same {
            paths.push(place.to_owned());
        }
    }
    let resources = older.resources.names().chain(newer.resources.names());
    let resources: BTreeSet<&str> = resources.collect();
    let differ = |name: &&str| older.resources.get(name) != newer.resources.get(name);
    let resources = resources.into_iter().filter(differ);
    paths.extend(resources.map(|name| format!("resources.{name}")));
    // Customers that neither policy lists have one contract.
    if let Some(name) = older.unknown.contract.as_deref()
        && older.contracts.get(name) != newer.contracts.get(name)
    {
        paths.push(format!("contracts.{name}"));
    }
    let groups = older.groups.iter();
    let groups = groups.filter(|(name, group)| {
        let other = newer.groups.get(name);
        other.is_some_and(|other| other != *group)
    });
    paths.extend(groups.map(|(name, _)| format!("groups.{name}")));
    paths
}

fn listed(paths: &[String]) -> String {
    let is = match paths.len() {
        1 => "is",
        _ => "are",
    };
    let some = paths.get(..MAX_LISTED).unwrap_or(paths).join(", ");
    match paths.len().saturating_sub(MAX_LISTED) {
        0 => format!("{some} {is}"),
        more => format!("{some} and {more} more {is}"),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
