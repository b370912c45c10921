//! Envoy's own rate limiting filters as clients of the same buckets.
//!
//! A stock Envoy asks a server for each request (`envoy.service.ratelimit.v3`), or reports what it used and is assigned a rate
//! (`envoy.service.rate_limit_quota.v3`). Both are served here from the ledger of one more gateway, which has no Envoy around it:
//! [`Gateway`] runs the forecaster plugin's own code natively, so grants, leases, policies, bans and pools mean here what they mean
//! everywhere, and to the control plane it is one more member of the fleet. Answering from the control plane's central
//! balances was the worse alternative: a request would wait for its lock, and a second set of rules would have to be kept equal.

mod asked;
mod desk;
mod gateway;
mod memory;
mod rlqs;
mod rls;
mod server;

pub use desk::{Charge, Desk, NotReady, Outcome, REQUESTS, Ruling};
pub use gateway::{Answer, Call, Gateway, GatewayError, GatewayOptions, Uplink};
pub use server::{Authorize, serve};
