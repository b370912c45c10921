//! The black-box cases of envoyproxy/ratelimit, the server of Envoy's `ratelimit` filter, asked of ours (Apache-2.0;
//! `test/integration/integration_test.go`, `test/config/config_test.go` with its files, `integration-test/scripts/*.sh`), under the names
//! that they have there.
//!
//! A limit of N in a unit is a contract with a burst of N here. Their windows never end within a test, so rates here are as low as the
//! unit allows. Their counters count what was denied too, and each descriptor by itself; here descriptors are charged all or none, and
//! the cases say so where that shows.
//!
//! Left out: the same cases over other stores (Redis cluster, sentinel, memcache, with a local cache), which are of the store's client;
//! `Test_mTLS` and `TestReloadGRPCServerCerts`, because the listener speaks without TLS; `TestEmptyDomain`, `TestDuplicateDomain` and
//! `TestDuplicateKeyDomainMerge`, because a policy has no domains; `replaces.sh` but for its limit of 0, `TestReplacesSelf`,
//! `TestReplacesEmpty`, because no limit replaces another; `quota.sh`, `token-quota.sh` and `multiservice-tokenquota.sh`, because they
//! need `quota_mode`, which lets a request pass as long as one of its limits is left, and costs that are charged after the response;
//! `TestNonStringKey`, because a scalar of YAML is here the text that stands there, and 0.25 a key like any other;
//! `value-included-in-stats-key-when-unspecified.sh` and the counters of each case, which are statsd's.

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
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use filters::{Descriptor, PATIENCE, POLL, World};
use process::{ADMIN_TOKEN, send};
use serde_json::{Value, json};
use std::time::Instant;
use tonic::Code as GrpcCode;

/// Slower than any window of theirs.
const SLOW: f64 = 0.000_1;

/// Their files, as contracts: a name, a rate and a burst. `key1` to `key4` are of `basic.yaml` and `another.yaml`.
const CONTRACTS: &[(&str, f64, u32)] = &[
    ("fifty_a_second", 50.0, 50),
    ("twenty_a_minute", 0.333_333, 20),
    ("ten_an_hour", 0.002_778, 10),
    ("twenty_a_day", 0.000_231, 20),
    ("twenty", SLOW, 20),
    ("ten", SLOW, 10),
    ("ten_at_once", 2.0, 10),
    ("three", SLOW, 3),
    ("none", 0.0, 0),
];

fn policy(customers: &[(&str, &str)], unknown: &Value) -> Value {
    let contracts: serde_json::Map<String, Value> = CONTRACTS
        .iter()
        .map(|(name, rate_per_s, burst)| {
            let limit = json!({"rate_per_s": rate_per_s, "burst": burst});
            ((*name).to_owned(), json!({"limits": {"requests": limit}}))
        })
        .collect();
    let customers: Vec<Value> = customers
        .iter()
        .map(|(key, contract)| json!({"key": key, "contract": contract}))
        .collect();
    json!({
        "version": 1,
        "unknown": unknown,
        "resources": {"requests": {}},
        "contracts": contracts,
        "customers": customers,
    })
}

/// A world in which each of these customers has its whole burst here.
async fn with(customers: &[(&str, &str)]) -> World {
    let world = World::start(&policy(customers, &json!({"action": "deny"}))).await;
    for (customer, contract) in customers {
        let found = CONTRACTS.iter().find(|(name, ..)| name == contract);
        let (_, _, burst) = *found.unwrap();
        world.until_granted(customer, "requests", burst).await;
    }
    world
}

