//! From a policy document to one side of a comparison.

use crate::document::CheckedPolicy;
use forebay_core::Micro;
use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::policy::ContractIndex;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_policy::{CompiledCustomer, Sharing};
use forebay_sharing::{Group, Lend, Settings, Terms, to_per_s};
use forebay_simulator::pool::what_if::{Division, Member, Pool, Side};
use std::collections::HashMap;
use std::path::Path;

/// What a trace counts.
const REQUESTS: &str = "requests";
/// Seconds from one cycle to the next where the policy divides nothing: forecasts change then.
const CYCLE_S: u32 = 300;
const MS_PER_S: u32 = 1_000;

/// A policy, and the resource of it that the usage is of.
pub(super) struct Document<'a> {
    policy: &'a CheckedPolicy,
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
        let customers = policy.compiled.customers.iter().enumerate();
        Ok(Self {
            policy,
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
        let policy = &self.policy.compiled.policy;
        let sharing = self.policy.sharing.as_ref();
        let cycle_s = sharing.map_or(CYCLE_S, |sharing| {
            (sharing.interval_ms.saturating_add(MS_PER_S / 2) / MS_PER_S).max(1)
        });
        let shadow = &policy.shadow;
        let pool = policy.pool(self.resource).map(|pool| Pool {
            capacity_per_s: to_per_s(pool.capacity),
            depth: tokens(pool.depth),
            protected_share: f64::from(shadow.protected_permille) / 1e3,
            claimed_quantile: shadow
                .enabled
                .then(|| f64::from(shadow.quantile_permille) / 1e3),
        });
        Side {
            pool,
            division: sharing.map(|sharing| self.division(sharing, cycle_s)),
            cycle_s,
            members: names
                .iter()
                .map(|name| self.member(name, starts_s))
                .collect(),
        }
    }

    /// A customer that is not listed has the contract of the unknown ones, as if each came from a source of its own.
    fn member(&self, name: &str, starts_s: i64) -> Member {
        let position = self.listed.get(name).copied();
        let customer = position.and_then(|position| self.policy.compiled.customers.get(position));
        let policy = &self.policy.compiled.policy;
        let row = match customer {
            Some(customer) => Some(customer.contract),
            None => policy.unknown_contract(),
        };
        let Some((row, contract)) = row.and_then(|row| Some((row, policy.contract(row)?))) else {
            return Member::refused();
        };
        let limits = contract.limits.at(self.resource);
        let sharing = self.policy.sharing.as_ref();
        let group = position.and_then(|position| *sharing?.group_of.get(position)?);
        Member {
            tier: contract.tier,
            priority: contract.priority,
            weight: f64::from(contract.weight),
            group,
            terms: Terms {
                guarantee_per_s: to_per_s(limits.guarantee),
                rate_per_s: to_per_s(limits.rate),
                ceiling_per_s: to_per_s(limits.ceiling),
                lend: sharing.map_or(Lend::Auto, |sharing| self.lend(sharing, row)),
            },
            burst: tokens(limits.burst),
            borrow_depth: tokens(limits.borrow_limit),
            refused_until_s: customer.map_or(0, |customer| refused_until_s(customer, starts_s)),
            is_exempt: customer.is_some_and(|customer| customer.exempt),
        }
    }

    fn division(&self, sharing: &Sharing, cycle_s: u32) -> Division {
        let groups = sharing.groups.iter().map(|group| Group {
            parent: group.parent,
            cap_per_s: PerResource::only_first(group.cap.at(self.resource).map(to_per_s)),
        });
        Division {
            settings: Settings {
                quantiles: sharing.quantiles,
                reserve_share: sharing.reserve_share,
                with_credits: sharing.with_credits,
                interval_s: f64::from(cycle_s),
                ..Settings::default()
            },
            groups: groups.collect(),
        }
    }

    fn lend(&self, sharing: &Sharing, row: ContractIndex) -> Lend {
        let limits = sharing.lend_limits.get(usize::from(row.0));
        match limits.and_then(|limits| *limits.at(self.resource)) {
            None => Lend::Auto,
            Some(limit) if limit.get() == 0 => Lend::Never,
            Some(limit) => Lend::UpTo(to_per_s(limit)),
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

fn tokens(amount: Micro) -> f64 {
    amount.get() as f64 / MICRO_PER_TOKEN as f64
}
