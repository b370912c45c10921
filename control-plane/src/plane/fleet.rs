//! All gateways: who is let in, who is refused, and whose session has ended.

use super::session::{Lapse, Session, Terms};
use crate::buckets::{Gone, Roster, SessionNumber, Standing};
use crate::error::ApiError;
use forebay_core::fleet::Presence;
use forebay_core::time::TimeUs;
use forebay_wire::sync::{SyncErrorCode, SyncRequest};
use hashbrown::HashMap;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gateways that may be present at one time, and names that are remembered.
const MAX_GATEWAYS: usize = 1_024;
/// Incarnations of a gateway that are remembered as fenced off.
const MAX_RETIRED: usize = 32;
/// Sessions that cannot come back of which it is remembered when they ended.
const MAX_GONE: usize = 4_096;
/// Longest name of a gateway.
const MAX_ID_BYTES: usize = 128;

/// A gateway by its name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gateway {
    /// Incarnations that may not come back.
    retired: Vec<u64>,
    /// The session, while there is one.
    session: Option<Session>,
    name_hash: u64,
}

/// All gateways.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    gateways: BTreeMap<String, Gateway>,
    ids: HashMap<SessionNumber, String>,
    /// When sessions ended that cannot come back.
    gone: Arc<Gone>,
    /// The newest number that was given out.
    newest: SessionNumber,
}

/// What a sync means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The session goes on.
    Continues,
    /// The session goes on, but its lease had ended.
    Lapsed,
    /// The session had ended, and goes on from the sums that the gateway has.
    Returns {
        /// When it had ended.
        ended_at: TimeUs,
    },
    /// A session begins.
    Begins,
}

/// A refusal of the sync protocol: code and text for the gateway's operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For the gateway.
    pub code: SyncErrorCode,
    /// For people.
    pub error: ApiError,
}

/// A gateway as it lies in the store.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GatewayRecord {
    /// Incarnations that may not come back.
    #[prost(uint64, repeated, tag = "1")]
    pub retired: Vec<u64>,
    /// Number of the session; 0: it has none.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// The incarnation that may spend.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// The newest request counted.
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    /// Whether its sums had been forgotten.
    #[prost(bool, tag = "5")]
    pub is_adopted: bool,
    /// Whether nothing that it was granted can be spent any more.
    #[prost(bool, tag = "6")]
    pub has_ended: bool,
}

// === impl Fleet ===

