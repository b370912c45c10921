//! Envoy's own rate limit services on the real `forebay serve`, asked by hand: what Envoy would not say.

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
use filters::{Descriptor, PATIENCE, POLL, World, first_words, kind, report, usage};
use forebay_redis_tests::Node;
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, VIEWER_TOKEN};
use serde_json::{Value, json};
use std::time::Instant;
use tonic::Code as GrpcCode;

/// Contracts that refill so slowly that a test sees what a bucket held.
fn policy(dry_run: bool) -> Value {
    json!({
        "version": 1,
        "dry_run": dry_run,
        "resources": {"requests": {}, "llm_tokens": {}},
        "contracts": {"gold": {"limits": {
            "requests": {"rate_per_s": 0.001, "burst": 40},
            "llm_tokens": {"rate_per_s": 0.001, "burst": 4000},
        }}},
        "customers": [{"key": "acme", "contract": "gold"}, {"key": "umbrella", "contract": "gold"}],
    })
}

async fn granted() -> World {
    let world = World::start(&policy(false)).await;
    for customer in ["acme", "umbrella"] {
        world.until_granted(customer, "requests", 40).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_carries_the_token_of_filters_is_answered() {
    let world = World::start(&policy(false)).await;
    for token in [
        "",
        "wrong-token-of-the-tests",
        GATEWAY_TOKEN,
        VIEWER_TOKEN,
        ADMIN_TOKEN,
    ] {
        let refused = world.ask_as(token, &[], 1).await.unwrap_err();
        assert_eq!(refused.code(), GrpcCode::Unauthenticated, "`{token}`");
    }
    world.until_granted("acme", "requests", 40).await;
    assert_eq!(world.codes(&[], 1).await, (Code::Ok, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_are_charged_all_or_none() {
    let world = granted().await;
    let acme: &[_] = &[("customer", "acme")];
    let umbrella: &[_] = &[("customer", "umbrella"), ("path", "/x")];
    let (ok, over) = (Code::Ok, Code::OverLimit);
    let (before, other) = (
        world.remaining("acme").await,
        world.remaining("umbrella").await,
    );

    let both = [(acme, Some(5)), (umbrella, Some(other.into()))];
    assert_eq!(world.codes(&both, 1).await, (ok, vec![ok, ok]));
    assert_eq!(world.remaining("acme").await, before - 5);
    assert_eq!(world.remaining("umbrella").await, 0);
    for pair in [
        [(acme, Some(5)), (umbrella, Some(1))],
        [(umbrella, Some(1)), (acme, Some(5))],
    ] {
        let (overall, each) = world.codes(&pair, 1).await;
        assert_eq!(overall, over);
        assert_eq!(
            each.iter().filter(|code| **code == over).count(),
            1,
            "{each:?}"
        );
    }
    assert_eq!(
        world.remaining("acme").await,
        before - 5,
        "who is stopped pays nothing"
    );
    // The same customer twice is charged for both.
    assert_eq!(
        world.codes(&[(acme, Some(2)), (acme, Some(3))], 1).await.0,
        ok
    );
    assert_eq!(world.remaining("acme").await, before - 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_descriptor_asks_for_is_taken_from_the_right_bucket() {
    let world = granted().await;
    let (ok, over) = (Code::Ok, Code::OverLimit);
    let long = "x".repeat(1025);
    let huge = "x".repeat(200_000);
    let cases: &[(&str, Descriptor<'_>, u32, Code, u32)] = &[
        (
            "hits of the request",
            (&[("customer", "acme")], None),
            3,
            ok,
            3,
        ),
        ("no hits are one", (&[("customer", "acme")], None), 0, ok, 1),
        (
            "hits of the descriptor go first",
            (&[("customer", "acme")], Some(4)),
            9,
            ok,
            4,
        ),
        (
            "zero hits only look",
            (&[("customer", "acme")], Some(0)),
            1,
            ok,
            0,
        ),
        (
            "more than the bucket",
            (&[("customer", "acme")], Some(41)),
            1,
            over,
            0,
        ),
        (
            "more than there is",
            (&[("customer", "acme")], Some(u64::MAX)),
            1,
            over,
            0,
        ),
        (
            "another resource",
            (&[("customer", "acme"), ("resource", "llm_tokens")], None),
            1,
            ok,
            0,
        ),
        (
            "other entries",
            (
                &[("path", "/a"), ("customer", "acme"), ("method", "GET")],
                None,
            ),
            1,
            ok,
            1,
        ),
        (
            "nobody is named",
            (&[("path", "/a")], Some(u64::MAX)),
            1,
            ok,
            0,
        ),
        ("no entries", (&[], None), 1, ok, 0),
        ("an empty key", (&[("customer", "")], None), 1, over, 0),
        (
            "a key that is too long",
            (&[("customer", &long)], None),
            1,
            over,
            0,
        ),
        (
            "a key that is much too long",
            (&[("customer", &huge)], None),
            1,
            over,
            0,
        ),
        ("a stranger", (&[("customer", "nobody")], None), 1, over, 0),
    ];
    for (name, descriptor, hits, expected, charged) in cases {
        let before = world.remaining("acme").await;
        let answer = world.ask(&[*descriptor], *hits).await.unwrap();
        assert_eq!(answer.overall_code(), *expected, "{name}: {answer:?}");
        assert_eq!(world.remaining("acme").await, before - charged, "{name}");
    }
    let twice: &[_] = &[("customer", "acme"), ("customer", "umbrella")];
    let other: &[_] = &[("customer", "acme"), ("resource", "bytes")];
    for (name, descriptors) in [
        ("two customers", vec![(twice, None)]),
        ("no such resource", vec![(other, None)]),
        (
            "one that cannot be, behind one that can",
            vec![(&[("customer", "acme")][..], Some(1)), (other, None)],
        ),
        ("too many", vec![(&[][..], None); 17]),
    ] {
        let before = world.remaining("acme").await;
        let refused = world.ask(&descriptors, 1).await.unwrap_err();
        assert_eq!(
            refused.code(),
            GrpcCode::InvalidArgument,
            "{name}: {refused}"
        );
        assert_eq!(world.remaining("acme").await, before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_the_rest_and_the_time_to_wait_are_told() {
    let world = granted().await;
    let acme: &[_] = &[("customer", "acme")];
    let answer = world.ask(&[(acme, None)], 1).await.unwrap();
    let status = &answer.statuses[0];
    let limit = status.current_limit.clone().unwrap();
    // A thousandth of a request a second is 86.4 a day.
    assert_eq!((limit.requests_per_unit, limit.unit), (86, 4));
    assert!((30..40).contains(&status.limit_remaining), "{status:?}");
    assert!(answer.response_headers_to_add.is_empty());
    let left = status.limit_remaining;
    let denied = world
        .ask(&[(acme, Some(u64::from(left) + 1))], 1)
        .await
        .unwrap();
    let wait = &denied.response_headers_to_add[0];
    assert_eq!(wait.key, "retry-after");
    let seconds: u64 = wait.value.parse().unwrap();
    assert!((1..=1_000).contains(&seconds), "{seconds}");
    let reset = denied.statuses[0].duration_until_reset.unwrap();
    assert!(u64::try_from(reset.seconds).unwrap() <= seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_and_exemptions_by_hand_reach_those_who_ask() {
    let world = granted().await;
    let acme: &[_] = &[("customer", "acme")];
    world
        .admin("POST", "/v1/customers/acme/freeze", &json!({}))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while world.codes(&[(acme, Some(0))], 1).await.0 == Code::Ok {
        assert!(Instant::now() < deadline, "the freeze does not arrive");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(
        world
            .codes(&[(&[("customer", "umbrella")], None)], 1)
            .await
            .0,
        Code::Ok
    );
    world
        .admin("POST", "/v1/customers/umbrella/exempt", &json!({}))
        .await;
    let much: [Descriptor<'_>; 1] = [(&[("customer", "umbrella")], Some(1_000))];
    while world.codes(&much, 1).await.0 != Code::Ok {
        assert!(Instant::now() < deadline, "the exemption does not arrive");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_admits_everything() {
    let world = World::start(&policy(true)).await;
    let deadline = Instant::now() + PATIENCE;
    let descriptors: [Descriptor<'_>; 2] = [
        (&[("customer", "acme")], Some(1_000)),
        (&[("customer", "")], None),
    ];
    loop {
        match world.ask(&descriptors, 1).await {
            Ok(answer) => {
                assert_eq!(answer.overall_code(), Code::Ok, "{answer:?}");
                break;
            }
            Err(status) => assert_eq!(status.code(), GrpcCode::Unavailable, "{status}"),
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_by_answers_for_the_same_buckets() {
    let node = Node::start().unwrap();
    let first = World::replica(&node).await;
    first.until_ready().await;
    first.apply(&policy(false)).await;
    let second = World::replica(&node).await;
    let deadline = Instant::now() + PATIENCE;
    // What both admit together is one burst.
    let mut admitted = [0_u64; 2];
    let mut denied_in_a_row = 0;
    while denied_in_a_row < 40 {
        assert!(Instant::now() < deadline, "{admitted:?}");
        for (world, admitted) in [&first, &second].into_iter().zip(&mut admitted) {
            match world.ask(&[(&[("customer", "acme")], None)], 1).await {
                Ok(answer) if answer.overall_code() == Code::Ok => {
                    *admitted += 1;
                    denied_in_a_row = 0;
                }
                Ok(_) => denied_in_a_row += 1,
                Err(status) => assert_eq!(status.code(), GrpcCode::Unavailable, "{status}"),
            }
        }
        tokio::time::sleep(POLL).await;
    }
    assert!(admitted.iter().all(|count| *count > 0), "{admitted:?}");
    assert!(admitted.iter().sum::<u64>() <= 40, "{admitted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_answered_with_buckets_and_what_cannot_be_limited_is_said() {
    let world = granted().await;
    let reports = report(
        "test",
        vec![
            usage(&[("customer", "acme")], 1),
            usage(&[("customer", "nobody")], 1),
            usage(&[("name", "all")], 1),
        ],
    );
    let mut words = first_words(&world, vec![reports], 3).await.unwrap();
    words.sort_by(|one, other| one.0.cmp(&other.0));
    let kinds: Vec<(String, &str)> = words
        .into_iter()
        .map(|(customer, action)| (customer, kind(&action)))
        .collect();
    let expected = [("", "deny"), ("acme", "bucket"), ("nobody", "deny")];
    let expected: Vec<(String, &str)> = expected
        .iter()
        .map(|(customer, kind)| ((*customer).to_owned(), *kind))
        .collect();
    assert_eq!(kinds, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_do_not_keep_the_protocol_are_ended_with_the_reason() {
    let world = World::start(&policy(false)).await;
    let one = || vec![usage(&[("customer", "acme")], 1)];
    let cases = [
        (
            "no domain",
            vec![report("", one())],
            GrpcCode::InvalidArgument,
        ),
        (
            "another domain",
            vec![report("a", one()), report("b", one())],
            GrpcCode::InvalidArgument,
        ),
    ];
    for (name, reports, expected) in cases {
        let ended = first_words(&world, reports, usize::MAX).await;
        assert_eq!(ended.unwrap_err().code(), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_id_that_cannot_be_kept_ends_no_stream() {
    let world = granted().await;
    let long = "x".repeat(60_000);
    let reports = vec![
        report(
            "test",
            vec![usage(&[], 1), usage(&[("customer", &long)], 1)],
        ),
        report(
            "test",
            vec![
                usage(&[("customer", "")], 1),
                usage(&[("customer", "acme")], 1),
            ],
        ),
    ];
    let words = first_words(&world, reports, 3).await.unwrap();
    let kind_of = |customer: &str| {
        let said = words.iter().find(|(named, _)| named == customer);
        said.map(|(_, action)| kind(action))
    };
    assert_eq!(kind_of(&long), Some("abandon"));
    assert_eq!(kind_of(""), Some("deny"));
    assert_eq!(kind_of("acme"), Some("bucket"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_assigns_everything_to_everybody() {
    let world = World::start(&policy(true)).await;
    let customers = ["acme", "nobody", ""];
    let usages = customers.map(|customer| usage(&[("customer", customer)], 1_000));
    let words = first_words(&world, vec![report("test", usages.to_vec())], 3)
        .await
        .unwrap();
    for (customer, action) in words {
        assert_eq!(kind(&action), "allow", "`{customer}`");
    }
}
