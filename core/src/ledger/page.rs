//! A page: a short header and a few entries, edited in place.
//!
//! Decoding a whole page and encoding it again would allocate and touch every customer on it for each draw. These views read
//! and overwrite single entries within the bytes that came from shared data.

use super::entry::{CustomerHash, Entry};
use super::layout::Region;
use crate::bytes::{Reader, Writer};
use crate::error::CoreError;
use crate::lease::Lease;
use crate::limits::{MAX_OTHER_PAGE_ENTRIES, MAX_POLICY_PAGE_ENTRIES};
use crate::policy::{ContractIndex, Policy};
use crate::time::TimeUs;

const MARK: [u8; 3] = *b"FBL";
const VERSION: u8 = 2;
const WHAT: &str = "ledger page";
const HEADER_BYTES: usize = 16;
const COUNT_AT: usize = 6;
const LAST_EVICTION_AT: usize = 8;

/// A page to read.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    entries: &'a [u8],
    resources: u8,
    last_eviction: Option<TimeUs>,
}

/// A page to change.
#[derive(Debug)]
pub struct Page<'a> {
    bytes: &'a mut Vec<u8>,
    resources: u8,
    count: u16,
    last_eviction: Option<TimeUs>,
}

// === impl PageView ===

impl<'a> PageView<'a> {
    /// Checks the header and the length.
    pub fn open(bytes: &'a [u8], resources: u8) -> Result<PageView<'a>, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let found = reader.u8()?;
        if found != resources {
            return Err(CoreError::OutOfBounds {
                what: WHAT,
                field: "resources",
                found: u64::from(found),
                allowed: "the number of resources of the policy",
            });
        }
        reader.u8()?;
        let count = reader.u16()?;
        let last_eviction = reader.u64()?;
        let entries =
            reader.slice(usize::from(count).saturating_mul(Entry::bytes_for(resources)))?;
        reader.end()?;
        let last_eviction = (last_eviction != TimeUs::NEVER.0).then_some(TimeUs(last_eviction));
        Ok(PageView {
            entries,
            resources,
            last_eviction,
        })
    }

    /// Where a customer's entry is.
    #[must_use]
    pub fn find(&self, customer: &CustomerHash) -> Option<u16> {
        let position = self
            .entries
            .chunks_exact(Entry::bytes_for(self.resources))
            .position(|entry| {
                entry
                    .first_chunk::<16>()
                    .is_some_and(|hash| *hash == customer.0)
            })?;
        u16::try_from(position).ok()
    }

    /// The entries in order. A damaged one comes as an error.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, CoreError>> + 'a {
        let resources = self.resources;
        self.entries
            .chunks_exact(Entry::bytes_for(resources))
            .map(move |entry| Entry::read(entry, resources))
    }

    /// When an entry was last evicted from the page; `None` if never.
    #[must_use]
    pub const fn last_eviction(&self) -> Option<TimeUs> {
        self.last_eviction
    }
}

// === impl Page ===

