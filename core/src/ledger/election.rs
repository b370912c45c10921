//! Which of several VMs of a gateway does what is to be done once.
//!
//! Where the host makes a VM for each of its threads and tells none of them which it is, they elect one by a [`Seat`] in shared data: a
//! lease that its holder renews and anyone takes when it is over, all by compare-and-swap. The register of
//! [`super::Workers`] is not enough for that: who has just registered may lead there although the one before has not noticed yet, which
//! costs a worker a walk over the ledger and would cost a forecaster the order of its syncs.
//!
//! A function of what was found, the state before and the time, in two halves, so that a test can put anything between them: [`Election::look`]
//! says what should be written, and [`Election::written`] that it was. The rules:
//!
//! - A lease counts from a clock that was read before it is written, so its holder stops believing in it before others may take it.
//! - Who hands over stops first and writes then.
//! - A holder that comes late and finds its own entry renews it: nobody else has led in between, or the term would be another.
//! - A value that cannot be read, or that nobody can have written, belongs to somebody as long as it changes.
//! - A candidate with a newer configuration asks the leader to hand over, and never takes what another one holds. Envoy keeps a
//!   configuration that was replaced until its last connection has drained; without that it would lead as long.

use super::seat::{Candidate, Seat};
use crate::limits::{LEADER_LEASE_US, LEADER_RENEWAL_US};
use crate::time::TimeUs;

/// A compare-and-swap number that no value has. On a missing key a compare-and-swap succeeds whatever the number, and without one it
/// overwrites: so this creates the entry for the first of several that saw none, and for no other.
const OF_NO_VALUE: u32 = u32::MAX;

/// One candidate's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    me: Candidate,
    held: Option<Lease>,
    unreadable: Option<Unreadable>,
}

/// What should be written to [`super::LEADER_KEY`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Proposal {
    /// The value.
    pub value: Vec<u8>,
    /// It must still have this number.
    pub cas: u32,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    term: u64,
    until: TimeUs,
}

/// A value that could not be read, and since when it is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unreadable {
    cas: u32,
    since: TimeUs,
}

// === impl Election ===

impl Election {
    /// A candidate that does not lead.
    #[must_use]
    pub const fn new(me: Candidate) -> Election {
        Election {
            me,
            held: None,
            unreadable: None,
        }
    }

    /// Whether this one leads. Nobody else of the same clock does then.
    #[must_use]
    pub fn leads(&self, now: TimeUs) -> bool {
        self.held.is_some_and(|lease| now < lease.until)
    }

    /// The term in which this one leads, or has led without anybody else since. Whoever kept something from another term must drop it.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.held.map(|lease| lease.term)
    }

    /// Looks at the entry, with its compare-and-swap number; `now` must be read after it was. Returns what should be written, if anything.
    pub fn look(&mut self, found: Option<(&[u8], u32)>, now: TimeUs) -> Option<Proposal> {
        let Some((bytes, cas)) = found else {
            return Some(self.take(0, OF_NO_VALUE, now));
        };
        let Some(seat) = believable(bytes, now) else {
            return self.wait_for_silence(cas, now);
        };
        self.unreadable = None;
        match seat.leader {
            Some(leader) if leader.id == self.me.id => self.reign(seat, cas, now),
            Some(leader) if now < seat.until => {
                self.held = None;
                self.ask(seat, &leader, cas)
            }
            Some(_) | None => Some(self.take(seat.term, cas, now)),
        }
    }

    /// The proposal was written. One that was not is forgotten: the next look decides anew.
    pub fn written(&mut self, proposal: Proposal) {
        let Proposal { seat, .. } = proposal;
        if seat.leader.is_some_and(|leader| leader.id == self.me.id) {
            self.held = Some(Lease {
                term: seat.term,
                until: seat.until,
            });
        }
    }

    /// Leads no longer and says so, so that nobody need wait for the lease to end.
    pub fn retire(&mut self, found: Option<(&[u8], u32)>, now: TimeUs) -> Option<Proposal> {
        self.held = None;
        let (bytes, cas) = found?;
        let seat = believable(bytes, now)?;
        let is_mine = seat.leader.is_some_and(|leader| leader.id == self.me.id);
        is_mine.then(|| hand_over(&seat, cas, now))
    }

    /// The entry names this one.
    fn reign(&mut self, seat: Seat, cas: u32, now: TimeUs) -> Option<Proposal> {
        if seat
            .successor
            .is_some_and(|successor| successor.replaces(&self.me))
        {
            self.held = None;
            return Some(hand_over(&seat, cas, now));
        }
        self.held = Some(Lease {
            term: seat.term,
            until: seat.until,
        });
        let is_due = seat.until.since(now) <= LEADER_LEASE_US.saturating_sub(LEADER_RENEWAL_US);
        is_due.then(|| {
            propose(
                Seat {
                    leader: Some(self.me),
                    until: now.plus_us(LEADER_LEASE_US),
                    ..seat
                },
                cas,
            )
        })
    }

    fn ask(&self, seat: Seat, leader: &Candidate, cas: u32) -> Option<Proposal> {
        let is_asked_for = seat
            .successor
            .is_some_and(|successor| !self.me.replaces(&successor) && successor.replaces(leader));
        (self.me.replaces(leader) && !is_asked_for).then(|| {
            propose(
                Seat {
                    successor: Some(self.me),
                    ..seat
                },
                cas,
            )
        })
    }

    /// Another build may write what this one cannot read. Should its leader live, it renews the value, and the number changes.
    fn wait_for_silence(&mut self, cas: u32, now: TimeUs) -> Option<Proposal> {
        match self.unreadable.filter(|seen| seen.cas == cas) {
            None => {
                self.unreadable = Some(Unreadable { cas, since: now });
                None
            }
            Some(seen) => {
                (now.since(seen.since) >= LEADER_LEASE_US).then(|| self.take(0, cas, now))
            }
        }
    }

    /// Takes the seat after a leader of this term. What this one still held is over.
    fn take(&mut self, term: u64, cas: u32, now: TimeUs) -> Proposal {
        let before = self.held.take().map_or(term, |lease| term.max(lease.term));
        propose(
            Seat {
                leader: Some(self.me),
                term: before.saturating_add(1),
                until: now.plus_us(LEADER_LEASE_US),
                successor: None,
            },
            cas,
        )
    }
}

fn hand_over(seat: &Seat, cas: u32, now: TimeUs) -> Proposal {
    let until = match seat.successor {
        Some(_) => now.plus_us(LEADER_LEASE_US),
        None => now,
    };
    propose(
        Seat {
            leader: seat.successor,
            term: seat.term.saturating_add(1),
            until,
            successor: None,
        },
        cas,
    )
}

fn propose(seat: Seat, cas: u32) -> Proposal {
    Proposal {
        value: seat.encode(),
        cas,
        seat,
    }
}

/// What the entry says, if an honest writer can have written it before `now`.
fn believable(bytes: &[u8], now: TimeUs) -> Option<Seat> {
    let seat = Seat::decode(bytes).ok()?;
    (seat.until.since(now) <= LEADER_LEASE_US).then_some(seat)
}
