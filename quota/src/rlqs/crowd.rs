//! Which part of a customer's bucket each Envoy has, where several ask for the same customer: the part that its demand is of theirs.

use super::share::PPM;
use crate::desk::Account;
use forebay_core::Rate;
use hashbrown::HashMap;

/// An Envoy's bucket among others of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seat(u64);

/// All seats together have this part whatever they ask for, so that a first request finds something.
const WHATEVER_PPM: u64 = 100_000;
/// Of that, one seat has no more than this.
const WHATEVER_ONE_PPM: u64 = 20_000;

/// Who asks for whom, and how much.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    last_seat: u64,
    accounts: HashMap<Account, Seats>,
}

/// Those who ask for one account, with their sums: one look must not pass over all of them.
#[derive(Debug, Default)]
struct Seats {
    demands: HashMap<Seat, Option<Rate>>,
    known: u64,
    sum: u128,
}

// === impl Crowd ===

impl Crowd {
    /// A seat for one more bucket.
    pub(crate) fn seat(&mut self) -> Seat {
        self.last_seat = self.last_seat.wrapping_add(1);
        Seat(self.last_seat)
    }

    /// Notes what an Envoy asks for; `None` while that is not known, which counts as much as what the others ask for on average.
    pub(crate) fn asks(&mut self, account: &Account, seat: Seat, demand: Option<Rate>) {
        let seats = self.accounts.entry(*account).or_default();
        let before = seats.demands.insert(seat, demand);
        seats.forget(before.flatten());
        if let Some(demand) = demand {
            seats.known += 1;
            seats.sum += u128::from(demand.get());
        }
    }

    /// Forgets an Envoy.
    pub(crate) fn leaves(&mut self, account: &Account, seat: Seat) {
        if let Some(seats) = self.accounts.get_mut(account) {
            let before = seats.demands.remove(&seat);
            seats.forget(before.flatten());
            if seats.demands.is_empty() {
                self.accounts.remove(account);
            }
        }
    }

    /// An Envoy's part in millionths. All parts together are at most [`PPM`].
    pub(crate) fn part_ppm(&self, account: &Account, seat: Seat) -> u64 {
        let Some(seats) = self.accounts.get(account) else {
            return PPM;
        };
        let count = seats.demands.len() as u64;
        let even = PPM.checked_div(count).unwrap_or(PPM);
        let mean = seats.sum.checked_div(seats.known.into());
        let (Some(demand), Some(mean)) = (seats.demands.get(&seat), mean) else {
            return even;
        };
        let asks = demand.map_or(mean, |demand| demand.get().into());
        let all = seats.sum + mean * u128::from(count - seats.known);
        let whatever = WHATEVER_PPM
            .checked_div(count)
            .unwrap_or(0)
            .min(WHATEVER_ONE_PPM);
        let of_demand = PPM.saturating_sub(whatever.saturating_mul(count));
        let part = (u128::from(of_demand) * asks).checked_div(all);
        part.map_or(even, |part| {
            whatever.saturating_add(u64::try_from(part).unwrap_or(0))
        })
    }
}

// === impl Seats ===

impl Seats {
    fn forget(&mut self, demand: Option<Rate>) {
        if let Some(demand) = demand {
            self.known -= 1;
            self.sum -= u128::from(demand.get());
        }
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
            .map(|seat| crowd.part_ppm(&account(0), *seat) / 1_000);
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
            let sum: u64 = parts(&demands).iter().sum();
            assert!(sum <= 1_000, "{sum}");
        }
        let mut quiet = vec![0; 1_000];
        quiet.push(7);
        assert!(
            parts(&quiet).last() >= Some(&900),
            "whoever is alone with a demand has it"
        );
    }

    #[test]
    fn who_is_alone_or_left_alone_has_all_of_it() {
        let (mut crowd, seats) = crowd(&[30, 10]);
        crowd.leaves(&account(0), seats.first().copied().unwrap_or(Seat(0)));
        assert_eq!(crowd.part_ppm(&account(0), Seat(2)), PPM);
        assert_eq!(crowd.part_ppm(&account(1), Seat(2)), PPM);
    }
}
