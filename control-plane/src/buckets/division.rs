//! How an account's bucket is divided among the gateways: rates by the law, depths by their roots.
//!
//! Each gateway at home with a customer holds a *starter*, so that the first request there is admitted without asking anybody. A
//! starter is a depth and no rate: a part of the rate at each gateway would be missing at the one that has the traffic, for good.
//! What no gateway needs stays here, and refills here.

use super::account::Contract;
use super::part::{Part, PartHolding, SessionNumber};
use super::roster::{Roster, Seat};
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::{Reserved, Whole};
use forebay_core::grant::GrantTerms;
use forebay_core::policy::Limits;
use forebay_sharing::{Claim, Law, to_amounts, to_per_s, to_rates};

/// All starters together hold at most this part of the depth, as long as one token each is less.
const STARTERS_OF_DEPTH: u64 = 8;

/// And never more than this part of it: of a burst below two tokens there is none, and the token lies where it was asked for last.
const STARTERS_OF_DEPTH_MOST: u64 = 2;

/// Of the rate that nobody is expected to ask for, this part lies at the gateways, for when there are no syncs. The rest stays here and goes
/// to whoever runs low: one reserve for all serves a surge that the parts of a divided one do not.
const PLACED_OF_SPARE: u64 = 2;

/// Of the depth, this part stays here: what refills here needs room. Of a small one nothing does, since no gateway could hold a whole
/// token more for it.
const KEPT_OF_DEPTH: u64 = 10;
const SMALL_DEPTH: Micro = Micro::from_tokens(20);

/// A gateway that would have room for less than this has none but its starter: a fraction of a token admits nothing.
const LEAST_ROOM: Micro = Micro::from_tokens(2);

const ONE_TOKEN: Micro = Micro::from_tokens(1);

/// How many gateways hold a starter of a customer, and of how much.
#[derive(Clone, Copy, Debug)]
struct Starters {
    each: Micro,
    homes: usize,
}

/// Says for each part what it should be of one resource; for those that are cut off nothing: they have what they have until it ends.
pub(super) fn divide(contract: &Contract<'_>, law: &dyn Law, resource: usize, parts: &mut [Part]) {
    let roster = contract.roster;
    let limits = contract.limits.get(resource).copied().unwrap_or_default();
    let seats = live_seats(roster, parts);
    let cut_off = parts
        .iter()
        .zip(&seats)
        .filter(|(_, seat)| seat.is_none())
        .filter_map(|(part, _)| part.holdings.get(resource))
        .fold(Reserved::default(), |sum, own| sum.plus(own.counted));
    let rate = limits.rate.minus(cut_off.rate);
    let depth = limits.burst.minus(cut_off.cap).at_least_zero();
    let terms = if roster.live() == 1 {
        let all = GrantTerms {
            rate,
            cap: depth,
            fallback_rate: rate,
        };
        vec![all; parts.len()]
    } else {
        among_several(contract, law, resource, parts, &seats, rate, depth)
    };
    for ((part, seat), terms) in parts.iter_mut().zip(&seats).zip(terms) {
        if let Some(own) = part.holdings.get_mut(resource) {
            own.target = seat.map(|_| terms);
        }
    }
}

/// Whether a gateway should hold something of a customer that nobody has asked for there.
pub(super) fn has_starter(contract: &Contract<'_>, session: SessionNumber) -> bool {
    let roster = contract.roster;
    roster.live() == 1
        || contract.limits.iter().any(|limits| {
            let homes = Starters::of(limits.burst, roster.live()).homes;
            let homes = roster.homes(contract.customer, homes);
            roster.seat(session).is_some_and(|seat| homes.has(seat))
        })
}

/// The whole of a contract's bucket.
pub(super) const fn whole(limits: &Limits) -> Whole {
    Whole {
        rate: limits.rate,
        depth: limits.burst,
    }
}

fn among_several(
    contract: &Contract<'_>,
    law: &dyn Law,
    resource: usize,
    parts: &[Part],
    seats: &[Option<&Seat>],
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
    let claims = claims(resource, parts, seats, expected_per_s);
    let needed_per_s: f64 = claims.iter().map(Claim::need_per_s).sum();
    let spare_per_s = (to_per_s(rate) - needed_per_s).max(0.0);
    let placed_per_s = to_per_s(rate) - spare_per_s / PLACED_OF_SPARE as f64;
    let mut shares = Vec::with_capacity(parts.len());
    law.divide(placed_per_s, &claims, &mut shares);
    let rates = to_rates(&shares, rate);

    let burst = contract
        .limits
        .get(resource)
        .map_or(depth, |limits| limits.burst);
    let kept = if burst < SMALL_DEPTH {
        Micro::ZERO
    } else {
        depth.share(1, KEPT_OF_DEPTH)
    };
    let depth = depth.minus(kept);
    let starters = Starters::of(burst, roster.live());
    let homes = roster.homes(customer, starters.homes);
    let starters: Vec<Micro> = seats
        .iter()
        .map(|seat| match seat {
            Some(seat) if homes.has(seat) => starters.each.min(depth),
            _ => Micro::ZERO,
        })
        .collect();
    let in_starters = starters.iter().fold(Micro::ZERO, |sum, one| sum.plus(*one));
    let rest = depth.minus(in_starters).at_least_zero();
    let of_rest = rooms(tokens(rest), &shares, &starters);
    let live = u64::try_from(roster.live()).unwrap_or(u64::MAX).max(1);
    let fallback = guarantee.share(1, live);
    rates
        .into_iter()
        .zip(to_amounts(&of_rest, rest))
        .zip(starters)
        .map(|((rate, room), starter)| {
            let cap = room.plus(starter);
            // What flows to where no token finds room is lost: it stays here.
            let has_room = cap >= ONE_TOKEN.min(burst);
            GrantTerms {
                rate: if has_room { rate } else { Rate::ZERO },
                cap,
                // Of the rate that it is offered in the end, if that is less.
                fallback_rate: fallback,
            }
        })
        .collect()
}

