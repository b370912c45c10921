//! From a policy document to one side of a comparison.

use crate::allocation::Rule;
use crate::document::CheckedPolicy;
use crate::dry_run::Reading;
use crate::keys::Keys;
use forebay_core::policy::ContractIndex;
use forebay_core::resource::ResourceIndex;
use forebay_policy::CompiledCustomer;
use forebay_simulator::pool::what_if::{Member, Side};
use std::collections::HashMap;
use std::path::Path;

/// What a trace counts.
const REQUESTS: &str = "requests";
const MS_PER_S: u32 = 1_000;

/// A policy, and the resource of it that the usage is of.
pub(super) struct Document<'a> {
    policy: &'a CheckedPolicy,
    rule: Option<Rule>,
    resource: ResourceIndex,
    /// Positions of customers by their keys.
    listed: HashMap<&'a str, usize>,
}

// === impl Document ===

impl<'a> Document<'a> {
    /// # Errors
    /// When it is not clear which resource the usage is of.
    pub(super) fn new(file: &Path, policy: &'a CheckedPolicy) -> Result<Self, String> {
        let resources = &policy.compiled.policy.resources;
        let named = resources
            .iter()
            .position(|resource| resource.name == REQUESTS);
        let position = match (named, resources.len()) {
            (Some(position), _) => position,
            (None, 1) => 0,
            (None, _) => {
                return Err(format!(
                    "{}: the recorded usage is of `{REQUESTS}`, and none of the resources has that name: give one that name, or leave the others out",
                    file.display()
                ));
            }
        };
        let rows = (0..=u16::MAX).map(ContractIndex);
        let rows: Vec<ContractIndex> = rows.take(policy.compiled.policy.contracts.len()).collect();
        // No hash leaves this process.
        let keys = Keys::new(None, None).map_err(|error| error.to_string())?;
        let sharing = policy.sharing.as_ref();
        let customers = policy.compiled.customers.iter().enumerate();
        Ok(Self {
            policy,
            rule: sharing
                .map(|sharing| Rule::of(sharing, &policy.compiled.customers, &rows, &keys)),
            resource: ResourceIndex::new(position).unwrap_or_default(),
            listed: customers
                .map(|(position, customer)| (customer.key.as_str(), position))
                .collect(),
        })
    }

    /// Keys of those who have a guarantee.
    pub(super) fn guaranteed(&self) -> impl Iterator<Item = &'a str> {
        let policy = self.policy;
        let resource = self.resource;
        let customers = policy.compiled.customers.iter();
        let has_one = move |customer: &&CompiledCustomer| {
            let contract = policy.compiled.policy.contract(customer.contract);
            contract.is_some_and(|contract| contract.limits.at(resource).guarantee.get() > 0)
        };
        customers
            .filter(has_one)
            .map(|customer| customer.key.as_str())
    }

    /// How many of these it lists.
    pub(super) fn listed(&self, names: &[String]) -> usize {
        let listed = |name: &&String| self.listed.contains_key(name.as_str());
        names.iter().filter(listed).count()
    }

    /// What it has for customers of these names, in usage that begins then.
    pub(super) fn side(&self, names: &[String], starts_s: i64) -> Side {
        let reading = Reading {
            policy: &self.policy.compiled.policy,
            rule: self.rule.as_ref(),
            resource: self.resource,
        };
        let members = names.iter();
        Side {
            members: members
                .map(|name| self.member(&reading, name, starts_s))
                .collect(),
            ..reading.side()
        }
    }

    /// A customer that is not listed has the contract of the unknown ones, as if each came from a source of its own.
    fn member(&self, reading: &Reading<'_>, name: &str, starts_s: i64) -> Member {
        let position = self.listed.get(name).copied();
        let customer = position.and_then(|position| self.policy.compiled.customers.get(position));
        let row = match customer {
            Some(customer) => Some(customer.contract),
            None => reading.policy.unknown_contract(),
        };
        let sharing = self.policy.sharing.as_ref();
        let group = position.and_then(|position| *sharing?.group_of.get(position)?);
        let member = reading.member(row, group);
        match customer {
            Some(customer) => Member {
                refused_until_s: refused_until_s(customer, starts_s),
                is_exempt: customer.exempt,
                ..member
            },
            None => member,
        }
    }
}

fn refused_until_s(customer: &CompiledCustomer, starts_s: i64) -> u64 {
    if customer.frozen || customer.ban_until_unix_ms == u64::MAX {
        return u64::MAX;
    }
    let until_s = customer.ban_until_unix_ms.div_ceil(u64::from(MS_PER_S));
    let starts_s = u64::try_from(starts_s).unwrap_or(0);
    until_s.saturating_sub(starts_s)
}
