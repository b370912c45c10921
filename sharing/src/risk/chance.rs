//! Chance from a given seed: the same seed gives the same score, in a test, a simulator and at a reader with a journal.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): good enough for scenarios, and one line.
pub(crate) struct Chance(u64);

// === impl Chance ===

impl Chance {
    /// A stream of its own for each part of a computation, so that one part's length does not move another's draws.
    pub(crate) fn of_part(seed: u64, part: usize) -> Self {
        let mut chance = Self(seed ^ (part as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(chance.bits())
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A position below `count`; 0 where there is none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }
}
