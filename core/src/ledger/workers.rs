//! The workers of a gateway, registered in a slot each.
//!
//! A draw leaves the other workers their share, so it must know how many there are; and one of them, the leader, does what is
//! to be done once per gateway. Envoy tells a plugin neither. A worker that has gone (its VM trapped) is dropped
//! after [`WORKER_GONE_US`]: no worker needs to say goodbye.

use crate::bytes::{Reader, Writer};
use crate::error::CoreError;
use crate::limits::{MAX_WORKERS, WORKER_GONE_US};
use crate::time::TimeUs;

const MARK: [u8; 3] = *b"FBW";
const VERSION: u8 = 1;
const WHAT: &str = "ledger workers";
const HEADER_BYTES: usize = 8;
const SLOT_BYTES: usize = 16;

/// A random number that a worker's VM gives itself when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// The workers that were seen lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    slots: Vec<(WorkerId, TimeUs)>,
}

// === impl Workers ===

impl Workers {
    /// Registers `worker`, or says that it is still there, and drops those that have gone.
    pub fn seen(&mut self, worker: WorkerId, now: TimeUs) {
        self.slots
            .retain(|(id, seen_at)| *id == worker || now.since(*seen_at) < WORKER_GONE_US);
        if let Some((_, seen_at)) = self.slots.iter_mut().find(|(id, _)| *id == worker) {
            *seen_at = now;
        } else if self.slots.len() < MAX_WORKERS {
            self.slots.push((worker, now));
        }
    }

    /// Number of workers, at least one.
    #[must_use]
    pub fn count(&self, now: TimeUs) -> u32 {
        self.live(now).count().max(1) as u32
    }

    /// The worker that does what is done once per gateway: the one that registered first of those still there.
    #[must_use]
    pub fn leader(&self, now: TimeUs) -> Option<WorkerId> {
        self.live(now).next()
    }

    fn live(&self, now: TimeUs) -> impl Iterator<Item = WorkerId> + '_ {
        self.slots
            .iter()
            .filter(move |(_, seen_at)| now.since(*seen_at) < WORKER_GONE_US)
            .map(|(id, _)| *id)
    }

    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            vec![0; HEADER_BYTES.saturating_add(self.slots.len().saturating_mul(SLOT_BYTES))];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&MARK);
        writer.u8(VERSION);
        writer.u32(self.slots.len() as u32);
        for (id, seen_at) in &self.slots {
            writer.u64(id.0);
            writer.u64(seen_at.0);
        }
        bytes
    }

    /// Reads the binary form.
    pub fn decode(bytes: &[u8]) -> Result<Workers, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let count = reader.u32()? as usize;
        if count > MAX_WORKERS {
            let found = count as u64;
            return Err(CoreError::OutOfBounds {
                what: WHAT,
                field: "workers",
                found,
                allowed: "at most 256",
            });
        }
        let mut slots = Vec::with_capacity(count);
        for _ in 0..count {
            slots.push((WorkerId(reader.u64()?), TimeUs(reader.u64()?)));
        }
        reader.end()?;
        Ok(Workers { slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_not_seen_for_a_while_no_longer_counts_nor_leads() {
        let mut workers = Workers::default();
        workers.seen(WorkerId(7), TimeUs(0));
        workers.seen(WorkerId(3), TimeUs(1));
        assert_eq!(
            (workers.count(TimeUs(2)), workers.leader(TimeUs(2))),
            (2, Some(WorkerId(7)))
        );
        let later = TimeUs(WORKER_GONE_US);
        workers.seen(WorkerId(3), later);
        assert_eq!(
            (workers.count(later), workers.leader(later)),
            (1, Some(WorkerId(3)))
        );
    }

    #[test]
    fn workers_survive_their_binary_form() {
        let mut workers = Workers::default();
        workers.seen(WorkerId(7), TimeUs(5));
        workers.seen(WorkerId(u64::MAX), TimeUs(6));
        assert_eq!(Workers::decode(&workers.encode()), Ok(workers));
    }
}
