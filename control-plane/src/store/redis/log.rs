//! The log in Redis: a list of batches, each durable with one push. Rows take them in later, many together, as the image of the embedded
//! store does.
//!
//! A sync changes a hundred rows, and the same ones again with the next: as rows at once they cost Redis a command each, and at a hundred
//! gateways its one thread nothing but that. What a crash leaves in the log is taken in by whoever leads next, before it answers anybody.

use super::super::encoding::{decode_changes, encode_changes};
use super::super::leisure::giving_way;
use super::super::overlay::{Changed, Newest};
use super::super::{Batch, StoreError, Table};
use super::keeper::{Inner, Keeper, add_rows};
use super::link::{Call, Link, Trouble};
use super::scripts::{FENCE, HEAD, LOG, ROUND, Script};
use redis::cmd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Entries that are read with one answer.
const ENTRIES_AT_ONCE: isize = 8;

/// Rows that one script takes in: Redis serves nobody else meanwhile.
const ROWS_AT_ONCE: usize = 256;
/// And then it serves others for so long.
const PAUSE: Duration = Duration::from_millis(2);

/// A time in which the rows take in what the log held when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) entries: u64,
}

// === impl Keeper ===

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

    /// Reads what the one who led before has left in the log.
    pub(super) fn replay(&self, link: &mut Link) -> Result<(), Trouble> {
        let mut first = 0;
        loop {
            let last = first + ENTRIES_AT_ONCE - 1;
            let entries: Vec<Vec<u8>> = link.ask(cmd("LRANGE").arg(LOG).arg(first).arg(last))?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in &entries {
                let batch = decode_changes(entry).map_err(|reason| {
                    Trouble::Refused(StoreError::Damaged {
                        what: "log",
                        reason,
                    })
                })?;
                self.overlay_mut().add(&batch);
            }
            first += ENTRIES_AT_ONCE;
        }
    }

    /// Brings what the log holds by now into the rows, or some of it if a large change comes. Others commit meanwhile.
    pub(super) fn empty(&self) -> Result<(), StoreError> {
        let _alone = self.emptying();
        if self.overlay().is_empty() {
            return Ok(());
        }
        let round = self.with(|inner, link| self.begin_round(inner, link))?;
        // On one connection from here on: a node that comes back may have lost what it had taken in. Then the next round begins with all of it.
        let mut link = Link::to_master(&self.nodes)?;
        let leaving = self.overlay().leaving();
        let is_to_end = || self.is_awaited.load(Ordering::Relaxed);
        let is_done = giving_way("rows", || {
            let pieces = (ROWS_AT_ONCE, PAUSE);
            self.take_in_all(&mut link, &round, &leaving, pieces, &is_to_end)
        })?
        .and_then(|is_done| {
            if is_done {
                self.shorten(&mut link, &round)?;
            }
            Ok(is_done)
        })
        .map_err(|trouble| match trouble {
            Trouble::Lost(reason) => StoreError::Unreachable(reason),
            Trouble::Refused(error) => error,
        })?;
        if is_done {
            drop(leaving);
            let mut gone = self.overlay_mut().left();
            if giving_way("rows", || gone.empty(&self.is_over)).unwrap_or_default() {
                self.overlay_mut().keep(gone);
            }
        }
        Ok(())
    }

    /// The same, while nobody else commits.
    pub(super) fn empty_on(&self, inner: &mut Inner, link: &mut Link) -> Result<(), Trouble> {
        let round = self.begin_round(inner, link)?;
        let leaving = self.overlay().leaving();
        let pieces = (super::MAX_ROWS_AT_ONCE, Duration::ZERO);
        self.take_in_all(link, &round, &leaving, pieces, &|| false)?;
        self.shorten(link, &round)?;
        drop(leaving);
        let gone = self.overlay_mut().left();
        drop(gone);
        Ok(())
    }

    /// What is in the log by now is on its way. An entry whose answer was lost may be among them: nobody was told of it, and what it says comes
    /// again or does not count.
    pub(super) fn begin_round(&self, inner: &mut Inner, link: &mut Link) -> Result<Round, Trouble> {
        let number = inner.attempt();
        let mut call = Call::on(&[FENCE, HEAD, LOG, ROUND]);
        call.with(self.fence.as_str())
            .number(inner.acknowledged)
            .number(number.saturating_sub(1))
            .number(number);
        let entries = link.change(Script::Round, call)?;
        inner.acknowledged = number;
        inner.logged_bytes = 0;
        self.overlay_mut().leave();
        Ok(Round { number, entries })
    }

    /// Returns false if it has ended before all was taken in, because it `is_to_end`: the next round begins with all of it.
    fn take_in_all(
        &self,
        link: &mut Link,
        round: &Round,
        leaving: &Newest,
        (rows_at_once, pause): (usize, Duration),
        is_to_end: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, Trouble> {
        for table in Table::ALL {
            for rows in pieces(&leaving.of(table), rows_at_once) {
                if self.is_over.load(Ordering::Relaxed) {
                    return Err(Trouble::Refused(StoreError::Stopped));
                }
                if is_to_end() {
                    return Ok(false);
                }
                self.take_in(link, round, table, rows)?;
                std::thread::sleep(pause);
            }
        }
        Ok(true)
    }

    pub(super) fn take_in(
        &self,
        link: &mut Link,
        round: &Round,
        table: Table,
        rows: &[Changed<'_>],
    ) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE, ROUND]);
        call.with(self.fence.as_str()).number(round.number);
        add_rows(
            &mut call,
            rows.iter().map(|(key, value)| (table, *key, *value)),
        );
        link.change::<u64>(Script::TakeIn, call).map(drop)
    }

    /// Drops the entries that were there when the round began, and ends it.
    pub(super) fn shorten(&self, link: &mut Link, round: &Round) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE, LOG, ROUND]);
        call.with(self.fence.as_str())
            .number(round.number)
            .number(round.entries);
        link.change::<u64>(Script::Shorten, call).map(drop)
    }
}

/// Rows in pieces of no more than so many, and of few bytes unless one alone has more.
fn pieces<'r, 'a>(rows: &'r [Changed<'a>], most: usize) -> impl Iterator<Item = &'r [Changed<'a>]> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fit = left.iter().take(most).take_while(|(_, value)| {
            bytes = bytes.saturating_add(value.map_or(0, <[u8]>::len));
            bytes <= super::MAX_BYTES_AT_ONCE
        });
        let fit = fit.count().max(1);
        let (piece, rest) = left.split_at_checked(fit)?;
        left = rest;
        Some(piece)
    })
}
