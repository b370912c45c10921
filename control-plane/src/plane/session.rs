//! The one gateway that holds the whole contract: who it is, and who is refused.
//!
//! ```text
//!            first sync                     same incarnation, newer sequence
//!   none ───────────────────▶ live(id, incarnation) ◀──┐
//!                               │  │  └────────────────┘
//!          lease + fallback over│  │ same id, incarnation never seen: the old one is fenced off, what it held is spent
//!          or retired by hand   │  └──────────────────────────────▶ live(id, new incarnation)
//!                               ▼
//!                             over ── any id ──▶ live(id, incarnation)
//! ```
//! Until a session is over, its gateway may still spend what it was granted, so nobody else can be given any of it. That is why
//! a second gateway id is refused, and not because two gateways could not be told apart.

use crate::buckets::Tenure;
use crate::error::ApiError;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{SyncErrorCode, SyncRequest};
use std::collections::BTreeSet;

/// Incarnations that are remembered as fenced off.
const MAX_RETIRED: usize = 32;
/// Longest name of a gateway.
const MAX_ID_BYTES: usize = 128;
/// What a reply may be late by, on top of the times to live.
const SLACK_US: u64 = 1_000_000;

/// A gateway that was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub gateway_id: String,
    /// The incarnation that may spend.
    pub incarnation: u64,
    /// The newest request counted.
    pub sequence: u64,
    /// Incarnations that may not come back.
    pub retired: Vec<u64>,
    /// When its times to live began to run for the last time, by our clock.
    pub last_reply_at: TimeUs,
    /// Customers whose grants the gateway has not been told, or may not have heard.
    pub pending: BTreeSet<CustomerHash>,
    /// Grants of the newest reply, until its arrival is known.
    pub inflight: Vec<CustomerHash>,
    /// Policy epoch for which all customers were put into `pending`.
    pub granted_epoch: u64,
    /// Requests it has sent since this process started.
    pub syncs: u64,
}

/// What a sync means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The session goes on.
    Continues,
    /// A new incarnation or gateway: a new tenure begins.
    Begins,
}

/// A protobuf record of what must survive.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SessionRecord {
    /// Name of the gateway; empty for none.
    #[prost(string, tag = "1")]
    pub gateway_id: String,
    /// The incarnation that may spend.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The newest request counted.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// Incarnations that may not come back.
    #[prost(uint64, repeated, tag = "4")]
    pub retired: Vec<u64>,
    /// Number of the tenure.
    #[prost(uint64, tag = "5")]
    pub generation: u64,
    /// True once the tenure has ended.
    #[prost(bool, tag = "6")]
    pub ended: bool,
    /// The first tenure of the incarnation.
    #[prost(uint64, tag = "7")]
    pub incarnation_from: u64,
}

/// A refusal of the sync protocol: code and text for the gateway's operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For the gateway.
    pub code: SyncErrorCode,
    /// For people.
    pub error: ApiError,
}

impl Session {
    /// Until when the gateway may still spend what it was granted: a chunk that was drawn at the very end is spent later.
    #[must_use]
    pub fn may_spend_until(&self, hold_us: u64) -> TimeUs {
        self.last_reply_at
            .plus_us(hold_us)
            .plus_us(SLACK_US)
            .plus_us(CHUNK_LIFE_US)
    }

    /// Remembers that an incarnation may not come back.
    fn fence(&mut self, incarnation: u64) {
        if self.retired.contains(&incarnation) {
            return;
        }
        self.retired.push(incarnation);
        if self.retired.len() > MAX_RETIRED {
            self.retired.remove(0);
        }
    }

    /// Takes the grants of a reply that did not arrive back into the queue.
    pub fn hear(&mut self, reply_applied: u64) {
        let inflight = std::mem::take(&mut self.inflight);
        if reply_applied < self.sequence {
            self.pending.extend(inflight);
        }
    }
}

