//! Configuration, restarts, policy changes, the control plane: what happens to a gateway over time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a failed step must stop the test

mod gateway;

use forebay_admission::ConfigureError;
use forebay_core::lease::Lease;
use forebay_core::ledger::{Ledger, POOL_KEY, STATE_KEY, SharedData};
use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::pool::Pools;
use forebay_core::{Micro, ResourceIndex};
use gateway::{BY_KEY, Gateway, Request, TEN_PER_S, config};

fn burst_of(gateway: &mut Gateway, worker: usize, request: &Request) -> usize {
    (0..1_000)
        .take_while(|_| gateway.send(worker, request).admitted())
        .count()
}

#[test]
fn a_vm_that_restarts_finds_the_ledger_as_it_was() {
    let config = config(BY_KEY, "", TEN_PER_S);
    let mut gateway = Gateway::new(&config, 2);
    let acme = Request::of("acme");
    assert_eq!(burst_of(&mut gateway, 0, &acme), 5);
    for _ in 0..3 {
        gateway.workers[0] = gateway.configure(&config).unwrap();
        assert_eq!(burst_of(&mut gateway, 0, &acme), 0);
        assert_eq!(burst_of(&mut gateway, 1, &acme), 0);
    }
}

#[test]
fn a_configuration_that_is_refused_changes_nothing() {
    let good = config(BY_KEY, "", TEN_PER_S);
    let mut gateway = Gateway::new(&good, 1);
    let acme = Request::of("acme");
    assert!(gateway.send(0, &acme).admitted());
    let before: Vec<(String, Vec<u8>)> = ledger_of(&gateway);
    for (bad, path) in [
        ("", "."),
        ("{", "."),
        (&good.replace("\"version\": 1, \"rules\"", "\"version\": 1, \"ruels\": [], \"rules\""), "ruels"),
        (&good.replace("\"burst\": 5", "\"burst\": -5"), "policy.contracts.basic.limits.requests.burst"),
        (&good.replace("\"burst\": 5", "\"burst\": 0"), "policy.contracts.basic.limits.requests.burst"),
        (&good.replace("\"contract\": \"basic\"", "\"contract\": \"gold\""), "policy.unknown.contract"),
        (&good.replace("[{\"resource\": \"requests\"}]", "[{\"resource\": \"request\"}]"), "rules[0].charges[0].resource"),
        (
            &good.replace(
                "\"requests\": {}}",
                "\"requests\": {\"capacity_per_s\": 9}}, \"customers\": [{\"key\": \"a\", \"contract\": \"g\"}]",
            )
            .replace("{\"basic\"", "{\"g\": {\"limits\": {\"requests\": {\"rate_per_s\": 10, \"burst\": 5, \"guarantee_per_s\": 10}}}, \"basic\""),
            "policy.resources.requests.capacity_per_s",
        ),
        (
            &good.replace(
                "\"requests\": {}}",
                "\"requests\": {}}, \"customers\": [{\"key\": \"a\", \"contract\": \"basic\"}, {\"key\": \"a\", \"contract\": \"basic\"}]",
            ),
            "policy.customers[1].key",
        ),
    ] {
        let error = gateway.configure(bad).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: ")) || error.starts_with(&format!("{path} ")), "{path}: {error}");
        assert_eq!(ledger_of(&gateway), before, "{path}");
    }
    assert_eq!(burst_of(&mut gateway, 0, &acme), 4);
}

fn ledger_of(gateway: &Gateway) -> Vec<(String, Vec<u8>)> {
    let mut values: Vec<_> = gateway
        .world
        .data
        .values()
        .map(|(key, value)| (key.to_owned(), value.to_vec()))
        .collect();
    values.sort();
    values
}

#[test]
fn a_wrong_secret_is_refused_without_repeating_it() {
    let config = config(BY_KEY, "", TEN_PER_S);
    let mut gateway = Gateway::new(&config, 1);
    let refused = gateway.configure_with_secret(&config, "not hexadecimal");
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConfigureError::Secret(_)));
    assert!(
        error.to_string().contains("FOREBAY_KEY_HASH_SECRET")
            && !error.to_string().contains("not hex")
    );
}

#[test]
fn a_lowered_limit_and_a_ban_bind_within_one_tick_in_every_worker() {
    let old = TEN_PER_S.replace("\"burst\": 5", "\"burst\": 1000");
    let mut gateway = Gateway::new(&config(BY_KEY, "", &old), 2);
    for worker in 0..2 {
        for _ in 0..20 {
            assert!(gateway.send(worker, &Request::of("acme")).admitted());
            assert!(gateway.send(worker, &Request::of("bad")).admitted());
        }
    }
    let banned = r#""customers": [{"key": "bad", "contract": "basic", "banned": true}],"#;
    let new = config(BY_KEY, "", &format!("{banned} {TEN_PER_S}"));
    gateway.workers[0] = gateway.configure(&new).unwrap();
    gateway.tick_all();
    for worker in 0..2 {
        assert!(
            !gateway.send(worker, &Request::of("bad")).admitted(),
            "worker {worker}"
        );
    }
    let both = burst_of(&mut gateway, 0, &Request::of("acme"))
        + burst_of(&mut gateway, 1, &Request::of("acme"));
    assert!(both <= 5, "{both}");
}

