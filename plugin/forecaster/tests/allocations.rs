//! From what the control plane allocates of a pool to claims in the ledger.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a failed step must stop the test"
)]

#[path = "../../../forecast/tests/fixture/mod.rs"]
mod fixture;
mod world;

use std::collections::BTreeMap;

use forebay_core::amount::{Micro, Rate};
use forebay_core::policy::{Contract, Limits, Policy, Tier};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_forecaster::Forecaster;
use forebay_forecaster::host::{HttpAnswer, Metric};
use forebay_wire::key;
use forebay_wire::model::ReleaseKind;
use forebay_wire::sync::{
    Allocation, ModelRelease, ModelState, PoolGrant, StepUsage, SyncReply, SyncRequest,
};

use world::plane::{
    EPOCH, answer, customer, entry, environment, granted, next_sync, policy, policy_delta,
    reply_to, start, ticks, use_tokens,
};
use world::{Sent, World, models};

const TOKEN: u64 = 1_000_000;

/// A control plane that divides a pool. It says allocations until the gateway says that it has them.
#[derive(Clone, Debug)]
struct Plane {
    /// Tokens per second at all gateways together.
    allocated: BTreeMap<u8, u64>,
    cycle: u64,
    ttl_ms: u32,
    /// What of the pool's 1000 tokens per second this gateway is granted.
    pool_per_s: u64,
    /// What customer 0 uses of a step at the other gateways.
    others: f32,
}

fn plane(allocated: &[(u8, u64)]) -> Plane {
    Plane {
        allocated: allocated.iter().copied().collect(),
        cycle: 5,
        ttl_ms: 3_000,
        pool_per_s: 250,
        others: 30.0,
    }
}

fn allocation(number: u8, resource: u32, per_s: u64) -> Allocation {
    let (hash_high, hash_low) = key::CustomerHash([number; 16]).parts();
    Allocation {
        hash_high,
        hash_low,
        resource,
        rate_micro_per_s: per_s * TOKEN,
    }
}

impl Plane {
    fn reply(&self, world: &World, sent: &Sent) -> (SyncRequest, SyncReply) {
        let (request, mut reply) = reply_to(sent);
        reply.step_now = world.wall_now_ms() / 1_000;
        reply.step_elapsed_ms = u32::try_from(world.wall_now_ms() % 1_000).unwrap();
        reply.step_usage_whole = reply.step_now - 1;
        let (hash_high, hash_low) = key::CustomerHash([0; 16]).parts();
        reply.step_usage = vec![StepUsage {
            hash_high,
            hash_low,
            resource: 0,
            step: reply.step_now - 1,
            usage: self.others,
        }];
        reply.pools = vec![PoolGrant {
            rate_micro_per_s: self.pool_per_s * TOKEN,
            local_cap_micro: self.pool_per_s * TOKEN,
            ..PoolGrant::default()
        }];
        reply.allocation_ttl_ms = self.ttl_ms;
        reply.allocation_cycle = self.cycle;
        if request.allocation_cycle_applied != self.cycle {
            let allocated = self.allocated.iter();
            reply.allocations = allocated
                .map(|(number, per_s)| allocation(*number, 0, *per_s))
                .collect();
        }
        (request, reply)
    }

    fn answer(&self, world: &World, forecaster: &mut Forecaster<World>, sent: &Sent) {
        let (_, reply) = self.reply(world, sent);
        forecaster.on_http_response(sent.call, answer(&reply));
    }

    /// Lets seconds pass in which customers use so many tokens each. Returns the last request.
    fn live(
        &self,
        world: &World,
        forecaster: &mut Forecaster<World>,
        seconds: u32,
        used: &[(u8, u64)],
    ) -> SyncRequest {
        let mut last = SyncRequest::default();
        for _ in 0..seconds {
            for (number, per_s) in used {
                use_tokens(world, *number, *per_s, 0);
            }
            for _ in 0..50 {
                world.advance_ms(20);
                forecaster.on_tick();
                for sent in world.take_sent() {
                    last = reply_to(&sent).0;
                    self.answer(world, forecaster, &sent);
                }
            }
        }
        last
    }
}

