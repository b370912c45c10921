//! Which part of a customer's bucket each Envoy has, where several ask for the same customer: the part that its demand is of theirs.

use crate::desk::Account;
use forebay_core::Rate;
use hashbrown::HashMap;

/// An Envoy's bucket among others of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seat(u64);

/// Everybody counts as if it asked for this part of what all ask for, so that a first request finds something.
const LEAST_PERMILLE: u64 = 20;

/// Who asks for whom, and how much.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    last_seat: u64,
    accounts: HashMap<Account, HashMap<Seat, Option<Rate>>>,
}

// === impl Crowd ===

impl Crowd {
    /// A seat for one more Envoy.
    pub(crate) fn seat(&mut self) -> Seat {
        self.last_seat = self.last_seat.wrapping_add(1);
        Seat(self.last_seat)
    }

    /// Notes what an Envoy asks for; `None` while that is not known, which counts as much as what the others ask for on average.
    pub(crate) fn asks(&mut self, account: &Account, seat: Seat, demand: Option<Rate>) {
        let seats = self.accounts.entry(*account).or_default();
        seats.insert(seat, demand);
    }

    /// Forgets an Envoy.
    pub(crate) fn leaves(&mut self, account: &Account, seat: Seat) {
        if let Some(seats) = self.accounts.get_mut(account) {
            seats.remove(&seat);
            if seats.is_empty() {
                self.accounts.remove(account);
            }
        }
    }

    /// An Envoy's part. All parts together are at most 1000.
    pub(crate) fn part_permille(&self, account: &Account, seat: Seat) -> u64 {
        let Some(seats) = self.accounts.get(account) else {
            return 1_000;
        };
        let count = seats.len() as u64;
        let of_demand = 1_000_u64.saturating_sub(count.saturating_mul(LEAST_PERMILLE));
        let even = 1_000_u64.checked_div(count).unwrap_or(1_000);
        let known = || {
            seats
                .values()
                .flatten()
                .map(|demand| u128::from(demand.get()))
        };
        let mean = known().sum::<u128>().checked_div(known().count() as u128);
        let (Some(demand), Some(mean)) = (seats.get(&seat).filter(|_| of_demand > 0), mean) else {
            return even;
        };
        let of = |demand: &Option<Rate>| demand.map_or(mean, |demand| u128::from(demand.get()));
        let all: u128 = seats.values().map(of).sum();
        let part = (u128::from(of_demand) * of(demand)).checked_div(all);
        part.map_or(even, |part| {
            LEAST_PERMILLE.saturating_add(u64::try_from(part).unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::{CustomerHash, ResourceIndex};

    fn account(number: u8) -> Account {
        Account::of(CustomerHash([number; 16]), ResourceIndex::FIRST)
    }

    const UNKNOWN: u64 = 1_000_000;

    fn crowd(demands: &[u64]) -> (Crowd, Vec<Seat>) {
        let mut crowd = Crowd::default();
        let seats: Vec<Seat> = demands.iter().map(|_| crowd.seat()).collect();
        for (seat, demand) in seats.iter().zip(demands) {
            let demand = (*demand != UNKNOWN).then_some(Rate::from_tokens_per_s(*demand));
            crowd.asks(&account(0), *seat, demand);
        }
        (crowd, seats)
    }

    fn parts(demands: &[u64]) -> Vec<u64> {
        let (crowd, seats) = crowd(demands);
        let parts = seats
            .iter()
            .map(|seat| crowd.part_permille(&account(0), *seat));
        parts.collect()
    }

    #[test]
    fn each_has_the_part_that_its_demand_is_and_all_together_have_no_more_than_all() {
        assert_eq!(parts(&[7]), [1_000]);
        assert_eq!(parts(&[0, 0]), [500, 500]);
        assert_eq!(parts(&[30, 10]), [740, 260]);
        assert_eq!(parts(&[30, 0]), [980, 20]);
        assert_eq!(parts(&[30, UNKNOWN]), [500, 500]);
        assert_eq!(parts(&[0, UNKNOWN]), [500, 500]);
        assert_eq!(parts(&[UNKNOWN, UNKNOWN]), [500, 500]);
        for demands in [vec![1; 49], vec![1; 50], vec![3; 2_000], vec![u64::MAX; 3]] {
            assert!(parts(&demands).iter().sum::<u64>() <= 1_000);
        }
    }

    #[test]
    fn who_is_alone_or_left_alone_has_all_of_it() {
        let (mut crowd, seats) = crowd(&[30, 10]);
        crowd.leaves(&account(0), seats.first().copied().unwrap_or(Seat(0)));
        assert_eq!(crowd.part_permille(&account(0), Seat(2)), 1_000);
        assert_eq!(crowd.part_permille(&account(1), Seat(2)), 1_000);
    }
}
