//! A `forebay serve` that answers Envoy's own filters, and a hand that asks it as an Envoy does.

#![allow(dead_code, reason = "each test file uses its own part")]

use crate::process::{ADMIN_TOKEN, FILTER_TOKEN, Process, send};
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
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A server, and the connection of a filter to it.
pub(crate) struct World {
    pub(crate) process: Process,
    channel: Channel,
    store: Kept,
}

/// Where the server keeps what it must not forget.
enum Kept {
    Here(TempDir),
    InRedis(Node),
    Elsewhere,
}

/// A descriptor: its entries, and how many hits it asks for.
pub(crate) type Descriptor<'a> = (&'a [(&'a str, &'a str)], Option<u64>);

pub(crate) type QuotaReply =
    envoy_types::pb::envoy::service::rate_limit_quota::v3::RateLimitQuotaResponse;

// === impl World ===

impl World {
    /// On a folder of its own.
    pub(crate) async fn start(policy: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start_with_filters("--data", folder.path().as_os_str()).await;
        let world = Self::of(process, Kept::Here(folder)).await;
        world.apply(policy).await;
        world
    }

    /// The only replica on a Redis of its own.
    pub(crate) async fn start_on_redis(policy: &Value) -> Self {
        let node = Node::start().unwrap();
        let mut world = Self::replica(&node).await;
        world.store = Kept::InRedis(node);
        world.until_ready().await;
        world.apply(policy).await;
        world
    }

    /// One more replica on a Redis.
    pub(crate) async fn replica(node: &Node) -> Self {
        let process = Process::start_with_filters("--store", node.url().as_ref()).await;
        Self::of(process, Kept::Elsewhere).await
    }

    async fn of(process: Process, store: Kept) -> Self {
        let channel = Channel::from_shared(format!("http://{}", process.grpc_address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            process,
            channel,
            store,
        }
    }

    /// Waits until somebody leads.
    pub(crate) async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let is_ready = async || {
            let address = &self.process.address;
            let answer = send(address, "GET", "/readyz", ADMIN_TOKEN, Vec::new()).await;
            answer.is_some_and(|(status, _)| status == 200)
        };
        while !is_ready().await {
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Puts a policy in force; the gateway behind the filters has it a moment later.
    pub(crate) async fn apply(&self, policy: &Value) {
        self.admin("POST", "/v1/policies", policy).await;
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string().into_bytes();
        let (status, bytes) = send(&self.process.address, method, path, ADMIN_TOKEN, body)
            .await
            .unwrap();
        let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn ask(
        &self,
        descriptors: &[Descriptor<'_>],
        hits: u32,
    ) -> Result<RateLimitResponse, Status> {
        self.ask_as(FILTER_TOKEN, descriptors, hits).await
    }

    pub(crate) async fn ask_as(
        &self,
        token: &str,
        descriptors: &[Descriptor<'_>],
        hits: u32,
    ) -> Result<RateLimitResponse, Status> {
        let request = with_token(token, question(descriptors, hits));
        let mut client = RateLimitServiceClient::new(self.channel.clone());
        client
            .should_rate_limit(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// How many of so many questions at once are OK.
    pub(crate) async fn admitted_at_once(
        &self,
        questions: usize,
        descriptors: &[Descriptor<'_>],
    ) -> usize {
        let question = question(descriptors, 1);
        let mut asked = JoinSet::new();
        for _ in 0..questions {
            let mut client = RateLimitServiceClient::new(self.channel.clone());
            let request = with_token(FILTER_TOKEN, question.clone());
            asked.spawn(async move { client.should_rate_limit(request).await });
        }
        let answers = asked.join_all().await;
        let codes = answers
            .into_iter()
            .map(|answer| answer.unwrap().into_inner().overall_code());
        codes.filter(|code| *code == Code::Ok).count()
    }

    /// Codes of the whole and of each descriptor.
    pub(crate) async fn codes(
        &self,
        descriptors: &[Descriptor<'_>],
        hits: u32,
    ) -> (Code, Vec<Code>) {
        let answer = self.ask(descriptors, hits).await.unwrap();
        let statuses = answer.statuses.iter();
        (
            answer.overall_code(),
            statuses.map(|status| status.code()).collect(),
        )
    }

    /// What is left in a customer's bucket, once the gateway has it.
    pub(crate) async fn remaining(&self, customer: &str) -> u32 {
        self.remaining_of(customer, "requests").await
    }

    pub(crate) async fn remaining_of(&self, customer: &str, resource: &str) -> u32 {
        let entries: &[_] = &[("customer", customer), ("resource", resource)];
        let answer = self.ask(&[(entries, Some(0))], 1).await;
        answer.unwrap().statuses[0].limit_remaining
    }

    /// Waits until this gateway, which is the only one, has been granted a customer's whole bucket, and leaves it full.
    pub(crate) async fn until_granted(&self, customer: &str, resource: &str, burst: u32) {
        let deadline = Instant::now() + PATIENCE;
        let entries: &[_] = &[("customer", customer), ("resource", resource)];
        // What is asked for in vain comes here; what is admitted is put back by hand.
        self.until(deadline, customer, &[(entries, Some(u64::from(burst)))])
            .await;
        let path = format!("/v1/customers/{customer}/reset");
        self.admin("POST", &path, &json!({})).await;
        while self.remaining_of(customer, resource).await < burst {
            let late = format!("the reset of {customer} does not arrive");
            assert!(Instant::now() < deadline, "{late}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn until(&self, deadline: Instant, customer: &str, descriptors: &[Descriptor<'_>]) {
        loop {
            let answer = self.ask(descriptors, 1).await;
            if answer.is_ok_and(|answer| answer.overall_code() == Code::Ok) {
                return;
            }
            assert!(Instant::now() < deadline, "nothing comes to {customer}");
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn quota(
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

fn question(descriptors: &[Descriptor<'_>], hits: u32) -> RateLimitRequest {
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
    RateLimitRequest {
        domain: "test".to_owned(),
        descriptors: descriptors.collect(),
        hits_addend: hits,
    }
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let bearer = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    request
}

pub(crate) fn usage(bucket: &[(&str, &str)], allowed: u64) -> BucketQuotaUsage {
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

pub(crate) fn report(domain: &str, usages: Vec<BucketQuotaUsage>) -> RateLimitQuotaUsageReports {
    RateLimitQuotaUsageReports {
        domain: domain.to_owned(),
        bucket_quota_usages: usages,
    }
}

/// What a stream says: its first assignments by customer (empty: the bucket without one), or why it ended.
pub(crate) async fn first_words(
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

pub(crate) fn kind(action: &BucketAction) -> &'static str {
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