/// Refill of the customer's shadow bucket in tokens per second.
fn claim(world: &World, number: u8) -> f64 {
    entry(world, &customer(number)).map_or(0.0, |entry| {
        entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get() as f64 / 1e6
    })
}

fn is_near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= expected * 0.05
}

/// A gateway that has a quarter of customer 0's 40 tokens per second, and of whose allocations `plane` is asked.
fn settled(world: &World, plane: &Plane) -> Forecaster<World> {
    let mut forecaster = granted(world, 3, 30);
    plane.live(world, &mut forecaster, 25, &[(0, 10)]);
    forecaster
}

#[test]
fn a_claim_is_the_allocation_times_the_gateways_share_of_the_traffic() {
    let world = World::new();
    let mut plane = plane(&[(0, 80)]);
    let mut forecaster = settled(&world, &plane);
    assert!(is_near(claim(&world, 0), 20.0), "{}", claim(&world, 0));
    assert_eq!(claim(&world, 1), 0.0, "nothing was allocated to this one");
    assert!(world.metric(Metric::ShadowRefillsAllocation) > 5);
    assert_eq!(world.metric(Metric::Allocations), 1);
    // Another cycle holds as soon as its sync is answered, and not at the next step.
    plane.allocated.insert(0, 40);
    plane.cycle = 6;
    let sent = next_sync(&world, &mut forecaster);
    plane.answer(&world, &mut forecaster, &sent);
    ticks(&world, &mut forecaster, 2);
    assert!(is_near(claim(&world, 0), 10.0), "{}", claim(&world, 0));
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(reply_to(&sent).0.allocation_cycle_applied, 6);
}

#[test]
fn a_customer_whose_traffic_nobody_knows_claims_the_gateways_part_of_the_pool() {
    let world = World::new();
    let plane = plane(&[(1, 80)]);
    let _forecaster = settled(&world, &plane);
    assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
}

#[test]
fn a_claim_by_an_allocation_is_counted_without_a_forecast_as_well() {
    let world = World::new();
    let plane = plane(&[(1, 80)]);
    drop(settled(&world, &plane));
    assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
    assert!(world.metric(Metric::ShadowRefillsAllocation) > 0);
}

#[test]
fn an_allocation_exceeds_neither_the_contract_nor_the_pool() {
    let world = World::new();
    let mut plane = plane(&[(0, u64::MAX / TOKEN), (1, 1_000_000)]);
    plane.others = 0.0;
    plane.pool_per_s = 50;
    let _forecaster = settled(&world, &plane);
    assert_eq!(claim(&world, 0), 100.0, "the contract");
    assert!(
        is_near(claim(&world, 1), 50.0),
        "a part of the pool, not of a million: {}",
        claim(&world, 1)
    );
}

#[test]
fn a_guarantee_is_not_the_control_planes_to_take() {
    let world = World::new();
    let mut forecaster = start(&world);
    let mut guaranteed: Policy = policy();
    for limits in guaranteed.contracts[0].limits.iter_mut() {
        limits.guarantee = Rate::from_tokens_per_s(40).min(limits.rate);
    }
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(2));
    if let Some(delta) = &mut reply.policy {
        delta.compiled = guaranteed.encode();
    }
    forecaster.on_http_response(sent.call, answer(&reply));
    let mut plane = plane(&[(0, 0), (1, 0)]);
    plane.others = 0.0;
    let sent = next_sync(&world, &mut forecaster);
    plane.answer(&world, &mut forecaster, &sent);
    plane.live(&world, &mut forecaster, 25, &[(0, 80), (1, 10)]);
    assert!(is_near(claim(&world, 0), 40.0), "{}", claim(&world, 0));
    let within = claim(&world, 1);
    assert!((9.0..20.0).contains(&within), "{within}: what is foreseen");
}

