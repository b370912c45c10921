//! Changes that become durable together.
//!
//! A sync changes a hundred rows of a hundred bytes, and a busy server answers a thousand of them a second: keys and values lie one behind
//! the other in one piece of memory, and rows say where. A `Vec` for each key and each value was the worse alternative: every
//! tenth microsecond of the server went into taking that memory and giving it back on another thread.

use super::Table;
use prost::Message;
use std::collections::HashSet;

/// Changes that become durable together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Of each row its key, and behind that its value.
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a change lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    table: Table,
    key_at: usize,
    value_at: usize,
    end: usize,
    is_deletion: bool,
}

/// One change: the key of a row, and the value to write, or none to delete it.
pub type Change<'a> = (Table, &'a [u8], Option<&'a [u8]>);

/// Some of the changes of a batch, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    bytes: &'a [u8],
    places: &'a [Place],
}

// === impl Batch ===

impl Batch {
    /// Writes a value.
    pub fn put(&mut self, table: Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.add(table, &[key.as_ref()], false, |bytes| {
            bytes.extend_from_slice(value.as_ref());
        });
    }

    /// Writes a value in protobuf, under a key of these pieces.
    pub fn put_message(&mut self, table: Table, key: &[&[u8]], value: &impl Message) {
        self.add(table, key, false, |bytes| {
            // A vector takes in as much as there is.
            value.encode(bytes).unwrap_or_default();
        });
    }

    /// Deletes a value, if it is there.
    pub fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) {
        self.add(table, &[key.as_ref()], true, |_| {});
    }

    fn add(
        &mut self,
        table: Table,
        key: &[&[u8]],
        is_deletion: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let key_at = self.bytes.len();
        for piece in key {
            self.bytes.extend_from_slice(piece);
        }
        let value_at = self.bytes.len();
        write(&mut self.bytes);
        self.places.push(Place {
            table,
            key_at,
            value_at,
            end: self.bytes.len(),
            is_deletion,
        });
    }

    /// The changes in order; a later one of the same key wins.
    #[must_use]
    pub fn changes(&self) -> Changes<'_> {
        Changes {
            bytes: &self.bytes,
            places: &self.places,
        }
    }

    /// Changes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of keys and values in it.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// True when there is nothing to make durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Leaves of each key the last change only.
    pub fn compact(&mut self) {
        let changes: Vec<Change<'_>> = self.changes().iter().collect();
        let mut seen = HashSet::new();
        let mut last: Vec<Change<'_>> = changes
            .into_iter()
            .rev()
            .filter(|(table, key, _)| seen.insert((*table, *key)))
            .collect();
        last.reverse();
        *self = last.into_iter().collect();
    }

    /// Adds the changes of a later batch behind.
    pub fn append(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        let by = self.bytes.len();
        self.bytes.extend_from_slice(&later.bytes);
        let places = later.places.into_iter().map(|place| Place {
            key_at: place.key_at.saturating_add(by),
            value_at: place.value_at.saturating_add(by),
            end: place.end.saturating_add(by),
            ..place
        });
        self.places.extend(places);
    }
}

impl<'a> FromIterator<Change<'a>> for Batch {
    fn from_iter<I: IntoIterator<Item = Change<'a>>>(changes: I) -> Self {
        let mut batch = Self::default();
        for (table, key, value) in changes {
            match value {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key),
            }
        }
        batch
    }
}

// === impl Changes ===

impl<'a> Changes<'a> {
    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Change<'a>> {
        self.places.iter().map(move |place| {
            let of = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
            let value = of(place.value_at, place.end);
            (
                place.table,
                of(place.key_at, place.value_at),
                (!place.is_deletion).then_some(value),
            )
        })
    }

    /// So many at a time, of no more bytes than this unless one alone has more, the rest at the end.
    pub fn chunks(self, rows: usize, bytes: usize) -> impl Iterator<Item = Self> {
        let mut left = self.places;
        std::iter::from_fn(move || {
            let first_at = left.first()?.key_at;
            let fit = left.partition_point(|place| place.end.saturating_sub(first_at) <= bytes);
            let (places, rest) = left.split_at_checked(fit.clamp(1, rows))?;
            left = rest;
            Some(Self {
                bytes: self.bytes,
                places,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_deleted_and_appended_comes_out_in_order() {
        let mut batch = Batch::default();
        batch.put(Table::Meta, [1, 2], b"");
        batch.put_message(Table::Parts, &[&[3], &[4, 5]], &7_u64);
        let mut later = Batch::default();
        later.delete(Table::Meta, [1, 2]);
        later.put(Table::Models, "key", "value");
        batch.append(later);
        let expected: [Change<'_>; 4] = [
            (Table::Meta, &[1, 2], Some(&[])),
            (Table::Parts, &[3, 4, 5], Some(&[8, 7])),
            (Table::Meta, &[1, 2], None),
            (Table::Models, b"key", Some(b"value")),
        ];
        let found: Vec<_> = batch.changes().iter().collect();
        assert_eq!(found, expected);
        let in_chunks = batch.changes().chunks(3, 1_000);
        let lengths: Vec<_> = in_chunks.map(|changes| changes.iter().len()).collect();
        assert_eq!(lengths, [3, 1]);
        let again = batch.changes().chunks(3, 1_000).flat_map(Changes::iter);
        assert!(again.eq(expected));
        // Rows of 2, 5, 2 and 8 bytes.
        let small = batch.changes().chunks(3, 7);
        let lengths: Vec<_> = small.map(|changes| changes.iter().len()).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }

    #[test]
    fn a_compacted_batch_leaves_the_same_rows() {
        let mut batch = Batch::default();
        batch.put(Table::Meta, [1], [1]);
        batch.put(Table::Models, [1], [2]);
        batch.delete(Table::Meta, [2]);
        batch.put(Table::Meta, [2], [3]);
        batch.put(Table::Meta, [1], [4]);
        batch.delete(Table::Models, [1]);
        batch.compact();
        let expected: [Change<'_>; 3] = [
            (Table::Meta, &[2], Some(&[3])),
            (Table::Meta, &[1], Some(&[4])),
            (Table::Models, &[1], None),
        ];
        assert_eq!(batch.changes().iter().collect::<Vec<_>>(), expected);
    }
}
