//! The part of a document that only a control plane goes by: how pools are divided among customers, linked accounts, lending.
//!
//! It is compiled apart from the tables, because gateways never see it: they are told what the division comes to. In one pass with the
//! rest, its code would lie in the plugin as well.

use crate::anomaly::{CompiledEvent, events};
use crate::check;
use crate::compile::Compiled;
use crate::compile::tokens;
use crate::error::{Mistakes, PolicyError, Problem};
use crate::tuning::{Tuning, tuning_of};
use forebay_core::amount::Rate;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_wire::policy::{self as wire, Decimal, Limit, Named, PolicyDocument, Protect};
use std::collections::BTreeMap;

/// Shortest and longest time between two divisions, in milliseconds.
const INTERVAL_MS: (u64, u64) = (10_000, 3_600_000);
/// Headroom is given for so long at least and at most, in milliseconds.
const HEADROOM_MS: (u64, u64) = (60_000, 3_600_000);
/// Shortest and longest half-life of a raised priority, in milliseconds.
const HALF_LIFE_MS: (u64, u64) = (60_000, 86_400_000);
/// Groups that a policy can have.
const MAX_GROUPS: usize = 65_536;
/// How deep groups may be nested.
const MAX_DEPTH: usize = 8;

/// How the pools are divided.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    /// From one division to the next, in milliseconds.
    pub interval_ms: u32,
    /// For tiers 1, 2 and 3: which quantile of its forecast a customer is allocated.
    pub quantiles: [f64; 3],
    /// The part of a capacity that is nobody's until it is asked for.
    pub reserve_share: f64,
    /// Whether who has lent most goes first among equals.
    pub with_credits: bool,
    /// When there is room before a spike; none where nobody is scored.
    pub spillover: Option<Spillover>,
    /// How priorities move; none where they stay.
    pub prioritize: Option<Prioritize>,
    /// Which other values are tried; none where all cycles go by these.
    pub tuning: Option<Tuning>,
    /// Events that were announced, and make no scores; none where nobody is scored.
    pub events: Vec<CompiledEvent>,
    /// Linked accounts; a group lies behind the one that it is a part of.
    pub groups: Vec<CompiledGroup>,
    /// For each customer of the document, the innermost group that it belongs to.
    pub group_of: Vec<Option<usize>>,
    /// For each row of the contract table: how much of the guarantee may be lent at most; none: all of it.
    pub lend_limits: Vec<PerResource<Option<Rate>>>,
}

/// When a pair of customers is worth room before the spike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spillover {
    /// Pairs with a score above this.
    pub threshold_score: f64,
    /// The largest part of a capacity that is given.
    pub headroom_share: f64,
    /// For how long, in milliseconds.
    pub ttl_ms: u32,
    /// For whom.
    pub protect: Protect,
}

/// How priorities move with how fast the error budgets of guarantees are used up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prioritize {
    /// By so much at most.
    pub most: u8,
    /// The part of what is guaranteed that may be denied.
    pub error_budget: f64,
    /// A raise falls by half in this time, in milliseconds.
    pub half_life_ms: u32,
}

/// Linked accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledGroup {
    /// Its name.
    pub name: String,
    /// The group that it is a part of: a position before its own.
    pub parent: Option<usize>,
    /// Upper bound of all members' allocations together.
    pub cap: PerResource<Option<Rate>>,
}

/// Compiles what a document says about sharing; none where it says nothing.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn sharing(
    document: &PolicyDocument,
    compiled: &Compiled,
) -> Result<Option<Sharing>, PolicyError> {
    let mut mistakes = Mistakes::default();
    let Some(written) = &document.sharing else {
        without_effect(&mut mistakes, document);
        return mistakes.into_result(None);
    };
    if document
        .resources
        .iter()
        .all(|(_, resource)| resource.capacity_per_s.is_none())
    {
        let because = "without a resource that has a capacity_per_s";
        mistakes.add("sharing", Problem::NoEffect { because });
    }
    check::range(
        &mut mistakes,
        "sharing.interval_ms",
        u64::from(written.interval_ms),
        INTERVAL_MS.0,
        INTERVAL_MS.1,
    );
    for (position, quantile) in written.quantiles.iter().enumerate() {
        let path = format!("sharing.quantiles[{position}]");
        check::permille(&mut mistakes, &path, *quantile, 500, 990);
    }
    check::permille(
        &mut mistakes,
        "sharing.reserve_share",
        written.reserve_share,
        0,
        900,
    );
    let spillover = written.spillover.as_ref();
    let spillover = spillover.map(|written| spillover_of(&mut mistakes, written));
    let events = match spillover {
        Some(_) => events(&mut mistakes, document),
        None => Vec::new(),
    };
    let prioritize = written.prioritize.as_ref();
    let prioritize = prioritize.map(|written| prioritize_of(&mut mistakes, written));
    let tuning = written.tuning.as_ref();
    let tuning = tuning.map(|tuning| tuning_of(&mut mistakes, written, tuning));
    let groups = groups(&mut mistakes, document);
    let group_of = members(&mut mistakes, document, &groups);
    caps(&mut mistakes, compiled, &groups, &group_of);
    let lend_limits = document
        .contracts
        .iter()
        .map(|(name, contract)| lend_limits(&mut mistakes, document, name, &contract.limits))
        .collect();
    mistakes.into_result(Some(Sharing {
        interval_ms: written.interval_ms,
        quantiles: written.quantiles,
        reserve_share: written.reserve_share,
        with_credits: written.credits,
        spillover,
        prioritize,
        tuning,
        events,
        groups,
        group_of,
        lend_limits,
    }))
}

