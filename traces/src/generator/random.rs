//! A seeded source of random numbers whose sequence never changes.
//!
//! A generated trace is part of a test's input: the same seed must give the same demand on every machine and after
//! every dependency update. The small generators of the `rand` crate reserve the right to change their sequence, so
//! SplitMix64 is written out here; it passes the usual statistical tests and needs no table.

/// SplitMix64 with the few distributions that demand needs.
#[derive(Debug, Clone)]
pub struct SeededRandom {
    state: u64,
}

impl SeededRandom {
    /// A generator that yields the same sequence for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// An independent generator for part `index` of the work, so that adding a part does not move the others.
    #[must_use]
    pub fn fork(&self, index: u64) -> Self {
        let mut mixed = Self::new(self.state ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let state = mixed.next_u64();
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1: the wait for the next event of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// Standard normal, by Box and Muller; the second value is thrown away to keep the state one word.
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::SeededRandom;

    #[test]
    fn the_sequence_of_a_seed_is_fixed() {
        let mut random = SeededRandom::new(0);
        // The published first outputs of SplitMix64 for seed 0.
        assert_eq!(random.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.next_u64(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = SeededRandom::new(7);
        let n = 20_000;
        let mean =
            |draw: &mut dyn FnMut() -> f64| (0..n).map(|_| draw()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || random.uniform()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || random.exponential()) - 1.0).abs() < 0.03);
        assert!(mean(&mut || random.normal()).abs() < 0.03);
        assert!((mean(&mut || random.normal().powi(2)) - 1.0).abs() < 0.05);
    }

    #[test]
    fn forks_differ_from_each_other() {
        let root = SeededRandom::new(1);
        assert_ne!(root.fork(0).next_u64(), root.fork(1).next_u64());
        assert_eq!(root.fork(3).next_u64(), root.fork(3).next_u64());
    }
}
