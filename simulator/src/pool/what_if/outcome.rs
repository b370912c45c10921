//! What became of each customer under a policy.

/// Under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// One for each customer.
    pub tallies: Vec<Tally>,
    /// Who lent to whom, the largest first.
    pub loans: Vec<Loan>,
    /// Whether small loans have been left out.
    pub is_cut: bool,
}

/// Sums of a customer, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// What was asked for.
    pub asked: f64,
    /// What of it was admitted.
    pub admitted: f64,
    /// What the contract denied.
    pub denied_by_contract: f64,
    /// What the contract would have let through, and the pool did not.
    pub denied_by_pool: f64,
    /// What was denied because the customer is banned, frozen or unknown.
    pub refused: f64,
    /// Seconds in which the customer asked for no more than its guarantee and the pool denied something.
    pub guarantee_missed_s: u64,
    /// What of its guarantee others had, in tokens per second times seconds.
    pub lent: f64,
    /// What it had of others' guarantees.
    pub borrowed: f64,
}

/// What one customer had of another's guarantee.
///
/// Loans are reckoned from sums: nobody lends to anybody in particular. Of all that is lent in a cycle a borrower has the same part of each lender's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loan {
    /// Position of who lent.
    pub lender: usize,
    /// Position of who borrowed.
    pub borrower: usize,
    /// Tokens per second times seconds.
    pub token_seconds: f64,
}

// === impl Outcome ===

impl Outcome {
    /// All customers together.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.tallies
            .iter()
            .fold(Tally::default(), |sum, tally| Tally {
                asked: sum.asked + tally.asked,
                admitted: sum.admitted + tally.admitted,
                denied_by_contract: sum.denied_by_contract + tally.denied_by_contract,
                denied_by_pool: sum.denied_by_pool + tally.denied_by_pool,
                refused: sum.refused + tally.refused,
                guarantee_missed_s: sum.guarantee_missed_s + tally.guarantee_missed_s,
                lent: sum.lent + tally.lent,
                borrowed: sum.borrowed + tally.borrowed,
            })
    }
}
