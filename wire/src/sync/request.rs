//! What a gateway sends.

/// One batch from a gateway: everything that changed since the last answered one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncRequest {
    /// `PROTOCOL`.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// The gateway's name, unique among live gateways.
    #[prost(string, tag = "2")]
    pub gateway_id: String,
    /// Opaque number chosen when the ledger was seeded.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Grows with each request of the incarnation.
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    /// The gateway's monotonic clock when it sent this, echoed in the reply: leases run from here.
    #[prost(uint64, tag = "5")]
    pub sent_at_us: u64,
    /// Public name of the secret under which customer keys are hashed (`KeySecret::fingerprint`).
    #[prost(uint64, tag = "6")]
    pub key_fingerprint: u64,
    /// Epoch of the policy in force at the gateway; 0 before the first.
    #[prost(uint64, tag = "7")]
    pub policy_epoch_applied: u64,
    /// Epoch that the last policy delta belonged to; 0 before the first.
    #[prost(uint64, tag = "8")]
    pub policy_epoch_seen: u64,
    /// `PolicyDelta.cursor` of the last delta, sent back as it came; 0 before the first.
    #[prost(uint64, tag = "9")]
    pub policy_cursor: u64,
    /// What the gateway's forecaster runs.
    #[prost(message, optional, tag = "10")]
    pub model_status: Option<ModelStatus>,
    /// One per (customer, resource) whose counters changed.
    #[prost(message, repeated, tag = "11")]
    pub customers: Vec<CustomerReport>,
    /// One per resource with a pool.
    #[prost(message, repeated, tag = "12")]
    pub pools: Vec<PoolReport>,
    /// Customers whose usage window the forecaster does not have yet.
    #[prost(message, repeated, tag = "13")]
    pub windows_wanted: Vec<WindowWish>,
    /// Steps that a wanted window should have; 0: as many as the server keeps.
    #[prost(uint32, tag = "14")]
    pub window_steps: u32,
    /// Version of the plugin, for the operator's eyes.
    #[prost(string, tag = "15")]
    pub version: String,
    /// Deviations that asked for this sync ahead of its time.
    #[prost(message, repeated, tag = "16")]
    pub deviations: Vec<DeviationSignal>,
    /// `SyncReply.sequence` of the newest reply that was applied; 0 before the first. Grants of a reply that was lost are sent again.
    #[prost(uint64, tag = "17")]
    pub reply_applied: u64,
    /// Forecasts that were not shown yet, those that have waited longest, as many as fit. For the operator's eyes: no grant depends on
    /// them.
    #[prost(message, repeated, tag = "18")]
    pub forecasts: Vec<CustomerForecast>,
    /// `SyncReply.allocation_cycle` of the newest cycle of which all allocations were applied; 0 before the first.
    #[prost(uint64, tag = "19")]
    pub allocation_cycle_applied: u64,
}

/// Cumulative counters of one customer and resource, in micro-tokens since `counted_since_us`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CustomerReport {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource in the applied policy.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Tokens asked for, admitted or not.
    #[prost(uint64, tag = "4")]
    pub demand_micro: u64,
    /// Tokens admitted.
    #[prost(uint64, tag = "5")]
    pub admitted_micro: u64,
    /// Tokens denied.
    #[prost(uint64, tag = "6")]
    pub denied_micro: u64,
    /// Demand that the shadow bucket did not foresee.
    #[prost(uint64, tag = "7")]
    pub deviation_micro: u64,
    /// Contract tokens held by the gateway: ledger and chunks; negative in debt, which does not count while chunks are out.
    #[prost(sint64, tag = "8")]
    pub balance_micro: i64,
    /// Rate that the gateway would like to be granted.
    #[prost(uint64, tag = "9")]
    pub wish_rate_micro_per_s: u64,
    /// Bits `FLAG_*`.
    #[prost(uint32, tag = "10")]
    pub flags: u32,
    /// `Grant.granted_cum_micro` that the ledger has applied.
    #[prost(uint64, tag = "11")]
    pub granted_seen_micro: u64,
    /// `Grant.adjust_cum_micro` that the ledger has applied.
    #[prost(sint64, tag = "12")]
    pub adjust_seen_micro: i64,
    /// Rate at which the shadow bucket refills now.
    #[prost(uint64, tag = "13")]
    pub shadow_rate_micro_per_s: u64,
    /// Index of the customer's contract in the applied policy.
    #[prost(uint32, tag = "14")]
    pub contract: u32,
    /// Claims in the shadow bucket.
    #[prost(sint64, tag = "15")]
    pub shadow_balance_micro: i64,
    /// Depth of the shadow bucket.
    #[prost(uint64, tag = "16")]
    pub shadow_depth_micro: u64,
    /// `SyncReply.sequence` of the newest reply that the ledger had applied in full when this entry was read; 0 before the first.
    /// The request's own `reply_applied` may be newer: reports are collected over several ticks.
    #[prost(uint64, tag = "17")]
    pub reply_applied: u64,
    /// When the entry was made and its counters began at zero, on the gateway's monotonic clock. A later time than in the report before is
    /// a new life of the entry: all that it counts is new. An earlier one is an older entry that counts again: nothing of it is new, and
    /// it is counted on from there.
    #[prost(uint64, tag = "18")]
    pub counted_since_us: u64,
}

