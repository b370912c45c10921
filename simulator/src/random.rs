//! A seeded source of random numbers whose sequence never changes: SplitMix64.
//!
//! A failure is replayed by its seed, years later and on another machine. Generators of the `rand` crate may change their sequence
//! with any release, and the one of the trace generator stands beside file readers that a browser must not be given.

/// SplitMix64 with the few distributions that a fleet needs.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

// === impl Random ===

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source of its own for part `index` of the work, so that a part that draws more does not move the others.
    pub(crate) fn fork(&self, index: u64) -> Self {
        Self(Self(self.0 ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93)).next_u64())
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of 0 up to, not including, `count`; 0 of none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.uniform() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// A wait with that mean, rounded up, so that time goes on.
    pub(crate) fn wait_us(&mut self, mean_us: u64) -> u64 {
        let wait = -(1.0 - self.uniform()).ln();
        (wait * mean_us as f64) as u64 + 1
    }

    pub(crate) fn between_us(&mut self, least_us: u64, most_us: u64) -> u64 {
        least_us + (self.uniform() * most_us.saturating_sub(least_us) as f64) as u64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }
}
