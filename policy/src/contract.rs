//! One contract: its limits on each resource, with the relations between them.

use crate::check;
use crate::error::{Mistakes, Problem};
use forebay_core::amount::{Micro, Rate};
use forebay_core::limits::US_PER_S;
use forebay_core::policy::{Contract, Limits, Tier};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_wire::policy::{Contract as Written, Limit, PolicyDocument, Resource};

/// Largest weight: ratios beyond this are priorities, not shares.
const MAX_WEIGHT: u32 = 1_000_000;

pub(crate) fn compile(
    mistakes: &mut Mistakes,
    document: &PolicyDocument,
    name: &str,
    written: &Written,
) -> Contract {
    let path = format!("contracts.{name}");
    check::name(mistakes, &path, name);
    check::range(
        mistakes,
        &format!("{path}.tier"),
        u64::from(written.tier),
        1,
        3,
    );
    check::range(
        mistakes,
        &format!("{path}.weight"),
        u64::from(written.weight),
        1,
        u64::from(MAX_WEIGHT),
    );
    for resource in written
        .limits
        .names()
        .filter(|resource| document.resources.get(resource).is_none())
    {
        let known = document.resources.names().collect::<Vec<_>>().join(", ");
        mistakes.add(
            format!("{path}.limits.{resource}"),
            Problem::NoSuchResource { known },
        );
    }
    let mut limits = PerResource::default();
    for (position, (resource, pool)) in document.resources.iter().enumerate() {
        let Some(index) = ResourceIndex::new(position) else {
            break;
        };
        match written.limits.get(resource) {
            Some(limit) => {
                *limits.at_mut(index) =
                    compile_limit(mistakes, &format!("{path}.limits.{resource}"), pool, limit)
            }
            None => {
                let resource = resource.to_owned();
                mistakes.add(format!("{path}.limits"), Problem::LimitMissing { resource });
            }
        }
    }
    Contract {
        name: name.to_owned(),
        tier: Tier::from_number(written.tier).unwrap_or_default(),
        priority: written.priority,
        weight: written.weight,
        limits,
    }
}

fn compile_limit(mistakes: &mut Mistakes, path: &str, pool: &Resource, limit: &Limit) -> Limits {
    let rate = check::rate(mistakes, &format!("{path}.rate_per_s"), limit.rate_per_s);
    let burst = check::amount(mistakes, &format!("{path}.burst"), limit.burst);
    if rate > Rate::ZERO && burst == Micro::ZERO {
        mistakes.add(format!("{path}.burst"), Problem::NoDepth);
    }
    let guarantee_path = format!("{path}.guarantee_per_s");
    let guarantee = check::rate(mistakes, &guarantee_path, limit.guarantee_per_s);
    if guarantee > rate {
        let allowed = format!("0 to the rate, {}", limit.rate_per_s);
        mistakes.add(
            &guarantee_path,
            Problem::Range {
                found: limit.guarantee_per_s.to_string(),
                allowed,
            },
        );
    }
    if guarantee > Rate::ZERO && pool.capacity_per_s.is_none() {
        mistakes.add(
            &guarantee_path,
            Problem::NoEffect {
                because: "on a resource without a capacity_per_s",
            },
        );
    }
    let ceiling_path = format!("{path}.ceiling_per_s");
    let ceiling = limit.ceiling_per_s.map_or(rate, |ceiling| {
        let compiled = check::rate(mistakes, &ceiling_path, ceiling);
        if compiled < rate {
            let allowed = format!("the rate, {}, or more", limit.rate_per_s);
            mistakes.add(
                &ceiling_path,
                Problem::Range {
                    found: ceiling.to_string(),
                    allowed,
                },
            );
        }
        compiled
    });
    let may_borrow = ceiling.minus(rate);
    if limit.borrow_limit.is_some() && may_borrow == Rate::ZERO {
        let because = "without a ceiling_per_s above the rate";
        mistakes.add(
            format!("{path}.borrow_limit"),
            Problem::NoEffect { because },
        );
    }
    let borrow_limit = limit.borrow_limit.map_or_else(
        || may_borrow.amount_in(US_PER_S),
        |given| check::amount(mistakes, &format!("{path}.borrow_limit"), given),
    );
    Limits {
        rate,
        burst,
        guarantee,
        ceiling,
        debt_limit: check::amount(mistakes, &format!("{path}.debt_limit"), limit.debt_limit),
        borrow_limit,
    }
}