#[test]
fn configuring_again_with_the_same_document_is_no_new_policy() {
    let policy = format!(r#""customers": [{{"key": "acme", "contract": "basic"}}], {TEN_PER_S}"#);
    let config = config(BY_KEY, "", &policy);
    let mut gateway = Gateway::new(&config, 1);
    let before = gateway.world.metrics["forebay.policy_epoch"];
    for _ in 0..4 {
        gateway.workers[0] = gateway.configure(&config).unwrap();
    }
    assert_eq!(gateway.world.metrics["forebay.policy_epoch"], before);
    gateway.workers[0] = gateway
        .configure(&config.replace("\"burst\": 5", "\"burst\": 6"))
        .unwrap();
    assert_eq!(gateway.world.metrics["forebay.policy_epoch"], before + 1);
}

#[test]
fn an_idle_chunk_goes_back_and_another_worker_can_spend_it() {
    let policy = TEN_PER_S.replace("10, \"burst\": 5", "0, \"burst\": 100");
    let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 2);
    let acme = Request::of("acme");
    for _ in 0..40 {
        gateway.advance_ms(5);
        assert!(gateway.send(0, &acme).admitted());
    }
    for _ in 0..10 {
        gateway.advance_ms(100);
        gateway.tick_all();
    }
    assert_eq!(burst_of(&mut gateway, 1, &acme), 60);
}

fn waiting(cold_start: &str) -> String {
    format!(
        r#"{{"version": 1, "rules": [{BY_KEY}], "control_plane": {{"cold_start": {cold_start}}}}}"#
    )
}

