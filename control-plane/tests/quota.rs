//! Envoy's own rate limit services on the real `forebay serve`, asked by hand: what Envoy would not say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod process;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::BucketAction;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_client::RateLimitQuotaServiceClient;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_usage_reports::BucketQuotaUsage;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::{
    BucketId, RateLimitQuotaUsageReports,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::UInt64Value;
use forebay_redis_tests::Node;
use process::{ADMIN_TOKEN, FILTER_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code as GrpcCode, Request, Status};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

struct World {
    process: Process,
    channel: Channel,
    _folder: TempDir,
}

/// A descriptor: its entries, and how many hits it asks for.
type Descriptor<'a> = (&'a [(&'a str, &'a str)], Option<u64>);

impl World {
    /// Contracts that refill so slowly that a test sees what a bucket held.
    async fn start() -> Self {
        Self::start_with(false).await
    }

    async fn start_with(dry_run: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start_with_filters("--data", folder.path().as_os_str()).await;
        let world = Self::of(process, folder).await;
        world.apply_policy(dry_run).await;
        world
    }

    async fn of(process: Process, folder: TempDir) -> Self {
        let channel = Channel::from_shared(format!("http://{}", process.grpc_address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            process,
            channel,
            _folder: folder,
        }
    }

    async fn apply_policy(&self, dry_run: bool) {
        self.admin("POST", "/v1/policies", &json!({
            "version": 1,
            "dry_run": dry_run,
            "resources": {"requests": {}, "llm_tokens": {}},
            "contracts": {"gold": {"limits": {
                "requests": {"rate_per_s": 0.001, "burst": 40},
                "llm_tokens": {"rate_per_s": 0.001, "burst": 4000},
            }}},
            "customers": [{"key": "acme", "contract": "gold"}, {"key": "umbrella", "contract": "gold"}],
        }))
        .await;
    }

    async fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string().into_bytes();
        let (status, bytes) = send(&self.process.address, method, path, ADMIN_TOKEN, body)
            .await
            .unwrap();
        let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    async fn ask(
        &self,
        descriptors: &[Descriptor<'_>],
        hits: u32,
    ) -> Result<RateLimitResponse, Status> {
        self.ask_as(FILTER_TOKEN, descriptors, hits).await
    }

    async fn ask_as(
        &self,
        token: &str,
        descriptors: &[Descriptor<'_>],
        hits: u32,
    ) -> Result<RateLimitResponse, Status> {
        let descriptors = descriptors
            .iter()
            .map(|(entries, hits)| RateLimitDescriptor {
                entries: entries
                    .iter()
                    .map(|(key, value)| Entry {
                        key: (*key).to_owned(),
                        value: (*value).to_owned(),
                    })
                    .collect(),
                hits_addend: hits.map(|value| UInt64Value { value }),
                ..RateLimitDescriptor::default()
            });
        let request = with_token(
            token,
            RateLimitRequest {
                domain: "test".to_owned(),
                descriptors: descriptors.collect(),
                hits_addend: hits,
            },
        );
        let mut client = RateLimitServiceClient::new(self.channel.clone());
        client
            .should_rate_limit(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Codes of the whole and of each descriptor.
    async fn codes(&self, descriptors: &[Descriptor<'_>], hits: u32) -> (Code, Vec<Code>) {
        let answer = self.ask(descriptors, hits).await.unwrap();
        let statuses = answer.statuses.iter();
        (
            answer.overall_code(),
            statuses.map(|status| status.code()).collect(),
        )
    }

    /// What is left in a customer's bucket, once the gateway has it.
    async fn remaining(&self, customer: &str) -> u32 {
        let answer = self.ask(&[(&[("customer", customer)], Some(0))], 1).await;
        answer.unwrap().statuses[0].limit_remaining
    }

    /// Waits until nearly all of the buckets has come to this gateway, which is the only one.
    async fn until_granted(&self) {
        let deadline = Instant::now() + PATIENCE;
        for customer in ["acme", "umbrella"] {
            loop {
                let answer = self.ask(&[(&[("customer", customer)], Some(35))], 1).await;
                // What is asked for in vain comes here; what is admitted is put back by hand.
                if answer.is_ok_and(|answer| answer.overall_code() == Code::Ok) {
                    break;
                }
                assert!(Instant::now() < deadline, "nothing comes to {customer}");
                tokio::time::sleep(POLL).await;
            }
            let path = format!("/v1/customers/{customer}/reset");
            self.admin("POST", &path, &json!({})).await;
            while self.remaining(customer).await < 35 {
                assert!(
                    Instant::now() < deadline,
                    "the reset of {customer} does not arrive"
                );
                tokio::time::sleep(POLL).await;
            }
        }
    }

    async fn quota(
        &self,
        reports: UnboundedReceiverStream<RateLimitQuotaUsageReports>,
    ) -> Result<tonic::Streaming<QuotaReply>, Status> {
        let mut client = RateLimitQuotaServiceClient::new(self.channel.clone());
        let request = with_token(FILTER_TOKEN, reports);
        client
            .stream_rate_limit_quotas(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

type QuotaReply = envoy_types::pb::envoy::service::rate_limit_quota::v3::RateLimitQuotaResponse;

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_carries_the_token_of_filters_is_answered() {
    let world = World::start().await;
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
    world.until_granted().await;
    assert_eq!(world.codes(&[], 1).await, (Code::Ok, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_are_charged_all_or_none() {
    let world = World::start().await;
    world.until_granted().await;
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
    let world = World::start().await;
    world.until_granted().await;
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
    let world = World::start().await;
    world.until_granted().await;
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
    let world = World::start().await;
    world.until_granted().await;
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
    let world = World::start_with(true).await;
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
    let first = Process::start_with_filters("--store", node.url().as_ref()).await;
    let first = World::of(first, tempfile::tempdir().unwrap()).await;
    let deadline = Instant::now() + PATIENCE;
    let is_ready = async || {
        let address = &first.process.address;
        let answer = send(address, "GET", "/readyz", ADMIN_TOKEN, Vec::new()).await;
        answer.is_some_and(|(status, _)| status == 200)
    };
    while !is_ready().await {
        assert!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(POLL).await;
    }
    first.apply_policy(false).await;
    let second = Process::start_with_filters("--store", node.url().as_ref()).await;
    let second = World::of(second, tempfile::tempdir().unwrap()).await;
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

fn usage(bucket: &[(&str, &str)], allowed: u64) -> BucketQuotaUsage {
    BucketQuotaUsage {
        bucket_id: Some(BucketId {
            bucket: bucket
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }),
        num_requests_allowed: allowed,
        ..BucketQuotaUsage::default()
    }
}

fn report(domain: &str, usages: Vec<BucketQuotaUsage>) -> RateLimitQuotaUsageReports {
    RateLimitQuotaUsageReports {
        domain: domain.to_owned(),
        bucket_quota_usages: usages,
    }
}

/// What a stream says: its first assignments by customer (empty: the bucket without one), or why it ended.
async fn first_words(
    world: &World,
    reports: Vec<RateLimitQuotaUsageReports>,
    words: usize,
) -> Result<Vec<(String, BucketAction)>, Status> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for report in reports {
        sender.send(report).unwrap();
    }
    let mut replies = world.quota(UnboundedReceiverStream::new(receiver)).await?;
    let mut heard = Vec::new();
    while heard.len() < words {
        let reply = tokio::time::timeout(PATIENCE, replies.next())
            .await
            .expect("an answer");
        let Some(reply) = reply else { break };
        for action in reply?.bucket_action {
            let customer = action.bucket_id.unwrap().bucket.remove("customer");
            heard.push((customer.unwrap_or_default(), action.bucket_action.unwrap()));
        }
    }
    drop(sender);
    Ok(heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_answered_with_buckets_and_what_cannot_be_limited_is_said() {
    let world = World::start().await;
    world.until_granted().await;
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

fn kind(action: &BucketAction) -> &'static str {
    use envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::Strategy;
    let BucketAction::QuotaAssignmentAction(assignment) = action else {
        return "abandon";
    };
    let lasts = assignment.assignment_time_to_live.is_some();
    let strategy = assignment.rate_limit_strategy;
    match strategy.and_then(|strategy| strategy.strategy).unwrap() {
        Strategy::TokenBucket(_) if lasts => "bucket",
        Strategy::BlanketRule(0) if lasts => "allow",
        Strategy::BlanketRule(1) if lasts => "deny",
        _ => "something else",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_do_not_keep_the_protocol_are_ended_with_the_reason() {
    let world = World::start().await;
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
    let world = World::start().await;
    world.until_granted().await;
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
    let world = World::start_with(true).await;
    let customers = ["acme", "nobody", ""];
    let usages = customers.map(|customer| usage(&[("customer", customer)], 1_000));
    let words = first_words(&world, vec![report("test", usages.to_vec())], 3)
        .await
        .unwrap();
    for (customer, action) in words {
        assert_eq!(kind(&action), "allow", "`{customer}`");
    }
}
