//! What the control plane is told, and when: it moves tokens between gateways by what the reports say has arrived.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use std::collections::BTreeMap;

use forebay_core::ResourceIndex;
use forebay_forecaster::Forecaster;
use forebay_wire::key;
use forebay_wire::sync::{
    CustomerReport, FLAG_NOT_GRANTED, Grant, PoolGrant, SyncReply, SyncRequest,
};

use world::plane::{
    CONFIG, answer, deny_tokens, environment, grant, granted, level, listed, next_sync, policy,
    policy_delta, reply_to, start, take_tokens, ticks, use_tokens,
};
use world::{Sent, World};

const TOKEN: u64 = 1_000_000;

/// The reports of a request, by the number of the customer.
fn reports(request: &SyncRequest) -> BTreeMap<u8, CustomerReport> {
    request
        .customers
        .iter()
        .map(|report| {
            let hash = key::CustomerHash::from_parts(report.hash_high, report.hash_low);
            (hash.0[0], *report)
        })
        .collect()
}

/// The next sync, after what the gateway had to report so far has been delivered.
fn when_quiet(world: &World, forecaster: &mut Forecaster<World>) -> Sent {
    for _ in 0..50 {
        let sent = next_sync(world, forecaster);
        let (request, reply) = reply_to(&sent);
        if request.customers.is_empty() {
            return sent;
        }
        forecaster.on_http_response(sent.call, answer(&reply));
        ticks(world, forecaster, 12);
    }
    panic!("the gateway never stops reporting");
}

fn pool_grant(granted_tokens: u64) -> PoolGrant {
    PoolGrant {
        granted_cum_micro: granted_tokens * TOKEN,
        local_cap_micro: 500 * TOKEN,
        ..PoolGrant::default()
    }
}

#[test]
fn a_report_says_which_reply_had_been_applied_when_it_was_read() {
    let world = World::new();
    let mut forecaster = granted(&world, 3, 30);
    let sent = when_quiet(&world, &mut forecaster);
    let (before, mut reply) = reply_to(&sent);
    use_tokens(&world, 1, 12, 0);
    // Long enough for the walk to read it; the answer comes afterwards.
    ticks(&world, &mut forecaster, 24);
    reply.grants = vec![grant(2, 40)];
    forecaster.on_http_response(sent.call, answer(&reply));
    let mut seen = BTreeMap::new();
    for _ in 0..50 {
        if seen.len() == 2 {
            break;
        }
        let sent = next_sync(&world, &mut forecaster);
        let (request, answered) = reply_to(&sent);
        assert!(request.reply_applied >= reply.sequence);
        seen.extend(reports(&request));
        forecaster.on_http_response(sent.call, answer(&answered));
    }
    assert_eq!(
        (seen[&1].demand_micro, seen[&1].reply_applied),
        (12 * TOKEN, before.reply_applied)
    );
    assert_eq!(
        (seen[&2].granted_seen_micro, seen[&2].reply_applied),
        (40 * TOKEN, reply.sequence)
    );
}

#[test]
fn every_customer_that_was_granted_is_reported_as_of_that_reply_once_all_of_it_has_arrived() {
    const CUSTOMERS: u8 = 40;
    let mut was_early = false;
    for delay in 0..10 {
        let world = World::new();
        let mut forecaster = granted(&world, CUSTOMERS, 30);
        let sent = when_quiet(&world, &mut forecaster);
        ticks(&world, &mut forecaster, delay);
        // Applying takes several ticks from here on, and the walk comes by in between.
        world.price_of_a_look_at_the_clock_us(100);
        let (_, mut reply) = reply_to(&sent);
        reply.grants = (0..CUSTOMERS).map(|number| grant(number, 40)).collect();
        forecaster.on_http_response(sent.call, answer(&reply));
        let mut confirmed = BTreeMap::new();
        for _ in 0..8 {
            let sent = next_sync(&world, &mut forecaster);
            let (request, answered) = reply_to(&sent);
            // One that was read too early may stand before the later one in the same batch.
            was_early |= request.customers.iter().any(|report| {
                report.granted_seen_micro == 40 * TOKEN && report.reply_applied < reply.sequence
            });
            for (number, report) in reports(&request) {
                if report.reply_applied >= reply.sequence {
                    assert_eq!(report.granted_seen_micro, 40 * TOKEN, "customer {number}");
                    confirmed.insert(number, report);
                }
            }
            forecaster.on_http_response(sent.call, answer(&answered));
        }
        assert_eq!(confirmed.len(), usize::from(CUSTOMERS));
    }
    assert!(
        was_early,
        "no page was read between its grant and the rest of the reply"
    );
}

