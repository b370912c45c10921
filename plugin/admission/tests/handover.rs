//! Tokens on their way while something else comes in force: another mode, another policy, another configuration, no ledger.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a failed step must stop the test

mod gateway;

use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::{Install, Ledger, LedgerSize, POOL_KEY, PolicyCustomer, Region, State};
use forebay_core::pool::Pools;
use forebay_core::{CustomerHash, Micro, Policy, Rate, ResourceIndex, TimeUs};
use forebay_wire::key::KeySecret;
use gateway::{BY_KEY, Gateway, Request, SECOND_US, TEN_PER_S, config};

fn hash(key: &str) -> CustomerHash {
    CustomerHash(KeySecret::development().hash(key.as_bytes()).0)
}

/// The policy in force.
fn policy(gateway: &mut Gateway) -> Policy {
    let mut ledger = Ledger::open(&mut gateway.world.data).unwrap();
    ledger
        .read_policy(&mut gateway.world.data)
        .unwrap()
        .unwrap()
}

/// Lists customers, grants each a balance of `tokens` of the first resource and a lease of an hour, as the forecaster does.
fn grant(gateway: &mut Gateway, keys: &[&str], tokens: u64) {
    let policy = policy(gateway);
    let now = TimeUs(gateway.world.now_us);
    let data = &mut gateway.world.data;
    let mut ledger = Ledger::open(data).unwrap();
    let end = now.plus_us(3_600 * SECOND_US);
    ledger
        .edit_state(data, |state| {
            state.lease = state.lease.renewed(now, end, end)
        })
        .unwrap();
    let lease = ledger.state().lease;
    let conditions = forebay_core::draw::Conditions {
        policy: &policy,
        lease,
        now,
        workers: 1,
    };
    let customers = keys
        .iter()
        .map(|key| PolicyCustomer::plain(hash(key), forebay_core::policy::ContractIndex(0)));
    Install::new(&ledger, customers.collect(), true)
        .step(&mut ledger, data, &conditions, u32::MAX)
        .unwrap();
    let terms = GrantTerms {
        rate: Rate::ZERO,
        cap: Micro::from_tokens(5),
        fallback_rate: Rate::ZERO,
    };
    let grant = Grant {
        terms,
        granted_cum: tokens * 1_000_000,
        ..Grant::default()
    };
    for key in keys {
        let page = ledger.state().layout.page_of(Region::Policy, &hash(key));
        ledger
            .edit_page(data, Region::Policy, page, now, |page| {
                page.update(&hash(key), |entry| {
                    entry.apply_grant(ResourceIndex::FIRST, &grant, &policy, &lease, now);
                })
            })
            .unwrap();
    }
}

/// What the ledger holds for a customer.
fn level(gateway: &mut Gateway, key: &str, resource: usize) -> Micro {
    let policy = policy(gateway);
    let now = TimeUs(gateway.world.now_us);
    let data = &mut gateway.world.data;
    let mut ledger = Ledger::open(data).unwrap();
    let lease = ledger.state().lease;
    for region in [Region::Policy, Region::Other] {
        let page = ledger.state().layout.page_of(region, &hash(key));
        let view = ledger.view_page(data, region, page).unwrap();
        let found = view.entries().map(Result::unwrap);
        if let Some(mut entry) = found.into_iter().find(|entry| entry.customer == hash(key)) {
            entry.refill(&policy, &lease, now);
            let resource = ResourceIndex::new(resource).unwrap();
            return entry.holdings.at(resource).contract.level;
        }
    }
    panic!("{key} is on no page");
}

const SETTLED: &str = r#"{"name": "api", "key": {"header": {"name": "x-key", "trusted": true}}, "charges": [
    {"resource": "requests", "cost": {"settle": {"estimate": 4, "response_header": "x-used", "max": 8}}}]}"#;

