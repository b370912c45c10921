//! One cycle: from contracts and forecasts to allocations.

use crate::allocation::credits::finite;
use crate::allocation::groups::Family;
use crate::allocation::guarantees;
use crate::allocation::part::{Allocation, Part};
use crate::allocation::rise::{Wish, rise};
use crate::allocation::settings::Settings;
use crate::allocation::settle;
use crate::allocation::terms::{Customer, Group, Terms};
use crate::numbers::{clean, clean_weight};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use std::cmp::Reverse;

/// Less than this is rounding, in tokens per second.
const SMALLEST_PER_S: f64 = 1e-9;

/// Divides the capacities, in tokens per second, among the customers. A resource with a capacity of 0 is not divided. Whatever the numbers
/// are, no part is negative and, on each resource, all parts and the reserve do not exceed the capacity by more than rounding.
#[must_use]
pub fn allocate(
    capacity_per_s: &PerResource<f64>,
    customers: &[Customer],
    groups: &[Group],
    settings: &Settings,
) -> Allocation {
    let mut cycle = Cycle::new(capacity_per_s, customers, groups, settings.clean());
    for resource in cycle.resources() {
        cycle.give_guarantees(resource);
        cycle.give_headroom(resource);
    }
    // What is expected and what may be needed are two steps of one class: no class waits for the second step of a lower one.
    for class in cycle.classes.clone() {
        cycle.give(&class, Reach::Expected);
        cycle.give(&class, Reach::Needed);
    }
    for class in cycle.classes.clone() {
        cycle.give(&class, Reach::Ceiling);
    }
    for resource in cycle.resources() {
        cycle.find_lenders(resource);
        cycle.find_unmet(resource);
        cycle.settle(resource);
    }
    cycle.allocation
}

/// Up to where a step of the division goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The median of the forecast, within the rate.
    Expected,
    /// The quantile of the tier, within the rate.
    Needed,
    /// The quantile of the tier, within the ceiling.
    Ceiling,
}

struct Cycle<'a> {
    capacity_per_s: PerResource<f64>,
    customers: &'a [Customer],
    settings: Settings,
    /// For each customer: terms in clean numbers, and what is expected and may be needed within them.
    needs: Vec<PerResource<Need>>,
    weights: Vec<f64>,
    /// What can be lent of each guarantee.
    lendable_per_s: Vec<PerResource<f64>>,
    /// Positions of customers by tier and priority, who goes first in front.
    classes: Vec<Vec<usize>>,
    families: PerResource<Option<usize>>,
    rooms: Vec<Family>,
    allocation: Allocation,
}

/// What a customer wants of one resource, in tokens per second.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    terms: Terms,
    expected_per_s: f64,
    needed_per_s: f64,
    /// Nothing below this is lent.
    upper_per_s: f64,
}

// === impl Cycle ===

impl<'a> Cycle<'a> {
    fn new(
        capacity_per_s: &PerResource<f64>,
        customers: &'a [Customer],
        groups: &[Group],
        settings: Settings,
    ) -> Self {
        let mut capacities = PerResource::default();
        let mut families = PerResource::default();
        let mut rooms = Vec::new();
        for resource in ResourceIndex::first(MAX_RESOURCES) {
            let capacity = clean(*capacity_per_s.at(resource));
            if capacity > 0.0 {
                *capacities.at_mut(resource) = capacity;
                *families.at_mut(resource) = Some(rooms.len());
                let innermost = customers.iter().map(|customer| customer.group);
                rooms.push(Family::new(groups, resource, innermost));
            }
        }
        Self {
            capacity_per_s: capacities,
            customers,
            settings,
            needs: customers
                .iter()
                .map(|customer| needs(customer, &settings))
                .collect(),
            weights: customers
                .iter()
                .map(|customer| clean_weight(customer.weight))
                .collect(),
            lendable_per_s: vec![PerResource::default(); customers.len()],
            classes: classes(customers),
            families,
            rooms,
            allocation: Allocation {
                parts: vec![PerResource::default(); customers.len()],
                ..Allocation::default()
            },
        }
    }

    fn resources(&self) -> Vec<ResourceIndex> {
        ResourceIndex::first(MAX_RESOURCES)
            .filter(|resource| *self.capacity_per_s.at(*resource) > 0.0)
            .collect()
    }

    fn family(&mut self, resource: ResourceIndex) -> Option<&mut Family> {
        self.families
            .at(resource)
            .and_then(|position| self.rooms.get_mut(position))
    }

