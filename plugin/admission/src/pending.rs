//! What a response will need of its request: the headers to set, the estimates to settle.
//!
//! Envoy could tell of the end of each stream, but that callback costs more than the decision, for every stream and only to forget a few
//! bytes. So nothing tells: the table is direct-mapped by stream number, and a stream that was reset before its response is overwritten
//! by a later one. Numbers are issued in order, so what is overwritten is old. The table grows while live entries collide, up to a bound;
//! beyond it the older of two loses its settlement (the estimate stays charged), which is counted.

use forebay_core::amount::Micro;
use forebay_core::chunk::Payer;
use forebay_core::limits::MAX_RESOURCES;

use crate::rate_headers::BucketView;

/// Entries of the smallest table.
const MIN_ENTRIES: usize = 256;

/// Entries of the largest: streams of one worker that wait for their response.
const MAX_ENTRIES: usize = 65_536;

/// What the response to one stream needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    stream: u32,
    live: bool,
    /// Buckets for the headers, the tightest first.
    pub(crate) buckets: Vec<BucketView>,
    /// Estimates to settle.
    pub(crate) settlements: Vec<Settlement>,
    /// The keys of the settlements, one behind the other.
    pub(crate) keys: Vec<u8>,
}

/// An estimate to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub(crate) rule: usize,
    pub(crate) charge: usize,
    /// Whether the estimate was charged. If not, the response's header is removed all the same.
    pub(crate) is_charged: bool,
    pub(crate) estimate: Micro,
    pub(crate) payer: Payer,
    /// Where its key ends in [`Pending::keys`].
    pub(crate) key_end: usize,
}

/// The streams that wait for their response.
#[derive(Debug, Default)]
pub(crate) struct PendingTable {
    entries: Vec<Pending>,
    live: usize,
}

// === impl Pending ===

impl Pending {
    fn begin(&mut self, stream: u32) {
        self.stream = stream;
        self.live = true;
        self.buckets.clear();
        self.settlements.clear();
        self.keys.clear();
    }

    /// Adds an estimate to settle, charged to this key.
    pub(crate) fn add(&mut self, key: &[u8], settlement: Settlement) {
        if self.settlements.len() < MAX_RESOURCES {
            self.keys.extend_from_slice(key);
            self.settlements.push(Settlement {
                key_end: self.keys.len(),
                ..settlement
            });
        }
    }

    /// The key that a settlement is charged to.
    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let end = |position: usize| {
            self.settlements
                .get(position)
                .map(|settlement| settlement.key_end)
        };
        let start = position.checked_sub(1).and_then(end).unwrap_or(0);
        self.keys
            .get(start..end(position).unwrap_or(start))
            .unwrap_or_default()
    }
}

// === impl PendingTable ===

impl PendingTable {
    /// Whether no stream waits, which is all that most responses ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// An empty entry for a stream. The flag says whether another one lost its settlement for it.
    pub(crate) fn begin(&mut self, stream: u32) -> Option<(&mut Pending, bool)> {
        if self.entries.is_empty() {
            self.entries.resize_with(MIN_ENTRIES, Pending::default);
        }
        while self.entries.len() < MAX_ENTRIES
            && self
                .at(stream)
                .is_some_and(|entry| entry.live && entry.stream != stream)
        {
            self.grow();
        }
        let position = position(stream, self.entries.len());
        let entry = self.entries.get_mut(position)?;
        let loses = entry.live && !entry.settlements.is_empty();
        if !entry.live {
            self.live = self.live.saturating_add(1);
        }
        entry.begin(stream);
        Some((entry, loses))
    }

    /// The entry of a stream, which is over with this.
    pub(crate) fn take(&mut self, stream: u32) -> Option<&Pending> {
        let position = position(stream, self.entries.len());
        let entry = self
            .entries
            .get_mut(position)
            .filter(|entry| entry.live && entry.stream == stream)?;
        entry.live = false;
        self.live = self.live.saturating_sub(1);
        Some(entry)
    }

    fn at(&self, stream: u32) -> Option<&Pending> {
        self.entries.get(position(stream, self.entries.len()))
    }

    fn grow(&mut self) {
        let doubled = self.entries.len().saturating_mul(2);
        let entries = core::mem::take(&mut self.entries);
        self.entries.resize_with(doubled, Pending::default);
        // Two entries that had different places still have: the table doubles, so none is lost here.
        for entry in entries.into_iter().filter(|entry| entry.live) {
            let position = position(entry.stream, doubled);
            if let Some(slot) = self.entries.get_mut(position) {
                *slot = entry;
            }
        }
    }
}

/// Place of a stream in a table of `entries`, a power of two.
fn position(stream: u32, entries: usize) -> usize {
    stream as usize & entries.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settlement(estimate: i64) -> Settlement {
        Settlement {
            rule: 0,
            charge: 0,
            is_charged: true,
            estimate: Micro::new(estimate),
            payer: Payer::Contract,
            key_end: 0,
        }
    }

    #[test]
    fn a_stream_finds_what_it_left_and_only_once() {
        let mut table = PendingTable::default();
        assert!(table.is_empty());
        let (entry, loses) = table.begin(7).unwrap();
        entry.add(b"acme", settlement(5));
        entry.add(b"globex", settlement(6));
        assert!(!loses && !table.is_empty());
        assert!(table.take(8).is_none());
        let entry = table.take(7).unwrap();
        assert_eq!((entry.key(0), entry.key(1)), (&b"acme"[..], &b"globex"[..]));
        assert!(table.is_empty() && table.take(7).is_none());
    }

    #[test]
    fn colliding_streams_make_the_table_grow_until_its_bound() {
        let mut table = PendingTable::default();
        for round in 0..8_u32 {
            let (entry, loses) = table.begin(1 + round * MIN_ENTRIES as u32).unwrap();
            entry.add(b"k", settlement(i64::from(round)));
            assert!(!loses);
        }
        for round in 0..8_u32 {
            let entry = table.take(1 + round * MIN_ENTRIES as u32).unwrap();
            assert_eq!(entry.settlements[0].estimate, Micro::new(i64::from(round)));
        }
    }

    #[test]
    fn beyond_the_bound_the_older_stream_loses_and_it_is_said() {
        let mut table = PendingTable::default();
        table.begin(3).unwrap().0.add(b"k", settlement(1));
        let (_, loses) = table.begin(3 + MAX_ENTRIES as u32).unwrap();
        assert!(loses);
        assert_eq!(table.entries.len(), MAX_ENTRIES);
        assert!(table.take(3).is_none());
    }
}
