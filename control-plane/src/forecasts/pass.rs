//! One pass: forecasts of all customers and groups for the horizons that are due. Arithmetic on what is known, and nothing else.

use super::cells::Subject;
use super::forecast::Made;
use super::groups::{Group, Together, reconcile};
use super::horizon::Plan;
use super::known::{Known, OfResource};
use super::tape::{add, blank, filled_by};
use forebay_wire::key::CustomerHash;
use std::collections::BTreeMap;

/// What a pass has made.
#[derive(Debug)]
pub(super) struct Pass {
    /// The newest step that it knows.
    pub(super) at: u64,
    pub(super) due: Vec<usize>,
    pub(super) made: Vec<MadeOfResource>,
    /// Steps that are known of the resource that most is known of.
    pub(super) steps_known: usize,
}

/// Forecasts of a resource by horizon.
#[derive(Debug, Default)]
pub(super) struct MadeOfResource {
    pub(super) by_horizon: Vec<(usize, Vec<(Subject, Made)>)>,
    steps_known: usize,
}

/// Somebody whose forecast is a part of groups' forecasts: a customer, or those of some groups who are not forecast by themselves.
struct Part<'a> {
    customer: Option<CustomerHash>,
    groups: &'a [Group],
}

// === impl Pass ===

impl Pass {
    /// Of horizons and their plans. `None` if nobody wants it any more.
    pub(super) fn of(
        known: &Known,
        due: &[usize],
        plans: &[(usize, &Plan)],
        is_wanted: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let resources = known.resources.iter();
        let made: Option<Vec<MadeOfResource>> = resources
            .map(|of_resource| MadeOfResource::of(of_resource, plans, is_wanted))
            .collect();
        let made = made?;
        Some(Self {
            at: known.newest,
            due: due.to_vec(),
            steps_known: made.iter().map(|made| made.steps_known).max().unwrap_or(0),
            made,
        })
    }
}

// === impl MadeOfResource ===

impl MadeOfResource {
    pub(super) fn has(&self, horizon: usize) -> bool {
        let made = self.by_horizon.iter();
        made.filter(|(of, _)| *of == horizon)
            .any(|(_, made)| !made.is_empty())
    }

    fn of(
        of_resource: &OfResource,
        plans: &[(usize, &Plan)],
        is_wanted: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let mut sums: BTreeMap<&Group, Vec<f64>> = BTreeMap::new();
        for alone in of_resource.alone.values() {
            for group in &alone.groups {
                add(sums.entry(group).or_default(), &alone.tape);
            }
        }
        for (groups, sum) in &of_resource.rest {
            for group in groups {
                let of_group = sums.entry(group).or_default();
                add(of_group, sum);
                blank(of_group, &of_resource.unseen);
            }
        }
        let Some(all) = sums.get(&Group::All) else {
            return Some(Self::default());
        };
        let mut by_horizon = Vec::new();
        for (horizon, plan) in plans {
            let made = of_horizon(of_resource, &sums, all, plan, is_wanted)?;
            by_horizon.push((*horizon, made));
        }
        Some(Self {
            by_horizon,
            steps_known: all.iter().filter(|value| !value.is_nan()).count(),
        })
    }
}

/// Forecasts of all customers and groups of a resource for a horizon. `None` if nobody wants them any more.
fn of_horizon(
    of_resource: &OfResource,
    sums: &BTreeMap<&Group, Vec<f64>>,
    all: &[f64],
    plan: &Plan,
    is_wanted: &dyn Fn() -> bool,
) -> Option<Vec<(Subject, Made)>> {
    let mut parts = Vec::new();
    let mut made: Vec<Made> = Vec::new();
    let rest = of_resource.rest.iter();
    let mut rest: BTreeMap<&[Group], Vec<f64>> = rest
        .map(|(groups, sum)| (groups.as_slice(), sum.clone()))
        .collect();
    for (customer, alone) in &of_resource.alone {
        if !is_wanted() {
            return None;
        }
        let tape: Vec<f64> = alone.tape.iter().copied().map(f64::from).collect();
        match Made::of(&tape, plan) {
            Some(of_customer) => {
                parts.push(Part {
                    customer: Some(*customer),
                    groups: &alone.groups,
                });
                made.push(of_customer);
            }
            // Who is new is forecast with the rest until enough is known.
            None => add(rest.entry(&alone.groups).or_default(), &alone.tape),
        }
    }
    let mut of_rest = Vec::new();
    for (groups, mut sum) in rest {
        blank(&mut sum, &of_resource.unseen);
        add(&mut of_rest, &sum);
        if let Some(of_part) = Made::of(&filled_by(&sum, all), plan) {
            parts.push(Part {
                customer: None,
                groups,
            });
            made.push(of_part);
        }
    }
    let rest_group = Group::Rest;
    let of_rest = (!of_rest.is_empty()).then_some((&rest_group, &of_rest));
    let groups = sums.iter().map(|(group, sum)| (*group, sum)).chain(of_rest);
    let mut names = Vec::new();
    let mut made_of_groups = Vec::new();
    let mut together = Vec::new();
    for (group, sum) in groups {
        if !is_wanted() {
            return None;
        }
        let Some(of_group) = Made::of(&filled_by(sum, all), plan) else {
            continue;
        };
        let is_in = |part: &Part<'_>| match group {
            Group::Rest => part.customer.is_none(),
            group => part.groups.contains(group),
        };
        let members = parts.iter().zip(0..).filter(|(part, _)| is_in(part));
        together.push(Together {
            row: of_group.mean,
            members: members.map(|(_, place)| place).collect(),
        });
        names.push(group.clone());
        made_of_groups.push(of_group);
    }
    let mut rows: Vec<_> = made.iter().map(|made| made.mean).collect();
    reconcile(&mut rows, &mut together);
    let groups = names.into_iter().zip(made_of_groups).zip(together);
    let groups = groups
        .map(|((group, made), together)| (Subject::Group(group), made.with_mean(together.row)));
    let customers = parts
        .iter()
        .zip(made)
        .zip(rows)
        .filter_map(|((part, made), row)| {
            Some((Subject::Customer(part.customer?), made.with_mean(row)))
        });
    Some(groups.chain(customers).collect())
}
