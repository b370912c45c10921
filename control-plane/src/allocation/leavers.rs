//! Who had an allocation and has none any more: gateways must be told, and whoever comes back has the credits that it left with.
//!
//! Without that a customer in debt would leave a cycle and come back with what a newcomer has, and one that has lent for months would lose it by a quiet
//! hour. Both ways the others would pay or gain. They are remembered for a bounded time and number; when there are too many, those whose credits differ
//! least from a newcomer's are forgotten first, because it changes least for them. To keep everybody for good was the worse alternative: customers outside
//! the policy may be as many as there are addresses.

use super::book::Book;
use forebay_wire::key::CustomerHash;
use std::cmp::Reverse;

/// Who has left is remembered for so long: a quarter of a year.
const KEPT_MS: u64 = 90 * 86_400_000;
/// And so many of them are.
const LEAVERS_MOST: usize = 100_000;
/// Whoever asks for something so many cycles after it has left has a claim on nothing until the next one; later than that it is somebody new to gateways.
const LATELY: u64 = 12;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Leaver {
    pub(crate) hash: CustomerHash,
    /// The first cycle without it.
    pub(crate) left_in: u64,
    /// When that came into force.
    pub(crate) at_unix_ms: u64,
    /// Its credits then.
    pub(crate) credits: f64,
}

/// All that are remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leavers {
    /// By hash.
    pub(crate) all: Vec<Leaver>,
    /// Whoever has left in a later cycle than this is among them, or is back.
    pub(crate) whole_since: u64,
}

// === impl Leavers ===

impl Leavers {
    fn of(&self, customer: CustomerHash) -> Option<&Leaver> {
        let place = self.all.binary_search_by(|left| left.hash.cmp(&customer));
        self.all.get(place.ok()?)
    }

    /// With how many credits a customer comes back.
    pub(crate) fn credits_of(&self, customer: CustomerHash, now_unix_ms: u64) -> Option<f64> {
        let left = self.of(customer)?;
        let is_kept = now_unix_ms.saturating_sub(left.at_unix_ms) < KEPT_MS;
        is_kept.then_some(left.credits)
    }

    /// Whether a customer has left in one of the last cycles before `number`.
    pub(super) fn left_lately(&self, customer: CustomerHash, number: u64) -> bool {
        let left = self.of(customer);
        left.is_some_and(|left| is_late(left, number))
    }

    /// Who has left in later cycles than this.
    pub(crate) fn since(&self, cycle: u64) -> impl Iterator<Item = CustomerHash> {
        let left = self.all.iter().filter(move |left| left.left_in > cycle);
        left.map(|left| left.hash)
    }

    /// Those who are remembered with a new cycle: `credits` are those of the customers of the one before, `newcomers` a newcomer's.
    pub(super) fn after(before: &Book, credits: &[f64], book: &Book, newcomers: f64) -> Self {
        let had = before.entries.iter().zip(credits);
        let new = had.map(|(entry, credits)| Leaver {
            hash: entry.hash,
            left_in: book.number,
            at_unix_ms: book.at_unix_ms,
            credits: *credits,
        });
        let kept = before.leavers.all.iter().copied();
        let is_away = |left: &Leaver| book.entry(left.hash).is_none();
        let mut whole_since = before.leavers.whole_since;
        let mut all: Vec<Leaver> = kept.chain(new).filter(is_away).collect();
        all.retain(|left| {
            let is_kept = book.at_unix_ms.saturating_sub(left.at_unix_ms) < KEPT_MS;
            if !is_kept {
                whole_since = whole_since.max(left.left_in);
            }
            is_kept
        });
        let beside = |left: &Leaver| (left.credits - newcomers).abs();
        if all.len() > LEAVERS_MOST {
            all.sort_unstable_by(|one, other| {
                let order = |left: &Leaver| Reverse(is_late(left, book.number));
                let by_time = order(one).cmp(&order(other));
                let by_credits = by_time.then_with(|| beside(other).total_cmp(&beside(one)));
                by_credits.then_with(|| one.hash.cmp(&other.hash))
            });
            for left in all.drain(LEAVERS_MOST..) {
                whole_since = whole_since.max(left.left_in);
            }
        }
        all.sort_unstable_by_key(|left| left.hash);
        Self { all, whole_since }
    }
}

fn is_late(left: &Leaver, number: u64) -> bool {
    left.left_in.saturating_add(LATELY) > number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaver(number: u32, left_in: u64, credits: f64) -> Leaver {
        let mut hash = [0; 16];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Leaver {
            hash: CustomerHash(hash),
            left_in,
            at_unix_ms: left_in * 300_000,
            credits,
        }
    }

    fn book(number: u64, all: Vec<Leaver>) -> Book {
        Book {
            number,
            at_unix_ms: number * 300_000,
            leavers: Leavers {
                all,
                whole_since: 0,
            },
            ..Book::default()
        }
    }

    #[test]
    fn of_too_many_those_are_forgotten_that_have_what_a_newcomer_has_and_then_nobody_says_that_all_are_known()
     {
        let many = u32::try_from(LEAVERS_MOST).unwrap();
        let mut all: Vec<Leaver> = (0..many).map(|number| leaver(number, 500, 1.0)).collect();
        // It left long ago with what a newcomer has, and another one with a debt.
        all.push(leaver(many, 400, 1.0));
        all.push(leaver(many + 1, 300, -9.0));
        // And this one has just left with nothing special.
        all.push(leaver(many + 2, 999, 1.0));
        let before = book(999, all);
        let after = Leavers::after(&before, &[], &book(1_000, Vec::new()), 1.0);
        assert_eq!(after.all.len(), LEAVERS_MOST);
        let debtor = leaver(many + 1, 0, 0.0).hash;
        assert_eq!(after.credits_of(debtor, 0), Some(-9.0));
        assert!(after.left_lately(leaver(many + 2, 0, 0.0).hash, 1_000));
        assert_eq!(after.whole_since, 500);
    }

    #[test]
    fn who_has_left_is_forgotten_after_a_quarter_of_a_year() {
        let before = book(9, vec![leaver(1, 5, -3.0)]);
        let at = |passed_ms| Book {
            at_unix_ms: 5 * 300_000 + passed_ms,
            ..book(10, Vec::new())
        };
        let kept = Leavers::after(&before, &[], &at(KEPT_MS - 1), 0.0);
        assert_eq!((kept.all.len(), kept.whole_since), (1, 0));
        let late_unix_ms = 5 * 300_000 + KEPT_MS;
        assert_eq!(kept.credits_of(leaver(1, 0, 0.0).hash, late_unix_ms), None);
        let gone = Leavers::after(&before, &[], &at(KEPT_MS), 0.0);
        assert_eq!((gone.all.len(), gone.whole_since), (0, 5));
    }
}