/// Asks in vain until the answer is this one.
async fn until_code(world: &World, descriptor: Descriptor<'_>, expected: Code) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match world.ask(&[descriptor], 1).await {
            Ok(answer) if answer.overall_code() == expected => return,
            Ok(_) => {}
            Err(status) => assert_eq!(status.code(), GrpcCode::Unavailable, "{status}"),
        }
        assert!(
            Instant::now() < deadline,
            "{descriptor:?}: not {expected:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Looks until so much is left.
async fn until_remaining(world: &World, customer: &str, least: u32) {
    let deadline = Instant::now() + PATIENCE;
    let look: Descriptor<'_> = (&[("customer", customer)], Some(0));
    loop {
        let answer = world.ask(&[look], 1).await;
        if answer.is_ok_and(|answer| answer.statuses[0].limit_remaining >= least) {
            return;
        }
        assert!(Instant::now() < deadline, "{customer} never has {least}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_basic_config() {
    let world = with(&[
        ("key1", "fifty_a_second"),
        ("key2", "twenty"),
        ("key2-again", "twenty"),
        ("key3", "ten"),
    ])
    .await;
    let answer = world.ask(&[(&[("hello", "world")], None)], 1).await;
    let status = &answer.unwrap().statuses[0];
    assert_eq!((status.code(), &status.current_limit), (Code::Ok, &None));
    assert_eq!(status.limit_remaining, 0, "no limit");

    let answer = world.ask(&[(&[("customer", "key1")], None)], 1).await;
    let status = &answer.unwrap().statuses[0];
    let limit = status.current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit()), (50, Unit::Second));
    assert_eq!((status.code(), status.limit_remaining), (Code::Ok, 49));

    for asked in 1..=25_u32 {
        let answer = world.ask(&[(&[("customer", "key2")], None)], 1).await;
        let status = &answer.unwrap().statuses[0];
        let code = if asked <= 20 {
            Code::Ok
        } else {
            Code::OverLimit
        };
        let left = 20_u32.saturating_sub(asked);
        assert_eq!(
            (status.code(), status.limit_remaining),
            (code, left),
            "{asked}"
        );
    }

    let both: &[Descriptor<'_>] = &[
        (&[("customer", "key2-again")], None),
        (&[("customer", "key3")], None),
    ];
    for asked in 1..=15_u32 {
        let answer = world.ask(both, 1).await.unwrap();
        let code = if asked <= 10 {
            Code::Ok
        } else {
            Code::OverLimit
        };
        let [first, second] = answer.statuses.as_slice() else {
            panic!("two statuses: {answer:?}");
        };
        assert_eq!(answer.overall_code(), code, "{asked}");
        assert_eq!((first.code(), second.code()), (Code::Ok, code), "{asked}");
        // Theirs goes on falling: the first limit is charged although the second one denies.
        let left = 20 - asked.min(11);
        assert_eq!(first.limit_remaining, left, "{asked}");
        assert_eq!(
            second.limit_remaining,
            10_u32.saturating_sub(asked),
            "{asked}"
        );
    }
    assert_eq!(world.remaining("key2-again").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_basic_config_with_requests_at_once() {
    let names = ["key2", "key2-again", "key3", "a", "b", "c", "d", "e"];
    let contracts = [
        "twenty", "twenty", "ten", "twenty", "ten", "twenty", "twenty", "twenty",
    ];
    let customers: Vec<_> = names.into_iter().zip(contracts).collect();
    let world = with(&customers).await;
    let key2: &[Descriptor<'_>] = &[(&[("customer", "key2")], None)];
    assert_eq!(world.admitted_at_once(25, key2).await, 20);

    let both: &[Descriptor<'_>] = &[
        (&[("customer", "key2-again")], None),
        (&[("customer", "key3")], None),
    ];
    assert_eq!(world.admitted_at_once(15, both).await, 10);
    assert_eq!(
        world.remaining("key2-again").await,
        10,
        "charged all or none"
    );

    let five: &[Descriptor<'_>] = &[
        (&[("customer", "a")], None),
        (&[("customer", "b")], None),
        (&[("customer", "c")], None),
        (&[("customer", "d")], None),
        (&[("customer", "e")], None),
    ];
    assert_eq!(world.admitted_at_once(200, five).await, 10);
    for (customer, left) in [("a", 10), ("b", 0), ("c", 10), ("d", 10), ("e", 10)] {
        assert_eq!(world.remaining(customer).await, left, "{customer}");
    }
}

/// The limits of `basic.yaml` and `another.yaml`, in the units in which they are written there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_basic_config_units() {
    let customers = [
        ("key1", "fifty_a_second"),
        ("key2", "twenty_a_minute"),
        ("key3", "ten_an_hour"),
        ("key4", "twenty_a_day"),
    ];
    let world = with(&customers).await;
    let limits = [
        ("key1", 50, Unit::Second),
        ("key2", 20, Unit::Minute),
        ("key3", 10, Unit::Hour),
        ("key4", 20, Unit::Day),
    ];
    for (customer, requests, unit) in limits {
        let answer = world.ask(&[(&[("customer", customer)], None)], 1).await;
        let limit = answer.unwrap().statuses[0].current_limit.clone().unwrap();
        let found = (limit.requests_per_unit, limit.unit());
        assert_eq!(found, (requests, unit), "{customer}");
    }
}

/// `DurationUntilReset` becomes less as time goes by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_basic_config_duration_until_reset() {
    let world = with(&[("durTest", "twenty_a_day")]).await;
    let reset_after = async |hits| {
        let answer = world
            .ask(&[(&[("customer", "durTest")], Some(hits))], 1)
            .await;
        let reset = answer.unwrap().statuses[0].duration_until_reset.unwrap();
        reset.seconds
    };
    let first = reset_after(1).await;
    assert!(first > 0);
    let deadline = Instant::now() + PATIENCE;
    while reset_after(0).await >= first {
        assert!(Instant::now() < deadline, "still {first} s");
        tokio::time::sleep(POLL).await;
    }
}

/// `testConfigReload`: a limit that comes with a new configuration, and goes with the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_basic_reload_config() {
    let world = with(&[("key2", "twenty")]).await;
    let block: Descriptor<'_> = (&[("block", "foo")], None);
    assert_eq!(world.codes(&[block], 1).await.0, Code::Ok, "no limit");
    let key1: Descriptor<'_> = (&[("customer", "key1")], None);
    assert_eq!(world.codes(&[key1], 1).await.0, Code::OverLimit, "unknown");
    let charge: Descriptor<'_> = (&[("customer", "key2")], Some(5));
    assert_eq!(world.codes(&[charge], 1).await.0, Code::Ok);

    let deny = json!({"action": "deny"});
    let customers = [("key1", "fifty_a_second"), ("key2", "twenty")];
    world.apply(&policy(&customers, &deny)).await;
    until_code(&world, key1, Code::Ok).await;
    let answer = world.ask(&[key1], 1).await.unwrap();
    let limit = answer.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit()), (50, Unit::Second));
    assert_eq!(world.remaining("key2").await, 15, "nobody else begins anew");

    world.apply(&policy(&customers[1..], &deny)).await;
    until_code(&world, key1, Code::OverLimit).await;
    assert_eq!(world.remaining("key2").await, 15, "nobody else begins anew");
}

