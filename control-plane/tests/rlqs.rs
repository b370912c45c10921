//! What the suites of `rate_limit_quota` say about a server, asked of ours by hand, under the names that the cases have there.
//!
//! From envoyproxy/envoy (Apache-2.0; `test/extensions/filters/http/rate_limit_quota/{integration_test,filter_persistence_test}.cc`), which
//! tests the filter: the reports that it sends are sent here, and what it can take from a server is what is expected. The other half of
//! those cases, what the filter makes of answers, is asked of a stock Envoy in `tests/envoy/tests/quota_filter.rs`.
//!
//! Left out: `BasicFlowEmptyResponse`, `TestBasicMetadataLogging`, `EmptyBodySettings` and the other deny responses, `PreviewDenyAll`,
//! `filter_test.cc`, `client_test.cc` and `config_test.cc`, which are the filter's alone; `TestPersistenceWithLdsUpdates` and
//! `...ToNewRlqsServer`, because it is Envoy's memory that has to last there.
//!
//! What a server must bear (mismatched domains, bounds of names and reports, what is pushed, what a stream leaves behind) other servers
//! of the protocol test too; those cases are our own. Domains and bucket ids without a customer are in `quota.rs`. Left out of them: more
//! buckets than are kept, because 65 536 of them keep a debug build busy for longer than a test should wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod filters;
mod process;

use envoy_types::pb::envoy::service::rate_limit_quota::v3::RateLimitQuotaUsageReports;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::BucketAction;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_usage_reports::BucketQuotaUsage;
use envoy_types::pb::envoy::r#type::v3::TokenBucket;
use envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::Strategy;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use filters::{PATIENCE, QuotaReply, World, kind, report, usage};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, UnboundedSender};
use tonic::Streaming;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

const BURST: u32 = 40;
const RATE_PER_S: u32 = 20;

/// Longest bucket id, names and values together.
const MAX_ID_BYTES: usize = 4_096;

/// Longer than any report that is read.
const TOO_LONG: usize = 65 << 20;

type Id<'a> = &'a [(&'a str, &'a str)];

/// Customers `envoy_0` to `envoy_9` and `busy` have a rate, `slow` in effect a burst alone.
fn policy() -> Value {
    let customers = (0..10).map(|at| format!("envoy_{at}"));
    let customers: Vec<Value> = customers
        .chain(["busy".to_owned()])
        .map(|key| json!({"key": key, "contract": "standard"}))
        .chain([json!({"key": "slow", "contract": "slow"})])
        .collect();
    json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {
            "standard": {"limits": {"requests": {"rate_per_s": RATE_PER_S, "burst": BURST}}},
            "slow": {"limits": {"requests": {"rate_per_s": 0.001, "burst": BURST}}},
        },
        "customers": customers,
    })
}

/// An Envoy's stream.
struct Stream {
    domain: &'static str,
    reports: UnboundedSender<RateLimitQuotaUsageReports>,
    replies: Streaming<QuotaReply>,
}

/// What was heard of a bucket id.
struct Heard {
    id: Vec<(String, String)>,
    action: BucketAction,
}

// === impl Stream ===

impl Stream {
    /// Begins as the filter does: with the first request of a customer.
    async fn begin(world: &World, domain: &'static str, usages: Vec<BucketQuotaUsage>) -> Self {
        let (reports, receiver) = mpsc::unbounded_channel();
        reports.send(report(domain, usages)).unwrap();
        let replies = world.quota(UnboundedReceiverStream::new(receiver)).await;
        Self {
            domain,
            reports,
            replies: replies.unwrap(),
        }
    }

    fn report(&self, usages: Vec<BucketQuotaUsage>) {
        self.reports.send(report(self.domain, usages)).unwrap();
    }

    /// The next thing that is said of a customer. Whatever is said, Envoy must be able to take it.
    async fn hear(&mut self, customer: &str) -> Heard {
        let heard = self.hear_within(customer, PATIENCE).await;
        heard.unwrap_or_else(|| panic!("nothing is said of {customer}"))
    }

