//! All series of the gateway, bounded, in the order of the ledger's pages.
//!
//! Forecasts are written back to the ledger a page at a time, so series are kept by page: a batch of 64 customers then touches some
//! eight pages instead of 64.

use forebay_core::ledger::CustomerHash;
use forebay_core::resource::ResourceIndex;
use hashbrown::HashMap;

use super::one::Series;
use crate::shadow::Claim;

/// Slots that are looked at for one that may go, before the newcomer is turned away.
const EVICTION_PROBES: usize = 64;

/// A series idle for fewer steps than this is not evicted for a newcomer.
const EVICTABLE_IDLE_STEPS: u32 = 2;

/// Names a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// The customer.
    pub customer: CustomerHash,
    /// The resource.
    pub resource: ResourceIndex,
}

/// A series that lost its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evicted {
    /// Whose it was.
    pub key: SeriesKey,
    /// The claim that the sums still count.
    pub claim: Claim,
}

/// Place of a series in the table, valid until it is evicted.
pub type SlotId = u32;

/// The series, by key and by page.
#[derive(Debug)]
pub struct SeriesTable {
    slots: Vec<Slot>,
    by_key: HashMap<SeriesKey, SlotId>,
    by_page: Vec<Vec<SlotId>>,
    slots_most: usize,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    key: SeriesKey,
    page: u32,
    series: Series,
}

// === impl SeriesTable ===

impl SeriesTable {
    /// An empty table for a ledger of `pages` pages.
    #[must_use]
    pub fn new(pages: u32, slots_most: u32) -> Self {
        Self {
            slots: Vec::new(),
            by_key: HashMap::new(),
            by_page: vec![Vec::new(); usize::try_from(pages).unwrap_or(0)],
            slots_most: usize::try_from(slots_most).unwrap_or(1).max(1),
            hand: 0,
        }
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the next series needs another's place.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.slots_most
    }

    /// The slot of a series.
    #[must_use]
    pub fn find(&self, key: &SeriesKey) -> Option<SlotId> {
        self.by_key.get(key).copied()
    }

    /// The series on a page.
    #[must_use]
    pub fn on_page(&self, page: u32) -> &[SlotId] {
        usize::try_from(page)
            .ok()
            .and_then(|page| self.by_page.get(page))
            .map_or(&[], Vec::as_slice)
    }

    /// Key and series of a slot.
    #[must_use]
    pub fn get(&self, slot: SlotId) -> Option<(&SeriesKey, &Series)> {
        self.slot(slot).map(|slot| (&slot.key, &slot.series))
    }

    /// The series of a slot, to be changed.
    pub fn get_mut(&mut self, slot: SlotId) -> Option<&mut Series> {
        let index = usize::try_from(slot).ok()?;
        self.slots.get_mut(index).map(|slot| &mut slot.series)
    }

    /// The same, with its key.
    pub fn get_mut_keyed(&mut self, slot: SlotId) -> Option<(SeriesKey, &mut Series)> {
        let index = usize::try_from(slot).ok()?;
        self.slots
            .get_mut(index)
            .map(|slot| (slot.key, &mut slot.series))
    }

    /// The page of a slot.
    #[must_use]
    pub fn page_of(&self, slot: SlotId) -> Option<u32> {
        self.slot(slot).map(|slot| slot.page)
    }

    /// Files a series under the page on which its customer's entry is now. Returns whether it was filed elsewhere.
    pub fn refile(&mut self, slot: SlotId, page: u32) -> bool {
        let Some(filed) = usize::try_from(slot)
            .ok()
            .and_then(|index| self.slots.get_mut(index))
        else {
            return false;
        };
        let before = std::mem::replace(&mut filed.page, page);
        if before == page {
            return false;
        }
        self.unlink(before, slot);
        self.link(page, slot);
        true
    }

