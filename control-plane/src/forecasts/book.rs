//! What is published of forecasts, and where the worker leaves it for those who ask.

use super::cells::{Cells, Subject};
use super::horizon::HORIZONS;
use super::score::Score;
use forebay_wire::key::CustomerHash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Scores under the names that they have in metrics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tally {
    pub(crate) resource: String,
    pub(crate) horizon: &'static str,
    /// `customers` or `groups`.
    pub(crate) of: &'static str,
    pub(crate) score: Score,
}

/// All forecasts at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// The newest step that is known, once there is one.
    pub(super) newest: Option<u64>,
    pub(super) resources: Vec<String>,
    pub(super) cells: Cells,
    /// Why each horizon is not forecast.
    pub(super) lacks: [Option<String>; HORIZONS.len()],
    pub(crate) tallies: Vec<Tally>,
    /// Series that are forecast by themselves, and those that the last survey has added to the rest.
    pub(crate) series: usize,
    pub(crate) rest_series: usize,
    /// Chunks of usage that it could not read.
    pub(crate) damaged_chunks: usize,
    /// How long the last pass took.
    pub(crate) pass_ms: u64,
}

/// Where they are left. Neither syncs nor changes come here.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    book: Mutex<Arc<Book>>,
    /// Counts imports of history.
    changes: AtomicU64,
}

// === impl Book ===

impl Book {
    /// Quantiles (0.5, 0.9, 0.99) of the mean rate of a customer, in tokens per second: of the first horizon of `least_ms` or more that is forecast and not over
    /// at a time, with steps of some length.
    pub(crate) fn mean_of(
        &self,
        customer: CustomerHash,
        resource: u8,
        least_ms: u64,
        (step_ms, now_unix_ms): (u32, u64),
    ) -> Option<[f64; 3]> {
        let cells = self.cells.get(&(Subject::Customer(customer), resource))?;
        let long = HORIZONS.iter().zip(cells);
        let mut long = long.filter(|(horizon, _)| horizon.length_ms >= least_ms);
        long.find_map(|(horizon, cell)| {
            let cell = cell.as_ref()?;
            let from_ms = cell.made_at.saturating_add(1);
            let from_ms = from_ms.saturating_mul(u64::from(step_ms));
            let [_, median, upper, most] = cell.made.mean.map(f64::from);
            (now_unix_ms < from_ms.saturating_add(horizon.length_ms))
                .then_some([median, upper, most])
        })
    }
}

// === impl Desk ===

impl Desk {
    pub(crate) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, book: Book) {
        *self.book.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }

    /// The history of steps that are long over is another one now.
    pub(crate) fn history_changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}