#[test]
fn a_gateway_that_was_never_answered_denies_or_shares_one_bucket() {
    let mut gateway = Gateway::new(&waiting(r#""deny""#), 1);
    let denied = gateway.send(0, &Request::of("acme"));
    assert_eq!(
        (denied.details.as_str(), denied.header("retry-after")),
        ("forebay_denied_unknown", Some("1"))
    );

    let shared = waiting(r#"{"shared": {"rate_per_s": 2, "burst": 3}}"#);
    let mut gateway = Gateway::new(&shared, 2);
    let admitted = (0..20)
        .filter(|n| {
            gateway
                .send(n % 2, &Request::of(&format!("key-{n}")))
                .admitted()
        })
        .count();
    assert_eq!(admitted, 3);
    gateway.workers[0] = gateway.configure(&shared).unwrap();
    assert!(!gateway.send(0, &Request::of("acme")).admitted());
    gateway.advance_ms(1_000);
    assert_eq!(burst_of(&mut gateway, 0, &Request::of("acme")), 2);
}

#[test]
fn the_policy_of_the_control_plane_is_in_force_one_tick_after_it_arrived() {
    let mut gateway = Gateway::new(&waiting(r#""deny""#), 2);
    assert!(!gateway.send(1, &Request::of("acme")).admitted());
    gateway.receive_policy(&format!(r#"{{"version": 1, {TEN_PER_S}}}"#));
    gateway.tick_all();
    let now = gateway.world.now_us;
    let mut ledger = Ledger::open(&mut gateway.world.data).unwrap();
    let from = forebay_core::time::TimeUs(now);
    let until = from.plus_us(3_600 * gateway::SECOND_US);
    ledger
        .edit_state(&mut gateway.world.data, |state| {
            state.lease = Lease::Waiting.renewed(from, until, until)
        })
        .unwrap();
    gateway.tick_all();
    // Nothing was granted to this customer yet, but the policy is the control plane's.
    let answer = gateway.send(1, &Request::of("acme"));
    assert_eq!(answer.details, "forebay_denied_contract");
    assert_eq!(gateway.world.metrics["forebay.policy_epoch"], 7);
}

#[test]
fn a_policy_that_cannot_be_read_leaves_the_last_one_in_force_and_says_so_once() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let mut ledger = Ledger::open(&mut gateway.world.data).unwrap();
    gateway.world.data.put("fb/1/policy", b"damaged".to_vec());
    ledger
        .edit_state(&mut gateway.world.data, |state| state.policy_epoch += 1)
        .unwrap();
    gateway.world.logs.clear();
    for _ in 0..5 {
        gateway.tick_all();
    }
    assert_eq!(gateway.world.logs.len(), 1, "{:?}", gateway.world.logs);
    assert_eq!(burst_of(&mut gateway, 0, &Request::of("acme")), 5);
}

#[test]
fn a_ledger_of_another_build_is_reported_once_with_what_to_do() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let mut state = Ledger::open(&mut gateway.world.data)
        .unwrap()
        .state()
        .encode();
    state[3] += 1;
    gateway.world.data.put(STATE_KEY, state.to_vec());
    gateway.world.logs.clear();
    for _ in 0..5 {
        gateway.tick_all();
    }
    let [line] = &gateway.world.logs[..] else {
        panic!("{:?}", gateway.world.logs)
    };
    assert!(
        line.contains("layout version") && line.contains("of one release"),
        "{line}"
    );
    assert!(gateway.metric("forebay.events.kind=ledger_refused") >= 5);
}

#[test]
fn a_lease_that_ends_is_reported_once_and_again_after_the_next_one() {
    let mut gateway = Gateway::new(&waiting("\"deny\""), 2);
    gateway.receive_policy(&format!("{{\"version\": 1, {TEN_PER_S}}}"));
    for lease in 1..=2 {
        let now = forebay_core::TimeUs(gateway.world.now_us);
        let mut ledger = Ledger::open(&mut gateway.world.data).unwrap();
        ledger
            .edit_state(&mut gateway.world.data, |state| {
                state.lease =
                    state
                        .lease
                        .renewed(now, now.plus_us(1_000_000), now.plus_us(9_000_000));
            })
            .unwrap();
        gateway.tick_all();
        assert_eq!(
            gateway.metric("forebay.events.kind=lease_lapsed"),
            lease - 1
        );
        gateway.advance_ms(1_000);
        for _ in 0..5 {
            gateway.tick_all();
        }
        assert_eq!(gateway.metric("forebay.events.kind=lease_lapsed"), lease);
        let said = gateway
            .world
            .logs
            .iter()
            .filter(|line| line.contains("lease has ended"));
        assert_eq!(said.count() as u64, lease);
    }
}

/// Two guarantees of 40/s, a quarter of a second of each is protected.
const GUARANTEED: &str = r#""resources": {"requests": {"capacity_per_s": 100}},
    "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 50, "burst": 50, "guarantee_per_s": 40}}}},
    "customers": [{"key": "acme", "contract": "basic"}, {"key": "globex", "contract": "basic"}]"#;
const PROTECTED: i64 = 20 * MICRO_PER_TOKEN;

fn guaranteed() -> String {
    let ledger = r#""ledger": {"max_policy_customers": 8, "max_other_customers": 8},"#;
    config(BY_KEY, ledger, GUARANTEED)
}

/// The sum of what is protected, and a way to let it drift.
fn protected(gateway: &mut Gateway, set_to: Option<i64>) -> i64 {
    let data = &mut gateway.world.data;
    let bytes = data.values().find(|(key, _)| *key == POOL_KEY).unwrap().1;
    let mut pools = Pools::decode(bytes, 1).unwrap();
    let level = &mut pools
        .pools
        .at_mut(ResourceIndex::FIRST)
        .protected
        .bucket
        .level;
    let before = *level;
    if let Some(micro) = set_to {
        *level = Micro::new(micro);
        data.set(POOL_KEY, &pools.encode(1), None).unwrap();
    }
    before.get()
}

#[test]
fn a_guarantee_is_protected_before_the_first_tick() {
    let mut gateway = Gateway::new(&guaranteed(), 0);
    let _worker = gateway.configure(&guaranteed()).unwrap();
    assert_eq!(protected(&mut gateway, None), PROTECTED);
}

#[test]
fn the_leader_sets_right_the_sum_of_what_is_protected() {
    let mut gateway = Gateway::new(&guaranteed(), 2);
    protected(&mut gateway, Some(5));
    gateway.advance_ms(100);
    gateway.tick_all();
    assert_eq!(protected(&mut gateway, None), PROTECTED);
}

#[test]
fn a_vm_that_only_tried_the_configuration_does_not_lead() {
    let mut gateway = Gateway::new(&guaranteed(), 0);
    let tried = gateway.configure(&guaranteed()).unwrap();
    drop(tried);
    let worker = gateway.configure(&guaranteed()).unwrap();
    gateway.workers.push(worker);
    protected(&mut gateway, Some(5));
    gateway.advance_ms(100);
    gateway.tick_all();
    assert_eq!(protected(&mut gateway, None), PROTECTED);
}

#[test]
fn a_ledger_of_another_size_starts_with_what_flows_from_now_on() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let larger = config(
        BY_KEY,
        r#""ledger": {"max_other_customers": 100000},"#,
        TEN_PER_S,
    );
    gateway.workers[0] = gateway.configure(&larger).unwrap();
    assert_eq!(burst_of(&mut gateway, 0, &Request::of("acme")), 0);
    gateway.advance_ms(300);
    gateway.tick_all();
    assert_eq!(burst_of(&mut gateway, 0, &Request::of("globex")), 3);
}
