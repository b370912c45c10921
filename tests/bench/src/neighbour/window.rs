//! What came of the requests of one window, by whose they were.

use std::time::Duration;

use super::backend::Work;
use super::scene::{Customer, NEIGHBOUR_RATE_PER_S, Route};
use super::sender::Answer;

/// Of one window, or of several added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) seconds: f64,
    /// How long each of the others' admitted requests took, in microseconds.
    pub(super) took_us: Vec<u32>,
    pub(super) others: Count,
    pub(super) tiers: [Count; 3],
    /// By the listener that leads to the backend.
    pub(super) neighbour: Count,
    /// How late requests were sent, in microseconds.
    pub(super) late_us: Vec<u32>,
    /// By the backend.
    pub(super) served: f64,
    pub(super) longest_wait: Duration,
    /// The part of the machine that others had, times the seconds.
    pub(super) others_cpu_s: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) sent: u64,
    pub(super) admitted: u64,
}

// === impl Count ===

impl Count {
    fn add(&mut self, is_admitted: bool) {
        self.sent += 1;
        self.admitted += u64::from(is_admitted);
    }

    pub(super) fn denied_share(self) -> f64 {
        (self.sent - self.admitted) as f64 / self.sent.max(1) as f64
    }

    fn join(&mut self, other: Self) {
        self.sent += other.sent;
        self.admitted += other.admitted;
    }
}

// === impl Window ===

impl Window {
    /// Of the answers to what was due between `from` and `to`, both in microseconds after the start.
    pub(super) fn of(answers: &[Answer], customers: &[Customer], from: u64, to: u64) -> Self {
        let mut window = Self {
            seconds: (to - from) as f64 / 1e6,
            ..Self::default()
        };
        for answer in answers {
            let arrival = answer.arrival;
            if arrival.at_us < from || arrival.at_us >= to {
                continue;
            }
            window.late_us.push(micros(answer.late));
            let customer = &customers[arrival.customer];
            let is_admitted = answer.status == 200;
            if customer.is_neighbour {
                if arrival.route != Route::Refused {
                    window.neighbour.add(is_admitted);
                }
                continue;
            }
            window.others.add(is_admitted);
            window.tiers[usize::from(customer.tier) - 1].add(is_admitted);
            if is_admitted {
                window.took_us.push(micros(answer.took));
            }
        }
        window
    }

    /// What the backend did from the start of the window, which was so long, as if all of it were like the whole.
    pub(super) fn add_work(&mut self, work: Work, length_us: u64) {
        self.served = work.served as f64 * self.seconds * 1e6 / length_us as f64;
        self.longest_wait = work.longest_wait;
    }

    pub(super) fn sum(windows: &[Self]) -> Self {
        let mut sum = Self::default();
        for window in windows {
            sum.seconds += window.seconds;
            sum.took_us.extend(&window.took_us);
            sum.late_us.extend(&window.late_us);
            sum.others.join(window.others);
            sum.neighbour.join(window.neighbour);
            for (tier, more) in sum.tiers.iter_mut().zip(window.tiers) {
                tier.join(more);
            }
            sum.served += window.served;
            sum.longest_wait = sum.longest_wait.max(window.longest_wait);
            sum.others_cpu_s += window.others_cpu_s;
        }
        sum
    }

    /// What the neighbour was admitted, in contracts of it.
    pub(super) fn neighbour_contracts(&self) -> f64 {
        self.neighbour.admitted as f64 / self.seconds / f64::from(NEIGHBOUR_RATE_PER_S)
    }

    pub(super) fn others_cpu(&self) -> f64 {
        self.others_cpu_s / self.seconds
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Arrival, customers};
    use super::*;

    const NEIGHBOUR: usize = 20;

    fn answer(at_us: u64, customer: usize, route: Route, status: u16) -> Answer {
        Answer {
            arrival: Arrival {
                at_us,
                customer,
                gateway: 0,
                route,
            },
            status,
            late: Duration::from_micros(100),
            took: Duration::from_millis(30),
        }
    }

    #[test]
    fn what_was_due_in_the_window_counts_for_whose_it_was() {
        let customers = customers();
        assert!(customers[NEIGHBOUR].is_neighbour);
        let answers = [
            answer(999_999, 0, Route::Admitted, 429),
            answer(1_000_000, 0, Route::Admitted, 200),
            answer(1_500_000, 0, Route::Admitted, 429),
            answer(1_600_000, 19, Route::Open, 200),
            answer(1_700_000, NEIGHBOUR, Route::Admitted, 200),
            answer(1_800_000, NEIGHBOUR, Route::Admitted, 429),
            answer(1_900_000, NEIGHBOUR, Route::Refused, 429),
            answer(3_000_000, 0, Route::Admitted, 429),
        ];
        let window = Window::of(&answers, &customers, 1_000_000, 3_000_000);
        let count = |sent, admitted| Count { sent, admitted };
        assert_eq!(window.others, count(3, 2));
        assert_eq!(window.tiers, [count(2, 1), count(0, 0), count(1, 1)]);
        assert_eq!(window.neighbour, count(2, 1));
        assert_eq!(window.took_us, [30_000, 30_000]);
        assert_eq!(window.late_us.len(), 6);
        let sum = Window::sum(&[window.clone(), window]);
        assert_eq!(sum.others, count(6, 4));
        assert!((sum.others.denied_share() - 1.0 / 3.0).abs() < 1e-12);
        assert!((sum.neighbour_contracts() - 2.0 / 4.0 / 50.0).abs() < 1e-12);
    }
}
