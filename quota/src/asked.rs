//! What Envoys send, with every text as bytes.
//!
//! Headers need not be UTF-8, and Envoy copies them into fields that protobuf calls strings. The generated types would refuse the whole
//! message for one of them: a question would fail, and Envoy lets the request pass; a stream of reports would break, and again with each
//! attempt, until that Envoy is restarted. So these are the messages that come in, field by field as in Envoy's
//! `service/ratelimit/v3/rls.proto` and `service/rate_limit_quota/v3/rlqs.proto`; what goes out is of the generated types.

use envoy_types::pb::google::protobuf::{Duration, UInt64Value};

/// `RateLimitRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Question {
    #[prost(message, repeated, tag = "2")]
    pub(crate) descriptors: Vec<Descriptor>,
    #[prost(uint32, tag = "3")]
    pub(crate) hits_addend: u32,
}

/// `RateLimitDescriptor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Descriptor {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Entry>,
    #[prost(message, optional, tag = "3")]
    pub(crate) hits_addend: Option<UInt64Value>,
    #[prost(bool, tag = "4")]
    pub(crate) is_negative_hits: bool,
}

/// A name and a value: an entry of a descriptor, or one of a map.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `RateLimitQuotaUsageReports`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reports {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) domain: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) usages: Vec<Usage>,
}

/// `BucketQuotaUsage`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Usage {
    #[prost(message, optional, tag = "1")]
    pub(crate) bucket_id: Option<Id>,
    #[prost(message, optional, tag = "2")]
    pub(crate) time_elapsed: Option<Duration>,
    #[prost(uint64, tag = "3")]
    pub(crate) allowed: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) denied: u64,
}

/// `BucketId`, whose map is a list of entries on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Id {
    #[prost(message, repeated, tag = "1")]
    pub(crate) bucket: Vec<Entry>,
}