    async fn hear_within(&mut self, customer: &str, time: Duration) -> Option<Heard> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = tokio::time::timeout(left, self.replies.next()).await.ok()?;
            let reply = reply.expect("the stream goes on").unwrap();
            let mut found = None;
            for action in reply.bucket_action {
                let said = action.bucket_action.unwrap();
                assert_ne!(kind(&said), "something else", "{said:?}");
                let id = action.bucket_id.unwrap().bucket;
                if id.get("customer").is_some_and(|named| named == customer) {
                    let mut id: Vec<_> = id.into_iter().collect();
                    id.sort();
                    found = Some(Heard { id, action: said });
                }
            }
            if found.is_some() {
                return found;
            }
        }
    }

    /// Listens until a customer is told something of this kind.
    async fn until(&mut self, customer: &str, expected: &str) -> Heard {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.hear(customer).await;
            if kind(&heard.action) == expected {
                return heard;
            }
            assert!(Instant::now() < deadline, "{customer}: no {expected}");
        }
    }
}

// === impl Heard ===

impl Heard {
    fn ttl_s(&self) -> i64 {
        let BucketAction::QuotaAssignmentAction(assignment) = &self.action else {
            return 0;
        };
        assignment.assignment_time_to_live.unwrap().seconds
    }

    fn bucket(&self) -> Option<TokenBucket> {
        let BucketAction::QuotaAssignmentAction(assignment) = &self.action else {
            return None;
        };
        match assignment.rate_limit_strategy?.strategy? {
            Strategy::TokenBucket(bucket) => Some(bucket),
            _ => None,
        }
    }

    fn rate_per_s(&self) -> f64 {
        let Some(bucket) = self.bucket() else {
            return 0.0;
        };
        let tokens = bucket.tokens_per_fill.map_or(1, |tokens| tokens.value);
        f64::from(tokens) / bucket.fill_interval.unwrap().seconds as f64
    }
}

/// What was used since the last report, `seconds` ago.
fn used(id: Id<'_>, allowed: u64, denied: u64, seconds: i64) -> BucketQuotaUsage {
    BucketQuotaUsage {
        num_requests_denied: denied,
        time_elapsed: Some(ProtoDuration { seconds, nanos: 0 }),
        ..usage(id, allowed)
    }
}

async fn world_with(customers: &[&str]) -> World {
    let world = World::start(&policy()).await;
    for customer in customers {
        world.until_granted(customer, "requests", BURST).await;
    }
    world
}

/// The answer names the bucket as the report does, with all entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_flow_response_matched() {
    let world = world_with(&["envoy_0"]).await;
    let id: Id<'_> = &[
        ("customer", "envoy_0"),
        ("environment", "staging"),
        ("name", "prod"),
    ];
    let mut stream = Stream::begin(&world, "cloud", vec![used(id, 1, 0, 0)]).await;
    let heard = stream.until("envoy_0", "bucket").await;
    let named = heard.id.iter().map(|(key, value)| (&key[..], &value[..]));
    assert_eq!(named.collect::<Vec<_>>(), id);
}

/// `MultiSameRequestNoAssignmentAllowAll` and `...DenyAll`: the first report says what became of the first request by the filter's own
/// rule, and is answered alike; and so are `MultiRequestWithTokenBucket`, `...UnsupportedStrategy` and `...UnsetStrategy`, since an
/// assignment is always one that the filter knows and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_same_request_no_assignment() {
    let world = world_with(&["envoy_0", "envoy_1"]).await;
    for (customer, allowed, denied) in [("envoy_0", 1, 0), ("envoy_1", 0, 1)] {
        let first = used(&[("customer", customer)], allowed, denied, 0);
        let mut stream = Stream::begin(&world, "cloud", vec![first]).await;
        let heard = stream.until(customer, "bucket").await;
        let bucket = heard.bucket().unwrap();
        assert!((1..=BURST).contains(&bucket.max_tokens), "{bucket:?}");
        assert!(bucket.tokens_per_fill.unwrap().value > 0, "{bucket:?}");
        assert!(bucket.fill_interval.unwrap().seconds > 0, "{bucket:?}");
        assert!((2..=8).contains(&heard.ttl_s()), "{}", heard.ttl_s());
    }
}

