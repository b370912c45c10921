//! The contract that Limitador asks of each of its stores (Kuadrant/limitador, Apache-2.0, `limitador/tests/integration_tests.rs`), under the
//! names that the cases have there, asked of ours through the server on both of them: the embedded one and Redis.
//!
//! A store of Limitador counts, one of ours keeps what is counted; so what its contract says of counters is said here of customers, by
//! the `ratelimit` service and the API. A namespace with a limit is a contract, a value of `app_id` a customer, `is_rate_limited` a charge
//! that something else keeps from being paid, `update_counters` and `check_rate_limited_and_update` charges, `get_counters` what
//! `GET /v1/customers` says, `add_limit`, `delete_limit(s)` and `configure_with` another policy. What a store must do with bytes is asked of
//! all of ours in `control-plane/src/store/tests.rs`.
//!
//! Left out: what expressions select (the methods of `multiple_limits_rate_limited` are two resources here); `get_namespaces...`, which lists
//! what has limits; `get_counters_does_not_return_expired_ones`, because a bucket that is full again is still one; and what deletes
//! nothing, `delete_limits_of_an_empty_namespace_does_nothing`. `delete_limit_also_deletes_associated_counters` has another answer here:
//! who comes back must not come back to a full bucket, so what was used is kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod filters;
mod process;

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use filters::{Descriptor, PATIENCE, POLL, World};
use forebay_redis_tests::Node;
use process::{ADMIN_TOKEN, VIEWER_TOKEN, send};
use serde_json::{Value, json};
use std::time::Instant;

/// Slower than any window of theirs.
const RATE_PER_S: f64 = 0.000_1;

/// A policy whose customers have so many `requests`, and as many `posts` and one more.
fn policy(customers: &[(&str, u32)]) -> Value {
    let mut contracts = json!({});
    for (_, max) in customers {
        let limit = |burst: u32| {
            let rate = if burst == 0 { 0.0 } else { RATE_PER_S };
            json!({"rate_per_s": rate, "burst": burst})
        };
        contracts[format!("max-{max}")] =
            json!({"limits": {"requests": limit(*max), "posts": limit(max + 1)}});
    }
    // A policy has one contract at least.
    if customers.is_empty() {
        return policy_of(
            &json!({"unused": {"limits": {
                "requests": {"rate_per_s": 1, "burst": 1}, "posts": {"rate_per_s": 1, "burst": 1},
            }}}),
            &[],
        );
    }
    let customers: Vec<Value> = customers
        .iter()
        .map(|(key, max)| json!({"key": key, "contract": format!("max-{max}")}))
        .collect();
    policy_of(&contracts, &customers)
}

fn policy_of(contracts: &Value, customers: &[Value]) -> Value {
    json!({
        "version": 1,
        "resources": {"requests": {}, "posts": {}},
        "contracts": contracts,
        "customers": customers,
    })
}

/// A world on each store, in which these customers have all of their bursts at the gateway.
async fn on_each_store(customers: &[(&str, u32)]) -> [(&'static str, World); 2] {
    let policy = policy(customers);
    let worlds = [
        ("embedded", World::start(&policy).await),
        ("redis", World::start_on_redis(&policy).await),
    ];
    for (_, world) in &worlds {
        for (customer, max) in customers.iter().filter(|(_, max)| *max > 0) {
            world.until_granted(customer, "requests", *max).await;
            world.until_granted(customer, "posts", max + 1).await;
        }
    }
    worlds
}

fn of<'a>(entries: &'a [(&'a str, &'a str)], hits: u64) -> Descriptor<'a> {
    (entries, Some(hits))
}

/// A charge of a customer that nobody can be charged for keeps everything else from being paid.
const NOT_PAID: Descriptor<'static> = (&[("customer", "")], None);

/// `is_rate_limited`: looks whether so much would be denied.
async fn is_limited(world: &World, entries: &[(&str, &str)], hits: u64) -> bool {
    let (_, codes) = world.codes(&[of(entries, hits), NOT_PAID], 1).await;
    codes[0] == Code::OverLimit
}

/// `check_rate_limited_and_update`: charges it, unless it is denied.
async fn charge(world: &World, entries: &[(&str, &str)], hits: u64) -> bool {
    world.codes(&[of(entries, hits)], 1).await.0 == Code::Ok
}