/// The seat of each part's gateway, if that is live. Both are in the order of the sessions.
fn live_seats<'a>(roster: &'a Roster, parts: &[Part]) -> Vec<Option<&'a Seat>> {
    let mut seats = roster.seats().iter().peekable();
    let live = parts.iter().map(|part| {
        while seats
            .next_if(|seat| seat.session < part.session())
            .is_some()
        {}
        seats
            .next_if(|seat| seat.session == part.session())
            .filter(|seat| seat.is_live())
    });
    live.collect()
}

/// What each gateway claims of a resource; one without a seat nothing.
fn claims(
    resource: usize,
    parts: &[Part],
    seats: &[Option<&Seat>],
    expected_per_s: f64,
) -> Vec<Claim> {
    let asked: Vec<Option<(&PartHolding, f64)>> = parts
        .iter()
        .zip(seats)
        .map(|(part, seat)| {
            let (seat, holding) = seat.zip(part.holdings.get(resource))?;
            // A gateway that has synced without a report was asked for nothing since, but for what it had not looked at yet.
            Some((holding, holding.pace.average_per_s(seat.synced_at)))
        })
        .collect();
    let all_per_s: f64 = asked.iter().flatten().map(|(_, per_s)| per_s).sum();
    let claim = |(holding, own_per_s): (&PartHolding, f64)| {
        // The forecast is the fleet's: a gateway's part of it is its part of the traffic.
        let expected_here_per_s = if all_per_s > 0.0 {
            expected_per_s * own_per_s / all_per_s
        } else {
            0.0
        };
        Claim {
            demand_per_s: own_per_s,
            forecast_per_s: Some(expected_here_per_s),
            held_per_s: to_per_s(holding.share.terms().rate),
            ..Claim::default()
        }
    };
    asked
        .into_iter()
        .map(|asked| asked.map(claim).unwrap_or_default())
        .collect()
}

/// Divides the depth that is left when all starters are taken from it, in tokens: by the root of the rates, because requests that come by
/// chance vary by the root of their number. In proportion to the rates, gateways with little traffic denied half of it.
fn rooms(rest: f64, rates: &[f64], starters: &[Micro]) -> Vec<f64> {
    let mut rooms = vec![0.0; rates.len()];
    let mut places: Vec<(usize, f64)> = rates
        .iter()
        .map(|rate| rate.sqrt())
        .enumerate()
        .filter(|(_, weight)| *weight > 0.0)
        .collect();
    places.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut sum: f64 = places.iter().map(|(_, weight)| weight).sum();
    while let Some((index, weight)) = places.last().copied()
        && places.len() > 1
        && starters
            .get(index)
            .is_some_and(|starter| tokens(*starter) + rest * weight / sum < tokens(LEAST_ROOM))
    {
        places.pop();
        sum -= weight;
    }
    for (index, weight) in places {
        if let Some(room) = rooms.get_mut(index) {
            *room = rest * weight / sum;
        }
    }
    rooms
}

// === impl Starters ===

impl Starters {
    /// Of a bucket of this depth, in a fleet of so many.
    fn of(depth: Micro, live: usize) -> Self {
        let live = u64::try_from(live).unwrap_or(u64::MAX).max(1);
        let each = depth
            .share(1, STARTERS_OF_DEPTH.saturating_mul(live))
            .max(ONE_TOKEN);
        let homes = depth
            .share(1, STARTERS_OF_DEPTH_MOST)
            .get()
            .checked_div(each.get())
            .and_then(|homes| usize::try_from(homes).ok())
            .unwrap_or(0);
        Self { each, homes }
    }
}

fn tokens(amount: Micro) -> f64 {
    to_per_s(Rate::new(amount.at_least_zero().get().unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_by_the_root_of_rates_and_not_to_where_it_would_be_a_fraction() {
        let none = [Micro::ZERO; 3];
        assert_eq!(rooms(110.0, &[81.0, 1.0, 1.0], &none), [90.0, 10.0, 10.0]);
        assert_eq!(rooms(5.0, &[81.0, 1.0, 0.0], &none), [5.0, 0.0, 0.0]);
        let starters = [Micro::ZERO, ONE_TOKEN, Micro::ZERO];
        assert_eq!(rooms(20.0, &[81.0, 1.0, 1.0], &starters), [18.0, 2.0, 0.0]);
        assert_eq!(rooms(9.0, &[0.0; 3], &none), [0.0; 3]);
    }
}