#[test]
fn allocations_lapse_when_their_time_from_sending_is_over() {
    let world = World::new();
    let plane = plane(&[(0, 80), (1, 80)]);
    let mut forecaster = settled(&world, &plane);
    let sent = next_sync(&world, &mut forecaster);
    let sent_at_us = reply_to(&sent).0.sent_at_us;
    world.advance_ms(1_500);
    plane.answer(&world, &mut forecaster, &sent);
    let at_first = claim(&world, 0);
    // Nothing is heard from here on: no share of anything grows by that.
    while world.now_us() < sent_at_us + 2_950_000 {
        ticks(&world, &mut forecaster, 1);
    }
    assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
    let allocated = claim(&world, 0);
    assert!(allocated <= at_first * 1.05, "{at_first}, then {allocated}");
    ticks(&world, &mut forecaster, 5);
    assert_eq!(claim(&world, 1), 0.0, "nobody foresees anything of it");
    let foreseen = claim(&world, 0);
    assert!(foreseen > 1.0 && foreseen < allocated, "{foreseen}");
    // They were only out of force: the control plane may say that they hold on, and name none.
    for _ in 0..2 {
        let sent = next_sync(&world, &mut forecaster);
        let (request, reply) = plane.reply(&world, &sent);
        assert_eq!(request.allocation_cycle_applied, 5);
        assert!(reply.allocations.is_empty());
        forecaster.on_http_response(sent.call, answer(&reply));
        ticks(&world, &mut forecaster, 2);
        assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
    }
}

#[test]
fn a_reply_that_says_that_none_hold_ends_them_all() {
    let world = World::new();
    let mut plane = plane(&[(0, 80)]);
    let mut forecaster = settled(&world, &plane);
    plane.ttl_ms = 0;
    let sent = next_sync(&world, &mut forecaster);
    plane.answer(&world, &mut forecaster, &sent);
    ticks(&world, &mut forecaster, 2);
    let foreseen = claim(&world, 0);
    assert!((8.0..18.0).contains(&foreseen), "{foreseen}");
    let last = plane.live(&world, &mut forecaster, 2, &[(0, 10)]);
    assert_eq!(last.allocation_cycle_applied, 0);
    assert_eq!(world.metric(Metric::Allocations), 0);
    plane.ttl_ms = 3_000;
    plane.live(&world, &mut forecaster, 2, &[(0, 10)]);
    assert!(is_near(claim(&world, 0), 20.0), "{}", claim(&world, 0));
}

#[test]
fn a_cycle_counts_as_applied_when_all_of_it_is() {
    let world = World::new();
    let mut plane = plane(&[(1, 80)]);
    let mut forecaster = settled(&world, &plane);
    plane.cycle = 7;
    plane.allocated.insert(1, 60);
    let applied = |sent: &Sent| reply_to(sent).0.allocation_cycle_applied;
    // The first answer is lost.
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(applied(&sent), 5);
    let lost = HttpAnswer {
        status: 0,
        body: Vec::new(),
    };
    forecaster.on_http_response(sent.call, lost);
    // The second brings a part, and the rest is fetched before the next sync is due.
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(applied(&sent), 5);
    let (_, mut reply) = plane.reply(&world, &sent);
    reply.allocation_cycle = 0;
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent_at_us = world.now_us();
    let sent = next_sync(&world, &mut forecaster);
    assert!(world.now_us() - sent_at_us < 150_000);
    assert_eq!(applied(&sent), 5);
    assert!(is_near(claim(&world, 1), 15.0), "{}", claim(&world, 1));
    plane.answer(&world, &mut forecaster, &sent);
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(applied(&sent), 7);
}