/// With `share_threshold` values that match one wildcard share a limit, without it each has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_share_threshold() {
    let shared = json!({"action": "commons", "contract": "ten_at_once"});
    let world = World::start(&policy(&[], &shared)).await;
    // Who is not listed begins with what has flowed since the gateway started, and not with a burst.
    until_remaining(&world, "files-a.pdf", 10).await;
    let all: Descriptor<'_> = (&[("customer", "files-a.pdf")], Some(10));
    assert_eq!(world.codes(&[all], 1).await.0, Code::Ok);
    let of_another: Descriptor<'_> = (&[("customer", "files-b.csv")], Some(8));
    let answer = world.ask(&[of_another], 1).await.unwrap();
    assert_eq!(answer.overall_code(), Code::OverLimit, "{answer:?}");

    let own = json!({"action": "default_contract", "contract": "ten_at_once"});
    world.apply(&policy(&[], &own)).await;
    for file in 0..10 {
        let name = format!("files_no_share-{file}");
        until_remaining(&world, &name, 10).await;
        let answer = world.ask(&[(&[("customer", &name)], None)], 1).await;
        assert_eq!(answer.unwrap().statuses[0].limit_remaining, 9, "{name}");
    }
}

/// `simple-get.sh`, `trigger-ratelimit.sh`, `trigger-shadow-mode-key.sh`, and the limit of 0 of `replaces.sh`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts() {
    let customers = [
        ("test", "three"),
        ("not-so-shady", "three"),
        ("shady", "three"),
    ];
    let world = with(&customers).await;
    let test: Descriptor<'_> = (&[("customer", "test"), ("baz", "shady")], None);
    assert_eq!(world.codes(&[test], 1).await.0, Code::Ok, "simple-get.sh");

    let descriptor: Descriptor<'_> = (&[("foo", "pelle"), ("customer", "not-so-shady")], None);
    for (request, code) in [
        (1, Code::Ok),
        (2, Code::Ok),
        (3, Code::Ok),
        (4, Code::OverLimit),
        (5, Code::OverLimit),
    ] {
        let found = world.codes(&[descriptor], 1).await.0;
        assert_eq!(found, code, "trigger-ratelimit.sh, request {request}");
    }

    let deny = json!({"action": "deny"});
    let mut banned = policy(&customers, &deny);
    banned["customers"][0]["contract"] = json!("none");
    world.apply(&banned).await;
    until_code(&world, test, Code::OverLimit).await;

    let mut dry = policy(&customers, &deny);
    dry["dry_run"] = json!(true);
    world.apply(&dry).await;
    until_code(&world, descriptor, Code::Ok).await;
    let shady: Descriptor<'_> = (&[("foo", "pelle"), ("customer", "shady")], None);
    for request in 1..=5 {
        let found = world.codes(&[shady], 1).await.0;
        assert_eq!(
            found,
            Code::Ok,
            "trigger-shadow-mode-key.sh, request {request}"
        );
    }
    assert_eq!(world.remaining("shady").await, 0);
}