    /// Guarantees as far as they fit, linked accounts' use of one another's, and the reserve.
    fn give_guarantees(&mut self, resource: ResourceIndex) {
        let capacity = *self.capacity_per_s.at(resource);
        let mut standing: Vec<(Tier, f64)> = self
            .customers
            .iter()
            .zip(&self.needs)
            .map(|(customer, need)| (customer.tier, need.at(resource).terms.guarantee_per_s))
            .collect();
        // Not of what is left of a capacity: it would grow with each token that comes back, at the cost of who has a part already.
        let promised: f64 = standing.iter().map(|(_, guarantee)| guarantee).sum();
        let reserved = capacity.max(promised) * self.settings.reserve_share;
        guarantees::scale(capacity, &mut standing);
        let mut guarantees: Vec<f64> = standing
            .into_iter()
            .map(|(_, guarantee)| guarantee)
            .collect();
        let weights = self.weights.clone();
        let weight = |member: usize| weights.get(member).copied().unwrap_or(1.0);
        if let Some(family) = self.family(resource) {
            let mut all: Vec<(usize, f64)> = guarantees.into_iter().enumerate().collect();
            family.trim(&mut all, weight);
            for (member, guarantee) in &all {
                family.take(*member, *guarantee);
            }
            guarantees = all.into_iter().map(|(_, guarantee)| guarantee).collect();
        }
        let mut offers: Vec<f64> = guarantees
            .iter()
            .zip(&self.needs)
            .map(|(guarantee, need)| {
                let need = need.at(resource);
                (guarantee - need.upper_per_s.max(need.needed_per_s)).max(0.0)
            })
            .collect();
        let unused = offers.clone();
        let wants: Vec<f64> = guarantees
            .iter()
            .zip(&self.needs)
            .map(|(guarantee, need)| (Reach::Ceiling.limit(need.at(resource)) - guarantee).max(0.0))
            .collect();
        let given = match self.family(resource) {
            Some(family) => family.share(&mut offers, wants, weight),
            None => vec![0.0; guarantees.len()],
        };
        let mut left = capacity;
        for (member, guarantee) in guarantees.iter().enumerate() {
            let offer = offers.get(member).copied().unwrap_or(0.0);
            let to_group = unused.get(member).copied().unwrap_or(0.0) - offer;
            let shared = given.get(member).copied().unwrap_or(0.0);
            let lend = self
                .needs
                .get(member)
                .map(|need| need.at(resource).terms.lend);
            let lendable = lend.map_or(0.0, |lend| lend.of(offer));
            if let Some(all) = self.lendable_per_s.get_mut(member) {
                *all.at_mut(resource) = lendable;
            }
            let kept = (guarantee - to_group - lendable).max(0.0);
            if let Some(part) = self.part_mut(member, resource) {
                part.kept_per_s = kept;
                part.shared_per_s = shared;
                part.lent_per_s = to_group;
            }
            if let Some(family) = self.family(resource) {
                family.take(member, -lendable);
            }
            left -= kept + shared;
        }
        let left = left.max(0.0);
        let reserve = reserved.min(left);
        *self.allocation.reserve_per_s.at_mut(resource) = reserve;
        *self.allocation.idle_per_s.at_mut(resource) = left - reserve;
    }

    /// Room for those that a spike is expected to hit, in the order of classes.
    fn give_headroom(&mut self, resource: ResourceIndex) {
        for class in self.classes.clone() {
            let wants = self.trimmed(&class, resource, |need, part, customer| {
                let has = part.allocated_per_s().max(need.needed_per_s);
                let room = (need.terms.ceiling_per_s - has).max(0.0);
                clean(*customer.headroom_per_s.at(resource)).min(room)
            });
            self.pour(resource, &wants, |part, amount| {
                part.headroom_per_s += amount
            });
        }
    }

    /// One step for one class: on all resources together, and then on each by itself what a shortage of the others has left.
    fn give(&mut self, class: &[usize], reach: Reach) {
        let resources = self.resources();
        let wants: Vec<PerResource<f64>> = {
            let mut wants = vec![PerResource::default(); class.len()];
            for resource in &resources {
                let trimmed = self.wants(class, *resource, reach);
                for (want, (_, amount)) in wants.iter_mut().zip(trimmed) {
                    *want.at_mut(*resource) = amount;
                }
            }
            wants
        };
        let wishes: Vec<Wish> = class
            .iter()
            .zip(&wants)
            .map(|(member, want_per_s)| self.wish(*member, *want_per_s))
            .collect();
        let mut room = self.allocation.idle_per_s;
        let parts = rise(&mut room, &wishes);
        for resource in &resources {
            let given: Vec<(usize, f64)> = class
                .iter()
                .zip(wants.iter().zip(&parts))
                .map(|(member, (want, part))| (*member, want.at(*resource) * part))
                .collect();
            self.hand_out(*resource, &given, |part, amount| reach.add(part, amount));
        }
        if resources.len() > 1 {
            for resource in resources {
                let wants = self.wants(class, resource, reach);
                self.pour(resource, &wants, |part, amount| reach.add(part, amount));
            }
        }
    }

