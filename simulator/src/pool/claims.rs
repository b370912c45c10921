//! An allocation as a claim: its owner goes first, and what it does not use is anybody's. What gateways do.
//!
//! As in `forebay-core`: a claim keeps a shallow stock, which nobody else can take; who wants more than its claim takes of what nobody claims, tier 1 first,
//! and tiers 2 and 3 leave a floor of the pool's second. The reserve is what no claim has been given.

use super::guard::{Guard, Part, PoolBucket, Served};
use super::market::Market;
use forebay_core::policy::Tier;

/// Depth of a claim, in seconds of its rate.
const DEPTH_S: f64 = 0.5;
/// The part of the pool's depth that stocks may protect, where no policy says another.
const PROTECTED: f64 = 0.5;
/// What is left in the pool by those beyond their claims, by tier, as a part of its depth.
const FLOORS: [f64; 3] = [0.0, 0.1, 0.25];

/// Claims on a pool.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    sub_step_s: f64,
    pool: PoolBucket,
    /// What those beyond their claims leave of all claims' stocks, as a part of the pool's depth.
    protected: f64,
    claims: Vec<Part>,
    tiers: Vec<usize>,
}

// === impl Claims ===

impl Claims {
    pub(crate) fn new(market: &Market, capacity_per_s: f64, sub_step_s: f64) -> Self {
        let tiers = market.buyers.iter().map(|buyer| buyer.tier);
        Self::on(
            PoolBucket::full(capacity_per_s),
            PROTECTED,
            tiers,
            sub_step_s,
        )
    }

    /// Claims of customers of these tiers on a pool.
    pub(crate) fn on(
        pool: PoolBucket,
        protected: f64,
        tiers: impl Iterator<Item = Tier>,
        sub_step_s: f64,
    ) -> Self {
        let tiers: Vec<usize> = tiers.map(place).collect();
        Self {
            sub_step_s,
            pool,
            protected,
            claims: vec![Part::default(); tiers.len()],
            tiers,
        }
    }

    /// Has room for another customer, which claims nothing yet.
    pub(crate) fn add(&mut self, tier: Tier) {
        self.claims.push(Part::default());
        self.tiers.push(place(tier));
    }
}

const fn place(tier: Tier) -> usize {
    match tier {
        Tier::One => 0,
        Tier::Two => 1,
        Tier::Three => 2,
    }
}

impl Guard for Claims {
    fn allocate(&mut self, allocated_per_s: &[f64]) {
        for (claim, rate) in self.claims.iter_mut().zip(allocated_per_s) {
            claim.set(*rate, DEPTH_S);
        }
    }

    fn serve(&mut self, demand: &[f32], denied: &mut [f64]) -> Served {
        let (mut used, mut stocks, mut asked) = (0.0, 0.0, 0.0);
        let mut rests = [0.0; 3];
        let mut served = Served::default();
        let customers = demand.iter().zip(&mut self.claims).zip(&self.tiers);
        for (((demand, claim), tier), rest) in customers.zip(denied.iter_mut()) {
            let demand = f64::from(*demand);
            let own = claim.use_up_to(demand, self.sub_step_s);
            used += own.used;
            stocks += own.stock;
            asked += demand;
            *rest = demand - own.used;
            if *rest > 0.0 {
                served.beyond += 1;
                if let Some(sum) = rests.get_mut(*tier) {
                    *sum += *rest;
                }
            }
        }
        let available = self.pool.available(self.sub_step_s);
        let depth = self.pool.depth;
        let mut free = available - used - stocks.min(self.protected * depth);
        let mut parts = [1.0; 3];
        for ((part, rest), floor) in parts.iter_mut().zip(rests).zip(FLOORS) {
            let room = (free - floor * depth).max(0.0);
            if rest > room {
                *part = room / rest;
                served.is_short = true;
            }
            free -= rest * *part;
        }
        // More claims than tokens: all have the same part of what they claim, and nobody has more.
        let own_part = (available / used.max(f64::MIN_POSITIVE)).min(1.0);
        served.is_short |= own_part < 1.0;
        served.admitted = asked;
        if served.is_short {
            let customers = demand.iter().zip(&self.tiers);
            for ((demand, tier), denied) in customers.zip(denied.iter_mut()) {
                let part = parts.get(*tier).copied().unwrap_or(1.0);
                served.beyond -= usize::from(*denied > 0.0 && part <= 0.0);
                let own = f64::from(*demand) - *denied;
                *denied = *denied * (1.0 - part) + own * (1.0 - own_part);
                served.admitted -= *denied;
            }
        }
        self.pool.spend(served.admitted, self.sub_step_s);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::market::tests::market_of;

    /// What customers of tiers 1, 2 and 3 are admitted in a second of a pool of 100 per second, whose stock is gone.
    fn admitted(claims_per_s: [f64; 3], demand: [f32; 3]) -> [f64; 3] {
        let market = market_of(&[Tier::One, Tier::Two, Tier::Three]);
        let mut claims = Claims::new(&market, 100.0, 1.0);
        claims.pool.spend(200.0, 1.0);
        claims.allocate(&claims_per_s);
        let mut denied = [0.0; 3];
        let served = claims.serve(&demand, &mut denied);
        let mut admitted = [0.0; 3];
        for ((admitted, demand), denied) in admitted.iter_mut().zip(demand).zip(denied) {
            *admitted = f64::from(demand) - if served.is_short { denied } else { 0.0 };
        }
        assert!((served.admitted - admitted.iter().sum::<f64>()).abs() < 1e-9);
        admitted.map(|value| (value * 1e6).round() / 1e6)
    }

    #[test]
    fn an_owner_goes_first_and_what_it_does_not_use_is_anybodys() {
        assert_eq!(
            admitted([0.0, 0.0, 60.0], [90.0, 0.0, 60.0]),
            [40.0, 0.0, 60.0]
        );
        assert_eq!(
            admitted([60.0, 0.0, 0.0], [0.0, 0.0, 60.0]),
            [0.0, 0.0, 45.0]
        );
        assert_eq!(
            admitted([60.0, 0.0, 0.0], [0.0, 60.0, 0.0]),
            [0.0, 60.0, 0.0]
        );
    }

    #[test]
    fn tiers_take_in_their_order_and_leave_their_floors() {
        assert_eq!(admitted([0.0; 3], [80.0, 80.0, 80.0]), [80.0, 10.0, 0.0]);
        assert_eq!(admitted([0.0; 3], [20.0, 20.0, 80.0]), [20.0, 20.0, 35.0]);
        assert_eq!(admitted([0.0; 3], [0.0, 120.0, 0.0]), [0.0, 90.0, 0.0]);
    }

    #[test]
    fn claims_beyond_the_pool_are_cut_alike() {
        assert_eq!(
            admitted([100.0, 100.0, 0.0], [100.0, 100.0, 9.0]),
            [50.0, 50.0, 0.0]
        );
    }
}