fn spillover_of(mistakes: &mut Mistakes, written: &wire::Spillover) -> Spillover {
    let path = "sharing.spillover";
    for (field, share, least, most) in [
        ("threshold_score", written.threshold_score, 1, 1000),
        ("headroom_share", written.headroom_share, 0, 500),
    ] {
        check::permille(mistakes, &format!("{path}.{field}"), share, least, most);
    }
    check::range(
        mistakes,
        &format!("{path}.ttl_ms"),
        u64::from(written.ttl_ms),
        HEADROOM_MS.0,
        HEADROOM_MS.1,
    );
    Spillover {
        threshold_score: written.threshold_score,
        headroom_share: written.headroom_share,
        ttl_ms: written.ttl_ms,
        protect: written.protect,
    }
}

fn prioritize_of(mistakes: &mut Mistakes, written: &wire::Prioritize) -> Prioritize {
    let path = "sharing.prioritize";
    let most = u64::from(written.most);
    check::range(mistakes, &format!("{path}.most"), most, 1, 255);
    let budget = format!("{path}.error_budget");
    check::permille(mistakes, &budget, written.error_budget, 1, 500);
    check::range(
        mistakes,
        &format!("{path}.half_life_ms"),
        u64::from(written.half_life_ms),
        HALF_LIFE_MS.0,
        HALF_LIFE_MS.1,
    );
    Prioritize {
        most: written.most,
        error_budget: written.error_budget,
        half_life_ms: written.half_life_ms,
    }
}

/// What is written for a division that does not take place.
fn without_effect(mistakes: &mut Mistakes, document: &PolicyDocument) {
    let because = "without a `sharing` section";
    if !document.groups.is_empty() {
        mistakes.add("groups", Problem::NoEffect { because });
    }
    for (name, contract) in document.contracts.iter() {
        for (resource, limit) in contract.limits.iter() {
            if limit.lend_limit_per_s.is_some() {
                let path = format!("contracts.{name}.limits.{resource}.lend_limit_per_s");
                mistakes.add(path, Problem::NoEffect { because });
            }
        }
    }
    for (position, customer) in document.customers.iter().enumerate() {
        if customer.group.is_some() {
            let path = format!("customers[{position}].group");
            mistakes.add(path, Problem::NoEffect { because });
        }
    }
}

/// The groups, outer ones first.
fn groups(mistakes: &mut Mistakes, document: &PolicyDocument) -> Vec<CompiledGroup> {
    let found = document.groups.len();
    if found > MAX_GROUPS {
        let allowed = "at most 65536";
        mistakes.add("groups", Problem::Count { found, allowed });
        return Vec::new();
    }
    let mut ranked: Vec<(usize, &str)> = Vec::with_capacity(found);
    for (name, group) in document.groups.iter() {
        let path = format!("groups.{name}");
        check::name(mistakes, &path, name);
        if let Some(parent) = &group.parent
            && document.groups.get(parent).is_none()
        {
            let problem = || no_such_group(document, parent);
            mistakes.add_with(format!("{path}.parent"), problem);
            continue;
        }
        match depth(document, name) {
            Some(depth) => ranked.push((depth, name)),
            None => mistakes.add(
                format!("{path}.parent"),
                Problem::Nesting { most: MAX_DEPTH },
            ),
        }
    }
    ranked.sort_unstable();
    let positions: BTreeMap<&str, usize> = ranked
        .iter()
        .enumerate()
        .map(|(position, (_, name))| (*name, position))
        .collect();
    ranked
        .iter()
        .filter_map(|(_, name)| {
            let group = document.groups.get(name)?;
            let path = format!("groups.{name}.cap_per_s");
            let parent = group.parent.as_deref();
            Some(CompiledGroup {
                name: (*name).to_owned(),
                parent: parent.and_then(|parent| positions.get(parent).copied()),
                cap: per_resource(mistakes, document, &path, &group.cap_per_s),
            })
        })
        .collect()
}