    /// What the members of a class still want of a resource.
    fn wants(&self, class: &[usize], resource: ResourceIndex, reach: Reach) -> Vec<(usize, f64)> {
        self.trimmed(class, resource, |need, part, _| {
            let has = part.allocated_per_s() - part.headroom_per_s;
            reach.limit(need) - has
        })
    }

    /// Wants of a class, as far as the caps of its members' groups let them.
    fn trimmed(
        &self,
        class: &[usize],
        resource: ResourceIndex,
        want: impl Fn(&Need, &Part, &Customer) -> f64,
    ) -> Vec<(usize, f64)> {
        let mut wants: Vec<(usize, f64)> = class
            .iter()
            .filter_map(|member| {
                let need = self.needs.get(*member)?.at(resource);
                let part = self.allocation.parts.get(*member)?.at(resource);
                let want = want(need, part, self.customers.get(*member)?);
                Some((*member, if want > SMALLEST_PER_S { want } else { 0.0 }))
            })
            .collect();
        let weight = |member: usize| self.weights.get(member).copied().unwrap_or(1.0);
        if let Some(family) = self
            .families
            .at(resource)
            .and_then(|position| self.rooms.get(position))
        {
            family.trim(&mut wants, weight);
        }
        wants
    }

    /// Where a customer's part begins to rise and how long it takes, see [`rise`].
    fn wish(&self, member: usize, want_per_s: PerResource<f64>) -> Wish {
        let shares = self
            .capacity_per_s
            .iter()
            .zip(want_per_s.iter())
            .filter(|(capacity, _)| **capacity > 0.0)
            .map(|(capacity, want)| want / capacity);
        if self.settings.with_credits {
            let credits = self
                .customers
                .get(member)
                .map_or(0.0, |customer| customer.credits);
            Wish {
                want_per_s,
                start: -finite(credits),
                length: (shares.sum::<f64>() * self.settings.interval_s).max(f64::MIN_POSITIVE),
            }
        } else {
            let weight = self.weights.get(member).copied().unwrap_or(1.0);
            Wish {
                want_per_s,
                start: 0.0,
                length: (shares.fold(0.0, f64::max) / weight).max(f64::MIN_POSITIVE),
            }
        }
    }

    /// Fills what is idle of one resource into wants.
    fn pour(
        &mut self,
        resource: ResourceIndex,
        wants: &[(usize, f64)],
        add: impl Fn(&mut Part, f64),
    ) {
        let wishes: Vec<Wish> = wants
            .iter()
            .map(|(member, want)| {
                let mut want_per_s = PerResource::default();
                *want_per_s.at_mut(resource) = *want;
                self.wish(*member, want_per_s)
            })
            .collect();
        let mut room = self.allocation.idle_per_s;
        let parts = rise(&mut room, &wishes);
        let given: Vec<(usize, f64)> = wants
            .iter()
            .zip(parts)
            .map(|((member, want), part)| (*member, want * part))
            .collect();
        self.hand_out(resource, &given, add);
    }

    fn hand_out(
        &mut self,
        resource: ResourceIndex,
        given: &[(usize, f64)],
        add: impl Fn(&mut Part, f64),
    ) {
        let mut sum = 0.0;
        for (member, amount) in given {
            if *amount <= 0.0 {
                continue;
            }
            if let Some(part) = self.part_mut(*member, resource) {
                add(part, *amount);
            }
            if let Some(family) = self.family(resource) {
                family.take(*member, *amount);
            }
            sum += amount;
        }
        let idle = self.allocation.idle_per_s.at_mut(resource);
        *idle = (*idle - sum).max(0.0);
    }

