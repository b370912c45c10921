//! Over-admission, measured where it cannot be talked away: at the client, against the contract.
//!
//! The promise is about every interval: no more than `burst + rate x t` tokens admitted. The client does not see the
//! moment of a decision, only that it lies between sending a request and receiving its answer, so a request counts
//! for an interval only if both do. What then exceeds the bound is proven over-admission; clocks and networks cannot
//! cause it. A token bucket replayed over the answers would be simpler, but it needs one moment per request, and any
//! choice of it accuses the innocent when answers queue up.
//!
//! All pairs (send time, answer time) are covered in `n log n`: intervals are opened from the latest send time
//! backwards, and a tree holds, for every answer time, the tokens inside minus what the rate allows up to there.

/// A request that was admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted {
    /// When the client sent it, microseconds since the run's start.
    pub sent_us: u64,
    /// When the answer arrived.
    pub answered_us: u64,
}

/// One request, for the question whether a denial was within the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// When the client sent it.
    pub sent_us: u64,
    /// Whether the gateway let it through.
    pub admitted: bool,
}

/// Maximum over the open positions of a fixed range, under "add to all positions from here on".
///
/// `max` of a node holds for its subtree with all additions at or below it; `added` are those made to the node as a
/// whole, which its children do not know.
struct SuffixTree {
    leaves: usize,
    max: Vec<f64>,
    added: Vec<f64>,
}

/// The most tokens by which any interval exceeds `burst + rate x t`; 0 if none does.
pub(crate) fn over_admission(admitted: &[Admitted], rate_per_s: f64, burst: f64) -> f64 {
    if admitted.is_empty() {
        return 0.0;
    }
    let mut by_answer: Vec<usize> = (0..admitted.len()).collect();
    by_answer.sort_by_key(|&i| admitted[i].answered_us);
    let mut place = vec![0; admitted.len()];
    for (position, &i) in by_answer.iter().enumerate() {
        place[i] = position;
    }
    let allowed = |time_us: u64| rate_per_s * time_us as f64 / 1e6;
    let mut tree = SuffixTree::new(admitted.len());

    let mut by_send: Vec<usize> = (0..admitted.len()).collect();
    by_send.sort_by_key(|&i| std::cmp::Reverse(admitted[i].sent_us));
    let mut worst = 0.0_f64;
    for &i in &by_send {
        // An interval that exceeds the bound most ends with an answer that it contains, so only those are looked at.
        tree.open(place[i], -allowed(admitted[i].answered_us));
        tree.add_from(place[i], 1.0);
        worst = worst.max(tree.maximum() + allowed(admitted[i].sent_us) - burst);
    }
    // The sums above are of the size of rate x run length; a millionth of a token is their rounding.
    if worst < 1e-6 { 0.0 } else { worst }
}

/// Denials that the customer's own contract would not have made, replayed from all of its requests: those that came
/// while a standard bucket of its rate and burst, paying only for what was admitted, held a token. Only denials from
/// `from_us` on are counted.
pub(crate) fn denied_in_contract(
    attempts: &[Attempt],
    rate_per_s: f64,
    burst: f64,
    from_us: u64,
) -> u64 {
    let mut in_order: Vec<&Attempt> = attempts.iter().collect();
    in_order.sort_by_key(|a| a.sent_us);
    let (mut level, mut at_us, mut denied) = (burst, 0, 0);
    for attempt in in_order {
        let passed_s = attempt.sent_us.saturating_sub(at_us) as f64 / 1e6;
        level = (level + rate_per_s * passed_s).min(burst);
        at_us = attempt.sent_us;
        if attempt.admitted {
            level -= 1.0;
        } else if level >= 1.0 && attempt.sent_us >= from_us {
            denied += 1;
        }
    }
    denied
}

// === impl SuffixTree ===

impl SuffixTree {
    fn new(positions: usize) -> Self {
        let leaves = positions.next_power_of_two();
        Self {
            leaves,
            max: vec![f64::NEG_INFINITY; 2 * leaves],
            added: vec![0.0; 2 * leaves],
        }
    }

    /// Lets `position` take part from now on, with `value` and all that was ever added to it.
    fn open(&mut self, position: usize, value: f64) {
        let leaf = self.leaves + position;
        self.max[leaf] = value + self.added[leaf];
        self.refresh_above(leaf);
    }

