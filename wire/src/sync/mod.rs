//! The sync protocol between a gateway and the control plane.
//!
//! One HTTP POST (`/v1/sync`) carries a protobuf [`SyncRequest`] and is answered by a [`SyncReply`]. Plain HTTP because every
//! proxy-wasm host can do it; protobuf because a batch holds thousands of counters. The structs are written by hand so that no
//! build needs a protobuf compiler; `wire/sync.proto` is the same schema for readers in other languages, and a test holds the
//! two together.
//!
//! Rules that make every batch safe to repeat, merge, skip or reorder:
//! - All counters are cumulative. A report replaces the last one; it never adds. Counters of a customer begin anew when its entry is made
//!   anew, and the report says since when they count.
//! - Grants are cumulative too: the gateway applies `granted_cum_micro` minus what it has already applied.
//! - A report says which reply had been applied when it was read. A balance is one after a grant only if that grant's reply was.
//! - `sequence` grows with each request of an incarnation; a reply to an older request is ignored.
//! - An incarnation is an opaque number chosen when the ledger is seeded. A new one means: what the old one held is spent.

mod reply;
mod request;

pub use reply::{
    Allocation, Grant, ModelRelease, PolicyCustomer, PolicyDelta, PoolGrant, StepUsage, SyncError,
    SyncErrorCode, SyncReply, Window,
};
pub use request::{
    ChallengerStatus, CustomerForecast, CustomerReport, DeviationSignal, ForecastScore, ModelState,
    ModelStatus, PoolReport, ResourceScore, SyncRequest, WindowWish,
};

/// Version of the protocol that these messages speak.
pub const PROTOCOL: u32 = 1;

/// Content type of both directions.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Path of the sync endpoint.
pub const SYNC_PATH: &str = "/v1/sync";

/// Largest body of a request that the server reads.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Largest body of a reply that the server writes.
pub const MAX_REPLY_BYTES: usize = 4 << 20;

/// Bit of [`PolicyCustomer::flags`]: admit always, count only.
pub const FLAG_EXEMPT: u32 = 1;
/// Bit of [`PolicyCustomer::flags`]: never admitted until thawed.
pub const FLAG_FROZEN: u32 = 1 << 1;
/// Bit of [`PolicyCustomer::flags`]: no longer a policy customer (parts only).
pub const FLAG_REMOVED: u32 = 1 << 2;
/// Bit of [`CustomerReport::flags`]: the contention flag is raised.
pub const FLAG_CONTENDED: u32 = 1 << 3;
/// Bit of [`CustomerReport::flags`]: nothing that was granted is in the gateway's entry. No grant has reached this life of it, and what is
/// in the bucket is a stranger's, filled by the gateway itself.
pub const FLAG_NOT_GRANTED: u32 = 1 << 4;
/// [`PolicyCustomer::ban_until_unix_ms`] of a ban without an end.
pub const BAN_FOREVER: u64 = u64::MAX;

#[cfg(test)]
mod tests;
