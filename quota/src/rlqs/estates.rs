//! What Envoys that are gone may still use, by bucket id: it is paid, and when such an Envoy comes back its first report is of that.
//!
//! A stream ends for many reasons, and Envoy keeps its buckets over it. Without this what it used since its last report would be charged
//! once with its assignment and once more with the first report on its next stream.

use super::Key;
use super::share::Estate;
use forebay_core::Micro;
use forebay_core::time::TimeUs;
use hashbrown::HashMap;

/// Envoy comes back within this time after its assignments have ended, or later with nothing to report of them.
const KEPT_US: u64 = 15_000_000;

/// Estates that are kept.
const MAX_ESTATES: usize = 1 << 18;

#[derive(Debug, Default)]
pub(super) struct Estates {
    estates: HashMap<Key, Estate>,
    swept_at: TimeUs,
}

// === impl Estates ===

impl Estates {
    /// Notes what an Envoy has left.
    pub(super) fn leave(&mut self, key: Key, estate: Estate, now: TimeUs) {
        if now.since(self.swept_at) >= KEPT_US {
            self.swept_at = now;
            self.estates.retain(|_, estate| is_kept(estate, now));
        }
        if estate.credit <= Micro::ZERO || self.estates.len() >= MAX_ESTATES {
            return;
        }
        // Several Envoys have buckets of one id.
        let kept = self.estates.entry(key).or_insert(Estate {
            credit: Micro::ZERO,
            ends: estate.ends,
        });
        kept.credit = kept.credit.plus(estate.credit);
        kept.ends = kept.ends.max(estate.ends);
    }

    /// What is left of Envoys with this bucket id, for the next one that comes.
    pub(super) fn take(&mut self, key: &Key, now: TimeUs) -> Micro {
        let estate = self.estates.remove(key);
        estate
            .filter(|estate| is_kept(estate, now))
            .map_or(Micro::ZERO, |estate| estate.credit)
    }
}

fn is_kept(estate: &Estate, now: TimeUs) -> bool {
    now <= estate.ends.plus_us(KEPT_US)
}