/// Decides about a sync request. `session` and `tenure` are changed only if it is admitted.
///
/// # Errors
/// When the request must be refused.
pub(super) fn admit(
    session: &mut Option<Session>,
    tenure: &mut Tenure,
    request: &SyncRequest,
    hold_us: u64,
    now: TimeUs,
) -> Result<Admission, Refusal> {
    let id = request.gateway_id.as_str();
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        let hint =
            "set FOREBAY_GATEWAY_ID in the gateway's environment to a plain name of 1 to 128 bytes";
        return Err(refuse(
            SyncErrorCode::Malformed,
            ApiError::malformed("the gateway id is not a name", hint).at("gateway_id"),
        ));
    }
    expire(session, tenure, hold_us, now);
    let Some(known) = session.as_mut().filter(|_| tenure.ended_at.is_none()) else {
        let old = session.take().filter(|old| old.gateway_id == id);
        let is_back = old
            .as_ref()
            .is_some_and(|old| old.incarnation == request.incarnation);
        let retired = old.map(|old| old.retired).unwrap_or_default();
        if retired.contains(&request.incarnation) {
            *session = Some(Session {
                gateway_id: id.to_owned(),
                retired,
                ..Session::default()
            });
            return Err(stale_incarnation(id));
        }
        begin(tenure, tenure.ended_at.unwrap_or(now), is_back);
        *session = Some(Session::new(request, retired, now));
        return Ok(Admission::Begins);
    };
    if known.gateway_id != id {
        return Err(another_live(known, id, hold_us, now));
    }
    if known.incarnation == request.incarnation {
        if request.sequence < known.sequence {
            let message = format!(
                "sequence {} is older than {}, which was counted",
                request.sequence, known.sequence
            );
            let hint =
                "nothing is lost: counters are cumulative and the next sync brings everything";
            return Err(refuse(
                SyncErrorCode::StaleSequence,
                ApiError::conflict("stale_sequence", message, hint).at("sequence"),
            ));
        }
        known.hear(request.reply_applied);
        known.sequence = request.sequence;
        return Ok(Admission::Continues);
    }
    if known.retired.contains(&request.incarnation) {
        return Err(stale_incarnation(id));
    }
    known.fence(known.incarnation);
    let retired = std::mem::take(&mut known.retired);
    begin(tenure, now, false);
    *known = Session::new(request, retired, now);
    Ok(Admission::Begins)
}

/// Ends the tenure of a gateway that can no longer spend.
pub(super) fn expire(
    session: &mut Option<Session>,
    tenure: &mut Tenure,
    hold_us: u64,
    now: TimeUs,
) {
    if let Some(known) = session.as_ref()
        && tenure.ended_at.is_none()
        && known.may_spend_until(hold_us) <= now
    {
        tenure.ended_at = Some(known.may_spend_until(hold_us));
    }
}

/// Ends the tenure by the operator's word that the gateway is gone. Its incarnation may not come back.
pub(super) fn retire(session: &mut Session, tenure: &mut Tenure, now: TimeUs) {
    session.fence(session.incarnation);
    session.pending.clear();
    session.inflight.clear();
    tenure.ended_at.get_or_insert(now);
}

impl Session {
    fn new(request: &SyncRequest, retired: Vec<u64>, now: TimeUs) -> Self {
        Self {
            gateway_id: request.gateway_id.clone(),
            incarnation: request.incarnation,
            sequence: request.sequence,
            retired,
            last_reply_at: now,
            ..Self::default()
        }
    }

    /// The form for the store.
    #[must_use]
    pub(super) fn to_record(&self, tenure: Tenure) -> SessionRecord {
        SessionRecord {
            gateway_id: self.gateway_id.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            retired: self.retired.clone(),
            generation: tenure.generation,
            ended: tenure.ended_at.is_some(),
            incarnation_from: tenure.incarnation_from,
        }
    }
}

fn begin(tenure: &mut Tenure, previous_ended_at: TimeUs, is_back: bool) {
    let generation = tenure.generation.saturating_add(1);
    *tenure = Tenure {
        generation,
        ended_at: None,
        previous_ended_at,
        incarnation_from: if is_back {
            tenure.incarnation_from
        } else {
            generation
        },
    };
}

fn refuse(code: SyncErrorCode, error: ApiError) -> Refusal {
    Refusal { code, error }
}

fn stale_incarnation(id: &str) -> Refusal {
    let message = format!(
        "this incarnation of gateway `{id}` was replaced by a newer one, or retired by the operator"
    );
    let hint = "two processes use one gateway id, or an old one did not die: stop it, or give it an id of its own";
    refuse(
        SyncErrorCode::StaleIncarnation,
        ApiError::conflict("stale_incarnation", message, hint).at("incarnation"),
    )
}

fn another_live(known: &Session, id: &str, hold_us: u64, now: TimeUs) -> Refusal {
    let left_s = known
        .may_spend_until(hold_us)
        .since(now)
        .div_ceil(1_000_000);
    let message = format!(
        "gateway `{}` is live and holds the whole contract, so gateway `{id}` cannot be given any of it; this version serves one gateway at a time",
        known.gateway_id
    );
    let hint = format!(
        "stop `{}`; its tokens come back {left_s} s after its last sync, or at once with `forebay gateway retire {}` if it is surely gone",
        known.gateway_id, known.gateway_id
    );
    refuse(
        SyncErrorCode::AnotherGatewayLive,
        ApiError::conflict("another_gateway_live", message, hint).at("gateway_id"),
    )
}
