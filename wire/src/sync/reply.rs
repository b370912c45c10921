//! What the control plane answers.

/// The answer to one batch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncReply {
    /// `SyncRequest.sequence` of the request answered.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// `SyncRequest.sent_at_us` of the request answered: all times to live run from it.
    #[prost(uint64, tag = "2")]
    pub sent_at_us: u64,
    /// Wall clock of the server. For display and for the calendar; no lease depends on it.
    #[prost(uint64, tag = "3")]
    pub server_time_ms: u64,
    /// Set when the request was refused; then nothing else below is.
    #[prost(message, optional, tag = "4")]
    pub error: Option<SyncError>,
    /// Present while the gateway's policy is not the active one.
    #[prost(message, optional, tag = "5")]
    pub policy: Option<PolicyDelta>,
    /// Grants that are new to the gateway or changed.
    #[prost(message, repeated, tag = "6")]
    pub grants: Vec<Grant>,
    /// Grants of pool tokens, one per resource with a pool.
    #[prost(message, repeated, tag = "7")]
    pub pools: Vec<PoolGrant>,
    /// How long the granted rates hold.
    #[prost(uint32, tag = "8")]
    pub lease_ttl_ms: u32,
    /// How long the fallback rates hold after that.
    #[prost(uint32, tag = "9")]
    pub fallback_ttl_ms: u32,
    /// How often syncs are expected.
    #[prost(uint32, tag = "10")]
    pub sync_interval_ms: u32,
    /// Windows that were asked for.
    #[prost(message, repeated, tag = "11")]
    pub windows: Vec<Window>,
    /// Usage of the last finished step on all other gateways together, where it is not zero.
    #[prost(message, repeated, tag = "12")]
    pub step_usage: Vec<StepUsage>,
    /// The model to run; absent while there is none.
    #[prost(message, optional, tag = "13")]
    pub model: Option<ModelRelease>,
    /// Epoch of the active policy.
    #[prost(uint64, tag = "14")]
    pub policy_epoch: u64,
    /// Real length of a step of usage history, in milliseconds.
    #[prost(uint32, tag = "15")]
    pub step_ms: u32,
    /// Number of the step that is running at the server now: Unix time in ms / `step_ms`, but it goes back only when that clock was set back.
    #[prost(uint64, tag = "16")]
    pub step_now: u64,
    /// How much of the running step has passed, in milliseconds.
    #[prost(uint32, tag = "17")]
    pub step_elapsed_ms: u32,
    /// True while more windows were asked for than fitted: ask again for those that are missing.
    #[prost(bool, tag = "18")]
    pub windows_left: bool,
    /// Report every customer again, changed or not: the server has forgotten what this gateway reported.
    #[prost(bool, tag = "19")]
    pub report_all: bool,
    /// The next sync should come this long after the one before, this once: tokens are on the move. 0: as usual.
    #[prost(uint32, tag = "20")]
    pub early_sync_ms: u32,
    /// True while there are more grants than fitted: sync again at once for the rest.
    #[prost(bool, tag = "21")]
    pub grants_left: bool,
    /// Step of which `step_usage` tells everything: whom it does not name the others have used nothing of. 0: it tells of no step in full.
    #[prost(uint64, tag = "22")]
    pub step_usage_whole: u64,
    /// The model to compare with the one that runs, without effect; absent while there is none.
    #[prost(message, optional, tag = "23")]
    pub challenger: Option<ModelRelease>,
    /// Allocations of pools that are new to the gateway or changed.
    #[prost(message, repeated, tag = "24")]
    pub allocations: Vec<Allocation>,
    /// How long allocations hold, those that came before included; 0: none hold, and the gateway goes by its own forecasts.
    #[prost(uint32, tag = "25")]
    pub allocation_ttl_ms: u32,
    /// Number of the cycle that the gateway has all allocations of once it has applied these; 0 while some are still to come.
    #[prost(uint64, tag = "26")]
    pub allocation_cycle: u64,
    /// Forget all allocations that came before these: the server cannot tell which of them are void. Whoever is not named is allocated nothing.
    #[prost(bool, tag = "27")]
    pub allocations_anew: bool,
}

/// What one customer is allocated of a pool, at all gateways together.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Allocation {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Tokens that it has a claim on, per second.
    #[prost(uint64, tag = "4")]
    pub rate_micro_per_s: u64,
}

/// Why a request was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SyncError {
    /// What to do about it, for the program.
    #[prost(enumeration = "SyncErrorCode", tag = "1")]
    pub code: i32,
    /// What to do about it, for the operator.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Reasons for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SyncErrorCode {
    /// Not an error.
    None = 0,
    /// The message cannot be understood.
    Malformed = 1,
    /// There are more gateways than the server serves.
    TooManyGateways = 2,
    /// A newer incarnation of this gateway has reported: this one must stop.
    StaleIncarnation = 3,
    /// A batch that was already counted, or an older one.
    StaleSequence = 4,
    /// Gateway and server hash customer keys under different secrets.
    KeySecretMismatch = 5,
    /// No policy has been applied yet.
    NoPolicy = 6,
    /// The store cannot make the grant durable; try again.
    StoreUnavailable = 7,
    /// The version of the protocol is not spoken here.
    ProtocolVersion = 8,
    /// This gateway syncs too often: try again a little later.
    TooManySyncs = 9,
}

