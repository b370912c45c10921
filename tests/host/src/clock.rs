//! Time that passes only when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// 2026-01-05 00:00 UTC, a Monday.
const WALL_START_NS: u64 = 1_767_571_200_000_000_000;

/// The clocks of one gateway, shared by its workers as in Envoy.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    monotonic_ns: Arc<AtomicU64>,
    wall_offset_ns: Arc<AtomicI64>,
}

// === impl VirtualClock ===

impl VirtualClock {
    /// A clock of a machine that has been up for an hour.
    pub fn new() -> Self {
        Self {
            monotonic_ns: Arc::new(AtomicU64::new(3_600_000_000_000)),
            wall_offset_ns: Arc::default(),
        }
    }

    /// Lets time pass on both clocks.
    pub fn advance_us(&self, microseconds: u64) {
        self.monotonic_ns
            .fetch_add(microseconds * 1000, Ordering::SeqCst);
    }

    /// Lets time pass on both clocks.
    pub fn advance_ms(&self, milliseconds: u64) {
        self.advance_us(milliseconds * 1000);
    }

    /// Moves the wall clock only, as an administrator or NTP does.
    pub fn jump_wall_ms(&self, milliseconds: i64) {
        self.wall_offset_ns
            .fetch_add(milliseconds * 1_000_000, Ordering::SeqCst);
    }

    /// The steady clock.
    pub fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }

    /// The clock on the wall.
    pub fn wall_ns(&self) -> u64 {
        (WALL_START_NS + self.monotonic_ns())
            .saturating_add_signed(self.wall_offset_ns.load(Ordering::SeqCst))
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}