/// How many groups there are around one; none where they form a circle or are too many.
fn depth(document: &PolicyDocument, name: &str) -> Option<usize> {
    let parents = std::iter::successors(Some(name), |name| {
        document.groups.get(name)?.parent.as_deref()
    });
    let depth = parents.take(MAX_DEPTH.saturating_add(1)).count();
    (depth <= MAX_DEPTH).then_some(depth)
}

fn per_resource(
    mistakes: &mut Mistakes,
    document: &PolicyDocument,
    path: &str,
    written: &Named<Decimal>,
) -> PerResource<Option<Rate>> {
    let mut rates = PerResource::default();
    for (name, value) in written.iter() {
        let path = format!("{path}.{name}");
        let found = document
            .resources
            .iter()
            .enumerate()
            .find(|(_, (resource, _))| *resource == name);
        let Some((position, (_, resource))) = found else {
            let known = document.resources.names().collect::<Vec<_>>().join(", ");
            mistakes.add(path, Problem::NoSuchResource { known });
            continue;
        };
        if resource.capacity_per_s.is_none() {
            let because = "on a resource without a capacity_per_s";
            mistakes.add(&path, Problem::NoEffect { because });
        }
        if let Some(index) = ResourceIndex::new(position) {
            *rates.at_mut(index) = Some(check::capacity(mistakes, &path, *value));
        }
    }
    rates
}

/// The group of each customer.
fn members(
    mistakes: &mut Mistakes,
    document: &PolicyDocument,
    groups: &[CompiledGroup],
) -> Vec<Option<usize>> {
    let positions: BTreeMap<&str, usize> = groups
        .iter()
        .enumerate()
        .map(|(position, group)| (group.name.as_str(), position))
        .collect();
    document
        .customers
        .iter()
        .enumerate()
        .map(|(position, customer)| {
            let name = customer.group.as_deref()?;
            if document.groups.get(name).is_none() {
                let path = format!("customers[{position}].group");
                mistakes.add_with(path, || no_such_group(document, name));
            }
            positions.get(name).copied()
        })
        .collect()
}

/// A cap must have room for what its members are guaranteed.
fn caps(
    mistakes: &mut Mistakes,
    compiled: &Compiled,
    groups: &[CompiledGroup],
    group_of: &[Option<usize>],
) {
    for (position, resource) in compiled.policy.resources.iter().enumerate() {
        let Some(index) = ResourceIndex::new(position) else {
            continue;
        };
        let mut sums = vec![0_u64; groups.len()];
        for (customer, group) in compiled.customers.iter().zip(group_of) {
            let contract = compiled
                .policy
                .contracts
                .get(usize::from(customer.contract.0));
            let guarantee =
                contract.map_or(0, |contract| contract.limits.at(index).guarantee.get());
            let mut next = *group;
            while let Some(group) = next {
                if let Some(sum) = sums.get_mut(group) {
                    *sum = sum.saturating_add(guarantee);
                }
                next = groups.get(group).and_then(|group| group.parent);
            }
        }
        for (group, sum) in groups.iter().zip(sums) {
            let Some(cap) = group.cap.at(index) else {
                continue;
            };
            if sum > cap.get() {
                mistakes.add(
                    format!("groups.{}.cap_per_s.{}", group.name, resource.name),
                    Problem::Overcommitted {
                        guaranteed: tokens(sum),
                        capacity: tokens(cap.get()),
                    },
                );
            }
        }
    }
}

fn lend_limits(
    mistakes: &mut Mistakes,
    document: &PolicyDocument,
    name: &str,
    limits: &Named<Limit>,
) -> PerResource<Option<Rate>> {
    let mut rates = PerResource::default();
    for (position, (resource, _)) in document.resources.iter().enumerate() {
        let limit = limits.get(resource);
        let Some((limit, lend)) = limit.and_then(|limit| Some((limit, limit.lend_limit_per_s?)))
        else {
            continue;
        };
        let path = format!("contracts.{name}.limits.{resource}.lend_limit_per_s");
        if limit.guarantee_per_s.is_zero() {
            let because = "without a guarantee_per_s";
            mistakes.add(&path, Problem::NoEffect { because });
        } else if lend > limit.guarantee_per_s {
            let allowed = format!("0 to the guarantee, {}", limit.guarantee_per_s);
            let found = lend.to_string();
            mistakes.add(&path, Problem::Range { found, allowed });
        }
        if let Some(index) = ResourceIndex::new(position) {
            *rates.at_mut(index) = Some(check::rate(mistakes, &path, lend));
        }
    }
    rates
}

fn no_such_group(document: &PolicyDocument, name: &str) -> Problem {
    Problem::NoSuchGroup {
        name: name.chars().take(64).collect(),
        suggestion: check::suggestion(name, document.groups.names()),
    }
}

#[cfg(test)]
#[path = "sharing_tests.rs"]
mod tests;
