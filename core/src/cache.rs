//! A worker's map from raw customer key to chunk: bounded, and the whole of a decision on the hot path.
//!
//! One look-up with the raw key bytes finds the chunk; the keyed 128-bit hash of the key is computed once, when the customer is
//! added. Slots lie in a slab, and the table holds their numbers only: growing the table moves four bytes per
//! customer, and a second-chance hand can walk the slots to find one to drop.

use crate::chunk::Chunk;
use crate::ledger::CustomerHash;
use core::hash::{BuildHasher, Hasher};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use smallvec::SmallVec;

/// The chunks of a worker.
#[derive(Debug)]
pub struct ChunkCache {
    table: HashTable<u32>,
    slots: Vec<Slot>,
    hasher: FixedState,
    capacity: usize,
    hand: usize,
}

/// A customer in a worker's cache. The first cache line holds what a look-up compares and what a spend compares: with keys of
/// the usual length there as well, a decision reads two lines of the slot and no other memory of the customer's.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Slot {
    key: SmallVec<[u8; INLINE_KEY_BYTES]>,
    used: bool,
    /// What the worker holds for the customer.
    pub chunk: Chunk,
    /// The customer's hash, as the ledger knows it.
    pub customer: CustomerHash,
    hash: u64,
}

/// Longer keys lie on the heap. This length and the vector's own take half of a cache line.
const INLINE_KEY_BYTES: usize = 22;

// === impl Slot ===

impl Slot {
    /// The raw key. It stays in the worker.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

// === impl ChunkCache ===

impl ChunkCache {
    /// A cache for up to `capacity` customers. Keys come from outside, so the seed should be random.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> ChunkCache {
        ChunkCache {
            table: HashTable::new(),
            slots: Vec::new(),
            hasher: FixedState::with_seed(seed),
            capacity: capacity.clamp(1, u32::MAX as usize),
            hand: 0,
        }
    }

    /// The customer with this key.
    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Slot> {
        let hash = self.hash(key);
        let slots = &self.slots;
        let position = *self
            .table
            .find(hash, |position| holds(slots, *position, key))?;
        let slot = self.slots.get_mut(position as usize)?;
        slot.used = true;
        Some(slot)
    }

    /// Adds a customer, or finds it if it is there. If the cache is full, another customer makes room; `evicted` is called
    /// with it, and must give its chunk back to the ledger. Only a second request makes a customer worth keeping: a flood of keys
    /// that come once passes through without pushing out those that come again, and without a long walk of the hand.
    pub fn add(
        &mut self,
        key: &[u8],
        customer: CustomerHash,
        evicted: impl FnOnce(&mut Slot),
    ) -> Option<&mut Slot> {
        let hash = self.hash(key);
        if let Some(position) = self.position(hash, key) {
            return self.slots.get_mut(position);
        }
        let position = if self.slots.len() < self.capacity {
            self.slots.push(Slot {
                key: SmallVec::from_slice(key),
                used: false,
                chunk: Chunk::default(),
                customer,
                hash,
            });
            self.slots.len().saturating_sub(1)
        } else {
            let position = self.choose_victim();
            let slot = self.slots.get_mut(position)?;
            evicted(slot);
            let old_hash = slot.hash;
            if let Ok(found) = self
                .table
                .find_entry(old_hash, |other| *other as usize == position)
            {
                found.remove();
            }
            // The key's buffer is used again: a full cache allocates nothing for keys that are no longer than earlier ones.
            slot.key.clear();
            slot.key.extend_from_slice(key);
            (slot.hash, slot.used, slot.customer, slot.chunk) =
                (hash, false, customer, Chunk::default());
            position
        };
        let slots = &self.slots;
        let rehash = |position: &u32| slots.get(*position as usize).map_or(0, |slot| slot.hash);
        if let TableEntry::Vacant(vacant) =
            self.table
                .entry(hash, |position| holds(slots, *position, key), rehash)
        {
            vacant.insert(position as u32);
        }
        self.slots.get_mut(position)
    }

    /// All customers, for instance to return every chunk when the policy changes.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Forgets everyone. Chunks must have been given back.
    pub fn clear(&mut self) {
        self.table.clear();
        self.slots.clear();
        self.hand = 0;
    }

    /// Number of customers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody is in the cache.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A customer that was not used since the hand last came by, preferably one whose chunk has nothing to return.
    fn choose_victim(&mut self) -> usize {
        let len = self.slots.len();
        let mut fallback = self.hand;
        for step in 0..VICTIM_STEPS {
            if self.hand >= len {
                self.hand = 0;
            }
            let position = self.hand;
            self.hand = self.hand.saturating_add(1);
            let Some(slot) = self.slots.get_mut(position) else {
                break;
            };
            if !slot.used && slot.chunk.is_settled() {
                return position;
            }
            if !slot.used || step == 0 {
                fallback = position;
            }
            slot.used = false;
        }
        fallback
    }

    fn position(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.table
            .find(hash, |position| holds(&self.slots, *position, key))
            .map(|position| *position as usize)
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// Slots that the hand looks at before it takes one that is in use: a bound on the work of one addition.
const VICTIM_STEPS: usize = 32;

#[inline]
fn holds(slots: &[Slot], position: u32, key: &[u8]) -> bool {
    slots
        .get(position as usize)
        .is_some_and(|slot| slot.key.as_slice() == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Micro;
    use crate::chunk::ChunkHolding;
    use crate::resource::PerResource;
    use crate::time::TimeUs;

    fn key(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    fn add(cache: &mut ChunkCache, number: u64) -> Option<CustomerHash> {
        let mut evicted = None;
        let customer = CustomerHash([number as u8; 16]);
        cache.add(&key(number), customer, |slot| evicted = Some(slot.customer));
        evicted
    }

    #[test]
    fn keys_that_come_once_do_not_push_out_those_that_come_again() {
        let mut cache = ChunkCache::new(8, 1);
        for number in 0..4 {
            add(&mut cache, number);
        }
        for stranger in 100..1_000 {
            for number in 0..4 {
                assert!(
                    cache.get_mut(&key(number)).is_some(),
                    "{number}, {stranger}"
                );
            }
            add(&mut cache, stranger);
        }
        assert_eq!(cache.len(), 8);
    }

    #[test]
    fn who_makes_room_is_handed_over_first_and_then_unknown() {
        let mut cache = ChunkCache::new(1, 1);
        assert_eq!(add(&mut cache, 1), None);
        assert_eq!(add(&mut cache, 2), Some(CustomerHash([1; 16])));
        assert!(cache.get_mut(&key(1)).is_none());
        assert_eq!(
            cache.get_mut(&key(2)).map(|slot| slot.customer.0[0]),
            Some(2)
        );
    }

    #[test]
    fn a_customer_whose_chunk_has_nothing_to_return_makes_room_before_one_that_has() {
        let mut cache = ChunkCache::new(2, 1);
        add(&mut cache, 1);
        add(&mut cache, 2);
        if let Some(slot) = cache.get_mut(&key(1)) {
            let drawn = ChunkHolding {
                plain: Micro::new(5),
                drawn: Micro::new(5),
                ..ChunkHolding::default()
            };
            slot.chunk
                .refilled(PerResource::only_first(drawn), 1, TimeUs(1));
            assert!(!slot.chunk.is_settled());
        }
        // Both were asked for, so the hand spares both once; then it takes the one that costs no exchange.
        assert!(cache.get_mut(&key(2)).is_some());
        assert_eq!(add(&mut cache, 3), Some(CustomerHash([2; 16])));
    }
}