impl Fleet {
    /// Decides about a sync request, which nothing is changed for unless it is admitted. Call [`Self::expire`] first.
    ///
    /// # Errors
    /// When the request must be refused.
    pub(super) fn admit(
        &mut self,
        request: &SyncRequest,
        terms: Terms,
        now: TimeUs,
    ) -> Result<Admission, Refusal> {
        let id = request.gateway_id.as_str();
        if id.is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
            let hint = "set FOREBAY_GATEWAY_ID in the gateway's environment to a plain name of 1 to 128 bytes";
            return Err(refuse(
                SyncErrorCode::Malformed,
                ApiError::malformed("the gateway id is not a name", hint).at("gateway_id"),
            ));
        }
        if let Some(gateway) = self.gateways.get_mut(id) {
            if gateway.retired.contains(&request.incarnation) {
                return Err(stale_incarnation(id));
            }
            // Processes number themselves by their clock when they start. So this is a late message of one that is gone, which must not end its
            // successor; or the clock was set back in between, and then it is served when nothing of the other one can be spent.
            if let Some(session) = &gateway.session
                && request.incarnation < session.incarnation
                && session.ended_at.is_none()
            {
                return Err(stale_incarnation(id));
            }
            if let Some(session) = &mut gateway.session
                && session.incarnation == request.incarnation
            {
                // Nor again: the second reply of one number could be another one, and its arrival would be taken for the first one's.
                if request.sequence <= session.sequence {
                    return Err(stale_sequence(request.sequence, session.sequence));
                }
                return Ok(match session.standing(terms, now) {
                    Standing::Present(Presence::Live) => Admission::Continues,
                    Standing::Present(Presence::Lapsed) => {
                        session.lapsed = Some(Lapse::Telling);
                        Admission::Lapsed
                    }
                    Standing::Ended(_) => {
                        let ended_at = session.ended_at.unwrap_or(now);
                        session.revive(request, now);
                        Admission::Returns { ended_at }
                    }
                });
            }
        } else {
            self.make_room(id, now)?;
        }
        self.fence(id, now);
        self.newest = self.newest.saturating_add(1);
        let number = self.newest;
        let gateway = self.gateways.entry(id.to_owned()).or_default();
        gateway.name_hash = name_hash(id);
        gateway.session = Some(Session::new(number, request, now));
        self.ids.insert(number, id.to_owned());
        Ok(Admission::Begins)
    }

    /// Ends the sessions whose gateways can spend nothing any more. Returns the names of those gateways.
    pub(super) fn expire(&mut self, terms: Terms, now: TimeUs) -> Vec<String> {
        let mut over = Vec::new();
        for (id, gateway) in &mut self.gateways {
            if let Some(session) = &mut gateway.session
                && session.ended_at.is_none()
                && let Standing::Ended(at) = session.standing(terms, now)
            {
                session.end(at);
                over.push(id.clone());
            }
        }
        over
    }

    /// Ends the session of a gateway by the operator's word that it is gone. Its incarnation may not come back. Returns whether
    /// there was one.
    pub(super) fn retire(&mut self, id: &str, now: TimeUs) -> bool {
        let session = self.session(id);
        let is_there = session.is_some_and(|session| session.ended_at.is_none());
        self.fence(id, now);
        is_there
    }

    /// All sessions that are present or may come back, and those that have gone lately.
    #[must_use]
    pub fn roster(&self, terms: Terms, now: TimeUs) -> Roster {
        let present = self.gateways.values().filter_map(|gateway| {
            let session = gateway.session.as_ref()?;
            Some(session.seat(gateway.name_hash, terms, now))
        });
        Roster::new(present.collect(), Arc::clone(&self.gone), now)
    }

    /// The session of a gateway.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.gateways.get(id)?.session.as_ref()
    }

    pub(super) fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.gateways.get_mut(id)?.session.as_mut()
    }

    /// The session of that number.
    pub(super) fn numbered(&mut self, number: SessionNumber) -> Option<&mut Session> {
        let id = self.ids.get(&number)?;
        self.gateways.get_mut(id)?.session.as_mut()
    }

    /// All gateways that have a session, by name, those that may come back among them.
    pub fn sessions(&self) -> impl Iterator<Item = (&str, &Session)> {
        self.gateways
            .iter()
            .filter_map(|(id, gateway)| Some((id.as_str(), gateway.session.as_ref()?)))
    }

    /// The same, to change them.
    pub(super) fn named_sessions_mut(&mut self) -> impl Iterator<Item = (&str, &mut Session)> {
        self.gateways
            .iter_mut()
            .filter_map(|(id, gateway)| Some((id.as_str(), gateway.session.as_mut()?)))
    }

    /// The gateways that may spend what they were granted, with the hashes of their names.
    pub(super) fn present(&self, terms: Terms, now: TimeUs) -> Vec<(u64, String)> {
        let is_present =
            |session: &Session| matches!(session.standing(terms, now), Standing::Present(_));
        self.sessions()
            .filter(|(_, session)| is_present(session))
            .map(|(id, _)| (name_hash(id), id.to_owned()))
            .collect()
    }

    pub(super) fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.gateways
            .values_mut()
            .filter_map(|gateway| gateway.session.as_mut())
    }

    /// The newest number that was given to a session.
    #[must_use]
    pub const fn newest(&self) -> SessionNumber {
        self.newest
    }

    /// A fleet whose sessions are numbered from behind `newest`.
    pub(super) fn from_number(newest: SessionNumber) -> Self {
        Self {
            newest,
            ..Self::default()
        }
    }

    /// Takes in a gateway of the store. It may have been answered just before the last run ended, so its times to live run from now. Or
    /// its lease had ended before, and others were granted its rates: so it has no new one before it has been told all of its own.
    pub(super) fn restore(&mut self, id: String, record: &GatewayRecord, now: TimeUs) {
        let session = (record.session != 0).then(|| Session {
            number: record.session,
            incarnation: record.incarnation,
            sequence: record.sequence,
            last_reply_at: now,
            is_adopted: record.is_adopted,
            report_all_until: record.is_adopted.then_some(record.sequence),
            lapsed: Some(Lapse::Telling),
            ended_at: record.has_ended.then_some(now),
            ..Session::default()
        });
        if let Some(session) = &session {
            self.ids.insert(session.number, id.clone());
            self.newest = self.newest.max(session.number);
        }
        let gateway = Gateway {
            retired: record.retired.clone(),
            session,
            name_hash: name_hash(&id),
        };
        self.gateways.insert(id, gateway);
    }

    /// The form for the store; `None` for a gateway that is not known any more.
    pub(super) fn to_record(&self, id: &str) -> Option<GatewayRecord> {
        let gateway = self.gateways.get(id)?;
        let session = gateway.session.as_ref();
        Some(GatewayRecord {
            retired: gateway.retired.clone(),
            session: session.map_or(0, |session| session.number),
            incarnation: session.map_or(0, |session| session.incarnation),
            sequence: session.map_or(0, |session| session.sequence),
            is_adopted: session.is_some_and(|session| session.is_adopted),
            has_ended: session.is_some_and(|session| session.ended_at.is_some()),
        })
    }

    /// Ends the session of a gateway at once, and remembers that its incarnation may not come back.
    fn fence(&mut self, id: &str, now: TimeUs) {
        let Some(gateway) = self.gateways.get_mut(id) else {
            return;
        };
        let Some(session) = gateway.session.take() else {
            return;
        };
        gateway.retired.push(session.incarnation);
        if gateway.retired.len() > MAX_RETIRED {
            gateway.retired.remove(0);
        }
        self.forget(&session, now);
    }

    /// A session cannot come back.
    fn forget(&mut self, session: &Session, now: TimeUs) {
        self.ids.remove(&session.number);
        let gone = Arc::make_mut(&mut self.gone);
        gone.insert(session.number, session.ended_at.unwrap_or(now));
        if gone.len() > MAX_GONE {
            gone.pop_first();
        }
    }

    /// Forgets the gateway that has been away for longest if there are too many names. Should it come back it reports its sums.
    fn make_room(&mut self, id: &str, now: TimeUs) -> Result<(), Refusal> {
        if self.gateways.len() < MAX_GATEWAYS {
            return Ok(());
        }
        let away_since = |gateway: &Gateway| match &gateway.session {
            Some(session) => session.ended_at,
            None => Some(TimeUs(0)),
        };
        let longest = self
            .gateways
            .iter()
            .filter_map(|(id, gateway)| Some((away_since(gateway)?, id.clone())))
            .min();
        let Some((_, longest)) = longest else {
            return Err(too_many(id));
        };
        let gateway = self.gateways.remove(&longest);
        if let Some(session) = gateway.and_then(|gateway| gateway.session) {
            self.forget(&session, now);
        }
        Ok(())
    }
}

