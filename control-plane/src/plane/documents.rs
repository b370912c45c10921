//! Whose policy is read and compiled: one document at a time, and only so many may wait.
//!
//! A document of a million customers takes seconds of a core and a gigabyte. Several at once would hold up the syncs, on few cores beyond a lease, so each has its
//! turn, in the order in which they came. What waits holds its text: how much of that there may be is bounded, and whoever comes then is told to come again.

use super::Plane;
use crate::error::ApiError;
use axum::http::StatusCode;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Texts that there may be at once: two of the largest.
const ROOM_KIB: u32 = 256 << 10;
/// A document counts as so many at least, so no more than 32 wait.
const LEAST_KIB: u32 = 8 << 10;
/// A document of a million customers is compiled by then.
const RETRY_AFTER_S: u32 = 5;

/// The turns.
#[derive(Debug)]
pub(super) struct Documents {
    room: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// The right to wait for a turn.
#[derive(Debug)]
pub(crate) struct DocumentPlace {
    room: OwnedSemaphorePermit,
    turn: Arc<Semaphore>,
}

/// The right to read and compile a document; whoever drops it gives it on.
#[derive(Debug)]
pub(crate) struct DocumentTurn {
    _room: OwnedSemaphorePermit,
    _turn: Option<OwnedSemaphorePermit>,
}

// === impl Documents ===

impl Default for Documents {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Documents {
    fn place(&self, bytes: u64) -> Result<DocumentPlace, ApiError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(ROOM_KIB);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib.clamp(LEAST_KIB, ROOM_KIB));
        let turn = Arc::clone(&self.turn);
        room.map(|room| DocumentPlace { room, turn }).map_err(|_| {
            let message = "as many policies as may wait are waiting to be read";
            let hint = "send it again, one after the other";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, hint)
                .retry_after_s(RETRY_AFTER_S)
        })
    }
}

// === impl DocumentPlace ===

impl DocumentPlace {
    /// Waits for the turn. Nobody closes the semaphore, so there always is one.
    pub(crate) async fn turn(self) -> DocumentTurn {
        DocumentTurn {
            _turn: self.turn.acquire_owned().await.ok(),
            _room: self.room,
        }
    }
}

impl Plane {
    /// A place among the documents, for one of so many bytes.
    ///
    /// # Errors
    /// 503 `busy` when too many wait already.
    pub(crate) fn document_place(&self, bytes: u64) -> Result<DocumentPlace, ApiError> {
        self.documents.place(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn documents_take_turns_and_no_more_wait_than_there_is_room_for() {
        let documents = Documents::default();
        let first = documents.place(0).unwrap().turn().await;
        let mut waiting: Vec<_> = (1..32).map(|_| documents.place(1).unwrap()).collect();
        let busy = documents.place(1).unwrap_err();
        assert_eq!((busy.status, busy.code.as_str()), (503, "busy"));
        assert!(busy.retry_after_s > 0);
        let second = waiting.pop().unwrap().turn();
        tokio::pin!(second);
        let is_there = |polled: std::task::Poll<DocumentTurn>| polled.is_ready();
        std::future::poll_fn(|context| {
            assert!(!is_there(second.as_mut().poll(context)), "two at once");
            std::task::Poll::Ready(())
        })
        .await;
        drop(first);
        drop(second.await);
        waiting.clear();
        // Two of the largest, and nothing beside them.
        let large: Vec<_> = (0..2)
            .map(|_| documents.place(128 << 20).unwrap())
            .collect();
        assert!(documents.place(0).is_err());
        drop(large);
        // One that says it is larger than all there is will be refused by its length.
        drop(documents.place(u64::MAX).unwrap());
    }
}