/// What is wrong with a configuration, as a change to one that is right, and what the refusal names.
const BAD: &[(&str, &str, &str, &str)] = &[
    ("TestEmptyKey", "key: shady", "key: ''", "customers[0].key"),
    (
        "TestDuplicateKey",
        "key: other",
        "key: shady",
        "customers[1].key",
    ),
    (
        "TestBadLimitUnit",
        "rate_per_s: 1",
        "rate_per_s: foo",
        "rate_per_s",
    ),
    ("TestBadYaml", "burst: 3}", "burst: 3", "line"),
    ("TestMisspelledKey, 1", "limits:", "ratelimit:", "ratelimit"),
    (
        "TestMisspelledKey, 2",
        "rate_per_s:",
        "requestsperunit:",
        "requestsperunit",
    ),
    (
        "TestNonMapList",
        "customers:",
        "customers:\n- a",
        "customers[0]",
    ),
    (
        "TestUnlimitedWithRateLimitUnit",
        "action: deny",
        "action: deny, contract: gold",
        "unknown.contract",
    ),
    (
        "zero_unit_multiplier.yaml",
        "burst: 3",
        "burst: 0",
        "contracts.gold.limits.requests.burst",
    ),
];

const GOOD: &str = "
version: 1
unknown: {action: deny}
resources: {requests: {}}
contracts:
  gold:
    limits:
      requests: {rate_per_s: 1, burst: 3}
customers:
- {key: shady, contract: gold}
- {key: other, contract: gold}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_configurations_are_refused_and_change_nothing() {
    let world = with(&[("key2", "twenty")]).await;
    let charge: Descriptor<'_> = (&[("customer", "key2")], Some(5));
    assert_eq!(world.codes(&[charge], 1).await.0, Code::Ok);
    let post = async |path: &str, document: &str| {
        let headers = [
            ("content-type", "application/yaml"),
            ("authorization", &bearer()),
        ];
        let body = document.as_bytes().to_vec();
        let answer = process::http(&world.process.address, "POST", path, &headers, body).await;
        let (status, body) = answer.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    for (name, from, to, place) in BAD {
        assert!(GOOD.contains(from), "{name}");
        let bad = GOOD.replacen(from, to, 1);
        let (status, answer) = post("/v1/policies", &bad).await;
        assert!((400..500).contains(&status), "{name}: {status} {answer}");
        assert!(answer.contains(place), "{name}: {answer}");
    }
    let address = &world.process.address;
    let versions = send(address, "GET", "/v1/policies", ADMIN_TOKEN, Vec::new()).await;
    let versions: Value = serde_json::from_slice(&versions.unwrap().1).unwrap();
    assert_eq!(
        versions["versions"].as_array().map(Vec::len),
        Some(1),
        "{versions}"
    );
    assert_eq!(
        world.remaining("key2").await,
        15,
        "the limits are as before"
    );
    let (status, answer) = post("/v1/policies/check", GOOD).await;
    assert_eq!(status, 200, "{answer}");
}

fn bearer() -> String {
    format!("Bearer {ADMIN_TOKEN}")
}
