//! From usage in the ledger to claims in the ledger.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use forebay_core::resource::ResourceIndex;
use forebay_forecaster::host::Metric;
use forebay_forecaster::{Environment, Forecaster};
use forebay_wire::key;
use forebay_wire::sync::Window;

use world::World;
use world::plane::{
    CONFIG, answer, customer, entry, granted, next_sync, policy_delta, reply_to, start,
    take_tokens, ticks, use_tokens,
};

/// Refill of the customer's shadow bucket in tokens per second.
fn shadow_rate(world: &World, number: u8) -> f64 {
    entry(world, &customer(number)).map_or(0.0, |entry| {
        entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get() as f64 / 1e6
    })
}

/// Lets so many seconds pass in which the customer uses `per_s` tokens each, and answers every sync.
fn live(world: &World, forecaster: &mut Forecaster<World>, seconds: u32, number: u8, per_s: u64) {
    for _ in 0..seconds {
        use_tokens(world, number, per_s, 0);
        for _ in 0..50 {
            world.advance_ms(20);
            forecaster.on_tick();
            for sent in world.take_sent() {
                forecaster.on_http_response(sent.call, answer(&reply_to(&sent).1));
            }
        }
    }
}

/// Keys of pages with policy customers.
const PAGES: &str = "fb/1/p/";

#[test]
fn steady_usage_becomes_a_claim_of_that_rate() {
    let world = World::new();
    let mut forecaster = granted(&world, 3, 30);
    live(&world, &mut forecaster, 20, 1, 40);
    let rate = shadow_rate(&world, 1);
    assert!((36.0..=60.0).contains(&rate), "{rate}");
    assert_eq!(
        shadow_rate(&world, 2),
        0.0,
        "who uses nothing claims nothing"
    );
    assert!(world.metric(Metric::ShadowRefillsFallback) > 5);
    assert_eq!(world.metric(Metric::ShadowRefillsNetwork), 0);
}

#[test]
fn a_claim_never_exceeds_the_contract() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    live(&world, &mut forecaster, 20, 0, 4_000);
    assert_eq!(shadow_rate(&world, 0), 100.0);
}

#[test]
fn demand_that_stops_lets_go_of_its_claim() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    live(&world, &mut forecaster, 20, 0, 40);
    assert!(shadow_rate(&world, 0) > 30.0);
    live(&world, &mut forecaster, 120, 0, 0);
    assert!(shadow_rate(&world, 0) < 5.0, "{}", shadow_rate(&world, 0));
}

#[test]
fn a_deviation_raises_the_claim_at_once_and_asks_for_an_early_sync() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    live(&world, &mut forecaster, 20, 0, 40);
    let (before, syncs) = (shadow_rate(&world, 0), world.metric(Metric::SyncOk));
    use_tokens(&world, 0, 30, 25);
    for _ in 0..12 {
        world.advance_ms(20);
        forecaster.on_tick();
        for sent in world.take_sent() {
            let (request, reply) = reply_to(&sent);
            forecaster.on_http_response(sent.call, answer(&reply));
            if let Some(signal) = request.deviations.first() {
                assert!(signal.rate_micro_per_s > 0);
            }
        }
    }
    let raised = shadow_rate(&world, 0);
    assert!(raised > before * 1.3, "{before} -> {raised}");
    assert!(world.metric(Metric::SyncOk) > syncs);
    assert!(world.metric(Metric::ShadowRefillsRaised) > 0);
    live(&world, &mut forecaster, 40, 0, 40);
    assert!(shadow_rate(&world, 0) < raised, "the raise decays");
}

#[test]
fn a_window_from_the_control_plane_makes_a_claim_before_the_first_request() {
    let world = World::new();
    let mut forecaster = start(&world);
    for _ in 0..20 {
        let sent = next_sync(&world, &mut forecaster);
        let (request, mut reply) = reply_to(&sent);
        reply.step_now = 1_000_000;
        if request.policy_epoch_applied == 0 {
            reply.policy = Some(policy_delta(2));
        }
        if !request.windows_wanted.is_empty() {
            assert!(request.window_steps >= 48);
            let (hash_high, hash_low) = key::CustomerHash([1; 16]).parts();
            reply.windows = vec![Window {
                hash_high,
                hash_low,
                resource: 0,
                step_ms: 1_000,
                newest_step: 999_999,
                usage: vec![30.0; 100],
                mask: vec![0xff; 13],
            }];
        }
        forecaster.on_http_response(sent.call, answer(&reply));
        if !request.windows_wanted.is_empty() {
            ticks(&world, &mut forecaster, 5);
            let rate = shadow_rate(&world, 1);
            assert!((28.0..=40.0).contains(&rate), "{rate}");
            assert_eq!(
                shadow_rate(&world, 0),
                0.0,
                "nobody knows anything of this one"
            );
            return;
        }
    }
    panic!("no window was ever asked for");
}