/// One part of a policy on its way to a gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PolicyDelta {
    /// Epoch of the policy that this is a part of.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// True for the first part of a whole policy: forget the parts collected so far.
    #[prost(bool, tag = "2")]
    pub full: bool,
    /// The compiled policy (`forebay-core`'s codec), in the first part of a whole policy.
    #[prost(bytes = "vec", tag = "3")]
    pub compiled: Vec<u8>,
    /// Customers of this part.
    #[prost(message, repeated, tag = "4")]
    pub customers: Vec<PolicyCustomer>,
    /// To be sent back as `policy_cursor`, together with `epoch`.
    #[prost(uint64, tag = "5")]
    pub cursor: u64,
    /// True when nothing is missing any more: the policy can be put in force.
    #[prost(bool, tag = "6")]
    pub complete: bool,
    /// Customers of the whole policy, so that the ledger can be sized before they all came.
    #[prost(uint64, tag = "7")]
    pub customers_total: u64,
}

/// A customer with a contract of its own.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PolicyCustomer {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the contract in the compiled policy.
    #[prost(uint32, tag = "3")]
    pub contract: u32,
    /// Bits `FLAG_*`.
    #[prost(uint32, tag = "4")]
    pub flags: u32,
    /// Denied until this wall-clock time; 0: not banned; all ones: without an end.
    #[prost(uint64, tag = "5")]
    pub ban_until_unix_ms: u64,
}

/// Contract tokens and refill rate moved to the gateway for one customer and resource.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Grant {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Tokens granted since the incarnation began; the ledger applies what it has not applied.
    #[prost(uint64, tag = "4")]
    pub granted_cum_micro: u64,
    /// Credits and resets since the incarnation began; may shrink.
    #[prost(sint64, tag = "5")]
    pub adjust_cum_micro: i64,
    /// Refill rate until the lease ends.
    #[prost(uint64, tag = "6")]
    pub rate_micro_per_s: u64,
    /// The rate refills only up to here.
    #[prost(uint64, tag = "7")]
    pub local_cap_micro: u64,
    /// Refill rate from the lease's end until the fallback's end.
    #[prost(uint64, tag = "8")]
    pub fallback_rate_micro_per_s: u64,
    /// What of grants and adjustments was moved to earlier lives of the customer's entry: before the policy dropped and listed it
    /// again. An entry counts it as arrived, so that a new one is not given it again.
    #[prost(uint64, tag = "9")]
    pub base_cum_micro: u64,
}

/// Pool tokens and refill rate moved to the gateway for one resource.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PoolGrant {
    /// Index of the resource.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Tokens granted since the incarnation began.
    #[prost(uint64, tag = "2")]
    pub granted_cum_micro: u64,
    /// Refill rate until the lease ends.
    #[prost(uint64, tag = "3")]
    pub rate_micro_per_s: u64,
    /// The rate refills only up to here.
    #[prost(uint64, tag = "4")]
    pub local_cap_micro: u64,
    /// Refill rate from the lease's end until the fallback's end.
    #[prost(uint64, tag = "5")]
    pub fallback_rate_micro_per_s: u64,
}

/// Usage of one customer and resource over the last finished steps, fleet-wide.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Window {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Real length of a step, in milliseconds.
    #[prost(uint32, tag = "4")]
    pub step_ms: u32,
    /// Number of the newest step in `usage`, on the scale of `SyncReply.step_now`.
    #[prost(uint64, tag = "5")]
    pub newest_step: u64,
    /// Tokens asked for per step, oldest first.
    #[prost(float, repeated, tag = "6")]
    pub usage: Vec<f32>,
    /// One bit per step, lowest first: 1 = observed, 0 = gap.
    #[prost(bytes = "vec", tag = "7")]
    pub mask: Vec<u8>,
}

/// Usage of one finished step on the other gateways.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StepUsage {
    /// High half of the customer hash.
    #[prost(fixed64, tag = "1")]
    pub hash_high: u64,
    /// Low half of the customer hash.
    #[prost(fixed64, tag = "2")]
    pub hash_low: u64,
    /// Index of the resource.
    #[prost(uint32, tag = "3")]
    pub resource: u32,
    /// Number of the step.
    #[prost(uint64, tag = "4")]
    pub step: u64,
    /// Tokens asked for.
    #[prost(float, tag = "5")]
    pub usage: f32,
}

/// A model to run.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelRelease {
    /// Model epoch, part of what is signed.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// SHA-256 of the file, part of what is signed.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
    /// 1 = release, 2 = roll-back, 3 = challenger; part of what is signed.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// Ed25519 signature of the statement (`forebay-wire`'s `model` module).
    #[prost(bytes = "vec", tag = "4")]
    pub signature: Vec<u8>,
    /// Path of the file on this server.
    #[prost(string, tag = "5")]
    pub path: String,
    /// Size of the file.
    #[prost(uint64, tag = "6")]
    pub bytes: u64,
}