    /// Adds a series while there is room.
    pub fn insert(&mut self, key: SeriesKey, page: u32, series: Series) -> Option<SlotId> {
        if self.is_full() || self.by_key.contains_key(&key) {
            return None;
        }
        let slot = SlotId::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { key, page, series });
        self.by_key.insert(key, slot);
        self.link(page, slot);
        Some(slot)
    }

    /// Adds a series in the place of one that has been idle. What lost its place is returned with the slot; `None` when no idle
    /// one was found within a bounded look.
    pub fn insert_evicting(
        &mut self,
        key: SeriesKey,
        page: u32,
        series: Series,
    ) -> Option<(SlotId, Evicted)> {
        let index = self.find_idle()?;
        let slot = SlotId::try_from(index).ok()?;
        let place = self.slots.get_mut(index)?;
        let old = std::mem::replace(place, Slot { key, page, series });
        self.by_key.remove(&old.key);
        self.unlink(old.page, slot);
        self.by_key.insert(key, slot);
        self.link(page, slot);
        Some((
            slot,
            Evicted {
                key: old.key,
                claim: old.series.claim,
            },
        ))
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        0..SlotId::try_from(self.slots.len()).unwrap_or(SlotId::MAX)
    }

    fn find_idle(&mut self) -> Option<usize> {
        for _ in 0..EVICTION_PROBES.min(self.slots.len()) {
            self.hand = self
                .hand
                .saturating_add(1)
                .checked_rem(self.slots.len())
                .unwrap_or(0);
            let idle = self
                .slots
                .get(self.hand)
                .is_some_and(|slot| slot.series.idle_steps() >= EVICTABLE_IDLE_STEPS);
            if idle {
                return Some(self.hand);
            }
        }
        None
    }

    fn link(&mut self, page: u32, slot: SlotId) {
        if let Some(members) = self.members(page) {
            members.push(slot);
        }
    }

    fn unlink(&mut self, page: u32, slot: SlotId) {
        if let Some(members) = self.members(page) {
            members.retain(|member| *member != slot);
        }
    }

    fn members(&mut self, page: u32) -> Option<&mut Vec<SlotId>> {
        self.by_page.get_mut(usize::try_from(page).ok()?)
    }

    fn slot(&self, slot: SlotId) -> Option<&Slot> {
        self.slots.get(usize::try_from(slot).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use forebay_forecast::{Blender, TrackSettings};

    use super::*;

    fn key(number: u8) -> SeriesKey {
        SeriesKey {
            customer: CustomerHash([number; 16]),
            resource: ResourceIndex::FIRST,
        }
    }

    fn blender() -> Blender {
        Blender::new(TrackSettings::without_model(&[1], &[0.5], 4))
    }

    fn idle(steps: u64) -> Series {
        let mut blender = blender();
        let mut series = Series::new(8, blender.settings(), 1);
        for step in 0..=steps {
            series.roll(
                i64::try_from(step).unwrap(),
                step * 1_000,
                1_000,
                &mut blender,
            );
        }
        series
    }

    #[test]
    fn a_full_table_gives_the_place_of_an_idle_series_to_a_newcomer() {
        let mut table = SeriesTable::new(4, 2);
        table.insert(key(1), 0, idle(0)).unwrap();
        table.insert(key(2), 1, idle(5)).unwrap();
        assert!(table.insert(key(3), 2, idle(0)).is_none());
        let (slot, lost) = table.insert_evicting(key(3), 2, idle(0)).unwrap();
        assert_eq!(lost.key, key(2));
        assert_eq!(table.find(&key(2)), None);
        assert_eq!(table.find(&key(3)), Some(slot));
        assert!(table.on_page(1).is_empty());
        assert_eq!(table.on_page(2), &[slot]);
    }

    #[test]
    fn busy_series_are_not_evicted() {
        let mut table = SeriesTable::new(1, 1);
        table.insert(key(1), 0, idle(1)).unwrap();
        assert!(table.insert_evicting(key(2), 0, idle(0)).is_none());
        assert!(table.find(&key(1)).is_some());
    }
}
