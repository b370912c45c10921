//! The conversation with a control plane that is right, silent, late or lying.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use forebay_core::ledger::{Mode, STATE_KEY, State};
use forebay_forecaster::host::{Host, HttpAnswer, Metric};
use forebay_wire::sync::{SyncError, SyncErrorCode, SyncReply};
use proptest::prelude::*;
use prost::Message;

use world::World;
use world::plane::{
    BURST, CONFIG, answer, customer, entry, environment, grant, granted, level, next_sync,
    policy_delta, reply_to, start, ticks, use_tokens,
};

const TOKEN: i64 = 1_000_000;

fn state(world: &World) -> State {
    State::decode(&world.shared_data(STATE_KEY).unwrap().0).unwrap()
}

#[test]
fn policy_grants_and_lease_reach_the_ledger() {
    let world = World::new();
    let _forecaster = granted(&world, 5, 30);
    assert_eq!(state(&world).mode(), Mode::Granted);
    for number in 0..5 {
        assert_eq!(level(&world, number), 30 * TOKEN, "customer {number}");
    }
    assert!(entry(&world, &customer(9)).is_none());
}

#[test]
fn a_gateway_holds_nothing_before_it_is_granted_something() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    assert!(
        sent.headers
            .contains(&("authorization".to_owned(), "Bearer secret-token".to_owned()))
    );
    let (request, mut reply) = reply_to(&sent);
    assert_eq!(
        (request.gateway_id.as_str(), request.policy_epoch_applied),
        ("gw-1", 0)
    );
    reply.policy = Some(policy_delta(3));
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 5);
    assert_eq!(
        level(&world, 1),
        0,
        "a restart of Envoy is not worth a burst"
    );
}

#[test]
fn a_policy_in_parts_is_in_force_when_the_last_part_has_come() {
    let world = World::new();
    let mut forecaster = start(&world);
    let whole = policy_delta(10);
    for part in 0..5_usize {
        let sent = next_sync(&world, &mut forecaster);
        let (request, mut reply) = reply_to(&sent);
        assert_eq!(request.policy_cursor, u64::try_from(part).unwrap());
        let mut delta = whole.clone();
        delta.customers = whole.customers[part * 2..part * 2 + 2].to_vec();
        delta.full = part == 0;
        delta.compiled = if part == 0 {
            whole.compiled.clone()
        } else {
            Vec::new()
        };
        delta.complete = part == 4;
        delta.cursor = u64::try_from(part).unwrap() + 1;
        reply.policy = Some(delta);
        forecaster.on_http_response(sent.call, answer(&reply));
        ticks(&world, &mut forecaster, 1);
        assert!(
            part == 4 || entry(&world, &customer(0)).is_none(),
            "part {part}"
        );
    }
    ticks(&world, &mut forecaster, 5);
    assert!((0..10).all(|number| entry(&world, &customer(number)).is_some()));
}

#[test]
fn counters_are_reported_until_they_are_delivered() {
    let world = World::new();
    let mut forecaster = granted(&world, 3, 30);
    use_tokens(&world, 1, 12, 0);
    for _ in 0..3 {
        let sent = loop {
            let sent = next_sync(&world, &mut forecaster);
            let (request, _) = reply_to(&sent);
            if request
                .customers
                .iter()
                .any(|report| report.demand_micro == 12_000_000)
            {
                break sent;
            }
            forecaster.on_http_response(sent.call, answer(&reply_to(&sent).1));
        };
        forecaster.on_http_response(
            sent.call,
            HttpAnswer {
                status: 503,
                body: Vec::new(),
            },
        );
        assert!(world.metric(Metric::SyncFailed) > 0);
    }
}

#[test]
fn a_lease_counts_from_sending_and_a_silent_control_plane_lets_it_lapse() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(1));
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent = next_sync(&world, &mut forecaster);
    let sent_at_us = reply_to(&sent).0.sent_at_us;
    world.advance_ms(1_500);
    let (_, mut reply) = reply_to(&sent);
    reply.grants = vec![grant(0, 0)];
    reply.grants[0].rate_micro_per_s = 10_000_000;
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 3);
    let until_us = sent_at_us + 5_000_000;
    match state(&world).lease {
        forebay_core::lease::Lease::Granted { until, .. } => assert_eq!(until.0, until_us),
        other => panic!("{other:?}"),
    }
    // Nobody answers any more: the rate refills to the end of the lease and not a token further.
    ticks(&world, &mut forecaster, 200);
    let at_end = level(&world, 0);
    assert!((30 * TOKEN..=35 * TOKEN).contains(&at_end), "{at_end}");
    ticks(&world, &mut forecaster, 5);
    assert_eq!(level(&world, 0), at_end);
    // When the fallback is over as well, what is left has been counted as spent.
    ticks(&world, &mut forecaster, 2_000);
    assert_eq!(level(&world, 0), 0);
    // The control plane is back: what it grants now is there to be spent.
    world.take_sent();
    let sent = next_sync(&world, &mut forecaster);
    let (request, mut reply) = reply_to(&sent);
    assert!(request.sequence > 2);
    reply.grants = vec![grant(0, 7)];
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 3);
    assert_eq!(level(&world, 0), 7 * TOKEN);
}