/// The first eight bytes of a name's SHA-256.
pub(super) fn name_hash(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

fn refuse(code: SyncErrorCode, error: ApiError) -> Refusal {
    Refusal { code, error }
}

fn stale_sequence(given: u64, counted: u64) -> Refusal {
    let message = format!("sequence {given} is not newer than {counted}, which was counted");
    let hint = "nothing is lost: counters are cumulative and the next sync brings everything";
    refuse(
        SyncErrorCode::StaleSequence,
        ApiError::conflict("stale_sequence", message, hint).at("sequence"),
    )
}

fn stale_incarnation(id: &str) -> Refusal {
    let message = format!(
        "this incarnation of gateway `{id}` was replaced by a newer one, or retired by the operator"
    );
    let hint = "two processes use one gateway id, or an old one did not die: stop it, or give it an id of its own; if the gateway's clock was set back before it started, it is served when the lease and the fallback of the one before it are over";
    refuse(
        SyncErrorCode::StaleIncarnation,
        ApiError::conflict("stale_incarnation", message, hint).at("incarnation"),
    )
}

fn too_many(id: &str) -> Refusal {
    let message = format!(
        "gateway `{id}` would be one more than the {MAX_GATEWAYS} that a server works with, and all of those are present"
    );
    let hint = "stop gateways that are not needed, or retire those that are surely gone with `forebay gateway retire ID`";
    refuse(
        SyncErrorCode::TooManyGateways,
        ApiError::conflict("too_many_gateways", message, hint).at("gateway_id"),
    )
}
