//! What must hold for every cycle, whoever the customers are.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{
    Allocation, Customer, Group, Held, Lend, Outlook, Part, Settings, Terms, allocate,
    credits_after,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const TIERS: [Tier; 3] = [Tier::One, Tier::Two, Tier::Three];

fn resources() -> impl Iterator<Item = ResourceIndex> + Clone {
    ResourceIndex::first(2)
}

/// What rounding may do to a sum.
fn slack(of_per_s: f64) -> f64 {
    1e-6 + 1e-9 * of_per_s
}

fn amount() -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => Just(0.0),
        4 => (0_u32..100).prop_map(f64::from),
        3 => 0.0..100.0,
        1 => (-2.0..9.0).prop_map(|power: f64| 10_f64.powf(power)),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let lend = prop_oneof![
        2 => Just(Lend::Auto),
        1 => Just(Lend::Never),
        1 => amount().prop_map(Lend::UpTo),
    ];
    (amount(), amount(), amount(), lend).prop_map(|(guarantee, bought, borrow, lend)| Terms {
        guarantee_per_s: guarantee,
        rate_per_s: guarantee + bought,
        ceiling_per_s: guarantee + bought + borrow,
        lend,
    })
}

fn outlook() -> impl Strategy<Value = Outlook> {
    (amount(), amount(), amount()).prop_map(|(median, above, upper)| Outlook {
        quantiles_per_s: [median, median + above, median + above + upper],
    })
}

fn held() -> impl Strategy<Value = Held> {
    (amount(), any::<bool>()).prop_map(|(per_s, is_releasing)| Held {
        per_s,
        is_releasing,
    })
}

