//! What one policy changes against another: settings, contracts, and customers.
//!
//! Documents are compared as they take effect, with their defaults: two that differ only in the order of things, or in writing a default
//! out, are the same. A textual diff was the worse alternative: it shows neither that a customer's limits are others because it has
//! moved to another contract, nor that a line in a long list changes nothing.

use crate::compile::{DEFAULT_POOL_DEPTH_MS, DEFAULT_PREFIX_LEN_V4, DEFAULT_PREFIX_LEN_V6};
use forebay_wire::policy::{
    AnomalyAction, Contract, Customer, Decimal, PolicyDocument, UnknownAction,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Customers that are listed. A policy may have millions, and what moves more of them than this is not read line by line.
const MAX_LISTED: usize = 10_000;

/// What one policy changes against another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyDiff {
    /// Of the policy as a whole: dry run, unknown customers, resources, shadow buckets.
    pub settings: Vec<Change>,
    /// Contracts that come, go or change, by name.
    pub contracts: Vec<Difference>,
    /// Customers that come, go or change, by key. One whose contract changes but that stays with it is not listed.
    pub customers: Vec<Difference>,
    /// Customers that come, go or change but are not listed, because there are too many.
    pub customers_unlisted: usize,
}

/// What happens to a contract or a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// Name of the contract, or key of the customer.
    pub name: String,
    /// Whether it comes, goes or changes.
    pub kind: DifferenceKind,
    /// Customers that have the contract in the newer policy; absent for a customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customers: Option<usize>,
    /// Field by field. For a customer that moves to another contract, its limits as well.
    pub changes: Vec<Change>,
}

/// Whether something comes, goes or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DifferenceKind {
    /// Only the newer policy has it.
    Added,
    /// Only the older policy has it.
    Removed,
    /// Both have it.
    Changed,
}

/// A field of which the value changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// Its path, such as `requests.rate_per_s`.
    pub field: String,
    /// The older value, exact; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The newer value, exact; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Fields that have a value, by path.
type Fields = BTreeMap<String, String>;

/// Compares two documents that the door has let through.
#[must_use]
pub fn diff(before: &PolicyDocument, after: &PolicyDocument) -> PolicyDiff {
    let contracts_before = contracts(before);
    let contracts_after = contracts(after);
    let mut customers = customers(before, after, &contracts_before, &contracts_after);
    let customers_unlisted = customers.len().saturating_sub(MAX_LISTED);
    customers.truncate(MAX_LISTED);
    PolicyDiff {
        settings: changes(&settings(before), &settings(after)),
        contracts: contract_differences(after, &contracts_before, &contracts_after),
        customers,
        customers_unlisted,
    }
}

// === impl PolicyDiff ===

impl PolicyDiff {
    /// True if the one takes effect as the other does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.contracts.is_empty() && self.customers.is_empty()
    }
}