#[test]
fn a_new_incarnation_has_no_allocations() {
    let world = World::new();
    let mut plane = plane(&[(0, 80)]);
    let mut forecaster = settled(&world, &plane);
    let sent = next_sync(&world, &mut forecaster);
    // Other resources are another ledger; what this reply allocates is for the one before.
    let mut renamed = policy();
    "tokens".clone_into(&mut renamed.resources[0].name);
    let (before, mut reply) = plane.reply(&world, &sent);
    let mut delta = policy_delta(3);
    delta.epoch = EPOCH + 1;
    delta.compiled = renamed.encode();
    reply.policy = Some(delta);
    reply.allocations = vec![allocation(0, 0, 80), allocation(1, 0, 80)];
    reply.allocation_cycle = 6;
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent = next_sync(&world, &mut forecaster);
    let after = reply_to(&sent).0;
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!(after.allocation_cycle_applied, 0);
    // Allocations hold again, and nobody has one.
    plane.allocated.clear();
    plane.answer(&world, &mut forecaster, &sent);
    plane.live(&world, &mut forecaster, 2, &[]);
    assert_eq!(claim(&world, 1), 0.0);
    assert_eq!(world.metric(Metric::Allocations), 0);
}

#[test]
fn a_trap_of_the_forecaster_asks_for_all_allocations_again() {
    let world = World::new();
    let plane = plane(&[(0, 80)]);
    drop(settled(&world, &plane));
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(reply_to(&sent).0.allocation_cycle_applied, 0);
    plane.answer(&world, &mut forecaster, &sent);
    plane.live(&world, &mut forecaster, 3, &[(0, 10)]);
    assert_eq!(world.metric(Metric::Allocations), 1);
    assert!(claim(&world, 0) > 18.0, "{}", claim(&world, 0));
}

#[test]
fn a_deviation_raises_an_allocated_claim_at_once_up_to_what_lies_here() {
    for (pool_per_s, most) in [(250, 30.0), (24, 24.0)] {
        let world = World::new();
        let mut plane = plane(&[(0, 80)]);
        plane.pool_per_s = pool_per_s;
        let mut forecaster = settled(&world, &plane);
        let before = claim(&world, 0);
        use_tokens(&world, 0, 30, 25);
        let mut raised: f64 = 0.0;
        for _ in 0..15 {
            ticks(&world, &mut forecaster, 1);
            for sent in world.take_sent() {
                plane.answer(&world, &mut forecaster, &sent);
            }
            raised = raised.max(claim(&world, 0));
        }
        assert!(
            is_near(raised, most) && raised > before * 1.1,
            "{before} -> {raised}, not {most}"
        );
    }
}

#[test]
fn a_control_plane_that_allocates_nothing_leaves_everything_as_it_was() {
    let world = World::new();
    let mut plane = plane(&[]);
    plane.ttl_ms = 0;
    plane.cycle = 0;
    let mut forecaster = settled(&world, &plane);
    let foreseen = claim(&world, 0);
    assert!((8.0..18.0).contains(&foreseen), "{foreseen}");
    let last = plane.live(&world, &mut forecaster, 1, &[(0, 10)]);
    assert_eq!(last.allocation_cycle_applied, 0);
    assert_eq!(world.metric(Metric::ShadowRefillsAllocation), 0);
    assert!(world.metric(Metric::ShadowRefillsFallback) > 5);
}

#[test]
fn strangers_and_resources_that_nobody_has_take_nothing_from_those_who_are_here() {
    let world = World::new();
    let plane = plane(&[]);
    let mut forecaster = settled(&world, &plane);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = plane.reply(&world, &sent);
    let stranger = |number: u64| Allocation {
        hash_high: 1,
        hash_low: number,
        ..allocation(0, 0, 9)
    };
    // More than the table has series, somebody who is here, the same again and more strangers.
    reply.allocations = (0..3_000).map(stranger).collect();
    reply.allocations.push(allocation(1, 0, 20));
    reply.allocations.push(allocation(1, 0, 80));
    reply.allocations.push(allocation(1, 3, 80));
    reply.allocations.push(allocation(0, 4, 80));
    reply.allocations.push(allocation(0, u32::MAX, 80));
    reply.allocations.extend((3_000..6_000).map(stranger));
    let refused = world.metric(Metric::ReplyItemsRefused);
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 60);
    assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
    assert_eq!(world.metric(Metric::ReplyItemsRefused) - refused, 2);
    assert!(world.metric(Metric::Allocations) <= 1_000);
    let sent = next_sync(&world, &mut forecaster);
    assert_eq!(reply_to(&sent).0.allocation_cycle_applied, 5);
}

