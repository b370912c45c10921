//! The entry that says which of a gateway's VMs leads, and until when.
//!
//! It is written by compare-and-swap only. What it says is believed as far as an honest writer can have written it: all VMs of a gateway
//! have one clock, so a lease that ends later than one that begins now is damage and not a claim.

use crate::bytes::{Reader, Writer};
use crate::error::CoreError;
use crate::time::TimeUs;

const MARK: [u8; 3] = *b"FBL";
const VERSION: u8 = 1;
const WHAT: &str = "ledger leader";
const BYTES: usize = 68;

/// A random number that a VM gives itself when it is configured. Never zero, which stands for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CandidateId(u64);

/// Who stands for election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Tells it from all others.
    pub id: CandidateId,
    /// The same for all candidates of one version and configuration.
    pub mark: u64,
    /// When it was configured.
    pub since: TimeUs,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// `None`: nobody, anyone may take it.
    pub leader: Option<Candidate>,
    /// Grows with each leader.
    pub term: u64,
    /// From then on anyone may take it.
    pub until: TimeUs,
    /// A candidate with a newer configuration, to whom the leader hands over.
    pub successor: Option<Candidate>,
}

// === impl CandidateId ===

impl CandidateId {
    /// The identity that this random number gives.
    #[must_use]
    pub const fn new(random: u64) -> CandidateId {
        CandidateId(if random == 0 { 1 } else { random })
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

// === impl Candidate ===

impl Candidate {
    /// Whether its configuration replaces the other's: it is another one and came later.
    #[must_use]
    pub fn replaces(&self, other: &Candidate) -> bool {
        self.mark != other.mark && self.since > other.since
    }
}

// === impl Seat ===

impl Seat {
    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&MARK);
        writer.u8(VERSION);
        writer.u64(self.term);
        writer.u64(self.until.0);
        for candidate in [self.leader, self.successor] {
            let (id, mark, since) = candidate.map_or((0, 0, 0), |candidate| {
                (candidate.id.get(), candidate.mark, candidate.since.0)
            });
            writer.u64(id);
            writer.u64(mark);
            writer.u64(since);
        }
        bytes
    }

    /// Reads the binary form.
    pub fn decode(bytes: &[u8]) -> Result<Seat, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let (term, until) = (reader.u64()?, TimeUs(reader.u64()?));
        let leader = candidate(&mut reader)?;
        let successor = candidate(&mut reader)?;
        reader.end()?;
        Ok(Seat {
            leader,
            term,
            until,
            successor,
        })
    }
}

fn candidate(reader: &mut Reader<'_>) -> Result<Option<Candidate>, CoreError> {
    let (id, mark, since) = (reader.u64()?, reader.u64()?, TimeUs(reader.u64()?));
    Ok((id != 0).then_some(Candidate {
        id: CandidateId(id),
        mark,
        since,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_survives_its_binary_form() {
        let candidate = |id| Candidate {
            id: CandidateId::new(id),
            mark: 9,
            since: TimeUs(8),
        };
        for (leader, successor) in [
            (None, None),
            (Some(candidate(u64::MAX)), None),
            (Some(candidate(7)), Some(candidate(0))),
        ] {
            let seat = Seat {
                leader,
                term: 3,
                until: TimeUs(5),
                successor,
            };
            assert_eq!(Seat::decode(&seat.encode()), Ok(seat));
        }
    }

    #[test]
    fn bytes_that_are_no_seat_are_refused() {
        let good = Seat::default().encode();
        assert!(Seat::decode(&[]).is_err());
        assert!((0..good.len()).all(|cut| Seat::decode(&good[..cut]).is_err()));
        assert!(Seat::decode(&[good.as_slice(), &[0]].concat()).is_err());
        let mut newer = good;
        newer[3] += 1;
        assert!(matches!(
            Seat::decode(&newer),
            Err(CoreError::WrongVersion { .. })
        ));
    }
}
