//! One record, and the line that stands for it.
//!
//! What is stored, exported and hashed is one line of JSON with the fields in the order below, so that `sha256sum` checks an
//! export without this program.

use crate::models::hex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecord {
    /// Its number, from 1.
    pub sequence: u64,
    /// When it was made.
    pub at_unix_ms: u64,
    /// By which role; `server` for what it does by itself.
    pub role: String,
    /// By whose token: the first digits of a hash of it; nobody's for what the server does by itself.
    pub token: String,
    /// What was done, such as `customer.ban`.
    pub action: String,
    /// To what: `hash:` and a customer's hash, a policy version, a digest, a gateway.
    pub object: String,
    /// With which parameters.
    pub parameters: BTreeMap<String, String>,
    /// What came of it.
    pub outcome: String,
    /// SHA-256 of the record before, as a line.
    pub previous: String,
}

/// A place in the chain: a record's number and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// The record's number; 0 stands before the first one.
    pub sequence: u64,
    /// SHA-256 of its line, 64 hexadecimal digits.
    pub hash: String,
}

// === impl AuditRecord ===

impl AuditRecord {
    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Numbers, strings and a map of strings can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Its place in the chain.
    #[must_use]
    pub fn link(&self) -> Link {
        Link {
            sequence: self.sequence,
            hash: hex(&hash_of(self.line().as_bytes())),
        }
    }
}

/// SHA-256 of a line.
pub(crate) fn hash_of(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}
