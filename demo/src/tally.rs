//! The last second, per customer: what the live view shows of the traffic.

use crate::client::{Answer, Outcome};

/// How far back the view looks.
const WINDOW_US: u64 = 1_000_000;

/// One customer's last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests.
    pub demand: u64,
    /// Admitted within the forecast.
    pub shadow: u64,
    /// Admitted by the standard bucket, or borrowed.
    pub standard: u64,
    /// Denied because the pool had nothing to spare.
    pub denied_by_pool: u64,
    /// Denied because the contract was used up.
    pub denied_by_contract: u64,
}

/// Sums up the answers of the last second before `now_us`, newest last in `answers`.
pub(crate) fn last_second(answers: &[Answer], customers: usize, now_us: u64) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); customers];
    let since = now_us.saturating_sub(WINDOW_US);
    for answer in answers.iter().rev() {
        // Answers are in order of arrival; a slow one may be older than those before it, but not by more than this.
        if answer.answered_us < since {
            break;
        }
        let Some(tally) = tallies.get_mut(answer.customer) else {
            continue;
        };
        tally.demand += 1;
        match answer.outcome {
            Outcome::ServedShadow => tally.shadow += 1,
            Outcome::ServedStandard | Outcome::ServedOther | Outcome::Overloaded => {
                tally.standard += 1
            }
            Outcome::DeniedByPool => tally.denied_by_pool += 1,
            Outcome::DeniedByContract => tally.denied_by_contract += 1,
            Outcome::DeniedOther | Outcome::Failed => {}
        }
    }
    tallies
}

#[cfg(test)]
mod tests {
    use super::{Tally, last_second};
    use crate::client::{Answer, Outcome};

    #[test]
    fn only_the_last_second_counts() {
        let answer = |answered_us, outcome| Answer {
            customer: 1,
            due_us: 0,
            sent_us: 0,
            answered_us,
            outcome,
        };
        let answers = [
            answer(100_000, Outcome::ServedShadow),
            answer(1_600_000, Outcome::DeniedByPool),
            answer(2_000_000, Outcome::ServedStandard),
        ];
        let tallies = last_second(&answers, 2, 2_000_000);
        assert_eq!(tallies[0], Tally::default());
        assert_eq!(
            tallies[1],
            Tally {
                demand: 2,
                standard: 1,
                denied_by_pool: 1,
                ..Tally::default()
            }
        );
    }
}
