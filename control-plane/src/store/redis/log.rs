//! The log in Redis: a list of batches, each durable with one push. Rows take them in later, many together, as the image of the embedded
//! store does.
//!
//! A sync changes a hundred rows, and the same ones again with the next: as rows at once they cost Redis a command each, and at a hundred
//! gateways its one thread nothing but that. What a crash leaves in the log is taken in by whoever leads next, before it answers anybody.

use super::super::encoding::{decode_changes, encode_changes};
use super::super::overlay::{Changed, Newest};
use super::super::{Batch, StoreError, Table};
use super::keeper::{Inner, Keeper, add_rows};
use super::link::{Call, Line, Link, Trouble};
use super::scripts::{FENCE, HEAD, LEFT, LOG, Script};
use redis::cmd;
use std::time::Duration;

/// Entries that are read with one answer.
const ENTRIES_AT_ONCE: isize = 64;

/// Rows that one script takes in: Redis serves nobody else meanwhile.
const ROWS_AT_ONCE: usize = 256;
/// And then it serves others for so long.
const PAUSE: Duration = Duration::from_millis(2);

impl Keeper {
    /// Makes a batch durable at the end of the log.
    pub(super) fn append(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        batch: &Batch,
    ) -> Result<(), Trouble> {
        let mut bytes = Vec::new();
        encode_changes(batch.changes(), &mut bytes);
        let length = bytes.len();
        let number = inner.attempt();
        let mut call = Call::on(&[FENCE, HEAD, LOG]);
        call.with(self.fence.as_str())
            .number(inner.acknowledged)
            .number(number.saturating_sub(1))
            .number(number)
            .with(bytes);
        let _done: u64 = link.change(Script::Append, call)?;
        inner.acknowledged = number;
        inner.logged_bytes = inner.logged_bytes.saturating_add(length);
        self.overlay_mut().add(batch);
        Ok(())
    }

    /// Reads what the one who led before has left in the log. Returns how many entries have left it since ever.
    pub(super) fn replay(&self, link: &mut Link) -> Result<u64, Trouble> {
        let mut first = 0;
        loop {
            let last = first + ENTRIES_AT_ONCE - 1;
            let entries: Vec<Vec<u8>> = link.ask(cmd("LRANGE").arg(LOG).arg(first).arg(last))?;
            for entry in &entries {
                let batch = decode_changes(entry).map_err(|reason| {
                    Trouble::Refused(StoreError::Damaged {
                        what: "log",
                        reason,
                    })
                })?;
                self.overlay_mut().add(&batch);
            }
            if entries.is_empty() {
                break;
            }
            first += ENTRIES_AT_ONCE;
        }
        let left: Option<u64> = link.ask(cmd("GET").arg(LEFT))?;
        Ok(left.unwrap_or(0))
    }

    /// Brings what the log holds by now into the rows. `left`: entries that have left it before. Others commit meanwhile.
    pub(super) fn empty(&self, left: &mut u64) -> Result<(), StoreError> {
        let entries = self.with(|inner, link| self.rotate(inner, link))?;
        let leaving = self.overlay().leaving();
        if entries == 0 && leaving.is_empty() {
            return Ok(());
        }
        let mut line = Line::new(self.nodes.clone());
        for table in Table::ALL {
            for rows in leaving.of(table).chunks(ROWS_AT_ONCE) {
                line.with(|link| self.take_in(link, table, rows))?;
                std::thread::sleep(PAUSE);
            }
        }
        line.with(|link| self.shorten(link, *left, entries))?;
        *left = left.saturating_add(entries);
        drop(leaving);
        let _gone = self.overlay_mut().left();
        Ok(())
    }

    /// The same, while nobody else commits.
    pub(super) fn empty_on(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        left: &mut u64,
    ) -> Result<(), Trouble> {
        let entries = self.rotate(inner, link)?;
        let leaving = self.overlay().leaving();
        for table in Table::ALL {
            for rows in leaving.of(table).chunks(super::MAX_ROWS_AT_ONCE) {
                self.take_in(link, table, rows)?;
            }
        }
        self.shorten(link, *left, entries)?;
        *left = left.saturating_add(entries);
        drop(leaving);
        let _gone = self.overlay_mut().left();
        Ok(())
    }

    /// What is in the log by now is on its way. Returns how many entries that are. One whose answer was lost may be among them: nobody was told
    /// of it, and what it says comes again or does not count.
    fn rotate(&self, inner: &mut Inner, link: &mut Link) -> Result<u64, Trouble> {
        let entries = link.ask(cmd("LLEN").arg(LOG))?;
        inner.logged_bytes = 0;
        let room = self.overlay().room();
        self.overlay_mut().leave(Newest::with_room(&room));
        Ok(entries)
    }

    fn take_in(&self, link: &mut Link, table: Table, rows: &[Changed<'_>]) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE]);
        call.with(self.fence.as_str());
        add_rows(
            &mut call,
            rows.iter().map(|(key, value)| (table, *key, *value)),
        );
        link.change::<u64>(Script::TakeIn, call).map(drop)
    }

    /// Drops the oldest entries of the log, once.
    pub(super) fn shorten(&self, link: &mut Link, left: u64, entries: u64) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE, LOG, LEFT]);
        call.with(self.fence.as_str())
            .number(left)
            .number(left.saturating_add(entries))
            .number(entries);
        link.change::<u64>(Script::Shorten, call).map(drop)
    }
}
