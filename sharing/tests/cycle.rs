//! Single cycles that a reader can follow.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{
    Allocation, Customer, Group, Held, Lend, Outlook, Part, Settings, Terms, allocate,
};

const FIRST: ResourceIndex = ResourceIndex::FIRST;

fn customer(tier: Tier, guarantee_per_s: f64, rate_per_s: f64, asks_per_s: f64) -> Customer {
    Customer {
        tier,
        priority: 0,
        weight: 1.0,
        group: None,
        terms: PerResource::only_first(Terms {
            guarantee_per_s,
            rate_per_s,
            ceiling_per_s: rate_per_s,
            lend: Lend::Auto,
        }),
        outlook: PerResource::only_first(Outlook::of_demand(asks_per_s)),
        headroom_per_s: PerResource::default(),
        held: PerResource::default(),
        credits: 0.0,
    }
}

fn cycle(
    capacity_per_s: f64,
    customers: &[Customer],
    groups: &[Group],
    reserve_share: f64,
) -> Allocation {
    let settings = Settings {
        reserve_share,
        ..Settings::default()
    };
    allocate(
        &PerResource::only_first(capacity_per_s),
        customers,
        groups,
        &settings,
    )
}

fn parts(allocation: &Allocation) -> Vec<Part> {
    allocation
        .parts
        .iter()
        .map(|parts| *parts.at(FIRST))
        .collect()
}

fn allocated(allocation: &Allocation) -> Vec<f64> {
    parts(allocation)
        .iter()
        .map(|part| (part.allocated_per_s() * 1e9).round() / 1e9)
        .collect()
}

#[test]
fn a_lost_capacity_is_lost_by_the_last_tier_first() {
    let customers = [
        customer(Tier::One, 40.0, 40.0, 40.0),
        customer(Tier::Two, 30.0, 30.0, 30.0),
        customer(Tier::Three, 30.0, 30.0, 30.0),
    ];
    assert_eq!(
        allocated(&cycle(100.0, &customers, &[], 0.25)),
        [40.0, 30.0, 30.0]
    );
    assert_eq!(
        allocated(&cycle(70.0, &customers, &[], 0.25)),
        [40.0, 30.0, 0.0]
    );
    assert_eq!(
        allocated(&cycle(50.0, &customers, &[], 0.25)),
        [40.0, 10.0, 0.0]
    );
    assert_eq!(
        allocated(&cycle(30.0, &customers, &[], 0.25)),
        [30.0, 0.0, 0.0]
    );
}

#[test]
fn the_reserve_is_kept_for_whoever_comes_but_not_from_guarantees() {
    let customers = [
        customer(Tier::Two, 60.0, 100.0, 100.0),
        customer(Tier::Two, 0.0, 100.0, 100.0),
    ];
    let allocation = cycle(100.0, &customers, &[], 0.25);
    // 15 are left beside 60 that are guaranteed and 25 that are reserved.
    assert_eq!(allocated(&allocation), [67.5, 7.5]);
    assert_eq!(*allocation.reserve_per_s.at(FIRST), 25.0);
    let guaranteed = [customer(Tier::Two, 90.0, 100.0, 100.0)];
    assert_eq!(
        *cycle(100.0, &guaranteed, &[], 0.25).reserve_per_s.at(FIRST),
        10.0
    );
}

#[test]
fn an_idle_guarantee_is_lent_and_back_in_the_next_cycle() {
    let idle = [
        customer(Tier::One, 60.0, 60.0, 10.0),
        customer(Tier::Three, 0.0, 100.0, 100.0),
    ];
    let allocation = cycle(100.0, &idle, &[], 0.0);
    assert_eq!(allocated(&allocation), [10.0, 90.0]);
    assert_eq!(parts(&allocation)[0].lent_per_s, 50.0);
    let mut back = [customer(Tier::One, 60.0, 60.0, 60.0), idle[1].clone()];
    *back[1].held.at_mut(FIRST) = Held {
        per_s: 90.0,
        is_releasing: false,
    };
    assert_eq!(allocated(&cycle(100.0, &back, &[], 0.0)), [60.0, 40.0]);
}

#[test]
fn what_nobody_was_promised_is_used_before_anybody_lends() {
    let customers = [
        customer(Tier::One, 60.0, 60.0, 0.0),
        customer(Tier::Two, 0.0, 100.0, 45.0),
    ];
    let allocation = cycle(100.0, &customers, &[], 0.0);
    assert_eq!(allocated(&allocation), [0.0, 45.0]);
    assert_eq!(parts(&allocation)[0].lent_per_s, 5.0);
}

#[test]
fn linked_accounts_use_what_one_of_them_leaves_before_anybody_else_does() {
    let mut customers = [
        customer(Tier::Two, 30.0, 100.0, 0.0),
        customer(Tier::Two, 10.0, 100.0, 100.0),
        customer(Tier::One, 0.0, 100.0, 100.0),
    ];
    for linked in &mut customers[..2] {
        linked.group = Some(0);
        linked.terms.at_mut(FIRST).lend = Lend::Never;
    }
    let alone = cycle(40.0, &customers, &[], 0.0);
    assert_eq!(allocated(&alone), [30.0, 10.0, 0.0]);
    let linked = cycle(40.0, &customers, &[Group::default()], 0.0);
    assert_eq!(allocated(&linked), [0.0, 40.0, 0.0]);
    assert_eq!(parts(&linked)[1].shared_per_s, 30.0);
    assert_eq!(parts(&linked)[0].lent_per_s, 30.0);
}