#[test]
fn a_grant_is_confirmed_with_the_sync_after_it() {
    for delay_ms in (0..200).step_by(20) {
        let world = World::new();
        let mut forecaster = granted(&world, 3, 30);
        when_quiet(&world, &mut forecaster);
        ticks(&world, &mut forecaster, delay_ms / 20);
        // The host has lost that one; the next is answered at once, and the one after it asked for in 60 ms.
        world.advance_ms(4_000);
        let sent = next_sync(&world, &mut forecaster);
        let (_, mut reply) = reply_to(&sent);
        reply.grants = vec![grant(1, 40)];
        reply.early_sync_ms = 60;
        forecaster.on_http_response(sent.call, answer(&reply));
        let at_us = world.now_us();
        let (request, _) = reply_to(&next_sync(&world, &mut forecaster));
        assert!(world.now_us() - at_us <= 80_000, "the sync came late");
        assert_eq!(
            reports(&request).get(&1).map(|report| report.reply_applied),
            Some(reply.sequence),
            "after {delay_ms} ms"
        );
    }
}

#[test]
fn a_control_plane_that_has_forgotten_is_told_everything_again() {
    let world = World::new();
    let mut forecaster = granted(&world, 20, 30);
    let sent = when_quiet(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.report_all = true;
    forecaster.on_http_response(sent.call, answer(&reply));
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        let sent = next_sync(&world, &mut forecaster);
        let (request, reply) = reply_to(&sent);
        seen.extend(reports(&request));
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    assert_eq!(seen.len(), 20);
    when_quiet(&world, &mut forecaster);
}

#[test]
fn customers_on_the_last_pages_have_their_turn_when_batches_are_small() {
    const CUSTOMERS: u8 = 40;
    let world = World::new();
    let config = CONFIG.replace(
        r#""gateway_id": "gw-1""#,
        r#""gateway_id": "gw-1", "batch_customers": 16"#,
    );
    let mut forecaster =
        Forecaster::configure(world.clone(), config.as_bytes(), &environment()).unwrap();
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(CUSTOMERS));
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 3);
    let mut seen = BTreeMap::new();
    for _ in 0..6 {
        // Everybody asks again and again, so that every page has always changed.
        (0..CUSTOMERS).for_each(|number| use_tokens(&world, number, 1, 0));
        ticks(&world, &mut forecaster, 11);
        let sent = next_sync(&world, &mut forecaster);
        let (request, reply) = reply_to(&sent);
        seen.extend(reports(&request));
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    assert_eq!(seen.len(), usize::from(CUSTOMERS), "{:?}", seen.keys());
}

#[test]
fn a_report_says_whether_anything_in_the_entry_was_granted() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(3));
    // A grant of nothing has arrived as well.
    reply.grants = vec![grant(0, 30), grant(1, 0)];
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 3);
    use_tokens(&world, 2, 5, 0);
    let mut seen = BTreeMap::new();
    for _ in 0..3 {
        let sent = next_sync(&world, &mut forecaster);
        let (request, reply) = reply_to(&sent);
        seen.extend(reports(&request));
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    let flags: Vec<_> = seen
        .iter()
        .map(|(number, report)| (*number, report.flags & FLAG_NOT_GRANTED != 0))
        .collect();
    assert_eq!(flags, [(0, false), (1, false), (2, true)]);
}

