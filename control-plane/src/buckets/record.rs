//! An account as it lies in the store: protobuf, so that later versions can add fields.

/// Everything about an account that must survive.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AccountRecord {
    /// Which tenure the tokens were granted in; 0: never granted.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// By resource, in the order of the policy.
    #[prost(message, repeated, tag = "2")]
    pub holdings: Vec<HoldingRecord>,
    /// True while that tenure's gateway holds the tokens and the rate.
    #[prost(bool, tag = "3")]
    pub granted: bool,
}

/// One resource of an account.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HoldingRecord {
    /// Tokens in the central bucket.
    #[prost(sint64, tag = "1")]
    pub level_micro: i64,
    /// Tokens granted in this tenure.
    #[prost(uint64, tag = "2")]
    pub granted_cum_micro: u64,
    /// Operator's adjustments in this tenure.
    #[prost(sint64, tag = "3")]
    pub adjust_cum_micro: i64,
    /// Last report of this tenure: demand.
    #[prost(uint64, tag = "4")]
    pub demand_micro: u64,
    /// Last report of this tenure: admitted.
    #[prost(uint64, tag = "5")]
    pub admitted_micro: u64,
    /// Last report of this tenure: denied.
    #[prost(uint64, tag = "6")]
    pub denied_micro: u64,
    /// Last report of this tenure: deviation.
    #[prost(uint64, tag = "7")]
    pub deviation_micro: u64,
    /// Last report of this tenure: tokens that the gateway held.
    #[prost(sint64, tag = "8")]
    pub balance_micro: i64,
    /// Earlier tenures: demand.
    #[prost(uint64, tag = "9")]
    pub past_demand_micro: u64,
    /// Earlier tenures: admitted.
    #[prost(uint64, tag = "10")]
    pub past_admitted_micro: u64,
    /// Earlier tenures: denied.
    #[prost(uint64, tag = "11")]
    pub past_denied_micro: u64,
    /// Earlier tenures: deviation.
    #[prost(uint64, tag = "12")]
    pub past_deviation_micro: u64,
    /// Step of usage history that was open at the last report.
    #[prost(uint64, tag = "13")]
    pub step: u64,
    /// Demand of that step so far.
    #[prost(uint64, tag = "14")]
    pub step_demand_micro: u64,
    /// Tokens moved in this tenure before the policy last began to list the customer.
    #[prost(uint64, tag = "15")]
    pub base_cum_micro: u64,
}