const APP: &[(&str, &str)] = &[("customer", "test_app_id")];
const POSTS: &[(&str, &str)] = &[("customer", "test_app_id"), ("resource", "posts")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limited() {
    for (store, world) in &on_each_store(&[("test_app_id", 3)]).await {
        for hit in 0..3 {
            assert!(!is_limited(world, APP, 1).await, "{store}: {hit}");
            assert!(charge(world, APP, 1).await, "{store}: {hit}");
        }
        assert!(is_limited(world, APP, 1).await, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multiple_limits_rate_limited() {
    for (store, world) in &on_each_store(&[("test_app_id", 3)]).await {
        for hit in 0..3 {
            for entries in [APP, POSTS] {
                assert!(!is_limited(world, entries, 1).await, "{store}: {hit}");
                assert!(charge(world, entries, 1).await, "{store}: {hit}");
            }
        }
        assert!(is_limited(world, APP, 1).await, "{store}");
        assert!(!is_limited(world, POSTS, 1).await, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limited_with_delta_higher_than_one_and_than_max() {
    for (store, world) in &on_each_store(&[("test_app_id", 10)]).await {
        assert!(is_limited(world, APP, 11).await, "{store}");
        for hit in 0..2 {
            assert!(!is_limited(world, APP, 5).await, "{store}: {hit}");
            assert!(charge(world, APP, 5).await, "{store}: {hit}");
        }
        assert!(is_limited(world, APP, 1).await, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_into_account_only_vars_of_the_limits() {
    for (store, world) in &on_each_store(&[("test_app_id", 3)]).await {
        for hit in ["0", "1", "2"] {
            let entries = [("customer", "test_app_id"), ("does_not_apply", hit)];
            assert!(!is_limited(world, &entries, 1).await, "{store}: {hit}");
            assert!(charge(world, &entries, 1).await, "{store}: {hit}");
        }
        assert!(is_limited(world, APP, 1).await, "{store}");
    }
}

/// With `is_rate_limited_returns_false_when_no_limits_in_namespace`, `..._when_no_matching_limits` and `..._applies_limit_if_its_unconditional`,
/// and the same of `check_rate_limited_and_update`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_rate_limited_by_what_matches() {
    for (store, world) in &on_each_store(&[("test_app_id", 0), ("other", 1)]).await {
        let not_matched: &[_] = &[("req.method", "POST")];
        assert!(!is_limited(world, not_matched, 1).await, "{store}");
        assert!(charge(world, not_matched, 1).await, "{store}");
        assert!(is_limited(world, APP, 1).await, "{store}");
        assert!(!charge(world, APP, 1).await, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_rate_limited_and_update_load_counters() {
    for (store, world) in &on_each_store(&[("test_app_id", 3)]).await {
        for (hit, left, code) in [
            (1, 2, Code::Ok),
            (2, 1, Code::Ok),
            (3, 0, Code::Ok),
            (4, 0, Code::OverLimit),
        ] {
            let answer = world.ask(&[of(APP, 1)], 1).await.unwrap();
            let [status] = answer.statuses.as_slice() else {
                panic!("{store}: one counter: {answer:?}");
            };
            let found = (status.code(), status.limit_remaining);
            assert_eq!(found, (code, left), "{store}: {hit}");
            assert!(status.duration_until_reset.is_some(), "{store}: {hit}");
        }
    }
}

/// What the API says of a customer's requests: its burst, and what is left of it; nothing if nobody knows the customer.
async fn counter(world: &World, customer: &str) -> Option<(f64, f64)> {
    let path = format!("/v1/customers/{customer}");
    let address = &world.process.address;
    let answer = send(address, "GET", &path, VIEWER_TOKEN, Vec::new()).await;
    let (status, body) = answer.unwrap();
    if status == 404 {
        return None;
    }
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let resources = answer["resources"].as_array().unwrap();
    let requests = resources.iter().find(|one| one["resource"] == "requests");
    let tokens = |name: &str| requests.unwrap()[name].as_f64().unwrap();
    let left = tokens("central_tokens") + tokens("gateway_tokens");
    Some((tokens("burst"), left))
}

/// Waits until the API says so. Charges come to it with a sync; and a bit flows in meanwhile.
async fn until_counter(world: &World, customer: &str, expected: Option<(f64, f64)>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = counter(world, customer).await;
        let is_it = match (found, expected) {
            (Some((burst, left)), Some(expected)) => {
                burst == expected.0 && (left - expected.1).abs() < 0.1
            }
            (found, expected) => found.is_none() && expected.is_none(),
        };
        if is_it {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{customer}: {found:?}, not {expected:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// With `get_counters_returns_empty_when_no_limits_in_namespace` and `..._no_counters_in_namespace`: a customer that never asked has all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_counters() {
    let customers = [("1", 10), ("2", 10), ("3", 10)];
    for (store, world) in &on_each_store(&customers).await {
        for (customer, hits, left) in [("1", 1, 9.0), ("2", 5, 5.0), ("3", 0, 10.0)] {
            assert!(
                charge(world, &[("customer", customer)], hits).await,
                "{store}"
            );
            until_counter(world, customer, Some((10.0, left))).await;
        }
        assert_eq!(counter(world, "4").await, None, "{store}");
    }
}

/// With `add_a_limit`, `add_limit_without_vars`, `add_several_limits_in_the_same_namespace`, `delete_limit` and `delete_limits...`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configure_with_creates_the_given_limits_and_deletes_all_others() {
    for (store, world) in &on_each_store(&[]).await {
        assert_eq!(counter(world, "first").await, None, "{store}");
        world.apply(&policy(&[("first", 10), ("second", 20)])).await;
        until_counter(world, "first", Some((10.0, 10.0))).await;
        until_counter(world, "second", Some((20.0, 20.0))).await;
        world.until_granted("first", "requests", 10).await;
        assert!(charge(world, &[("customer", "first")], 1).await, "{store}");

        world.apply(&policy(&[("first", 10)])).await;
        until_counter(world, "second", None).await;
        until_counter(world, "first", Some((10.0, 9.0))).await;
        world.apply(&policy(&[])).await;
        until_counter(world, "first", None).await;
        until_denied(world, &[("customer", "first")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configure_with_keeps_the_given_limits_and_counters_if_they_exist() {
    for (store, world) in &on_each_store(&[("1", 10)]).await {
        assert!(charge(world, &[("customer", "1")], 1).await, "{store}");
        world.apply(&policy(&[("1", 10), ("2", 5)])).await;
        until_counter(world, "2", Some((5.0, 5.0))).await;
        until_counter(world, "1", Some((10.0, 9.0))).await;
        assert_eq!(world.remaining("1").await, 9, "{store}");
    }
}

/// The counterpart of `delete_limit_also_deletes_associated_counters`, and of a namespace's: whoever comes back has what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_limit_keeps_associated_counters() {
    for (store, world) in &on_each_store(&[("1", 10), ("2", 10)]).await {
        assert!(charge(world, &[("customer", "1")], 7).await, "{store}");
        until_counter(world, "1", Some((10.0, 3.0))).await;
        world.apply(&policy(&[("2", 10)])).await;
        until_counter(world, "1", None).await;
        until_denied(world, &[("customer", "1")]).await;
        world.apply(&policy(&[("1", 10), ("2", 10)])).await;
        until_counter(world, "1", Some((10.0, 3.0))).await;
    }
}

/// A limit that is raised or lowered holds at once, and what was used stays used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configure_with_updates_the_limits() {
    for (store, world) in &on_each_store(&[("1", 10)]).await {
        assert!(charge(world, &[("customer", "1")], 4).await, "{store}");
        world.apply(&policy(&[("1", 20)])).await;
        until_counter(world, "1", Some((20.0, 6.0))).await;
        world.apply(&policy(&[("1", 5)])).await;
        until_counter(world, "1", Some((5.0, 5.0))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn add_limit_only_adds_if_not_present() {
    for (store, world) in &on_each_store(&[("1", 10)]).await {
        let twice = policy(&[("1", 10), ("1", 20)]).to_string().into_bytes();
        let address = &world.process.address;
        let answer = send(address, "POST", "/v1/policies", ADMIN_TOKEN, twice).await;
        let (status, body) = answer.unwrap();
        assert!((400..500).contains(&status), "{store}: {status} {body:?}");
        assert_eq!(counter(world, "1").await.unwrap().0, 10.0, "{store}");
    }
}

/// Asks until it is denied, as a policy says that has just come in force.
async fn until_denied(world: &World, entries: &[(&str, &str)]) {
    let deadline = Instant::now() + PATIENCE;
    while !is_limited(world, entries, 1).await {
        assert!(Instant::now() < deadline, "{entries:?} is not denied");
        tokio::time::sleep(POLL).await;
    }
}

/// Two replicas admit three requests, wherever they come, and then none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_rate_limited() {
    let node = Node::start().unwrap();
    let first = World::replica(&node).await;
    first.until_ready().await;
    first.apply(&policy(&[("test_app_id", 3)])).await;
    let second = World::replica(&node).await;
    let deadline = Instant::now() + PATIENCE;
    let replicas = [&first, &second];
    let mut admitted = 0;
    // A hit comes to one replica after the other; where nothing is of what is left, that follows the demand.
    while admitted < 3 {
        for world in replicas {
            let answer = world.ask(&[of(APP, 1)], 1).await;
            admitted += u32::from(answer.is_ok_and(|one| one.overall_code() == Code::Ok));
        }
        assert!(Instant::now() < deadline, "{admitted} admitted");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(admitted, 3);
    for world in replicas {
        let mut asked = 0;
        while asked < 20 {
            let answer = world.ask(&[of(APP, 1)], 1).await;
            if let Ok(answer) = answer {
                assert_eq!(answer.overall_code(), Code::OverLimit, "{asked}");
                asked += 1;
            }
            assert!(Instant::now() < deadline, "{asked} asked");
            tokio::time::sleep(POLL).await;
        }
    }
}
