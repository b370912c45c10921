//! What a plugin counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Metrics of one gateway; workers that define the same name share it, as in Envoy.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    ids: BTreeMap<String, u32>,
    values: BTreeMap<u32, i64>,
}

// === impl Metrics ===

impl Metrics {
    /// The value of a counter or gauge, or a histogram's last record; 0 when nobody defined it.
    pub fn value(&self, name: &str) -> i64 {
        let registry = self.0.lock().unwrap();
        registry
            .ids
            .get(name)
            .and_then(|id| registry.values.get(id))
            .copied()
            .unwrap_or(0)
    }

    /// All names with their values.
    pub fn all(&self) -> BTreeMap<String, i64> {
        let registry = self.0.lock().unwrap();
        registry
            .ids
            .iter()
            .map(|(name, id)| (name.clone(), registry.values.get(id).copied().unwrap_or(0)))
            .collect()
    }

    pub(crate) fn define(&self, name: String) -> u32 {
        let mut registry = self.0.lock().unwrap();
        let next = u32::try_from(registry.ids.len()).unwrap() + 1;
        *registry.ids.entry(name).or_insert(next)
    }

    pub(crate) fn add(&self, id: u32, offset: i64) {
        *self.0.lock().unwrap().values.entry(id).or_default() += offset;
    }

    pub(crate) fn record(&self, id: u32, value: i64) {
        self.0.lock().unwrap().values.insert(id, value);
    }

    pub(crate) fn get(&self, id: u32) -> i64 {
        self.0.lock().unwrap().values.get(&id).copied().unwrap_or(0)
    }
}