#[test]
fn a_reply_with_more_allocations_than_any_fleet_has_is_refused_as_a_whole() {
    let world = World::new();
    let plane = plane(&[(0, 80)]);
    let mut forecaster = settled(&world, &plane);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = plane.reply(&world, &sent);
    reply.allocations = vec![allocation(0, 0, 1); 65_537];
    forecaster.on_http_response(sent.call, answer(&reply));
    assert!(
        world
            .log()
            .iter()
            .any(|line| line.contains("65537 allocations")),
        "{:?}",
        world.log()
    );
}

#[test]
fn allocations_outlive_the_model() {
    let world = World::new();
    let plane = plane(&[(1, 80)]);
    drop(granted(&world, 3, 30));
    let config = models::config();
    let mut forecaster =
        Forecaster::configure(world.clone(), config.as_bytes(), &environment()).unwrap();
    plane.live(&world, &mut forecaster, 25, &[(0, 10)]);
    assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
    let file = fixture::bytes(&fixture::good());
    let release: ModelRelease = models::release(1, ReleaseKind::Release, &file);
    for _ in 0..50 {
        let sent = next_sync(&world, &mut forecaster);
        if sent.body.is_empty() {
            let body = file.clone();
            forecaster.on_http_response(sent.call, HttpAnswer { status: 200, body });
            continue;
        }
        let (request, mut reply) = plane.reply(&world, &sent);
        assert_eq!(request.allocation_cycle_applied, 5);
        assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
        reply.model = Some(release.clone());
        forecaster.on_http_response(sent.call, answer(&reply));
        if request.model_status.unwrap().state() == ModelState::Running {
            ticks(&world, &mut forecaster, 60);
            assert!(is_near(claim(&world, 1), 20.0), "{}", claim(&world, 1));
            return;
        }
    }
    panic!("the model never ran; log: {:?}", world.log());
}

#[test]
fn where_claims_are_too_many_the_lower_tier_loses_its_stock_first_and_then_the_lower_priority() {
    let world = World::new();
    let mut forecaster = start(&world);
    let mut ranked: Policy = policy();
    // Depths of 250 tokens each, at a pool of which 500 may be protected.
    let limits = Limits::plain(Rate::from_tokens_per_s(500), Micro::from_tokens(500));
    for (tier, priority) in [(Tier::One, 0), (Tier::One, 9), (Tier::Two, 9)] {
        ranked.contracts.push(Contract {
            name: format!("{tier:?}-{priority}"),
            tier,
            priority,
            weight: 1,
            limits: PerResource::only_first(limits),
        });
    }
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(4));
    if let Some(delta) = &mut reply.policy {
        delta.compiled = ranked.encode();
        for (row, customer) in (0_u32..).zip(&mut delta.customers) {
            customer.contract = row;
        }
    }
    forecaster.on_http_response(sent.call, answer(&reply));
    let depths = |per_s: u64| {
        let mut forecaster = start(&world);
        let mut plane = plane(&[(1, per_s), (2, per_s), (3, per_s)]);
        plane.pool_per_s = 1_000;
        plane.live(&world, &mut forecaster, 4, &[]);
        [1, 2, 3].map(|number| {
            let entry = entry(&world, &customer(number)).unwrap();
            let depth = entry.holdings.at(ResourceIndex::FIRST).shadow_depth();
            depth.get() as f64 / 1e6
        })
    };
    ticks(&world, &mut forecaster, 5);
    drop(forecaster);
    let [low, high, second] = depths(500);
    assert!(is_near(low, 250.0) && is_near(high, 250.0), "{low} {high}");
    assert!(second < 5.0, "{second}");
    // Less is asked for: what the first tier leaves is the second's.
    let [low, high, second] = depths(400);
    assert!(is_near(low, 200.0) && is_near(high, 200.0), "{low} {high}");
    assert!(is_near(second, 100.0), "{second}");
}
