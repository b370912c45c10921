//! How an account's bucket is divided among the gateways: rates by the law, depths in proportion to them.
//!
//! Each gateway at home with a customer holds a *starter*, so that the first request there is admitted without asking anybody. A
//! starter is a depth and no rate: a part of the rate at each gateway would be missing at the one that has the traffic, for good.
//! What no gateway needs stays here, and refills here.

use super::account::Contract;
use super::part::Part;
use super::roster::{Roster, Seat};
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::{Presence, Reserved, Target, Whole};
use forebay_core::grant::GrantTerms;
use forebay_core::policy::Limits;
use forebay_sharing::{Claim, Law, to_amounts, to_per_s, to_rates};

/// All starters together hold at most this part of the depth, as long as one token each is less.
const STARTERS_OF_DEPTH: u64 = 8;

/// And never more than this part of it.
const STARTERS_OF_DEPTH_MOST: u64 = 2;

const ONE_TOKEN: Micro = Micro::from_tokens(1);

/// What each part of an account should hold of one resource.
pub(super) struct Division {
    /// In the order of the parts; `None` where there is nothing to say: the gateway is cut off.
    pub targets: Vec<Option<Target>>,
    /// What is reserved by the parts now, in their order.
    pub reserved: Vec<Reserved>,
}

// === impl Division ===

impl Division {
    pub(super) fn new(
        contract: &Contract<'_>,
        law: &dyn Law,
        resource: usize,
        parts: &[Part],
    ) -> Self {
        let roster = contract.roster;
        let limits = contract.limits.get(resource).copied().unwrap_or_default();
        let reserved: Vec<Reserved> = parts
            .iter()
            .map(|part| reserved(part, resource, roster))
            .collect();
        let is_live = |part: &Part| roster.presence(part.session) == Some(Presence::Live);
        // Those that are cut off have what they have until it ends.
        let cut_off = parts
            .iter()
            .zip(&reserved)
            .filter(|(part, _)| !is_live(part))
            .fold(Reserved::default(), |sum, (_, one)| sum.plus(*one));
        let rate = limits.rate.minus(cut_off.rate);
        let depth = limits.burst.minus(cut_off.cap).at_least_zero();
        let terms = if roster.live() == 1 {
            let all = GrantTerms {
                rate,
                cap: depth,
                fallback_rate: rate,
            };
            parts.iter().map(|_| all).collect()
        } else {
            divide(contract, law, resource, parts, rate, depth)
        };
        let targets = parts.iter().zip(terms).map(|(part, terms)| {
            is_live(part).then_some(Target {
                terms,
                tokens: Micro::MAX,
            })
        });
        Self {
            targets: targets.collect(),
            reserved,
        }
    }

    /// What all parts but one reserve. Not the sum less its own: sums stop at the largest rate there is.
    pub(super) fn others(&self, index: usize) -> Reserved {
        let others = self.reserved.iter().enumerate();
        others
            .filter(|(other, _)| *other != index)
            .fold(Reserved::default(), |sum, (_, one)| sum.plus(*one))
    }
}

/// What a part may be working with of one resource.
pub(super) fn reserved(part: &Part, resource: usize, roster: &Roster) -> Reserved {
    let presence = roster.presence(part.session);
    let holding = part.holdings.get(resource);
    presence
        .zip(holding)
        .map_or_else(Reserved::default, |(presence, holding)| {
            holding.share.reserved(presence)
        })
}

/// The whole of a contract's bucket.
pub(super) const fn whole(limits: &Limits) -> Whole {
    Whole {
        rate: limits.rate,
        depth: limits.burst,
    }
}

fn divide(
    contract: &Contract<'_>,
    law: &dyn Law,
    resource: usize,
    parts: &[Part],
    rate: Rate,
    depth: Micro,
) -> Vec<GrantTerms> {
    let roster = contract.roster;
    let customer = contract.customer;
    let guarantee = contract
        .limits
        .get(resource)
        .map_or(Rate::ZERO, |limits| limits.guarantee);
    let expected_per_s = contract
        .expected_per_s
        .get(resource)
        .copied()
        .unwrap_or(0.0);
    let live = u64::try_from(roster.live()).unwrap_or(u64::MAX).max(1);
    let seats: Vec<Option<&Seat>> = parts
        .iter()
        .map(|part| {
            let is_live = roster.presence(part.session) == Some(Presence::Live);
            roster.seat(part.session).filter(|_| is_live)
        })
        .collect();
    let averages_per_s: Vec<f64> = parts
        .iter()
        .zip(&seats)
        .map(|(part, seat)| {
            let holding = part.holdings.get(resource).filter(|_| seat.is_some());
            holding.map_or(0.0, |holding| holding.pace.average_per_s(roster.now()))
        })
        .collect();
    let average_per_s: f64 = averages_per_s.iter().sum();
    let claims: Vec<Claim> = parts
        .iter()
        .zip(seats.iter().zip(&averages_per_s))
        .map(|(part, (seat, own_per_s))| {
            let Some((seat, holding)) = seat.zip(part.holdings.get(resource)) else {
                return Claim::default();
            };
            // The forecast is the fleet's: a gateway's part of it is its part of the traffic.
            let expected_here_per_s = if average_per_s > 0.0 {
                expected_per_s * own_per_s / average_per_s
            } else {
                0.0
            };
            Claim {
                demand_per_s: holding.pace.last_per_s(seat.synced_at),
                forecast_per_s: Some(own_per_s.max(expected_here_per_s)),
                held_per_s: to_per_s(holding.share.terms().rate),
                ..Claim::default()
            }
        })
        .collect();
    let mut shares = Vec::with_capacity(parts.len());
    law.divide(to_per_s(rate), &claims, &mut shares);
    let rates = to_rates(&shares, rate);

    let starter = depth
        .share(1, STARTERS_OF_DEPTH.saturating_mul(live))
        .max(ONE_TOKEN);
    let homes = depth
        .share(1, STARTERS_OF_DEPTH_MOST)
        .get()
        .checked_div(starter.get())
        .and_then(|homes| usize::try_from(homes).ok())
        .unwrap_or(0)
        .max(1);
    let starters: Vec<Micro> = seats
        .iter()
        .map(|seat| {
            let is_home = seat.is_some_and(|seat| roster.is_home(customer, seat.session, homes));
            if is_home {
                starter.min(depth)
            } else {
                Micro::ZERO
            }
        })
        .collect();
    let in_starters = starters.iter().fold(Micro::ZERO, |sum, one| sum.plus(*one));
    let rest = depth.minus(in_starters).at_least_zero();
    let shared_per_s: f64 = shares.iter().sum();
    let of_rest: Vec<f64> = shares
        .iter()
        .map(|share| {
            if shared_per_s > 0.0 {
                tokens(rest) * share / shared_per_s
            } else {
                0.0
            }
        })
        .collect();
    let fallback = guarantee.share(1, live);
    rates
        .into_iter()
        .zip(to_amounts(&of_rest, rest))
        .zip(starters)
        .map(|((rate, cap), starter)| GrantTerms {
            rate,
            cap: cap.plus(starter),
            fallback_rate: fallback.min(rate),
        })
        .collect()
}

fn tokens(amount: Micro) -> f64 {
    to_per_s(Rate::new(amount.at_least_zero().get().unsigned_abs()))
}