/// Cumulative counters of one pool.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PoolReport {
    /// Index of the resource in the applied policy.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Tokens drawn from the pool since the incarnation began.
    #[prost(uint64, tag = "2")]
    pub drawn_micro: u64,
    /// Tokens in the pool and in chunks; negative in debt, which does not count while chunks are out.
    #[prost(sint64, tag = "3")]
    pub balance_micro: i64,
    /// `PoolGrant.granted_cum_micro` that the ledger has applied.
    #[prost(uint64, tag = "4")]
    pub granted_seen_micro: u64,
    /// Rate that the gateway would like to be granted.
    #[prost(uint64, tag = "5")]
    pub wish_rate_micro_per_s: u64,
    /// `SyncReply.sequence` of the newest reply that the ledger had applied in full when this pool was read; 0 before the first.
    #[prost(uint64, tag = "6")]
    pub reply_applied: u64,
}

/// A customer whose usage window is wanted.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WindowWish {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
}

/// A customer whose demand left the forecast.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct DeviationSignal {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource in the applied policy.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Rate of demand seen.
    #[prost(uint64, tag = "4")]
    pub rate_micro_per_s: u64,
}

/// What a gateway expects of one customer and resource in the running step, in tokens per second.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CustomerForecast {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource in the applied policy.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// The 0.1 quantile.
    #[prost(float, tag = "4")]
    pub low_per_s: f32,
    /// The 0.5 quantile.
    #[prost(float, tag = "5")]
    pub median_per_s: f32,
    /// The 0.9 quantile.
    #[prost(float, tag = "6")]
    pub high_per_s: f32,
    /// True when the network took part, false when only simple methods did.
    #[prost(bool, tag = "7")]
    pub by_network: bool,
}

/// What the forecaster runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelStatus {
    /// Model epoch of the running model; 0 for none.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// SHA-256 of the running model; empty for none.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
    /// How the newest model offered has fared.
    #[prost(enumeration = "ModelState", tag = "3")]
    pub state: i32,
    /// Why it was refused, for the operator.
    #[prost(string, tag = "4")]
    pub message: String,
    /// Series that the network forecasts.
    #[prost(uint32, tag = "5")]
    pub series_by_network: u32,
    /// Series that the fallback forecasts.
    #[prost(uint32, tag = "6")]
    pub series_by_fallback: u32,
    /// Mean pinball loss of matured forecasts divided by mean demand, in parts per million.
    #[prost(uint64, tag = "7")]
    pub pinball_ppm: u64,
    /// Share of matured forecasts whose upper quantile covered the demand, in parts per million.
    #[prost(uint32, tag = "8")]
    pub coverage_ppm: u32,
    /// Model epoch of the newest offer that `state` and `message` speak of; 0 before the first.
    #[prost(uint64, tag = "9")]
    pub offered_epoch: u64,
    /// How the forecasts have fared since the running model took over; absent before the first step that they were made for has ended.
    #[prost(message, optional, tag = "10")]
    pub score: Option<ForecastScore>,
    /// The model beside the running one; absent while none is offered.
    #[prost(message, optional, tag = "11")]
    pub challenger: Option<ChallengerStatus>,
}

/// The model that is compared with the running one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChallengerStatus {
    /// Model epoch of the challenger that runs beside the model; 0 for none.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// SHA-256 of its file; empty for none.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
    /// How the newest challenger offered has fared.
    #[prost(enumeration = "ModelState", tag = "3")]
    pub state: i32,
    /// Why it was refused, for the operator.
    #[prost(string, tag = "4")]
    pub message: String,
    /// Model epoch of the newest offer that `state` and `message` speak of.
    #[prost(uint64, tag = "5")]
    pub offered_epoch: u64,
    /// How its forecasts have fared since both run beside one another; absent before the first step of both has ended.
    #[prost(message, optional, tag = "6")]
    pub challenger_score: Option<ForecastScore>,
    /// How the running model's have, for the same customers and steps.
    #[prost(message, optional, tag = "7")]
    pub champion_score: Option<ForecastScore>,
}

/// Sums over the forecasts of the whole fleet's usage that have matured: by all of a gateway's series since its running model took over.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForecastScore {
    /// Forecasts.
    #[prost(uint64, tag = "1")]
    pub matured: u64,
    /// Those whose 0.9 quantile was not exceeded.
    #[prost(uint64, tag = "2")]
    pub covered: u64,
    /// Pinball loss of the 0.9 quantile, in tokens of all resources together. For servers that do not know `resources`: one that counts in bytes
    /// drowns one that counts in requests.
    #[prost(double, tag = "3")]
    pub loss: f64,
    /// What was used, in tokens of all resources together.
    #[prost(double, tag = "4")]
    pub usage: f64,
    /// The same by resource: one for each of which a forecast has matured, four at most. A gateway that does not know this says none.
    #[prost(message, repeated, tag = "5")]
    pub resources: Vec<ResourceScore>,
}

/// Sums over the forecasts of one resource.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ResourceScore {
    /// Index of the resource in the applied policy.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Pinball loss of the 0.9 quantile, in tokens.
    #[prost(double, tag = "2")]
    pub loss: f64,
    /// What was used, in tokens.
    #[prost(double, tag = "3")]
    pub usage: f64,
}

/// How the newest model offered has fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ModelState {
    /// No model was offered.
    None = 0,
    /// It is being fetched.
    Fetching = 1,
    /// It runs.
    Running = 2,
    /// It was refused; the one before it runs on.
    Refused = 3,
}