impl fmt::Display for PolicyDiff {
    /// A line for each setting, contract and customer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.settings {
            writeln!(f, "policy: {change}")?;
        }
        for (what, differences) in [("contract", &self.contracts), ("customer", &self.customers)] {
            for difference in differences {
                writeln!(f, "{what} {difference}")?;
            }
        }
        if self.customers_unlisted > 0 {
            writeln!(f, "{} more customers", self.customers_unlisted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(customers) = self.customers {
            write!(f, " ({customers} customers)")?;
        }
        match self.kind {
            DifferenceKind::Removed => return f.write_str(": removed"),
            DifferenceKind::Added => f.write_str(": added")?,
            DifferenceKind::Changed => {}
        }
        let mut separator = if self.kind == DifferenceKind::Added {
            ", "
        } else {
            ": "
        };
        for change in &self.changes {
            write!(f, "{separator}{change}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.as_deref().unwrap_or("none").to_owned();
        write!(
            f,
            "{} {} -> {}",
            self.field,
            text(&self.before),
            text(&self.after)
        )
    }
}

fn changes(before: &Fields, after: &Fields) -> Vec<Change> {
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |field: &String| {
        let (before, after) = (before.get(field), after.get(field));
        (before != after).then(|| Change {
            field: field.clone(),
            before: before.cloned(),
            after: after.cloned(),
        })
    };
    fields.into_iter().filter_map(change).collect()
}

fn contract_differences(
    after: &PolicyDocument,
    contracts_before: &BTreeMap<&str, Fields>,
    contracts_after: &BTreeMap<&str, Fields>,
) -> Vec<Difference> {
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for customer in &after.customers {
        let count = users.entry(customer.contract.as_str()).or_default();
        *count = count.saturating_add(1);
    }
    let names: BTreeSet<&str> = contracts_before
        .keys()
        .chain(contracts_after.keys())
        .copied()
        .collect();
    let difference = |name: &str| {
        let customers = Some(users.get(name).copied().unwrap_or(0));
        difference(
            name,
            customers,
            contracts_before.get(name),
            contracts_after.get(name),
        )
    };
    names.into_iter().filter_map(difference).collect()
}

fn customers(
    before: &PolicyDocument,
    after: &PolicyDocument,
    contracts_before: &BTreeMap<&str, Fields>,
    contracts_after: &BTreeMap<&str, Fields>,
) -> Vec<Difference> {
    let customers_before = by_key_of(before);
    let customers_after = by_key_of(after);
    let keys: BTreeSet<&str> = customers_before
        .keys()
        .chain(customers_after.keys())
        .copied()
        .collect();
    let difference = |key: &str| {
        let (old, new) = (customers_before.get(key), customers_after.get(key));
        if old == new {
            return None;
        }
        let is_move = matches!((old, new), (Some(old), Some(new)) if old.contract != new.contract);
        let fields = |customer: &&&Customer, contracts: &BTreeMap<&str, Fields>| {
            let mut fields = customer_fields(customer);
            let limits = contracts.get(customer.contract.as_str());
            fields.extend(limits.filter(|_| is_move).cloned().unwrap_or_default());
            fields
        };
        let old = old.map(|old| fields(&old, contracts_before));
        let new = new.map(|new| fields(&new, contracts_after));
        difference(key, None, old.as_ref(), new.as_ref())
    };
    keys.into_iter().filter_map(difference).collect()
}

fn difference(
    name: &str,
    customers: Option<usize>,
    before: Option<&Fields>,
    after: Option<&Fields>,
) -> Option<Difference> {
    let kind = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => DifferenceKind::Added,
        (Some(_), None) => DifferenceKind::Removed,
        (Some(_), Some(_)) => DifferenceKind::Changed,
    };
    let none = Fields::new();
    let changes = changes(before.unwrap_or(&none), after.unwrap_or(&none));
    (!changes.is_empty()).then(|| Difference {
        name: name.to_owned(),
        kind,
        customers,
        changes,
    })
}

fn by_key_of(document: &PolicyDocument) -> BTreeMap<&str, &Customer> {
    let customers = document.customers.iter();
    customers
        .map(|customer| (customer.key.as_str(), customer))
        .collect()
}

fn contracts(document: &PolicyDocument) -> BTreeMap<&str, Fields> {
    let contracts = document.contracts.iter();
    contracts
        .map(|(name, contract)| (name, contract_fields(contract)))
        .collect()
}

fn contract_fields(contract: &Contract) -> Fields {
    let mut fields = Fields::new();
    let mut set = |field: String, value: String| fields.insert(field, value);
    set("tier".to_owned(), contract.tier.to_string());
    set("priority".to_owned(), contract.priority.to_string());
    set("weight".to_owned(), contract.weight.to_string());
    if let Some(action) = contract.anomaly {
        set("anomaly".to_owned(), name_of(action));
    }
    for (resource, limit) in contract.limits.iter() {
        let ceiling = limit
            .ceiling_per_s
            .filter(|ceiling| *ceiling > limit.rate_per_s);
        let borrow_limit = ceiling.map(|ceiling| {
            let a_second = ceiling.micro().saturating_sub(limit.rate_per_s.micro());
            limit
                .borrow_limit
                .unwrap_or(Decimal::from_micro(a_second).unwrap_or_default())
        });
        for (name, value) in [
            ("rate_per_s", Some(limit.rate_per_s)),
            ("burst", Some(limit.burst)),
            ("guarantee_per_s", Some(limit.guarantee_per_s)),
            ("ceiling_per_s", ceiling),
            ("debt_limit", Some(limit.debt_limit)),
            ("borrow_limit", borrow_limit),
            ("lend_limit_per_s", limit.lend_limit_per_s),
        ] {
            if let Some(value) = value {
                set(format!("{resource}.{name}"), value.to_string());
            }
        }
    }
    fields
}

fn name_of(action: AnomalyAction) -> String {
    let name = match action {
        AnomalyAction::Off => "off",
        AnomalyAction::Flag => "flag",
        AnomalyAction::CapAtContract => "cap_at_contract",
    };
    name.to_owned()
}

fn customer_fields(customer: &Customer) -> Fields {
    let ban = match customer.ban_until_unix_s {
        _ if customer.banned => Some("without an end".to_owned()),
        Some(until) if until > 0 => Some(format!("until {until}")),
        _ => None,
    };
    let flag = |is_set: bool| is_set.then(|| "true".to_owned());
    let fields = [
        ("contract", Some(customer.contract.clone())),
        ("group", customer.group.clone()),
        ("banned", ban),
        ("exempt", flag(customer.exempt)),
        ("frozen", flag(customer.frozen)),
    ];
    let set = fields.into_iter();
    set.filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
        .collect()
}

fn settings(document: &PolicyDocument) -> Fields {
    let mut fields = Fields::new();
    let mut set = |field: String, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(field, value);
        }
    };
    set("dry_run".to_owned(), Some(document.dry_run.to_string()));
    let unknown = &document.unknown;
    let action = match unknown.action {
        UnknownAction::DefaultContract => "default_contract",
        UnknownAction::Commons => "commons",
        UnknownAction::Deny => "deny",
    };
    let prefix = |given: Option<u8>, default: u8| {
        let is_used = unknown.action == UnknownAction::Commons;
        is_used.then(|| given.unwrap_or(default).to_string())
    };
    let shadow = &document.shadow;
    let contention = &shadow.contention;
    for (field, value) in [
        ("unknown.action", Some(action.to_owned())),
        ("unknown.contract", unknown.contract.clone()),
        (
            "unknown.prefix_len_v4",
            prefix(unknown.prefix_len_v4, DEFAULT_PREFIX_LEN_V4),
        ),
        (
            "unknown.prefix_len_v6",
            prefix(unknown.prefix_len_v6, DEFAULT_PREFIX_LEN_V6),
        ),
        ("shadow.enabled", Some(shadow.enabled.to_string())),
        ("shadow.quantile", Some(shadow.quantile.to_string())),
        ("shadow.span_ms", Some(shadow.span_ms.to_string())),
        ("shadow.depth_factor", Some(shadow.depth_factor.to_string())),
        (
            "shadow.protected_share",
            Some(shadow.protected_share.to_string()),
        ),
        (
            "shadow.contention.window_ms",
            Some(contention.window_ms.to_string()),
        ),
        (
            "shadow.contention.needed",
            Some(contention.needed.to_string()),
        ),
        (
            "shadow.contention.windows",
            Some(contention.windows.to_string()),
        ),
    ] {
        set(field.to_owned(), value);
    }
    if let Some(sharing) = &document.sharing {
        for (field, value) in [
            ("interval_ms", sharing.interval_ms.to_string()),
            ("quantiles", format!("{:?}", sharing.quantiles)),
            ("reserve_share", sharing.reserve_share.to_string()),
            ("credits", sharing.credits.to_string()),
        ] {
            set(format!("sharing.{field}"), Some(value));
        }
        if let Some(spillover) = &sharing.spillover {
            for (field, value) in [
                ("threshold_score", spillover.threshold_score.to_string()),
                ("headroom_share", spillover.headroom_share.to_string()),
                ("ttl_ms", spillover.ttl_ms.to_string()),
                ("protect", format!("{:?}", spillover.protect).to_lowercase()),
            ] {
                set(format!("sharing.spillover.{field}"), Some(value));
            }
        }
        if let Some(prioritize) = &sharing.prioritize {
            for (field, value) in [
                ("most", prioritize.most.to_string()),
                ("error_budget", prioritize.error_budget.to_string()),
                ("half_life_ms", prioritize.half_life_ms.to_string()),
            ] {
                set(format!("sharing.prioritize.{field}"), Some(value));
            }
        }
        if let Some(tuning) = &sharing.tuning {
            let reserve = format!("{:?}", tuning.reserve_share);
            let quantiles = tuning.quantiles.map(|ranges| format!("{ranges:?}"));
            for (field, value) in [
                ("reserve_share", Some(reserve)),
                ("quantiles", quantiles),
                ("loss_most", Some(tuning.loss_most.to_string())),
            ] {
                set(format!("sharing.tuning.{field}"), value);
            }
        }
    }
    if let Some(anomaly) = &document.anomaly {
        let set_out = anomaly.cap_from_score.map(|score| score.to_string());
        set("anomaly.action".to_owned(), Some(name_of(anomaly.action)));
        set("anomaly.cap_from_score".to_owned(), set_out);
    }
    for event in &document.events {
        let whom = match event.contracts.as_slice() {
            [] => "all".to_owned(),
            contracts => contracts.join(", "),
        };
        let (from, until, factor) = (event.from_unix_s, event.until_unix_s, event.factor);
        let says = format!("{from} to {until}, {factor} times, {whom}");
        set(format!("events.{}", event.name), Some(says));
    }
    for (name, group) in document.groups.iter() {
        let parent = group.parent.as_deref().unwrap_or("none");
        set(format!("groups.{name}.parent"), Some(parent.to_owned()));
        for (resource, cap) in group.cap_per_s.iter() {
            let field = format!("groups.{name}.cap_per_s.{resource}");
            set(field, Some(cap.to_string()));
        }
    }
    for (name, resource) in document.resources.iter() {
        let depth_ms = resource.depth_ms.unwrap_or(DEFAULT_POOL_DEPTH_MS);
        let depth_ms = resource.capacity_per_s.map(|_| depth_ms.to_string());
        let capacity = resource.capacity_per_s.map(|capacity| capacity.to_string());
        let capacity = capacity.unwrap_or_else(|| "no pool".to_owned());
        set(format!("resources.{name}.capacity_per_s"), Some(capacity));
        set(format!("resources.{name}.depth_ms"), depth_ms);
    }
    fields
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
