//! Zipf's law: the customer of rank k is asked for 1 / k as often as the first one.

/// A law over so many ranks, from 0.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    /// Up to each rank, what part of all falls to it and those before it.
    cumulative: Vec<f64>,
}

// === impl Zipf ===

impl Zipf {
    pub(crate) fn new(ranks: usize) -> Self {
        Self::weighted((0..ranks).map(weight))
    }

    /// The same law, of some of its ranks alone: they are picked by their place in the list.
    pub(crate) fn of(ranks: &[usize]) -> Self {
        Self::weighted(ranks.iter().map(|rank| weight(*rank)))
    }

    /// The part of all that falls to a rank.
    pub(crate) fn share(&self, rank: usize) -> f64 {
        self.cumulative[rank]
            - rank
                .checked_sub(1)
                .map_or(0.0, |before| self.cumulative[before])
    }

    /// The rank that a random number falls to.
    pub(crate) fn pick(&self, random: u64) -> usize {
        let at = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = self
            .cumulative
            .partition_point(|cumulative| *cumulative <= at);
        rank.min(self.cumulative.len() - 1)
    }

    fn weighted(weights: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        for part in &mut cumulative {
            *part /= sum;
        }
        Self { cumulative }
    }
}

fn weight(rank: usize) -> f64 {
    1.0 / (rank as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::Zipf;

    #[test]
    fn a_rank_is_picked_as_often_as_its_share_says() {
        let zipf = Zipf::new(10);
        let mut picked = [0_u32; 10];
        for step in 0..100_000_u64 {
            picked[zipf.pick(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1;
        }
        for (rank, count) in picked.iter().enumerate() {
            let expected = zipf.share(rank) * 100_000.0;
            assert!(
                (f64::from(*count) - expected).abs() < 0.02 * expected + 20.0,
                "{rank}: {count}"
            );
        }
    }
}
