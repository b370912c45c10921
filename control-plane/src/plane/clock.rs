//! The two clocks: one that never goes back, for buckets and leases; and the wall clock, for calendars and people.

use forebay_core::time::TimeUs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since the process started.
    pub mono: TimeUs,
    /// Wall clock.
    pub unix_ms: u64,
}

/// Where the time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system.
    System {
        /// When the process started.
        started: Instant,
    },
    /// A test, which moves it by hand.
    Manual(Arc<AtomicU64>),
}

/// Wall-clock time at which a manual clock stands at 0.
const MANUAL_START_UNIX_MS: u64 = 1_790_000_000_000;

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::System {
            started: Instant::now(),
        }
    }

    /// Both clocks at once.
    #[must_use]
    pub fn now(&self) -> Now {
        match self {
            Self::System { started } => {
                let since_1970 = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Now {
                    mono: TimeUs(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)),
                    unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
                }
            }
            Self::Manual(us) => {
                let us = us.load(Ordering::SeqCst);
                Now {
                    mono: TimeUs(us),
                    unix_ms: MANUAL_START_UNIX_MS.saturating_add(us / 1_000),
                }
            }
        }
    }
}
