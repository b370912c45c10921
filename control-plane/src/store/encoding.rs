//! A batch as bytes: what lies in a record of the log, and in a large change that waits to be applied in Redis.

use super::{Batch, Change, Table};
use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct LoggedBatch {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<LoggedChange>,
}

#[derive(Clone, PartialEq, Message)]
struct LoggedChange {
    /// Code of the table.
    #[prost(uint32, tag = "1")]
    table: u32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    /// Missing: the row is deleted.
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
}

/// The bytes of changes.
pub(super) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let changes = changes.iter();
    let logged = LoggedBatch {
        changes: changes
            .map(|(table, key, value)| LoggedChange {
                table: u32::from(table.code()),
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    };
    logged.encode_to_vec()
}

/// The changes again.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn decode_changes(bytes: &[u8]) -> Result<Batch, String> {
    let logged = LoggedBatch::decode(bytes).map_err(|error| error.to_string())?;
    let mut batch = Batch::default();
    for change in logged.changes {
        let table = Table::ALL
            .into_iter()
            .find(|table| u32::from(table.code()) == change.table)
            .ok_or_else(|| format!("there is no table {}", change.table))?;
        match change.value {
            Some(value) => batch.put(table, change.key, value),
            None => batch.delete(table, change.key),
        }
    }
    Ok(batch)
}
