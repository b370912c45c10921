//! What the ledger needs of its host: a map of byte values with compare-and-swap.
//!
//! The trait mirrors proxy-wasm's shared data with its traps: a set with a compare-and-swap number on a *missing* key
//! succeeds, and so does one with the number 0. The in-memory form behaves the same; tests, benches and native tools use it.

use crate::error::CoreError;
use std::collections::HashMap;

/// Shared data of a gateway.
pub trait SharedData {
    /// Replaces `into` by the value at `key`, and returns its compare-and-swap number; `None` if there is no value.
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError>;

    /// Sets the value if its compare-and-swap number is still `cas`; `None` overwrites.
    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError>;
}

/// Why a value was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// Another worker was faster.
    CasMismatch,
    /// The host refused.
    Host(CoreError),
}

/// Shared data in memory, as Envoy has it: a map from key to value and compare-and-swap number.
#[derive(Clone, Debug, Default)]
pub struct MemoryData {
    values: HashMap<String, (Vec<u8>, u32)>,
    last_cas: u32,
}

// === impl SharedData ===

impl<S: SharedData + ?Sized> SharedData for &mut S {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        (**self).get(key, into)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        (**self).set(key, value, cas)
    }
}

// === impl MemoryData ===

impl MemoryData {
    /// The values, for a test that looks inside.
    pub fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values
            .iter()
            .map(|(key, (value, _))| (key.as_str(), value.as_slice()))
    }

    /// Overwrites a value behind the ledger's back.
    pub fn put(&mut self, key: &str, value: Vec<u8>) {
        let cas = self.next_cas();
        self.values.insert(key.to_owned(), (value, cas));
    }

    /// Takes a value away, as when the last VM of a gateway goes.
    pub fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    fn next_cas(&mut self) -> u32 {
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.last_cas
    }
}

impl SharedData for MemoryData {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<u32>, CoreError> {
        Ok(self.values.get(key).map(|(value, cas)| {
            into.clear();
            into.extend_from_slice(value);
            *cas
        }))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> Result<(), SetError> {
        let next = self.next_cas();
        match self.values.get_mut(key) {
            Some((_, current)) if cas.is_some_and(|cas| cas != 0 && cas != *current) => {
                Err(SetError::CasMismatch)
            }
            Some((stored, current)) => {
                if stored.len() == value.len() {
                    stored.copy_from_slice(value);
                } else {
                    *stored = value.to_vec();
                }
                *current = next;
                Ok(())
            }
            None => {
                self.values.insert(key.to_owned(), (value.to_vec(), next));
                Ok(())
            }
        }
    }
}