#[test]
fn a_cap_holds_for_all_within_and_leaves_the_pool_to_others() {
    let group = |parent, cap: f64| Group {
        parent,
        cap_per_s: PerResource::only_first(Some(cap)),
    };
    let mut customers = [
        customer(Tier::Two, 0.0, 100.0, 100.0),
        customer(Tier::Two, 0.0, 100.0, 100.0),
        customer(Tier::Two, 0.0, 100.0, 100.0),
        customer(Tier::Two, 0.0, 100.0, 50.0),
    ];
    customers[0].group = Some(1);
    customers[1].group = Some(1);
    customers[2].group = Some(0);
    let groups = [group(None, 30.0), group(Some(0), 10.0)];
    let allocation = cycle(100.0, &customers, &groups, 0.0);
    assert_eq!(allocated(&allocation), [5.0, 5.0, 20.0, 50.0]);
    assert_eq!(*allocation.idle_per_s.at(FIRST), 20.0);
}

#[test]
fn priorities_go_in_order_and_weights_share_within() {
    let mut customers = [
        customer(Tier::Two, 0.0, 100.0, 60.0),
        customer(Tier::Two, 0.0, 100.0, 100.0),
        customer(Tier::Two, 0.0, 100.0, 100.0),
    ];
    customers[0].priority = 7;
    customers[2].weight = 3.0;
    assert_eq!(
        allocated(&cycle(100.0, &customers, &[], 0.0)),
        [60.0, 10.0, 30.0]
    );
}

#[test]
fn headroom_comes_before_what_others_would_buy_and_not_before_guarantees() {
    let mut customers = [
        customer(Tier::Two, 20.0, 100.0, 20.0),
        customer(Tier::Two, 60.0, 100.0, 100.0),
    ];
    *customers[0].headroom_per_s.at_mut(FIRST) = 15.0;
    assert_eq!(allocated(&cycle(100.0, &customers, &[], 0.0)), [35.0, 65.0]);
    *customers[0].headroom_per_s.at_mut(FIRST) = 50.0;
    assert_eq!(allocated(&cycle(100.0, &customers, &[], 0.0)), [40.0, 60.0]);
}

#[test]
fn who_has_lent_goes_first_among_equals() {
    let mut customers = [
        customer(Tier::Two, 0.0, 100.0, 80.0),
        customer(Tier::Two, 0.0, 100.0, 80.0),
    ];
    customers[1].credits = 300.0;
    let settings = Settings {
        reserve_share: 0.0,
        with_credits: true,
        ..Settings::default()
    };
    let capacity = PerResource::only_first(100.0);
    let allocation = allocate(&capacity, &customers, &[], &settings);
    assert_eq!(allocated(&allocation), [20.0, 80.0]);
}

#[test]
fn dominant_shares_are_equal_where_a_request_takes_two_resources() {
    // The example of Ghodsi et al., NSDI 2011, section 4.1: 9 processors and 18 GB; one asks for (1, 4), the other for (3, 1) a task.
    let second = ResourceIndex::first(2).last().unwrap_or_default();
    let of = |first: f64, other: f64| {
        let mut customer = customer(Tier::Two, 0.0, 0.0, 0.0);
        for (resource, asks) in [(FIRST, first), (second, other)] {
            *customer.terms.at_mut(resource) = Terms {
                rate_per_s: 1e6,
                ..Terms::default()
            };
            *customer.outlook.at_mut(resource) = Outlook::of_demand(asks);
        }
        customer
    };
    // No more than what is tied together: what one resource has left over is not poured out to whoever asks for a thousand tasks.
    let customers = [of(3.0, 12.0), of(6.0, 2.0)];
    let mut capacity = PerResource::only_first(9.0);
    *capacity.at_mut(second) = 18.0;
    let settings = Settings {
        reserve_share: 0.0,
        ..Settings::default()
    };
    let allocation = allocate(&capacity, &customers, &[], &settings);
    let found: Vec<[f64; 2]> = allocation
        .parts
        .iter()
        .map(|parts| [FIRST, second].map(|resource| parts.at(resource).allocated_per_s()))
        .collect();
    assert_eq!(found, [[3.0, 12.0], [6.0, 2.0]]);
    // Both want more of everything: dominant shares stay equal, 2 / 3 each.
    let customers = [of(30.0, 120.0), of(60.0, 20.0)];
    let allocation = allocate(&capacity, &customers, &[], &settings);
    let memory = allocation.parts[0].at(second).allocated_per_s() / 18.0;
    let processors = allocation.parts[1].at(FIRST).allocated_per_s() / 9.0;
    assert!((processors - 2.0 / 3.0).abs() < 1e-9, "{processors}");
    assert!(memory >= 2.0 / 3.0 - 1e-9, "{memory}");
}

#[test]
fn a_dip_of_one_cycle_costs_half_and_a_second_one_the_rest() {
    let mut customers = [customer(Tier::Two, 0.0, 100.0, 10.0)];
    let mut found = Vec::new();
    *customers[0].held.at_mut(FIRST) = Held {
        per_s: 50.0,
        is_releasing: false,
    };
    for _ in 0..3 {
        let part = parts(&cycle(100.0, &customers, &[], 0.25))[0];
        found.push(part.allocated_per_s());
        *customers[0].held.at_mut(FIRST) = Held {
            per_s: part.allocated_per_s(),
            is_releasing: part.is_releasing,
        };
    }
    assert_eq!(found, [30.0, 10.0, 10.0]);
}