    /// Whose guarantee it is that others have of the pool: first what was guaranteed to nobody is used, then what can be lent, of all the same
    /// part, or the poorest in credits first.
    fn find_lenders(&mut self, resource: ResourceIndex) {
        let of_pool: f64 = self.sum(|parts| parts.at(resource).of_pool_per_s());
        let lendable: f64 = self.lendable_per_s.iter().map(|all| all.at(resource)).sum();
        let pool = of_pool + self.allocation.idle_per_s.at(resource);
        let unsold = (pool - lendable).max(0.0);
        let lent = (of_pool - unsold).clamp(0.0, lendable);
        if lent <= 0.0 {
            return;
        }
        let wishes: Vec<Wish> = self
            .lendable_per_s
            .iter()
            .zip(self.customers)
            .map(|(all, customer)| {
                let mut want_per_s = PerResource::default();
                *want_per_s.at_mut(resource) = *all.at(resource);
                let earns =
                    all.at(resource) / self.capacity_per_s.at(resource) * self.settings.interval_s;
                Wish {
                    want_per_s,
                    start: if self.settings.with_credits {
                        finite(customer.credits)
                    } else {
                        0.0
                    },
                    length: if self.settings.with_credits {
                        earns.max(f64::MIN_POSITIVE)
                    } else {
                        1.0
                    },
                }
            })
            .collect();
        let mut room = PerResource::default();
        *room.at_mut(resource) = lent;
        for (member, part) in rise(&mut room, &wishes).into_iter().enumerate() {
            let lendable = self
                .lendable_per_s
                .get(member)
                .map_or(0.0, |all| *all.at(resource));
            if let Some(own) = self.part_mut(member, resource) {
                own.lent_per_s += lendable * part;
            }
        }
    }

    fn find_unmet(&mut self, resource: ResourceIndex) {
        for (needs, parts) in self.needs.iter().zip(&mut self.allocation.parts) {
            let part = parts.at_mut(resource);
            let wanted = Reach::Ceiling.limit(needs.at(resource));
            part.unmet_per_s = (wanted + part.headroom_per_s - part.allocated_per_s()).max(0.0);
        }
    }

    /// Leaves with everybody what nobody needs, within the caps of groups.
    fn settle(&mut self, resource: ResourceIndex) {
        let everybody: Vec<usize> = (0..self.customers.len()).collect();
        let quiet_share = self.settings.quiet_share;
        let stays = self.trimmed(&everybody, resource, |_, part, customer| {
            settle::keeps(
                *customer.held.at(resource),
                part.allocated_per_s(),
                quiet_share,
            )
        });
        let sum: f64 = stays.iter().map(|(_, amount)| amount).sum();
        let idle = *self.allocation.idle_per_s.at(resource);
        let fits = if sum > idle { idle / sum } else { 1.0 };
        let given: Vec<(usize, f64)> = stays
            .into_iter()
            .map(|(member, amount)| (member, amount * fits))
            .collect();
        self.hand_out(resource, &given, |part, amount| part.eased_per_s += amount);
        for (parts, customer) in self.allocation.parts.iter_mut().zip(self.customers) {
            let part = parts.at_mut(resource);
            let target = part.allocated_per_s() - part.eased_per_s;
            part.is_releasing =
                settle::is_releasing(*customer.held.at(resource), target, quiet_share);
        }
    }

    fn part_mut(&mut self, member: usize, resource: ResourceIndex) -> Option<&mut Part> {
        let parts = self.allocation.parts.get_mut(member)?;
        Some(parts.at_mut(resource))
    }

    fn sum(&self, value: impl Fn(&PerResource<Part>) -> f64) -> f64 {
        self.allocation.parts.iter().map(value).sum()
    }
}

// === impl Reach ===

impl Reach {
    fn limit(self, need: &Need) -> f64 {
        match self {
            Reach::Expected => need.expected_per_s.min(need.terms.rate_per_s),
            Reach::Needed => need.needed_per_s.min(need.terms.rate_per_s),
            Reach::Ceiling => need.needed_per_s.min(need.terms.ceiling_per_s),
        }
    }

    fn add(self, part: &mut Part, amount_per_s: f64) {
        match self {
            Reach::Expected | Reach::Needed => part.bought_per_s += amount_per_s,
            Reach::Ceiling => part.borrowed_per_s += amount_per_s,
        }
    }
}

fn needs(customer: &Customer, settings: &Settings) -> PerResource<Need> {
    let mut needs = PerResource::default();
    for resource in ResourceIndex::first(MAX_RESOURCES) {
        let outlook = customer.outlook.at(resource).clean();
        let needed_per_s = outlook.at(settings.quantile(customer.tier));
        *needs.at_mut(resource) = Need {
            terms: customer.terms.at(resource).clean(),
            expected_per_s: outlook.at(0.5).min(needed_per_s),
            needed_per_s,
            upper_per_s: outlook.upper_per_s(),
        };
    }
    needs
}

fn classes(customers: &[Customer]) -> Vec<Vec<usize>> {
    let rank = |customer: &Customer| (customer.tier, Reverse(customer.priority));
    let mut order: Vec<usize> = (0..customers.len()).collect();
    order.sort_by_key(|position| customers.get(*position).map(rank));
    order
        .chunk_by(|left, right| customers.get(*left).map(rank) == customers.get(*right).map(rank))
        .map(<[usize]>::to_vec)
        .collect()
}
