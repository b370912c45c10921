//! Every bound of the forecaster, with its unit.
//!
//! What comes from the control plane is input from outside: each list has a length that the largest sensible reply needs, and a reply
//! that exceeds one is refused as a whole before anything of it is applied.

/// Longest plugin configuration, in bytes.
pub const CONFIG_BYTES_MOST: usize = 64 * 1024;

/// Longest answer that is read from the host, in bytes: a model is the largest.
pub const REPLY_BYTES_MOST: usize = 16 * 1024 * 1024;

/// Longest sync reply, in bytes. Decoding it happens in one piece.
pub const SYNC_BYTES_MOST: usize = 4 * 1024 * 1024;

/// Grants in a reply.
pub const GRANTS_MOST: usize = 16_384;

/// Allocations in a reply.
pub const ALLOCATIONS_MOST: usize = 65_536;

/// Longest time, in milliseconds, that allocations hold: two and a half of the longest intervals that a policy can have.
pub const ALLOCATION_MS_MOST: u32 = 9_000_000;

/// Policy customers in a reply.
pub const POLICY_CUSTOMERS_MOST: usize = 65_536;

/// Policy customers in all parts of a policy together.
pub const POLICY_CUSTOMERS_TOTAL_MOST: usize = 2_097_152;

/// Compiled policy, in bytes.
pub const POLICY_BYTES_MOST: usize = 16 * 1024 * 1024;

/// Windows that are asked for in one sync, and that a reply may bring.
pub const WINDOWS_MOST: usize = 64;

/// Customers that may wait for their windows.
pub const WINDOWS_WAITING_MOST: usize = 65_536;

/// Windows in a reply: one per customer asked for and resource.
pub const WINDOWS_IN_REPLY_MOST: usize = 256;

/// Steps in a window.
pub const WINDOW_STEPS_MOST: usize = 4_096;

/// Other gateways' usage in a reply, in series.
pub const STEP_USAGE_MOST: usize = 65_536;

/// Deviations in a request.
pub const DEVIATIONS_MOST: usize = 64;

/// Forecasts in a request.
pub const FORECASTS_MOST: usize = 512;

/// Longest lease, in milliseconds: what a hostile or confused control plane can grant at once.
pub const LEASE_MS_MOST: u32 = 600_000;

/// Longest fallback, in milliseconds.
pub const FALLBACK_MS_MOST: u32 = 86_400_000;
