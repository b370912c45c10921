//! Who lent to whom, from what each has lent and borrowed in a cycle.

use super::outcome::Loan;
use forebay_sharing::Part;
use std::collections::BTreeMap;

/// Lenders, and borrowers, of a cycle that loans are told apart of: those with most.
const PARTIES_MOST: usize = 100;
/// Pairs that are remembered.
const PAIRS_MOST: usize = 100_000;

/// Loans up to now.
#[derive(Clone, Debug, Default)]
pub(super) struct Loans {
    /// By lender and borrower, in tokens per second times seconds.
    pairs: BTreeMap<(usize, usize), f64>,
    is_cut: bool,
}

/// What each customer lends and borrows in a cycle, in tokens per second. What is lent is what is borrowed.
pub(super) fn lent_and_borrowed(parts: &[Part]) -> Vec<(f64, f64)> {
    let lent: f64 = parts.iter().map(|part| part.lent_per_s).sum();
    let shared: f64 = parts.iter().map(|part| part.shared_per_s).sum();
    let of_pool: f64 = parts.iter().map(Part::of_pool_per_s).sum();
    // What linked accounts have not taken is in the pool, where nobody's part of it differs from another's.
    let part_lent = if of_pool > 0.0 {
        ((lent - shared).max(0.0) / of_pool).min(1.0)
    } else {
        0.0
    };
    let each = parts.iter();
    each.map(|part| {
        let borrowed = part.shared_per_s + part.of_pool_per_s() * part_lent;
        (part.lent_per_s, borrowed)
    })
    .collect()
}

// === impl Loans ===

impl Loans {
    /// Adds a cycle of so many seconds.
    pub(super) fn add(&mut self, lent_and_borrowed: &[(f64, f64)], seconds: f64) {
        let lenders = self.largest(lent_and_borrowed.iter().map(|(lent, _)| *lent));
        let borrowers = self.largest(lent_and_borrowed.iter().map(|(_, borrowed)| *borrowed));
        let all: f64 = lent_and_borrowed.iter().map(|(_, borrowed)| borrowed).sum();
        for (lender, lent) in &lenders {
            for (borrower, borrowed) in &borrowers {
                if lender == borrower {
                    continue;
                }
                let token_seconds = lent * borrowed / all * seconds;
                let is_full = self.pairs.len() >= PAIRS_MOST;
                match self.pairs.get_mut(&(*lender, *borrower)) {
                    Some(sum) => *sum += token_seconds,
                    None if is_full => self.is_cut = true,
                    None => {
                        self.pairs.insert((*lender, *borrower), token_seconds);
                    }
                }
            }
        }
    }

    /// The largest first, and whether any were left out.
    pub(super) fn into_list(self) -> (Vec<Loan>, bool) {
        let mut loans: Vec<Loan> = self
            .pairs
            .into_iter()
            .map(|((lender, borrower), token_seconds)| Loan {
                lender,
                borrower,
                token_seconds,
            })
            .collect();
        loans.sort_by(|one, other| other.token_seconds.total_cmp(&one.token_seconds));
        (loans, self.is_cut)
    }

    fn largest(&mut self, amounts: impl Iterator<Item = f64>) -> Vec<(usize, f64)> {
        let mut some: Vec<(usize, f64)> = amounts
            .enumerate()
            .filter(|(_, amount)| *amount > 0.0)
            .collect();
        if some.len() > PARTIES_MOST {
            some.sort_by(|one, other| other.1.total_cmp(&one.1));
            some.truncate(PARTIES_MOST);
            self.is_cut = true;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_borrower_has_the_same_part_of_each_lenders_and_all_that_is_lent_is_borrowed() {
        let part = |lent_per_s, bought_per_s| Part {
            lent_per_s,
            bought_per_s,
            ..Part::default()
        };
        let each = lent_and_borrowed(&[
            part(6.0, 0.0),
            part(3.0, 0.0),
            part(0.0, 8.0),
            part(0.0, 4.0),
        ]);
        assert_eq!(each, [(6.0, 0.0), (3.0, 0.0), (0.0, 6.0), (0.0, 3.0)]);
        let mut loans = Loans::default();
        loans.add(&each, 10.0);
        let (list, is_cut) = loans.into_list();
        let list: Vec<(usize, usize, f64)> = list
            .iter()
            .map(|loan| (loan.lender, loan.borrower, loan.token_seconds))
            .collect();
        assert_eq!(
            list,
            [(0, 2, 40.0), (0, 3, 20.0), (1, 2, 20.0), (1, 3, 10.0)]
        );
        assert!(!is_cut);
    }

    #[test]
    fn of_many_the_largest_are_kept_and_it_is_said_that_some_are_not() {
        let mut each: Vec<(f64, f64)> = (0..150).map(|lent| (f64::from(lent), 0.0)).collect();
        each.push((0.0, 9_999.0));
        let mut loans = Loans::default();
        loans.add(&each, 1.0);
        let (list, is_cut) = loans.into_list();
        assert_eq!((list.len(), list[0].lender), (PARTIES_MOST, 149));
        assert!(is_cut);
    }
}