    /// Adds `amount` at `position` and everywhere after it.
    fn add_from(&mut self, position: usize, amount: f64) {
        let leaf = self.leaves + position;
        self.add(leaf, amount);
        let mut node = leaf;
        while node > 1 {
            if node.is_multiple_of(2) {
                self.add(node + 1, amount);
            }
            node /= 2;
        }
        self.refresh_above(leaf);
    }

    fn maximum(&self) -> f64 {
        self.max[1]
    }

    fn add(&mut self, node: usize, amount: f64) {
        self.max[node] += amount;
        self.added[node] += amount;
    }

    fn refresh_above(&mut self, leaf: usize) {
        let mut node = leaf / 2;
        while node > 0 {
            self.max[node] = self.max[2 * node].max(self.max[2 * node + 1]) + self.added[node];
            node /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Admitted, Attempt, denied_in_contract, over_admission};
    use forebay_traces::generator::SeededRandom;

    fn instant(at_us: u64) -> Admitted {
        Admitted {
            sent_us: at_us,
            answered_us: at_us,
        }
    }

    /// The definition, word for word.
    fn by_all_pairs(admitted: &[Admitted], rate_per_s: f64, burst: f64) -> f64 {
        let mut worst = 0.0_f64;
        for from in admitted {
            for to in admitted.iter().filter(|to| to.answered_us >= from.sent_us) {
                let inside = admitted
                    .iter()
                    .filter(|a| a.sent_us >= from.sent_us && a.answered_us <= to.answered_us)
                    .count() as f64;
                let seconds = (to.answered_us - from.sent_us) as f64 / 1e6;
                worst = worst.max(inside - burst - rate_per_s * seconds);
            }
        }
        worst
    }

    #[test]
    fn a_full_burst_and_the_rate_after_it_are_allowed() {
        let mut admitted: Vec<Admitted> = (0..50).map(|_| instant(0)).collect();
        admitted.extend((1..=100).map(|i| instant(i * 10_000)));
        assert_eq!(over_admission(&admitted, 100.0, 50.0), 0.0);
    }

    #[test]
    fn one_token_too_many_is_seen_wherever_it_lies() {
        let mut admitted: Vec<Admitted> = (0..200).map(|i| instant(i * 10_000)).collect();
        admitted.extend((0..50).map(|_| instant(1_005_000)));
        let worst = over_admission(&admitted, 100.0, 50.0);
        assert!((0.0..=1.5).contains(&worst), "{worst}");
        assert!(worst > 0.0);
    }

    #[test]
    fn a_request_in_flight_is_given_the_benefit_of_the_doubt() {
        // Two answers at once, but one request was sent long before: no interval is proven to hold both.
        let admitted = [
            Admitted {
                sent_us: 0,
                answered_us: 1_000_000,
            },
            instant(1_000_000),
        ];
        assert_eq!(over_admission(&admitted, 1.0, 1.0), 0.0);
        assert_eq!(over_admission(&[instant(5), instant(5)], 1.0, 1.0), 1.0);
    }

    #[test]
    fn a_denial_counts_as_in_contract_only_while_the_contract_has_a_token() {
        let at = |sent_us, admitted| Attempt { sent_us, admitted };
        // Burst 2, 1 token per second: two admitted, then empty until 1 s later.
        let attempts = [
            at(0, true),
            at(0, true),
            at(500_000, false),
            at(1_000_000, false),
            at(1_000_001, true),
        ];
        assert_eq!(denied_in_contract(&attempts, 1.0, 2.0, 0), 1);
        assert_eq!(denied_in_contract(&attempts, 1.0, 2.0, 1_000_001), 0);
    }

    #[test]
    fn it_agrees_with_the_definition() {
        for seed in 0..50 {
            let mut random = SeededRandom::new(seed);
            let admitted: Vec<Admitted> = (0..40)
                .map(|_| {
                    let sent_us = (random.uniform() * 1e6) as u64;
                    Admitted {
                        sent_us,
                        answered_us: sent_us + (random.uniform() * 2e5) as u64,
                    }
                })
                .collect();
            let (fast, slow) = (
                over_admission(&admitted, 20.0, 3.0),
                by_all_pairs(&admitted, 20.0, 3.0),
            );
            assert!((fast - slow).abs() < 1e-6, "seed {seed}: {fast} and {slow}");
        }
    }
}