#[test]
fn a_trap_of_the_forecaster_doubles_nothing_and_keeps_the_incarnation() {
    let world = World::new();
    let mut forecaster = granted(&world, 2, 30);
    let sent = next_sync(&world, &mut forecaster);
    let before = reply_to(&sent).0;
    drop(forecaster);
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (request, mut reply) = reply_to(&sent);
    assert_eq!(request.incarnation, before.incarnation);
    assert!(request.sequence > before.sequence);
    assert_eq!(request.policy_epoch_applied, world::plane::EPOCH);
    reply.policy = Some(policy_delta(2));
    reply.grants = vec![grant(0, 30), grant(1, 30)];
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(&world, &mut forecaster, 5);
    assert_eq!(
        (level(&world, 0), level(&world, 1)),
        (30 * TOKEN, 30 * TOKEN)
    );
}

#[test]
fn a_lost_ledger_is_a_new_incarnation() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    let before = reply_to(&next_sync(&world, &mut forecaster)).0;
    world.forget_shared_data();
    world.advance_ms(1_000);
    let mut forecaster = start(&world);
    let after = reply_to(&next_sync(&world, &mut forecaster)).0;
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!(after.policy_epoch_applied, 0);
}

#[test]
fn a_refusal_is_logged_with_its_reason_and_backed_off() {
    let world = World::new();
    let mut forecaster = start(&world);
    let sent = next_sync(&world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.error = Some(SyncError {
        code: SyncErrorCode::TooManyGateways.into(),
        message: "1024 gateways are present".to_owned(),
    });
    forecaster.on_http_response(
        sent.call,
        HttpAnswer {
            status: 409,
            body: reply.encode_to_vec(),
        },
    );
    assert!(
        world
            .log()
            .iter()
            .any(|line| line.contains("1024 gateways are present")),
        "{:?}",
        world.log()
    );
    ticks(&world, &mut forecaster, 10);
    assert!(world.take_sent().is_empty());
}

#[test]
fn a_control_plane_that_is_asked_too_often_costs_neither_tokens_nor_counts() {
    // A code that a later control plane might send is as harmless.
    for code in [SyncErrorCode::TooManySyncs.into(), 99] {
        let world = World::new();
        let mut forecaster = granted(&world, 3, 30);
        use_tokens(&world, 1, 12, 0);
        let before = level(&world, 2);
        for _ in 0..2 {
            let sent = next_sync(&world, &mut forecaster);
            let (_, mut reply) = reply_to(&sent);
            let message = "wait 25 ms".to_owned();
            reply.error = Some(SyncError { code, message });
            let refused = HttpAnswer {
                status: 429,
                body: reply.encode_to_vec(),
            };
            forecaster.on_http_response(sent.call, refused);
            ticks(&world, &mut forecaster, 10);
            assert!(world.take_sent().is_empty(), "it backs off");
        }
        assert_eq!(world.metric(Metric::SyncFailed), 2);
        assert_eq!(state(&world).mode(), Mode::Granted);
        assert!(level(&world, 2) >= before, "the lease goes on");
        let (request, _) = reply_to(&next_sync(&world, &mut forecaster));
        let spent = request.customers.iter().map(|report| report.demand_micro);
        assert_eq!(
            spent.max(),
            Some(12_000_000),
            "what was refused is reported again"
        );
    }
}

#[test]
fn an_unknown_cluster_is_said_and_tried_again() {
    let world = World::new();
    world.refuse_calls(true);
    let mut forecaster = start(&world);
    ticks(&world, &mut forecaster, 5);
    assert!(
        world.log().iter().any(|line| line.contains("cluster")),
        "{:?}",
        world.log()
    );
    world.refuse_calls(false);
    next_sync(&world, &mut forecaster);
}

#[test]
fn a_gateway_that_has_a_certificate_needs_and_sends_no_token() {
    use forebay_forecaster::{Environment, Forecaster};
    let with = |credential: &str, environment: &Environment| {
        let world = World::new();
        let config = CONFIG.replace(
            r#""cluster": "plane""#,
            &format!(r#""cluster": "plane", "credential": "{credential}""#),
        );
        let mut forecaster =
            Forecaster::configure(world.clone(), config.as_bytes(), environment).unwrap();
        let sent = next_sync(&world, &mut forecaster);
        let mut headers = sent.headers.into_iter();
        headers.find_map(|(name, value)| (name == "authorization").then_some(value))
    };
    let token = Some("Bearer secret-token".to_owned());
    assert_eq!(with("token", &environment()), token);
    assert_eq!(with("certificate", &environment()), None);
    assert_eq!(with("certificate", &Environment::default()), None);
}

#[test]
fn a_wrong_configuration_or_environment_says_what_to_do() {
    use forebay_forecaster::{Environment, Forecaster};
    let configure = |config: &str, environment: &Environment| {
        Forecaster::configure(World::new(), config.as_bytes(), environment)
            .unwrap_err()
            .to_string()
    };
    let good = environment();
    assert!(configure(r#"{"version": 1, "tics": {}}"#, &good).contains("tics"));
    let bad_credential = r#"{"version": 1, "control_plane": {"cluster": "c", "credential": "no"}}"#;
    assert!(configure(bad_credential, &good).contains("credential"));
    let with_plane = r#"{"version": 1, "control_plane": {"cluster": "c", "gateway_id": "g"}}"#;
    assert!(configure(with_plane, &Environment::default()).contains("FOREBAY_GATEWAY_TOKEN"));
    let nameless = r#"{"version": 1, "control_plane": {"cluster": "c"}}"#;
    assert!(configure(nameless, &good).contains("FOREBAY_GATEWAY_ID"));
    let bad_secret = Environment {
        key_hash_secret: Some("xyz".to_owned()),
        ..good
    };
    assert!(configure(with_plane, &bad_secret).contains("FOREBAY_KEY_HASH_SECRET"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The promise of cumulative grants: however replies are repeated, delayed or reordered, no more is admitted than the
    /// largest sum that was ever granted.
    #[test]
    fn repeated_and_reordered_grants_create_no_tokens(
        replies in prop::collection::vec((0_u64..200, 0_u64..60), 1..30),
    ) {
        let world = World::new();
        let mut forecaster = granted(&world, 1, 0);
        let (mut spent, mut most) = (0_i64, 0_i64);
        for (granted_tokens, spend) in replies {
            let sent = next_sync(&world, &mut forecaster);
            let (_, mut reply) = reply_to(&sent);
            // The same grant twice in one reply, too.
            reply.grants = vec![grant(0, granted_tokens), grant(0, granted_tokens)];
            most = most.max(i64::try_from(granted_tokens).unwrap() * TOKEN);
            forecaster.on_http_response(sent.call, answer(&reply));
            ticks(&world, &mut forecaster, 2);
            let affordable = (level(&world, 0).max(0) / TOKEN).min(i64::try_from(spend).unwrap());
            world::plane::take_tokens(&world, 0, affordable);
            spent += affordable * TOKEN;
            prop_assert!(spent + level(&world, 0).max(0) <= most, "spent {spent}, level {}, granted {most}", level(&world, 0));
            prop_assert!(level(&world, 0) <= i64::try_from(BURST).unwrap() * TOKEN);
        }
    }

    /// Replies are input from outside: any bytes may come, and whatever they say no bucket is fuller than its contract allows.
    #[test]
    fn mutated_replies_neither_panic_nor_overfill_a_bucket(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let world = World::new();
        let mut forecaster = granted(&world, 3, 10);
        for _ in 0..3 {
            let sent = next_sync(&world, &mut forecaster);
            let (_, mut reply) = reply_to(&sent);
            reply.policy = Some(policy_delta(3));
            reply.grants = (0..3).map(|number| grant(number, 40)).collect();
            reply.model = Some(forebay_wire::sync::ModelRelease { epoch: 1, kind: 1, ..Default::default() });
            reply.windows = vec![forebay_wire::sync::Window { step_ms: 1_000, usage: vec![1.0; 9], mask: vec![255, 1], ..Default::default() }];
            let mut bytes = reply.encode_to_vec();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            if truncate {
                bytes.truncate(cut.index(bytes.len()));
            }
            forecaster.on_http_response(sent.call, HttpAnswer { status: 200, body: bytes });
            ticks(&world, &mut forecaster, 10);
            for number in 0..3 {
                prop_assert!(level(&world, number) <= i64::try_from(BURST).unwrap() * TOKEN);
            }
        }
    }
}

#[test]
fn a_reply_to_another_request_is_not_applied() {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 10);
    let sent = next_sync(&world, &mut forecaster);
    let (_, reply) = reply_to(&sent);
    let other = SyncReply {
        sequence: reply.sequence - 1,
        grants: vec![grant(0, 40)],
        ..reply
    };
    forecaster.on_http_response(sent.call, answer(&other));
    ticks(&world, &mut forecaster, 5);
    assert_eq!(level(&world, 0), 10 * TOKEN);
}

#[test]
fn a_ledger_of_another_build_is_left_alone_and_reported_once() {
    let world = World::new();
    let mut forecaster = granted(&world, 3, 30);
    let (mut foreign, _) = world.shared_data(STATE_KEY).unwrap();
    foreign[3] += 1;
    world.set_shared_data(STATE_KEY, &foreign, None).unwrap();
    for _ in 0..3 {
        let sent = next_sync(&world, &mut forecaster);
        let (_, mut reply) = reply_to(&sent);
        reply.policy = Some(policy_delta(3));
        forecaster.on_http_response(sent.call, answer(&reply));
        ticks(&world, &mut forecaster, 5);
    }
    assert_eq!(world.shared_data(STATE_KEY).unwrap().0, foreign);
    let said = world
        .log()
        .into_iter()
        .filter(|line| line.contains("of one release"));
    assert_eq!(said.count(), 1);
}