impl<'a> Page<'a> {
    /// The bytes of a page without entries. `last_eviction` is `None` for a ledger that starts, and the present
    /// for a page that replaces one of which the entries are lost.
    #[must_use]
    pub fn empty(resources: u8, last_eviction: Option<TimeUs>) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&MARK);
        writer.u8(VERSION);
        writer.u8(resources);
        writer.u8(0);
        writer.u16(0);
        writer.u64(last_eviction.unwrap_or(TimeUs::NEVER).0);
        bytes
    }

    /// Checks the header and the length.
    pub fn open(bytes: &'a mut Vec<u8>, resources: u8) -> Result<Page<'a>, CoreError> {
        let view = PageView::open(bytes, resources)?;
        let count = view
            .entries
            .len()
            .checked_div(Entry::bytes_for(resources))
            .unwrap_or(0) as u16;
        let last_eviction = view.last_eviction;
        Ok(Page {
            bytes,
            resources,
            count,
            last_eviction,
        })
    }

    /// The page to read.
    #[must_use]
    pub fn view(&self) -> PageView<'_> {
        let entries = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        PageView {
            entries,
            resources: self.resources,
            last_eviction: self.last_eviction,
        }
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> u16 {
        self.count
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry at a position.
    pub fn get(&self, position: u16) -> Result<Entry, CoreError> {
        let (start, end) = self.range(position);
        Entry::read(
            self.bytes.get(start..end).unwrap_or_default(),
            self.resources,
        )
    }

    /// Overwrites the entry at a position.
    pub fn put(&mut self, position: u16, entry: &Entry) {
        let (start, end) = self.range(position);
        if let Some(bytes) = self.bytes.get_mut(start..end) {
            entry.write(bytes, self.resources);
        }
    }

    /// Changes the entry of a customer, if it is on the page.
    pub fn update(
        &mut self,
        customer: &CustomerHash,
        change: impl FnOnce(&mut Entry),
    ) -> Result<bool, CoreError> {
        let Some(position) = self.view().find(customer) else {
            return Ok(false);
        };
        let mut entry = self.get(position)?;
        change(&mut entry);
        self.put(position, &entry);
        Ok(true)
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: &Entry) -> u16 {
        let position = self.count;
        self.bytes.resize(
            self.bytes
                .len()
                .saturating_add(Entry::bytes_for(self.resources)),
            0,
        );
        self.set_count(position.saturating_add(1));
        self.put(position, entry);
        position
    }

    /// Removes the entry at a position; the last one takes its place.
    pub fn remove(&mut self, position: u16) {
        let Some(last) = self.count.checked_sub(1) else {
            return;
        };
        if position > last {
            return;
        }
        let (start, _) = self.range(position);
        let (last_start, last_end) = self.range(last);
        self.bytes.copy_within(last_start..last_end, start);
        self.bytes.truncate(last_start);
        self.set_count(last);
    }

    /// The entry of a customer that is in no policy. An absent one is added, if need be in the place of the one unused for
    /// longest. `None` if the page is full of entries that may not be evicted.
    pub fn find_or_add(
        &mut self,
        customer: &CustomerHash,
        contract: ContractIndex,
        policy: &Policy,
        lease: &Lease,
        now: TimeUs,
    ) -> Result<Option<(u16, Entry)>, CoreError> {
        if let Some(position) = self.view().find(customer) {
            let mut entry = self.get(position)?;
            // The policy may have changed what unknown customers get.
            entry.contract = contract;
            return Ok(Some((position, entry)));
        }
        // It was absent before anyone is evicted for it, so that eviction is not the one to count from.
        let entry = self.newcomer(customer, contract, policy, now);
        if self.count >= MAX_OTHER_PAGE_ENTRIES && !self.evict(policy, lease, now)? {
            return Ok(None);
        }
        let position = self.push(&entry);
        Ok(Some((position, entry)))
    }

    /// What an absent customer starts with on this page.
    #[must_use]
    pub fn newcomer(
        &self,
        customer: &CustomerHash,
        contract: ContractIndex,
        policy: &Policy,
        now: TimeUs,
    ) -> Entry {
        let mut entry = match self.last_eviction {
            None => Entry::full(*customer, contract, policy, now),
            Some(since) => Entry::absent_since(*customer, contract, since),
        };
        entry.begin_counting(now);
        entry
    }

    /// Whether a region's page can take no further entry.
    #[must_use]
    pub const fn is_full(&self, region: Region) -> bool {
        match region {
            Region::Policy => self.count >= MAX_POLICY_PAGE_ENTRIES,
            Region::Other => self.count >= MAX_OTHER_PAGE_ENTRIES,
        }
    }

    /// Remembers that an entry was dropped now: nobody absent gets more than what has flowed since.
    pub fn note_eviction(&mut self, now: TimeUs) {
        let last = self.last_eviction.map_or(now, |last| last.max(now));
        self.last_eviction = Some(last);
        if let Some(bytes) = self.bytes.get_mut(LAST_EVICTION_AT..HEADER_BYTES) {
            Writer::new(bytes).u64(last.0);
        }
    }

    fn evict(&mut self, policy: &Policy, lease: &Lease, now: TimeUs) -> Result<bool, CoreError> {
        let mut oldest: Option<(TimeUs, u16)> = None;
        for position in 0..self.count {
            let mut entry = self.get(position)?;
            let last_used = entry.at;
            entry.refill(policy, lease, now);
            if entry.is_evictable(policy, now) && oldest.is_none_or(|(at, _)| last_used < at) {
                oldest = Some((last_used, position));
            }
        }
        let Some((_, position)) = oldest else {
            return Ok(false);
        };
        self.remove(position);
        self.note_eviction(now);
        Ok(true)
    }

    const fn range(&self, position: u16) -> (usize, usize) {
        let size = Entry::bytes_for(self.resources);
        let start = HEADER_BYTES.saturating_add(size.saturating_mul(position as usize));
        (start, start.saturating_add(size))
    }

    fn set_count(&mut self, count: u16) {
        self.count = count;
        if let Some(bytes) = self.bytes.get_mut(COUNT_AT..LAST_EVICTION_AT) {
            Writer::new(bytes).u16(count);
        }
    }
}
