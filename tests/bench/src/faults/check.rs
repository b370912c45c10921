//! Whether more was admitted than a contract allows, in any span of time.
//!
//! A client knows when it sent a request and when it had the answer; the decision was made in between. So a span of requests surely lies
//! between the first sending and the last answer, and `burst + rate x length` bounds it. The bound is that much wider than the truth as an
//! answer takes, a few milliseconds.

use std::time::Duration;

/// An admitted request: when it was sent and answered, since one moment for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    pub(super) sent: Duration,
    pub(super) answered: Duration,
}

/// Requests above what a bucket allows, at worst over all spans; 0 when none has too many.
pub(super) fn excess(admissions: &[Admission], rate_per_s: f64, burst: f64) -> f64 {
    let mut sorted = admissions.to_vec();
    sorted.sort_by_key(|admission| admission.answered);
    // The span that begins with a request must hold all that were answered later, also those sent before it.
    let mut earliest = Duration::MAX;
    let mut starts: Vec<Duration> = Vec::new();
    for admission in sorted.iter().rev() {
        earliest = earliest.min(admission.sent);
        starts.push(earliest);
    }
    starts.reverse();
    let (mut best_start, mut worst) = (f64::NEG_INFINITY, 0.0_f64);
    for (number, (admission, start)) in sorted.iter().zip(&starts).enumerate() {
        best_start = best_start.max(rate_per_s * start.as_secs_f64() - number as f64);
        let so_far = (number + 1) as f64 - rate_per_s * admission.answered.as_secs_f64();
        worst = worst.max(so_far + best_start - burst);
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: &[u64]) -> Vec<Admission> {
        let admission = |at: &u64| Admission {
            sent: Duration::from_millis(*at),
            answered: Duration::from_millis(*at),
        };
        millis.iter().map(admission).collect()
    }

    #[test]
    fn what_a_bucket_allows_is_no_excess_and_one_more_is() {
        // 10 a second, burst 3: three at once, then one each 100 ms.
        let mut allowed = at(&[5_000, 5_000, 5_000, 5_100, 5_200, 5_300]);
        assert!(excess(&allowed, 10.0, 3.0) < 1e-9);
        allowed.extend(at(&[5_300]));
        assert!((excess(&allowed, 10.0, 3.0) - 1.0).abs() < 1e-9);
        // Idle time is worth no more than the burst.
        let after_idling = at(&[0, 60_000, 60_000, 60_000, 60_000]);
        assert!((excess(&after_idling, 10.0, 3.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_decision_may_have_been_made_at_any_time_before_the_answer() {
        let slow = Admission {
            sent: Duration::ZERO,
            answered: Duration::from_secs(1),
        };
        let mut admissions = vec![slow; 4];
        assert!(excess(&admissions, 1.0, 3.0) < 1e-9);
        admissions.push(slow);
        assert!((excess(&admissions, 1.0, 3.0) - 1.0).abs() < 1e-9);
    }
}