/// `MultiDifferentRequestNoAssignementAllowAll` (10 buckets) and `...DenyAll` (5): each new bucket is reported at once on the one stream,
/// the others beside it with no usage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_different_request_no_assignment() {
    let names: Vec<String> = (0..10).map(|at| format!("envoy_{at}")).collect();
    let customers: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = world_with(&customers).await;
    for (buckets, allowed, denied) in [(10, 1, 0), (5, 0, 1)] {
        let first = used(&[("customer", customers[0])], allowed, denied, 0);
        let mut stream = Stream::begin(&world, "cloud", vec![first]).await;
        stream.until(customers[0], "bucket").await;
        for at in 1..buckets {
            let earlier = customers[..at].iter();
            let mut usages: Vec<_> = earlier
                .map(|customer| used(&[("customer", customer)], 0, 0, 1))
                .collect();
            usages.push(used(&[("customer", customers[at])], allowed, denied, 0));
            stream.report(usages);
            stream.until(customers[at], "bucket").await;
        }
    }
}

/// `BasicFlowPeriodicalReport`: ten reports of nothing. What was assigned is assigned again before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_flow_periodical_report() {
    let world = world_with(&["envoy_0"]).await;
    let id: Id<'_> = &[("customer", "envoy_0")];
    let mut stream = Stream::begin(&world, "cloud", vec![used(id, 1, 0, 0)]).await;
    let heard = stream.until("envoy_0", "bucket").await;
    let mut ends = Instant::now() + ttl(&heard);
    for _ in 0..10 {
        stream.report(vec![used(id, 0, 0, 1)]);
        let time = Duration::from_secs(1);
        while let Some(heard) = stream.hear_within("envoy_0", time).await {
            assert!(Instant::now() < ends, "the assignment had ended");
            assert_eq!(kind(&heard.action), "bucket");
            ends = Instant::now() + ttl(&heard);
            if ends > Instant::now() + time {
                break;
            }
        }
    }
    assert!(Instant::now() < ends, "nothing was assigned again");
}

fn ttl(heard: &Heard) -> Duration {
    Duration::from_secs(heard.ttl_s().unsigned_abs())
}

/// `BasicFlowPeriodicalReportWithStreamClosed`: the Envoy begins another stream and is assigned a bucket again, but not the burst again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_flow_periodical_report_with_stream_closed() {
    let world = world_with(&["slow"]).await;
    let id: Id<'_> = &[("customer", "slow")];
    let mut stream = Stream::begin(&world, "cloud", vec![used(id, 1, 0, 0)]).await;
    let first = stream.until("slow", "bucket").await;
    let had = first.bucket().unwrap().max_tokens;
    drop(stream);
    let mut stream = Stream::begin(&world, "cloud", vec![used(id, 0, 0, 5)]).await;
    let heard = stream.hear("slow").await;
    // The one request that was allowed before there was an assignment counts as well.
    let has = heard.bucket().map_or(0, |bucket| bucket.max_tokens);
    let left = world.remaining("slow").await;
    assert!(had < BURST, "{had} assigned");
    assert!(has + left < BURST, "{has} assigned, {left} left");
}

/// `TestPersistenceWithLdsUpdateToNewDomain`: a filter with another domain is another client of the same bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_persistence_with_lds_update_to_new_domain() {
    let world = world_with(&["slow"]).await;
    let id: Id<'_> = &[("customer", "slow")];
    let mut one = Stream::begin(&world, "test_domain", vec![used(id, 1, 0, 0)]).await;
    let first = one.until("slow", "bucket").await;
    let mut other = Stream::begin(&world, "new_domain", vec![used(id, 1, 0, 0)]).await;
    let second = other.hear("slow").await;
    let max_tokens = |heard: &Heard| heard.bucket().map_or(0, |bucket| bucket.max_tokens);
    // And the two requests that were allowed before.
    let both = max_tokens(&first) + max_tokens(&second);
    let left = world.remaining("slow").await;
    assert!(both + left < BURST - 1, "{both} assigned, {left} left");
}

