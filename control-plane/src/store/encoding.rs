//! A batch as bytes: what lies in a record of the log, and in a large change that waits to be applied in Redis.
//!
//! ```text
//!   message Batch  { repeated Change changes = 1; optional uint64 followed_by = 2; }  // the second only in a segment's last record
//!   message Change { uint32 table = 1; bytes key = 2; optional bytes value = 3; }   // no value: the row is deleted
//! ```
//! It is written by hand, from where the rows lie into the record: as messages with a copy of each key and value it took as long as the write
//! to the disk.

use super::Table;
use super::batch::{Batch, Changes};
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

#[derive(Clone, PartialEq, Message)]
struct LoggedBatch {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<LoggedChange>,
    /// Number of the segment with all that comes after.
    #[prost(uint64, optional, tag = "2")]
    followed_by: Option<u64>,
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

/// What a record of a log says.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) batch: Batch,
    /// Number of the segment with all that comes after.
    pub(super) followed_by: Option<u64>,
    /// Of a whole segment: it would say so if anything came after it.
    pub(super) must_be_followed: bool,
}

/// The bytes of a record that ends a segment.
pub(super) fn encode_follower(number: u64, bytes: &mut Vec<u8>) {
    encode_key(2, WireType::Varint, bytes);
    encode_varint(number, bytes);
}

/// Adds the bytes of changes to others.
pub(super) fn encode_changes(changes: Changes<'_>, bytes: &mut Vec<u8>) {
    for (table, key, value) in changes.iter() {
        let field = |bytes: &[u8]| {
            let length = encoded_len_varint(bytes.len() as u64);
            length.saturating_add(bytes.len()).saturating_add(1)
        };
        let length = 2_usize
            .saturating_add(field(key))
            .saturating_add(value.map_or(0, field));
        encode_key(1, WireType::LengthDelimited, bytes);
        encode_varint(length as u64, bytes);
        encode_key(1, WireType::Varint, bytes);
        // Below 128, so one byte.
        encode_varint(u64::from(table.code()), bytes);
        for (tag, field) in [(2, Some(key)), (3, value)] {
            if let Some(field) = field {
                encode_key(tag, WireType::LengthDelimited, bytes);
                encode_varint(field.len() as u64, bytes);
                bytes.extend_from_slice(field);
            }
        }
    }
}

/// The changes again.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn decode_changes(bytes: &[u8]) -> Result<Batch, String> {
    Ok(decode_record(bytes)?.batch)
}

/// The same, with what may be said beside them.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn decode_record(bytes: &[u8]) -> Result<Record, String> {
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
    Ok(Record {
        batch,
        followed_by: logged.followed_by,
        must_be_followed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_of_any_size_are_written_as_protobuf_writes_them(
            rows in prop::collection::vec((0..Table::ALL.len(), 0_usize..300, prop::option::of(0_usize..20_000)), 0..20),
        ) {
            let mut batch = Batch::default();
            let mut expected = LoggedBatch::default();
            for (table, key, value) in rows {
                let table = Table::ALL[table];
                let (key, value) = (vec![7; key], value.map(|bytes| vec![9; bytes]));
                expected.changes.push(LoggedChange {
                    table: u32::from(table.code()),
                    key: key.clone().into(),
                    value: value.clone().map(Bytes::from),
                });
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
            // An empty key is the default and need not be written: ours says it.
            prop_assume!(expected.changes.iter().all(|change| !change.key.is_empty()));
            let mut bytes = Vec::new();
            encode_changes(batch.changes(), &mut bytes);
            prop_assert_eq!(&bytes, &expected.encode_to_vec());
            let again = decode_changes(&bytes).unwrap();
            prop_assert!(again.changes().iter().eq(batch.changes().iter()));
        }
    }
}
