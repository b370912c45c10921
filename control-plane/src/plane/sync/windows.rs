//! Usage windows for customers that are new to a gateway's forecaster.

use super::super::Plane;
use super::super::directory::Directory;
use crate::history::{Ring, Series};
use crate::keys::Dialect;
use crate::store::StoreError;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{SyncReply, SyncRequest, Window};

/// Floats of usage history in one reply: about 2 MB on the wire.
const MAX_WINDOW_VALUES: usize = 500_000;

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
                state.step_now.saturating_sub(1),
            )
        };
        let kept = self.settings.history_steps;
        let steps = if request.window_steps == 0 {
            kept
        } else {
            u64::from(request.window_steps).min(kept)
        };
        let first = newest.saturating_sub(steps.saturating_sub(1));
        let mut left = MAX_WINDOW_VALUES;
        for (hash_high, hash_low, customer) in filed {
            let size = usize::try_from(steps)
                .unwrap_or(usize::MAX)
                .saturating_mul(resources);
            if size > left {
                reply.windows_left = true;
                break;
            }
            left = left.saturating_sub(size);
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