/// `MultiSameRequestWithAbandonAction`, for what makes this server abandon: a bucket id that is longer than it keeps. The next report of it
/// is a first one again, and the others on the stream are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_same_request_with_abandon_action() {
    let world = world_with(&["envoy_0"]).await;
    let first = used(&[("customer", "envoy_0")], 1, 0, 0);
    let mut stream = Stream::begin(&world, "cloud", vec![first]).await;
    stream.until("envoy_0", "bucket").await;
    let long = "x".repeat(MAX_ID_BYTES);
    for _ in 0..2 {
        stream.report(vec![used(&[("customer", &long)], 1, 0, 0)]);
        let heard = stream.hear(&long).await;
        assert_eq!(kind(&heard.action), "abandon");
    }
    stream.until("envoy_0", "bucket").await;
}

/// What an operator does is said at once, and not with the next report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_pushed() {
    let world = world_with(&["envoy_0"]).await;
    let id: Id<'_> = &[("customer", "envoy_0")];
    let mut stream = Stream::begin(&world, "cloud", vec![used(id, 1, 0, 0)]).await;
    stream.until("envoy_0", "bucket").await;
    for (change, kind) in [
        ("freeze", "deny"),
        ("unfreeze", "bucket"),
        ("exempt", "allow"),
        ("unexempt", "bucket"),
    ] {
        let path = format!("/v1/customers/envoy_0/{change}");
        world.admin("POST", &path, &json!({})).await;
        stream.until("envoy_0", kind).await;
    }
    let mut without = policy();
    without["customers"].as_array_mut().unwrap().remove(0);
    world.apply(&without).await;
    stream.until("envoy_0", "deny").await;
}

/// While two Envoys ask for a customer each has a part, and when one of them goes the other one has all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_leaves_behind_goes_to_the_others() {
    let world = world_with(&["busy"]).await;
    let id: Id<'_> = &[("customer", "busy")];
    // Each could use all of it.
    let much = || vec![used(id, 0, 10 * u64::from(RATE_PER_S), 5)];
    let mut one = Stream::begin(&world, "cloud", much()).await;
    one.until("busy", "bucket").await;
    let mut other = Stream::begin(&world, "cloud", much()).await;
    let whole = f64::from(RATE_PER_S);
    for stream in [&mut one, &mut other] {
        until_rate(stream, much, |rate| rate > 0.0 && rate < 0.7 * whole).await;
    }
    drop(one);
    until_rate(&mut other, much, |rate| rate > 0.8 * whole).await;
}

/// Reports until what is assigned has such a rate.
async fn until_rate(
    stream: &mut Stream,
    usages: impl Fn() -> Vec<BucketQuotaUsage>,
    is_it: impl Fn(f64) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        stream.report(usages());
        let time = Duration::from_millis(500);
        if let Some(heard) = stream.hear_within("busy", time).await
            && is_it(heard.rate_per_s())
        {
            return;
        }
        assert!(Instant::now() < deadline, "the rate never becomes that");
    }
}

/// A report that is too long ends its stream, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_is_too_long_ends_its_stream_alone() {
    let world = world_with(&["envoy_0"]).await;
    let first = || vec![used(&[("customer", "envoy_0")], 1, 0, 0)];
    let mut bystander = Stream::begin(&world, "cloud", first()).await;
    bystander.until("envoy_0", "bucket").await;
    let mut stream = Stream::begin(&world, "cloud", first()).await;
    stream.until("envoy_0", "bucket").await;
    let long = "x".repeat(TOO_LONG);
    stream.report(vec![used(&[("customer", &long)], 1, 0, 0)]);
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(_)) = stream.replies.next().await {}
    });
    ended.await.expect("the stream ends");
    bystander.report(first());
    bystander.until("envoy_0", "bucket").await;
}
