//! Usage windows for customers that are new to a gateway's forecaster.
//!
//! They can wait, so they get what grants and policy leave of a reply: a gateway refuses one that is too long as a whole, and would
//! ask for the same again for ever.

use super::super::Plane;
use super::super::directory::Directory;
use crate::history::{Ring, Series};
use crate::keys::Dialect;
use crate::store::StoreError;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{MAX_REPLY_BYTES, SyncReply, SyncRequest, Window};
use prost::Message;

/// Usage history in one reply, in bytes on the wire.
const MAX_WINDOWS_BYTES: usize = 2_000_000;

/// What a window takes on the wire at most, beside its values and its mask.
const WINDOW_HEAD_BYTES: usize = 64;

/// What `windows_left` takes on the wire.
const WINDOWS_LEFT_BYTES: usize = 3;

impl Plane {
    /// Windows are read from the store when everything before them is durable there, and without the lock.
    pub(super) fn add_windows(
        &self,
        request: &SyncRequest,
        dialect: Dialect,
        reply: &mut SyncReply,
    ) -> Result<(), StoreError> {
        if request.windows_wanted.is_empty() {
            return Ok(());
        }
        let (filed, resources, coverage, newest) = {
            let state = self.lock();
            let filed = |directory: &Directory| -> Vec<(u64, u64, CustomerHash)> {
                let wanted = request.windows_wanted.iter();
                let parts = wanted.map(|wish| (wish.hash_high, wish.hash_low));
                parts
                    .map(|(high, low)| {
                        (
                            high,
                            low,
                            directory.filed(CustomerHash::from_parts(high, low), dialect),
                        )
                    })
                    .collect()
            };
            let resources = state
                .policies
                .compiled()
                .map_or(0, |policy| policy.resources.len());
            (
                filed(&state.directory),
                resources,
                state.coverage.clone(),
                state.newest_closed(),
            )
        };
        let kept = self.settings.history_steps;
        let steps = if request.window_steps == 0 {
            kept
        } else {
            u64::from(request.window_steps).min(kept)
        };
        let first = newest.saturating_sub(steps.saturating_sub(1));
        let rest = MAX_REPLY_BYTES.saturating_sub(reply.encoded_len());
        let mut left_bytes = MAX_WINDOWS_BYTES.min(rest.saturating_sub(WINDOWS_LEFT_BYTES));
        for (hash_high, hash_low, customer) in filed {
            let bytes = windows_bytes(steps, resources);
            if bytes > left_bytes {
                reply.windows_left = true;
                break;
            }
            left_bytes = left_bytes.saturating_sub(bytes);
            for resource in 0..u8::try_from(resources).unwrap_or(0) {
                let usage =
                    Ring::read(&*self.store, Series::new(customer, resource), first, newest)?;
                let (usage, mask) = usage.with_gaps(|step| coverage.observed(step));
                let (resource, step_ms) = (u32::from(resource), self.settings.step_ms);
                reply.windows.push(Window {
                    hash_high,
                    hash_low,
                    resource,
                    step_ms,
                    newest_step: newest,
                    usage,
                    mask,
                });
            }
        }
        Ok(())
    }
}

/// What the windows of one customer take on the wire at most.
fn windows_bytes(steps: u64, resources: usize) -> usize {
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    steps
        .saturating_mul(size_of::<f32>())
        .saturating_add(steps.div_ceil(8))
        .saturating_add(WINDOW_HEAD_BYTES)
        .saturating_mul(resources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Caller, Role};
    use crate::document::Format;
    use crate::keys::Keys;
    use crate::plane::{Clock, Settings};
    use crate::store::MemoryStore;
    use forebay_wire::sync::{PolicyDelta, WindowWish};
    use std::sync::Arc;

    const POLICY: &str = r#"{"version": 1, "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 1, "burst": 1}}}}}"#;

    async fn plane() -> Plane {
        let settings = Settings {
            lease_ttl_ms: 10_000,
            fallback_ttl_ms: 60_000,
            sync_interval_ms: 250,
            step_ms: 1_000,
            history_steps: 4_032,
            max_other_customers: 100,
            audit_keep: 100,
        };
        let keys = Keys::new(None, None).unwrap();
        let store = Arc::new(MemoryStore::default());
        let plane = Plane::start(store, keys, settings, Clock::system()).unwrap();
        let by = Caller {
            role: Role::Admin,
            fingerprint: String::new(),
        };
        plane.apply_policy(&by, POLICY, Format::Json).await.unwrap();
        plane
    }

    #[tokio::test]
    async fn windows_take_what_the_rest_of_the_reply_leaves_and_the_others_are_asked_for_again() {
        let plane = plane().await;
        let wish = |n: u64| WindowWish {
            hash_high: u64::MAX - n,
            hash_low: u64::MAX,
        };
        let request = SyncRequest {
            windows_wanted: (0..200).map(wish).collect(),
            ..SyncRequest::default()
        };
        for other_bytes in [0, 1_000_000, 3_000_000, 4_000_000, MAX_REPLY_BYTES - 20] {
            let mut reply = SyncReply {
                policy: Some(PolicyDelta {
                    compiled: vec![1; other_bytes],
                    ..PolicyDelta::default()
                }),
                ..SyncReply::default()
            };
            plane
                .add_windows(&request, Dialect::Current, &mut reply)
                .unwrap();
            let bytes = reply.encoded_len();
            assert!(bytes <= MAX_REPLY_BYTES, "{bytes} with {other_bytes}");
            assert!(reply.windows_left);
            let fits =
                (MAX_REPLY_BYTES - other_bytes).saturating_sub(100) / windows_bytes(4_032, 1);
            let most = MAX_WINDOWS_BYTES / windows_bytes(4_032, 1);
            assert_eq!(reply.windows.len(), fits.min(most));
        }
    }
}