#[test]
fn what_was_admitted_before_the_first_answer_is_not_settled_with_a_contract() {
    let waiting = format!(
        r#"{{"version": 1, "rules": [{SETTLED}], "control_plane": {{"cold_start": {{"shared": {{"rate_per_s": 1, "burst": 4}}}}}}}}"#
    );
    let mut gateway = Gateway::new(&waiting, 1);
    let request = Request::of("acme").response("x-used", "0");
    let (stream, mut answer) = gateway.open(0, &request);
    assert_eq!(answer.status, 0, "the shared bucket has it");
    gateway.receive_policy(&format!(r#"{{"version": 1, {TEN_PER_S}}}"#));
    grant(&mut gateway, &["acme"], 1);
    gateway.tick_all();
    gateway.close(0, stream, &request, &mut answer);
    gateway.tick_all();
    assert_eq!(
        level(&mut gateway, "acme", 0),
        Micro::from_tokens(1),
        "nobody gets back what the shared bucket paid"
    );
    assert_eq!(answer.header("x-used"), None);
}

/// Requests until the worker holds a chunk.
fn hold_a_chunk(gateway: &mut Gateway, key: &str) {
    for _ in 0..40 {
        gateway.advance_ms(5);
        assert!(gateway.send(0, &Request::of(key)).admitted());
    }
}

const STILL: &str = r#""unknown": {"action": "default_contract", "contract": "basic"}, "resources": {"requests": {}},
    "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 0, "burst": 100}}}}"#;

#[test]
fn a_configuration_that_is_over_refills_nobody_under_what_was_in_force_then() {
    let policy = STILL.replace(r#""rate_per_s": 0"#, r#""rate_per_s": 100"#);
    let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 1);
    hold_a_chunk(&mut gateway, "acme");
    // From here on a control plane decides; it has granted nothing but the one token.
    let waiting = format!(
        r#"{{"version": 1, "rules": [{BY_KEY}], "control_plane": {{"cold_start": "deny"}}}}"#
    );
    let new = gateway.configure(&waiting).unwrap();
    gateway.receive_policy(&format!(
        r#"{{"version": 1, {}}}"#,
        TEN_PER_S.replace("10, \"burst\": 5", "1, \"burst\": 2")
    ));
    let mut old = std::mem::replace(&mut gateway.workers[0], new);
    gateway.tick_all();
    grant(&mut gateway, &["acme"], 1);
    gateway.advance_ms(60_000);
    gateway.retire(&mut old);
    assert_eq!(level(&mut gateway, "acme", 0), Micro::from_tokens(1));
}

#[test]
fn a_configuration_that_is_over_still_reports_what_was_spent() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", STILL), 1);
    hold_a_chunk(&mut gateway, "acme");
    let new = gateway.configure(&config(BY_KEY, "", STILL)).unwrap();
    let mut old = std::mem::replace(&mut gateway.workers[0], new);
    gateway.retire(&mut old);
    assert_eq!(level(&mut gateway, "acme", 0), Micro::from_tokens(60));
}

#[test]
fn tokens_of_one_resource_never_become_tokens_of_another() {
    let two = |resources: &str| {
        format!(
            r#""unknown": {{"action": "default_contract", "contract": "basic"}}, "resources": {{{resources}}},
            "contracts": {{"basic": {{"limits": {{"requests": {{"rate_per_s": 0, "burst": 100}}, "bytes": {{"rate_per_s": 0, "burst": 100}}}}}}}}"#
        )
    };
    let before = two(r#""requests": {}, "bytes": {}"#);
    let mut gateway = Gateway::new(&config(BY_KEY, "", &before), 1);
    hold_a_chunk(&mut gateway, "acme");
    // Another policy, with the resources in other places and an empty ledger for them.
    let document = serde_json::from_str(&format!(
        r#"{{"version": 1, {}}}"#,
        two(r#""bytes": {}, "requests": {}"#)
    ))
    .unwrap();
    let mut after = forebay_policy::compile(&document).unwrap().policy;
    let names = |policy: &Policy| -> Vec<String> {
        policy
            .resources
            .iter()
            .map(|resource| resource.name.clone())
            .collect()
    };
    let old = policy(&mut gateway);
    if names(&after) == names(&old) {
        after.resources.reverse();
    }
    after.epoch = old.epoch + 1;
    let now = TimeUs(gateway.world.now_us);
    let data = &mut gateway.world.data;
    let size = LedgerSize::default();
    let mut ledger = Ledger::seed(data, size, &after, Lease::StandAlone, now).unwrap();
    ledger.write_policy(data, &after).unwrap();
    let mark = State::resources_mark_of(
        after
            .resources
            .iter()
            .map(|resource| resource.name.as_str()),
    );
    assert_eq!(ledger.state().resources_mark, mark);
    ledger
        .edit_state(data, |state| state.policy_epoch = after.epoch)
        .unwrap();
    gateway.tick_all();
    assert!(!gateway.send(0, &Request::of("acme")).admitted());
    for resource in 0..2 {
        assert_eq!(level(&mut gateway, "acme", resource), Micro::ZERO);
    }
}

#[test]
fn a_chunk_that_cannot_go_back_is_not_spent_after_the_ledger_has_forgotten_it() {
    let policy = STILL.replace(r#""rate_per_s": 0"#, r#""rate_per_s": 100"#);
    let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 2);
    hold_a_chunk(&mut gateway, "acme");
    // Meanwhile the ledger fills up without the chunk.
    gateway.world.data_fails = true;
    for _ in 0..50 {
        gateway.advance_ms(100);
        gateway.tick_all();
    }
    gateway.world.data_fails = false;
    let all = (0..200)
        .filter(|n| gateway.send(n % 2, &Request::of("acme")).admitted())
        .count();
    assert_eq!(all, 100, "the burst and nothing beside it");
    assert!(gateway.metric("forebay.events.kind=chunk_lost") > 0);
}

#[test]
fn a_worker_that_stood_still_spends_hardly_anything_that_the_ledger_has_forgotten() {
    let policy = STILL
        .replace(r#""rate_per_s": 0"#, r#""rate_per_s": 1000"#)
        .replace(r#""burst": 100"#, r#""burst": 1000"#);
    let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 2);
    gateway.send(0, &Request::of("acme"));
    // Until the worker has just drawn a large chunk.
    loop {
        let before = level(&mut gateway, "acme", 0);
        assert!(gateway.send(0, &Request::of("acme")).admitted());
        if before.minus(level(&mut gateway, "acme", 0)) > Micro::from_tokens(100) {
            break;
        }
        gateway.advance_ms(1);
    }
    // Its timers come after the requests that have queued up meanwhile.
    gateway.advance_ms(6_000);
    let admitted = |gateway: &mut Gateway, worker| {
        (0..1_500)
            .filter(|_| gateway.send(worker, &Request::of("acme")).admitted())
            .count()
    };
    let all = admitted(&mut gateway, 1) + admitted(&mut gateway, 0);
    assert!(
        (1_000..1_000 + 32).contains(&all),
        "{all} of a burst of 1000"
    );
}

#[test]
fn a_customer_that_makes_room_in_a_worker_gets_its_chunk_back_into_the_ledger() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", STILL), 1);
    hold_a_chunk(&mut gateway, "acme");
    assert!(
        level(&mut gateway, "acme", 0) < Micro::from_tokens(60),
        "a part of it lies in the chunk"
    );
    // A worker keeps 16 384 customers; a second request makes a customer worth keeping.
    for n in 0..16_500 {
        let stranger = Request::of(&format!("key-{n}"));
        gateway.send(0, &stranger);
        gateway.send(0, &stranger);
    }
    assert_eq!(level(&mut gateway, "acme", 0), Micro::from_tokens(60));
}

#[test]
fn a_scan_that_was_under_way_does_not_take_away_what_new_customers_protect() {
    // 512 pages of policy customers: a lap takes the leader several ticks.
    let customers = |n: u64| {
        let list: Vec<String> = (0..n)
            .map(|n| format!(r#"{{"key": "key-{n}", "contract": "basic"}}"#))
            .collect();
        format!(
            r#""resources": {{"requests": {{"capacity_per_s": 1000}}}}, "customers": [{}],
            "contracts": {{"basic": {{"limits": {{"requests": {{"rate_per_s": 8, "burst": 8, "guarantee_per_s": 8}}}}}}}}"#,
            list.join(",")
        )
    };
    let ledger = r#""ledger": {"max_policy_customers": 2048, "max_other_customers": 1},"#;
    let document = |n| config(BY_KEY, ledger, &customers(n));
    let mut gateway = Gateway::new(&document(1), 1);
    for _ in 0..4 {
        gateway.advance_ms(100);
        gateway.tick_all();
    }
    // Half of the lap is done; the new customers are on its pages too.
    let worker = gateway.configure(&document(100)).unwrap();
    drop(worker);
    let of_all = protected(&gateway);
    assert_eq!(of_all, Micro::from_tokens(200));
    for tick in 0..20 {
        gateway.advance_ms(100);
        gateway.tick_all();
        assert_eq!(protected(&gateway), of_all, "tick {tick}");
    }
}

fn protected(gateway: &Gateway) -> Micro {
    let bytes = gateway
        .world
        .data
        .values()
        .find(|(key, _)| *key == POOL_KEY)
        .unwrap()
        .1;
    let pools = Pools::decode(bytes, 1).unwrap();
    pools.pools.at(ResourceIndex::FIRST).protected.bucket.level
}