#[test]
fn windows_in_another_step_are_refused_with_a_hint() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    for _ in 0..5 {
        let sent = next_sync(&world, &mut forecaster);
        let (_, mut reply) = reply_to(&sent);
        reply.windows = vec![Window {
            step_ms: 60_000,
            usage: vec![1.0],
            mask: vec![1],
            ..Window::default()
        }];
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    assert!(
        world
            .log()
            .iter()
            .any(|line| line.contains("steps of 60000 ms")),
        "{:?}",
        world.log()
    );
}

#[test]
fn the_sum_of_shadow_depths_stays_within_half_the_pool() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(20));
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 5);
    // Twenty customers at their contract of 100/s each: 20 x 100 x 0.5 s = 1000 tokens of depth on a pool of 1000.
    for _ in 0..30 {
        for number in 0..20 {
            use_tokens(&world, number, 100, 0);
        }
        ticks(&world, &mut forecaster, 50);
    }
    let depth: i64 = (0..20)
        .map(|number| {
            entry(&world, &customer(number))
                .unwrap()
                .holdings
                .at(ResourceIndex::FIRST)
                .shadow_depth()
                .get()
        })
        .sum();
    let half = 500_000_000;
    assert!(depth <= half + half / 20, "{depth}");
    assert!(depth > half / 2, "{depth}");
}

#[test]
fn with_shadow_buckets_off_nobody_claims_anything() {
    let world = World::new();
    let config = CONFIG.replace("\"series\"", "\"shadow\": {\"enabled\": false}, \"series\"");
    drop(granted(&world, 1, 30));
    let mut forecaster = Forecaster::configure(
        world.clone(),
        config.as_bytes(),
        &world::plane::environment(),
    )
    .unwrap();
    live(&world, &mut forecaster, 20, 0, 40);
    assert_eq!(shadow_rate(&world, 0), 0.0);
}

#[test]
fn a_gateway_without_a_control_plane_forecasts_for_itself() {
    let world = World::new();
    // The ledger and policy of another forecaster stand in for those of an admission filter.
    drop(granted(&world, 1, 30));
    let alone = br#"{"version": 1, "series": {"step_s": 1}}"#;
    let mut forecaster =
        Forecaster::configure(world.clone(), alone, &Environment::default()).unwrap();
    live(&world, &mut forecaster, 20, 0, 40);
    assert!(shadow_rate(&world, 0) > 30.0, "{}", shadow_rate(&world, 0));
    assert!(world.take_sent().is_empty());
}

#[test]
fn conflicting_writes_are_tried_again_and_lose_no_demand() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    live(&world, &mut forecaster, 10, 0, 40);
    // A worker is faster at every try of these ticks.
    world.conflicts_to_come(PAGES, 200);
    ticks(&world, &mut forecaster, 60);
    assert!(world.metric(Metric::LedgerConflicts) > 0);
    world.conflicts_to_come(PAGES, 0);
    live(&world, &mut forecaster, 10, 0, 40);
    let holding = *entry(&world, &customer(0))
        .unwrap()
        .holdings
        .at(ResourceIndex::FIRST);
    assert_eq!(holding.admitted_cum, 20 * 40_000_000);
    assert!(shadow_rate(&world, 0) > 30.0);
}

#[test]
fn a_tick_keeps_to_its_budget_however_much_there_is_to_do() {
    let world = World::new();
    let mut forecaster = granted(&world, 60, 30);
    // From now on each look at the clock costs as much as a unit of work.
    world.price_of_a_look_at_the_clock_us(50);
    for number in 0..60 {
        use_tokens(&world, number, 10, 0);
    }
    for _ in 0..200 {
        world.advance_ms(20);
        let before_us = world.now_us();
        forecaster.on_tick();
        let took_us = world.now_us() - before_us;
        assert!(took_us <= 2_000, "{took_us} us");
    }
}

#[test]
fn a_wall_clock_that_jumps_changes_the_calendar_and_no_usage() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    live(&world, &mut forecaster, 20, 0, 40);
    world.jump_wall_ms(-86_400_000);
    live(&world, &mut forecaster, 5, 0, 40);
    world.jump_wall_ms(2 * 86_400_000);
    live(&world, &mut forecaster, 5, 0, 40);
    let rate = shadow_rate(&world, 0);
    assert!((30.0..=60.0).contains(&rate), "{rate}");
    assert!(
        world
            .log()
            .iter()
            .any(|line| line.contains("wall clock jumped"))
    );
    take_tokens(&world, 0, 0);
}