#[test]
fn what_a_lowered_depth_has_no_room_for_is_reported_as_given_back() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    take_tokens(&world, 0, 4);
    let sent = when_quiet(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    let mut lower = grant(0, 30);
    lower.local_cap_micro = 10 * TOKEN;
    reply.grants = vec![lower];
    forecaster.on_http_response(sent.call, answer(&reply));
    let (request, _) = reply_to(&next_sync(&world, &mut forecaster));
    let report = reports(&request)[&0];
    assert_eq!(
        (report.balance_micro, report.granted_seen_micro),
        (10_000_000, 14 * TOKEN)
    );
    assert_eq!(level(&world, 0), 10_000_000);
}

#[test]
fn a_pool_says_which_reply_had_been_applied_too_and_none_before_it_is_there() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.pools = vec![pool_grant(200)];
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent = next_sync(&world, &mut forecaster);
    let (request, reply) = reply_to(&sent);
    assert_eq!(
        request.reply_applied, 0,
        "there was no pool yet for the grant to reach"
    );
    let reply = SyncReply {
        policy: Some(policy_delta(1)),
        pools: vec![pool_grant(200)],
        ..reply
    };
    forecaster.on_http_response(sent.call, answer(&reply));
    let (request, _) = reply_to(&next_sync(&world, &mut forecaster));
    assert_eq!(request.reply_applied, reply.sequence);
    let pool = request.pools[0];
    assert_eq!(
        (
            pool.granted_seen_micro,
            pool.balance_micro,
            pool.reply_applied
        ),
        (200 * TOKEN, 200_000_000, reply.sequence)
    );
}

#[test]
fn a_denial_asks_early_where_a_part_of_the_contract_lies_elsewhere_and_only_there() {
    for (is_whole, is_early) in [(false, true), (true, false)] {
        let world = World::new();
        let mut forecaster = granted(&world, 3, 30);
        when_quiet(&world, &mut forecaster);
        world.advance_ms(4_000);
        let sent = next_sync(&world, &mut forecaster);
        let (_, mut reply) = reply_to(&sent);
        let limits = *policy().contracts[0].limits.at(ResourceIndex::FIRST);
        reply.grants = vec![Grant {
            rate_micro_per_s: if is_whole { limits.rate.get() } else { 0 },
            local_cap_micro: limits.burst.get().unsigned_abs(),
            ..grant(1, 30)
        }];
        forecaster.on_http_response(sent.call, answer(&reply));
        // The sync that confirms the grant, and a look at the page after it.
        let sent = next_sync(&world, &mut forecaster);
        let (_, reply) = reply_to(&sent);
        forecaster.on_http_response(sent.call, answer(&reply));
        let sent_at_us = world.now_us();
        deny_tokens(&world, 1, 1);
        next_sync(&world, &mut forecaster);
        let after_ms = (world.now_us() - sent_at_us) / 1_000;
        assert_eq!(
            after_ms < 240,
            is_early,
            "{after_ms} ms after the one before"
        );
    }
}

#[test]
fn a_denial_asks_early_where_nothing_was_granted_yet() {
    let world = World::new();
    let mut forecaster = listed(&world, 3, 2, 30);
    when_quiet(&world, &mut forecaster);
    world.advance_ms(4_000);
    let sent = next_sync(&world, &mut forecaster);
    let (_, reply) = reply_to(&sent);
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent_at_us = world.now_us();
    deny_tokens(&world, 2, 1);
    next_sync(&world, &mut forecaster);
    let after_ms = (world.now_us() - sent_at_us) / 1_000;
    assert!(after_ms < 240, "{after_ms} ms after the one before");
}

#[test]
fn a_customer_that_is_seen_several_times_before_a_sync_is_reported_once_as_of_the_last_time() {
    let world = World::new();
    let mut forecaster = granted(&world, 3, 30);
    let sent = when_quiet(&world, &mut forecaster);
    let (_, reply) = reply_to(&sent);
    for used in [5, 7, 9] {
        use_tokens(&world, 1, used, 0);
        // Long enough for a walk.
        ticks(&world, &mut forecaster, 12);
    }
    forecaster.on_http_response(sent.call, answer(&reply));
    let (request, _) = reply_to(&next_sync(&world, &mut forecaster));
    let demands: Vec<u64> = request
        .customers
        .iter()
        .map(|report| report.demand_micro)
        .filter(|demand| *demand > 0)
        .collect();
    assert_eq!(demands, [21 * TOKEN]);
}
