//! The tests of a draw for one resource, in order. What they look at is a handful of numbers; so the truth table of tiers,
//! floors, debts and borrowing can be written down and checked without a ledger.

use crate::amount::Micro;
use crate::verdict::Reason;

/// What one resource has to say to a request of one customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Level of the standard bucket.
    pub contract: Micro,
    /// How far a foreseen request may overdraw it.
    pub debt_limit: Micro,
    /// Guarantee credit.
    pub credit: Micro,
    /// Claims in the shadow bucket.
    pub shadow: Micro,
    /// Borrow allowance.
    pub borrow: Micro,
    /// The pool; [`PoolStanding::UNBOUNDED`] if there is none.
    pub pool: PoolStanding,
}

/// What the pool has to say to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStanding {
    /// Level of the pool.
    pub level: Micro,
    /// Guarantee credit of the other customers.
    pub others_credit: Micro,
    /// Protected stock of the other customers.
    pub others_protected: Micro,
    /// What the customer's tier must leave.
    pub floor: Micro,
}

/// The test that a request passed on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// a: guarantee credit, contract and pool have it.
    Guaranteed,
    /// b: the claim has it, the contract (with its debt limit) has it, and the pool less the others' credit has it.
    Claimed,
    /// c: the contract has it, and the pool less the others' protected stock and the floor has it.
    Plain,
    /// d: the borrow allowance has it, and the pool as in c.
    Borrowed,
}

// === impl Standing ===

impl Standing {
    /// The first test that a request of `cost` passes, or what stood in the way (e).
    pub fn test(&self, cost: Micro) -> Result<Test, Reason> {
        if self.credit >= cost && self.contract >= cost && self.pool.level >= cost {
            return Ok(Test::Guaranteed);
        }
        if self.shadow >= cost
            && self.contract.plus(self.debt_limit) >= cost
            && self.pool.for_claims() >= cost
        {
            return Ok(Test::Claimed);
        }
        let pool_has_it = self.pool.for_plain() >= cost;
        if self.contract >= cost && pool_has_it {
            return Ok(Test::Plain);
        }
        if self.borrow >= cost && pool_has_it {
            return Ok(Test::Borrowed);
        }
        let contract_has_it = self.contract >= cost || self.borrow >= cost;
        Err(if contract_has_it {
            Reason::Pool
        } else {
            Reason::Contract
        })
    }
}

// === impl PoolStanding ===

impl PoolStanding {
    /// A resource without a configured capacity.
    pub const UNBOUNDED: PoolStanding = PoolStanding {
        level: Micro::new(i64::MAX),
        others_credit: Micro::ZERO,
        others_protected: Micro::ZERO,
        floor: Micro::ZERO,
    };

    /// What a claim may take: all but the credit of others.
    #[must_use]
    pub const fn for_claims(&self) -> Micro {
        self.level.minus(self.others_credit)
    }

    /// What anyone may take: all but what is protected for others, and the tier's floor.
    #[must_use]
    pub const fn for_plain(&self) -> Micro {
        self.level.minus(self.others_protected).minus(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Tier;

    fn tokens(tokens: i64) -> Micro {
        Micro::new(tokens * 1_000_000)
    }

    fn standing(
        contract: i64,
        credit: i64,
        shadow: i64,
        borrow: i64,
        pool: i64,
        protected: i64,
    ) -> Standing {
        Standing {
            contract: tokens(contract),
            debt_limit: Micro::ZERO,
            credit: tokens(credit),
            shadow: tokens(shadow),
            borrow: tokens(borrow),
            pool: PoolStanding {
                level: tokens(pool),
                others_protected: tokens(protected),
                ..PoolStanding::default()
            },
        }
    }

    #[test]
    fn the_tests_are_tried_in_order() {
        for (contract, credit, shadow, borrow, pool, protected, expected) in [
            (10, 5, 5, 5, 10, 0, Ok(Test::Guaranteed)),
            (10, 5, 0, 5, 5, 100, Ok(Test::Guaranteed)),
            (10, 4, 5, 5, 10, 100, Ok(Test::Claimed)),
            (10, 4, 4, 5, 10, 5, Ok(Test::Plain)),
            (10, 4, 4, 5, 10, 6, Err(Reason::Pool)),
            (4, 5, 5, 5, 10, 5, Ok(Test::Borrowed)),
            (4, 5, 5, 4, 10, 0, Err(Reason::Contract)),
            (4, 0, 0, 5, 10, 6, Err(Reason::Pool)),
            (10, 5, 5, 5, 4, 0, Err(Reason::Pool)),
            (0, 0, 0, 0, 0, 0, Err(Reason::Contract)),
        ] {
            let found = standing(contract, credit, shadow, borrow, pool, protected).test(tokens(5));
            assert_eq!(
                found, expected,
                "{contract} {credit} {shadow} {borrow} {pool} {protected}"
            );
        }
    }

    #[test]
    fn a_claim_may_pass_protected_stock_but_not_the_credit_of_others() {
        let mut claims = standing(10, 0, 5, 0, 10, 10);
        claims.pool.others_credit = tokens(5);
        assert_eq!(claims.test(tokens(5)), Ok(Test::Claimed));
        claims.pool.others_credit = tokens(6);
        assert_eq!(claims.test(tokens(5)), Err(Reason::Pool));
    }

    #[test]
    fn only_a_foreseen_request_may_run_into_debt_and_only_up_to_the_limit() {
        let mut foreseen = standing(2, 0, 5, 0, 10, 0);
        assert_eq!(foreseen.test(tokens(5)), Err(Reason::Contract));
        foreseen.debt_limit = tokens(3);
        assert_eq!(foreseen.test(tokens(5)), Ok(Test::Claimed));
        assert_eq!(
            Standing {
                shadow: tokens(4),
                ..foreseen
            }
            .test(tokens(5)),
            Err(Reason::Contract)
        );
        assert_eq!(
            Standing {
                contract: tokens(1),
                ..foreseen
            }
            .test(tokens(5)),
            Err(Reason::Contract)
        );
    }

    #[test]
    fn each_tier_leaves_its_floor() {
        for (tier, level, admitted) in [
            (Tier::One, 5, true),
            (Tier::One, 4, false),
            (Tier::Two, 15, true),
            (Tier::Two, 14, false),
            (Tier::Three, 30, true),
            (Tier::Three, 29, false),
        ] {
            let mut plain = standing(10, 0, 0, 0, level, 0);
            plain.pool.floor = tier.floor(tokens(100));
            assert_eq!(
                plain.test(tokens(5)).is_ok(),
                admitted,
                "{tier:?} at {level}"
            );
        }
    }

    #[test]
    fn without_a_pool_only_the_contract_decides() {
        let free = Standing {
            contract: tokens(5),
            pool: PoolStanding::UNBOUNDED,
            ..Standing::default()
        };
        assert_eq!(free.test(tokens(5)), Ok(Test::Plain));
        assert_eq!(free.test(tokens(6)), Err(Reason::Contract));
    }
}
