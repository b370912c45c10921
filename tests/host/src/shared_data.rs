//! Envoy's shared data, with its traps: a compare-and-swap on a missing key always succeeds, a version of 0 never
//! compares, and nothing can be deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::gate::Status;

/// One namespace, common to all workers of a gateway.
#[derive(Clone, Debug, Default)]
pub struct SharedData(Arc<Mutex<Versions>>);

#[derive(Debug, Default)]
struct Versions {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last: u32,
}

// === impl SharedData ===

impl SharedData {
    /// The value and its version.
    pub fn get(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.0.lock().unwrap().values.get(key).cloned()
    }

    /// Sets the value if the version is still `cas`, or in any case when `cas` is 0.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Status {
        let mut versions = self.0.lock().unwrap();
        if let Some((_, current)) = versions.values.get(key)
            && cas != 0
            && cas != *current
        {
            return Status::CasMismatch;
        }
        versions.last = versions.last.checked_add(1).unwrap_or(1);
        let version = versions.last;
        versions
            .values
            .insert(key.to_vec(), (value.to_vec(), version));
        Status::Ok
    }

    /// All keys, for a test that looks or corrupts.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().values.keys().cloned().collect()
    }
}
