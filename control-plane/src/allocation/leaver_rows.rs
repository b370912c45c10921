//! Who has left, in the store: a row for each, because few leave in one cycle.
//!
//! They are not with the customers of the newest cycle, all of which are written with each: a hundred thousand who have left would be, too.

use super::journal::{damaged, fixed};
use super::leavers::{Leaver, Leavers};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::key::CustomerHash;
use hashbrown::{HashMap, HashSet};
use prost::Message;

/// First byte of their keys, see `journal`.
const LEAVERS: u8 = 5;

#[derive(Clone, PartialEq, Message)]
struct LeaverRecord {
    #[prost(uint64, tag = "1")]
    left_in: u64,
    #[prost(uint64, tag = "2")]
    at_unix_ms: u64,
    #[prost(double, tag = "3")]
    credits: f64,
}

/// Rows of those who have left since, and of those who are back or forgotten.
pub(super) fn write_leavers(batch: &mut Batch, now: &Leavers, before: &Leavers) {
    let known: HashMap<CustomerHash, &Leaver> =
        before.all.iter().map(|left| (left.hash, left)).collect();
    for left in &now.all {
        if known.get(&left.hash).copied() != Some(left) {
            let record = LeaverRecord {
                left_in: left.left_in,
                at_unix_ms: left.at_unix_ms,
                credits: left.credits,
            };
            batch.put_message(Table::Sharing, &[&leaver_key(left.hash)], &record);
        }
    }
    let still: HashSet<CustomerHash> = now.all.iter().map(|left| left.hash).collect();
    let over = known.keys().filter(|hash| !still.contains(*hash));
    for hash in over {
        batch.delete(Table::Sharing, leaver_key(*hash));
    }
}

/// Who has left, by hash.
pub(super) fn load_leavers(store: &dyn Store) -> Result<Vec<Leaver>, StoreError> {
    let from = leaver_key(CustomerHash([0; 16]));
    let to = leaver_key(CustomerHash([u8::MAX; 16]));
    let rows = store.range(Table::Sharing, &from, &to)?;
    let leavers = rows.iter().map(|(key, row)| {
        let record = LeaverRecord::decode(row.as_slice()).map_err(|error| damaged(&error))?;
        Ok(Leaver {
            hash: CustomerHash(fixed(key.get(1..).unwrap_or_default())?),
            left_in: record.left_in,
            at_unix_ms: record.at_unix_ms,
            credits: record.credits,
        })
    });
    leavers.collect()
}

fn leaver_key(customer: CustomerHash) -> Vec<u8> {
    [&[LEAVERS][..], &customer.0[..]].concat()
}
