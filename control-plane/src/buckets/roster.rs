//! Which sessions may be working with what they were granted: all that an account has to know of the fleet.

use super::part::SessionNumber;
use forebay_core::fleet::Presence;
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sessions that cannot come back, and when they ended.
pub type Gone = BTreeMap<SessionNumber, TimeUs>;

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may spend.
    Present(Presence),
    /// It can spend nothing any more, since then. Its gateway may come back with the sums that it has.
    Ended(TimeUs),
}

/// A session in the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its number.
    pub session: SessionNumber,
    /// How it stands.
    pub standing: Standing,
    /// When it synced last.
    pub synced_at: TimeUs,
    /// A number made of the gateway's name.
    pub name_hash: u64,
}

/// All sessions that are present or may come back, and those that have gone lately, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    seats: Vec<Seat>,
    gone: Arc<Gone>,
    live: usize,
    is_any_silent: bool,
    heard_at: TimeUs,
    version: u64,
    now: TimeUs,
}

/// The live sessions that a customer is at home with.
#[derive(Clone, Copy, Debug)]
pub struct Homes {
    customer: u64,
    /// The lightest of them; `None`: all are.
    lightest: Option<(u64, SessionNumber)>,
    is_any: bool,
}

// === impl Roster ===

impl Roster {
    /// A roster of the sessions at `now`.
    #[must_use]
    pub fn new(mut seats: Vec<Seat>, gone: Arc<Gone>, now: TimeUs) -> Self {
        seats.sort_unstable_by_key(|seat| seat.session);
        let live = seats.iter().filter(|seat| seat.is_live()).count();
        let is_silent = |seat: &Seat| seat.standing == Standing::Present(Presence::Lapsed);
        let is_any_silent = seats.iter().any(is_silent);
        let present = seats
            .iter()
            .filter(|seat| matches!(seat.standing, Standing::Present(_)));
        let heard_at = present.map(|seat| seat.synced_at).min();
        let version = seats.iter().fold(0, |version, seat| {
            let standing = match seat.standing {
                Standing::Present(Presence::Live) => 1,
                Standing::Present(Presence::Lapsed) => 2,
                Standing::Ended(at) => mix(at.0 ^ 3),
            };
            mix(mix(version ^ seat.session) ^ standing)
        });
        Self {
            seats,
            gone,
            live,
            is_any_silent,
            heard_at: heard_at.unwrap_or(now),
            version,
            now,
        }
    }

    /// Another number for each change in who is there and how they stand.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The moment.
    #[must_use]
    pub const fn now(&self) -> TimeUs {
        self.now
    }

    /// How many leases are live.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Whether a lease has ended of a gateway that may spend.
    #[must_use]
    pub const fn is_any_silent(&self) -> bool {
        self.is_any_silent
    }

    /// When the most silent of those that may spend has synced.
    #[must_use]
    pub const fn heard_at(&self) -> TimeUs {
        self.heard_at
    }

    /// All seats, in the order of their sessions.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// One that the roster has no seat of cannot come back.
    #[must_use]
    pub fn seat(&self, session: SessionNumber) -> Option<&Seat> {
        let found = self
            .seats
            .binary_search_by_key(&session, |seat| seat.session);
        found.ok().and_then(|index| self.seats.get(index))
    }

    /// Whether the session may be working with what it was granted, and with how much of it.
    #[must_use]
    pub fn presence(&self, session: SessionNumber) -> Option<Presence> {
        match self.seat(session)?.standing {
            Standing::Present(presence) => Some(presence),
            Standing::Ended(_) => None,
        }
    }

    /// Since when the session can spend nothing: not before now, for all that is known, if the roster has forgotten it.
    #[must_use]
    pub fn ended_at(&self, session: SessionNumber) -> TimeUs {
        match self.seat(session).map(|seat| seat.standing) {
            Some(Standing::Ended(at)) => at,
            Some(Standing::Present(_)) => self.now,
            None => self.gone.get(&session).copied().unwrap_or(self.now),
        }
    }

    /// Whether the session's gateway may come back with the sums that it has.
    #[must_use]
    pub fn may_return(&self, session: SessionNumber) -> bool {
        self.seat(session).is_some()
    }

    /// The `homes` live sessions that a customer is at home with: highest random weight (Thaler and Ravishankar, 1998), so that a gateway
    /// that comes or goes changes nothing between the others.
    #[must_use]
    pub fn homes(&self, customer: CustomerHash, homes: usize) -> Homes {
        let (_, customer) = customer.parts();
        let all = Homes {
            customer,
            lightest: None,
            is_any: homes > 0,
        };
        let Some(last) = homes.checked_sub(1).filter(|_| homes < self.live) else {
            return all;
        };
        let mut weights: Vec<_> = self
            .seats
            .iter()
            .filter(|seat| seat.is_live())
            .map(|seat| all.weight(seat))
            .collect();
        let (_, lightest, _) = weights.select_nth_unstable_by(last, |one, other| other.cmp(one));
        Homes {
            lightest: Some(*lightest),
            ..all
        }
    }
}

// === impl Homes ===

impl Homes {
    /// Whether a live session is one of them.
    #[must_use]
    pub fn has(&self, seat: &Seat) -> bool {
        let is_heavy = |lightest| self.weight(seat) >= lightest;
        self.is_any && self.lightest.is_none_or(is_heavy)
    }

    fn weight(&self, seat: &Seat) -> (u64, SessionNumber) {
        (mix(seat.name_hash ^ self.customer), seat.session)
    }
}

// === impl Seat ===

impl Seat {
    /// Whether its lease is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.standing == Standing::Present(Presence::Live)
    }
}

/// The finalizer of `SplitMix64`: each bit of the result depends on each bit of `value`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(numbers: impl Iterator<Item = u64>) -> Roster {
        let seats = numbers.map(|session| Seat {
            session,
            standing: Standing::Present(Presence::Live),
            synced_at: TimeUs(0),
            name_hash: mix(session),
        });
        Roster::new(seats.collect(), Arc::default(), TimeUs(1))
    }

    fn homes(roster: &Roster, customer: CustomerHash) -> Vec<u64> {
        let homes = roster.homes(customer, 2);
        let at_home = roster.seats.iter().filter(|seat| homes.has(seat));
        at_home.map(|seat| seat.session).collect()
    }

    #[test]
    fn a_customer_has_as_many_homes_as_it_should_and_they_stay_when_another_gateway_goes() {
        let all = roster(1..=10);
        let without_ten = roster(1..=9);
        let none = all.homes(CustomerHash::from_parts(7, 7), 0);
        assert!(all.seats.iter().all(|seat| !none.has(seat)));
        let mut used = [0_u32; 11];
        for low in 0..1_000 {
            let customer = CustomerHash::from_parts(7, low);
            let before = homes(&all, customer);
            assert_eq!(before.len(), 2);
            for session in &before {
                used[usize::try_from(*session).unwrap()] += 1;
            }
            if !before.contains(&10) {
                assert_eq!(homes(&without_ten, customer), before);
            }
        }
        assert!(
            used[1..].iter().all(|count| (120..280).contains(count)),
            "{used:?}"
        );
    }
}