fn pair<T: Copy + Default + std::fmt::Debug>(
    of: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = PerResource<T>> {
    (of.clone(), of).prop_map(|(first, second)| {
        let mut both = PerResource::default();
        for (resource, value) in resources().zip([first, second]) {
            *both.at_mut(resource) = value;
        }
        both
    })
}

fn customer() -> impl Strategy<Value = Customer> {
    let rank = (
        prop::sample::select(&TIERS[..]),
        0_u8..3,
        prop_oneof![Just(1.0), (1_u32..9).prop_map(f64::from), 0.01..100.0],
        prop::option::of(0_usize..4),
    );
    let headroom = prop_oneof![4 => Just(0.0), 1 => 0.0..50.0];
    (
        rank,
        pair(terms().boxed()),
        pair(outlook().boxed()),
        pair(headroom.boxed()),
        pair(held().boxed()),
        -100.0..100.0,
    )
        .prop_map(
            |(rank, terms, outlook, headroom_per_s, held, credits)| Customer {
                tier: rank.0,
                priority: rank.1,
                weight: rank.2,
                group: rank.3,
                terms,
                outlook,
                headroom_per_s,
                held,
                credits,
            },
        )
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let cap = prop_oneof![2 => Just(None), 1 => amount().prop_map(Some)];
    let group = (prop::option::of(0_usize..4), pair(cap.boxed()))
        .prop_map(|(parent, cap_per_s)| Group { parent, cap_per_s });
    prop::collection::vec(group, 0..4)
}

#[derive(Clone, Debug)]
struct World {
    capacity_per_s: PerResource<f64>,
    customers: Vec<Customer>,
    groups: Vec<Group>,
    settings: Settings,
}

/// Customers, and a capacity of some times what their guarantees, or their needs, add up to.
fn world() -> impl Strategy<Value = World> {
    let settings = (0.0..0.6, any::<bool>(), 0.0..0.3).prop_map(
        |(reserve_share, with_credits, quiet_share)| Settings {
            reserve_share,
            with_credits,
            quiet_share,
            ..Settings::default()
        },
    );
    (
        prop::collection::vec(customer(), 1..12),
        groups(),
        settings,
        prop_oneof![Just(1.0), 0.1..3.0],
        any::<bool>(),
    )
        .prop_map(|(customers, groups, settings, factor, by_needs)| {
            let mut capacity_per_s = PerResource::default();
            for resource in resources() {
                *capacity_per_s.at_mut(resource) = factor
                    * customers
                        .iter()
                        .map(|customer| {
                            if by_needs {
                                customer.outlook.at(resource).at(0.9)
                            } else {
                                customer.terms.at(resource).guarantee_per_s
                            }
                        })
                        .sum::<f64>();
            }
            World {
                capacity_per_s,
                customers,
                groups,
                settings,
            }
        })
}

impl World {
    fn allocate(&self) -> Allocation {
        allocate(
            &self.capacity_per_s,
            &self.customers,
            &self.groups,
            &self.settings,
        )
    }

    /// One resource, no groups: where the strict orders hold.
    fn plain(mut self) -> Self {
        let first = ResourceIndex::FIRST;
        self.capacity_per_s = PerResource::only_first(*self.capacity_per_s.at(first));
        self.groups.clear();
        self
    }

    /// Groups whose members only share: no cap takes anything from anybody.
    fn without_caps(mut self) -> Self {
        for group in &mut self.groups {
            group.cap_per_s = PerResource::default();
        }
        self
    }

    fn promised(&self, resource: ResourceIndex) -> f64 {
        let terms = self
            .customers
            .iter()
            .map(|customer| customer.terms.at(resource));
        terms.map(|terms| terms.guarantee_per_s).sum()
    }

    fn without_credits(mut self) -> Self {
        self.settings.with_credits = false;
        self
    }

    fn without_headroom(mut self) -> Self {
        for customer in &mut self.customers {
            customer.headroom_per_s = PerResource::default();
        }
        self
    }

    fn needed(&self, customer: &Customer, resource: ResourceIndex) -> f64 {
        customer
            .outlook
            .at(resource)
            .at(self.settings.quantile(customer.tier))
    }

    /// What each still wants within its rate, which is what classes are served for first.
    fn unmet_within_rate(&self, allocation: &Allocation, resource: ResourceIndex) -> Vec<f64> {
        self.customers
            .iter()
            .zip(&allocation.parts)
            .map(|(customer, parts)| {
                let wanted = self
                    .needed(customer, resource)
                    .min(customer.terms.at(resource).rate_per_s);
                let part = parts.at(resource);
                (wanted - (part.kept_per_s + part.shared_per_s + part.bought_per_s)).max(0.0)
            })
            .collect()
    }

    /// The cycle after this one, in which everybody asks for the same.
    fn next(&self, allocation: &Allocation) -> Self {
        let mut next = self.clone();
        let interval_s = self.settings.interval_s;
        let credits = credits_after(
            &self.capacity_per_s,
            &self.customers,
            allocation,
            interval_s,
        );
        for (customer, credits) in next.customers.iter_mut().zip(credits) {
            customer.credits = credits;
        }
        for (customer, parts) in next.customers.iter_mut().zip(&allocation.parts) {
            for resource in resources() {
                let part = parts.at(resource);
                *customer.held.at_mut(resource) = Held {
                    per_s: part.allocated_per_s(),
                    is_releasing: part.is_releasing,
                };
            }
        }
        next
    }
}

fn all(allocation: &Allocation, resource: ResourceIndex, value: impl Fn(&Part) -> f64) -> f64 {
    allocation
        .parts
        .iter()
        .map(|parts| value(parts.at(resource)))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_parts_the_reserve_and_what_is_idle_are_the_capacity(world in world()) {
        let allocation = world.allocate();
        for resource in resources() {
            let capacity = *world.capacity_per_s.at(resource);
            let sum = all(&allocation, resource, Part::allocated_per_s)
                + allocation.reserve_per_s.at(resource)
                + allocation.idle_per_s.at(resource);
            prop_assert!(sum <= capacity + slack(capacity), "{sum} of {capacity}");
            prop_assert!(sum >= capacity - slack(capacity), "{sum} of {capacity}");
            for parts in &allocation.parts {
                let part = parts.at(resource);
                for amount in [part.kept_per_s, part.shared_per_s, part.headroom_per_s, part.bought_per_s,
                    part.borrowed_per_s, part.eased_per_s, part.lent_per_s, part.unmet_per_s] {
                    prop_assert!(amount >= 0.0 && amount.is_finite(), "{part:?}");
                }
            }
        }
    }

    #[test]
    fn whoever_needs_its_guarantee_has_it_whatever_others_borrow(world in world()) {
        let world = world.without_caps();
        let allocation = world.allocate();
        for resource in resources() {
            if world.promised(resource) > *world.capacity_per_s.at(resource) {
                continue;
            }
            for (customer, parts) in world.customers.iter().zip(&allocation.parts) {
                let guarantee = customer.terms.at(resource).guarantee_per_s;
                let upper = customer.outlook.at(resource).upper_per_s();
                let due = guarantee.min(upper.max(world.needed(customer, resource)));
                let (kept, lent) = (parts.at(resource).kept_per_s, parts.at(resource).lent_per_s);
                prop_assert!(kept >= due - slack(due), "keeps {kept} of {due}");
                prop_assert!(kept + lent <= guarantee + slack(guarantee), "{kept} and {lent} of {guarantee}");
                // What it does not lend to everybody its siblings may still have: there is nowhere else for it to go.
                if customer.terms.at(resource).lend == Lend::Never {
                    prop_assert!(kept + lent >= guarantee - slack(guarantee), "{kept} and {lent} of {guarantee}");
                }
            }
        }
    }

    #[test]
    fn nobody_lends_more_than_its_limit_or_what_even_its_upper_forecast_needs(world in world()) {
        let world = world.without_caps();
        let allocation = world.allocate();
        for resource in resources() {
            for (customer, parts) in world.customers.iter().zip(&allocation.parts) {
                let terms = customer.terms.at(resource);
                let spare = (terms.guarantee_per_s - customer.outlook.at(resource).upper_per_s()).max(0.0);
                let is_linked = customer.group.is_some_and(|group| group < world.groups.len());
                let limit = match terms.lend {
                    // The limit is for those who are not linked to it.
                    _ if is_linked => spare,
                    Lend::Never => 0.0,
                    Lend::Auto => spare,
                    Lend::UpTo(limit) => limit.min(spare),
                };
                let lent = parts.at(resource).lent_per_s;
                prop_assert!(lent <= limit + slack(limit), "lends {lent} of {limit}");
            }
        }
    }

    #[test]
    fn what_is_lent_is_what_others_have_beyond_what_nobody_was_promised(world in world()) {
        let world = world.without_caps();
        let allocation = world.allocate();
        for resource in resources() {
            let capacity = *world.capacity_per_s.at(resource);
            let [lent, kept, shared, of_pool, eased] = [
                (|part| part.lent_per_s) as fn(&Part) -> f64,
                |part| part.kept_per_s,
                |part| part.shared_per_s,
                Part::of_pool_per_s,
                |part| part.eased_per_s,
            ].map(|value| all(&allocation, resource, value));
            let pool = of_pool + allocation.idle_per_s.at(resource) + eased;
            let lendable = world.promised(resource).min(capacity) - kept - shared;
            let unsold = (pool - lendable).max(0.0);
            let due = (of_pool - unsold).max(0.0) + shared;
            prop_assert!((lent - due).abs() <= slack(capacity), "{lent} is lent, {due} is had of it");
        }
    }

    #[test]
    fn nobody_has_more_than_its_ceiling_unless_it_had_so_before(world in world()) {
        let allocation = world.allocate();
        for resource in resources() {
            for (customer, parts) in world.customers.iter().zip(&allocation.parts) {
                let part = parts.at(resource);
                let ceiling = customer.terms.at(resource).ceiling_per_s;
                let has = part.allocated_per_s() - part.eased_per_s;
                prop_assert!(has <= ceiling + slack(ceiling), "{has} above {ceiling}");
                prop_assert!(part.allocated_per_s() <= has.max(customer.held.at(resource).per_s) + slack(has));
            }
        }
    }

    #[test]
    fn unmet_need_and_an_idle_pool_never_coexist(world in world()) {
        let world = world.without_caps();
        let allocation = world.allocate();
        for resource in resources() {
            let capacity = *world.capacity_per_s.at(resource);
            let unmet = all(&allocation, resource, |part| part.unmet_per_s);
            let idle = *allocation.idle_per_s.at(resource);
            prop_assert!(unmet.min(idle) <= slack(capacity), "{unmet} is unmet while {idle} is idle");
            let reserve = *allocation.reserve_per_s.at(resource);
            let most = world.settings.reserve_share * capacity.max(world.promised(resource));
            prop_assert!(reserve <= most + slack(most));
        }
    }

    #[test]
    fn a_group_never_has_more_than_its_cap(world in world()) {
        let allocation = world.allocate();
        for resource in resources() {
            for (position, group) in world.groups.iter().enumerate() {
                let Some(cap) = *group.cap_per_s.at(resource) else { continue };
                let has: f64 = world
                    .customers
                    .iter()
                    .zip(&allocation.parts)
                    .filter(|(customer, _)| is_in(&world.groups, customer.group, position))
                    .map(|(_, parts)| parts.at(resource).allocated_per_s())
                    .sum();
                prop_assert!(has <= cap + slack(cap), "{has} above {cap}");
            }
        }
    }

    #[test]
    fn nothing_is_bought_for_a_lower_class_while_a_higher_one_lacks_something(world in world()) {
        let world = world.plain().without_headroom();
        let allocation = world.allocate();
        let first = ResourceIndex::FIRST;
        let unmet = world.unmet_within_rate(&allocation, first);
        for (customer, unmet) in world.customers.iter().zip(&unmet) {
            if *unmet <= slack(*world.capacity_per_s.at(first)) {
                continue;
            }
            for (other, parts) in world.customers.iter().zip(&allocation.parts) {
                let is_lower = (other.tier, std::cmp::Reverse(other.priority))
                    > (customer.tier, std::cmp::Reverse(customer.priority));
                let part = parts.at(first);
                let has = part.borrowed_per_s + if is_lower { part.bought_per_s } else { 0.0 };
                prop_assert!(has <= slack(*world.capacity_per_s.at(first)), "{has} while {unmet} is unmet");
            }
        }
    }

    #[test]
    fn among_equals_nobody_could_have_more_but_from_one_that_has_no_more(world in world()) {
        let world = world.plain().without_headroom().without_credits();
        let allocation = world.allocate();
        let first = ResourceIndex::FIRST;
        let capacity = *world.capacity_per_s.at(first);
        // Of the two steps, the one in which the class ran short: above what is expected, or below.
        let step = |customer: &Customer, part: &Part| {
            let rate = customer.terms.at(first).rate_per_s;
            let base = part.kept_per_s + part.shared_per_s;
            let expected = customer.outlook.at(first).at(0.5).min(rate);
            let of_expected = (expected - base).max(0.0);
            (part.bought_per_s.min(of_expected), (part.bought_per_s - of_expected).max(0.0), of_expected)
        };
        for (customer, parts) in world.customers.iter().zip(&allocation.parts) {
            let (below, above, of_expected) = step(customer, parts.at(first));
            let lacks_expected = of_expected - below > slack(capacity);
            let wanted = world.needed(customer, first).min(customer.terms.at(first).rate_per_s);
            let has = parts.at(first).kept_per_s + parts.at(first).shared_per_s + parts.at(first).bought_per_s;
            let lacks = wanted - has > slack(capacity);
            for (other, parts) in world.customers.iter().zip(&allocation.parts) {
                if (other.tier, other.priority) != (customer.tier, customer.priority) {
                    continue;
                }
                let (other_below, other_above, _) = step(other, parts.at(first));
                let pairs = if lacks_expected {
                    prop_assert!(other_above <= slack(capacity));
                    (below, other_below)
                } else if lacks {
                    (above, other_above)
                } else {
                    continue;
                };
                let (mine, others) = (pairs.0 / customer.weight, pairs.1 / other.weight);
                let tolerance = slack(capacity) / customer.weight.min(other.weight);
                prop_assert!(mine >= others - tolerance, "{mine} below {others}");
            }
        }
    }

    // By credits it can: what a token costs is a part of the capacity, so who has been paid for goes by another order.
    #[test]
    fn more_capacity_lowers_nobodys_part(world in world(), factor in 1.0..3.0) {
        let world = world.plain().without_headroom().without_credits();
        let mut larger = world.clone();
        *larger.capacity_per_s.at_mut(ResourceIndex::FIRST) *= factor;
        let (before, after) = (world.allocate(), larger.allocate());
        for (before, after) in before.parts.iter().zip(&after.parts) {
            let of = |parts: &PerResource<Part>| {
                let part = parts.at(ResourceIndex::FIRST);
                part.allocated_per_s() - part.eased_per_s
            };
            prop_assert!(of(after) >= of(before) - slack(of(before)), "{} after {}", of(after), of(before));
        }
    }

    #[test]
    fn unchanged_demand_moves_nothing_after_two_cycles(world in world()) {
        let world = world.without_credits();
        let once = world.next(&world.allocate());
        let twice = once.next(&once.allocate());
        let (second, third) = (once.allocate(), twice.allocate());
        for resource in resources() {
            for (second, third) in second.parts.iter().zip(&third.parts) {
                let (second, third) = (second.at(resource).allocated_per_s(), third.at(resource).allocated_per_s());
                prop_assert!((second - third).abs() <= slack(*world.capacity_per_s.at(resource)), "{second}, then {third}");
            }
        }
    }

    // Who has borrowed is poorer after it, and gives way to its equals.
    #[test]
    fn by_credits_unchanged_demand_moves_nothing_but_among_equals(world in world()) {
        let mut world = world.plain();
        world.settings.with_credits = true;
        let once = world.next(&world.allocate());
        let (first, second) = (world.allocate(), once.allocate());
        for customer in &world.customers {
            let of_class = |allocation: &Allocation| -> f64 {
                let parts = world.customers.iter().zip(&allocation.parts);
                parts
                    .filter(|(other, _)| (other.tier, other.priority) == (customer.tier, customer.priority))
                    .map(|(_, parts)| parts.at(ResourceIndex::FIRST))
                    .map(|part| part.allocated_per_s() - part.eased_per_s)
                    .sum()
            };
            let (first, second) = (of_class(&first), of_class(&second));
            let capacity = *world.capacity_per_s.at(ResourceIndex::FIRST);
            prop_assert!((first - second).abs() <= slack(capacity), "{first}, then {second}");
        }
    }

    #[test]
    fn a_wider_interval_releases_nothing(world in world(), by in 0.0..100.0) {
        let world = world.plain();
        let mut wider = world.clone();
        for customer in &mut wider.customers {
            let [.., upper] = &mut customer.outlook.at_mut(ResourceIndex::FIRST).quantiles_per_s;
            *upper += by;
        }
        for (narrow, wide) in world.allocate().parts.iter().zip(&wider.allocate().parts) {
            let (narrow, wide) = (narrow.at(ResourceIndex::FIRST), wide.at(ResourceIndex::FIRST));
            prop_assert!(wide.kept_per_s >= narrow.kept_per_s - slack(narrow.kept_per_s));
        }
    }

    #[test]
    fn the_same_cycle_gives_the_same_bits(world in world()) {
        prop_assert_eq!(world.allocate(), world.allocate());
    }

    #[test]
    fn credits_are_neither_made_nor_lost(world in world()) {
        let after = credits_after(
            &world.capacity_per_s, &world.customers, &world.allocate(), world.settings.interval_s);
        let before: f64 = world.customers.iter().map(|customer| customer.credits).sum();
        let sum: f64 = after.iter().sum();
        let size: f64 = after.iter().map(|credits| credits.abs()).sum();
        prop_assert!((sum - before).abs() <= slack(size), "{before}, then {sum}");
    }

    #[test]
    fn whatever_the_numbers_are_parts_are_finite_and_within_the_capacity(
        mut world in world(),
        odd in prop::collection::vec((0_usize..12, 0_usize..9, prop::sample::select(
            &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300, f64::MIN_POSITIVE][..])), 1..8),
    ) {
        for (customer, field, value) in odd {
            let count = world.customers.len();
            let customer = &mut world.customers[customer % count];
            let first = ResourceIndex::FIRST;
            match field {
                0 => customer.weight = value,
                1 => customer.terms.at_mut(first).guarantee_per_s = value,
                2 => customer.terms.at_mut(first).rate_per_s = value,
                3 => customer.terms.at_mut(first).ceiling_per_s = value,
                4 => customer.terms.at_mut(first).lend = Lend::UpTo(value),
                5 => customer.outlook.at_mut(first).quantiles_per_s = [value, 1.0, value],
                6 => customer.headroom_per_s = PerResource::all(value),
                7 => customer.held.at_mut(first).per_s = value,
                _ => customer.credits = value,
            }
        }
        let allocation = world.allocate();
        for resource in resources() {
            let capacity = *world.capacity_per_s.at(resource);
            let sum = all(&allocation, resource, Part::allocated_per_s);
            prop_assert!(sum <= capacity + slack(capacity), "{sum} of {capacity}");
        }
        let after = credits_after(
            &world.capacity_per_s, &world.customers, &allocation, world.settings.interval_s);
        prop_assert!(after.iter().all(|credits| credits.is_finite()));
    }
}

fn is_in(groups: &[Group], innermost: Option<usize>, group: usize) -> bool {
    std::iter::successors(innermost.filter(|at| *at < groups.len()), |at| {
        groups.get(*at)?.parent.filter(|parent| parent < at)
    })
    .any(|at| at == group)
}
