//! One session: an incarnation of a gateway, from its first sync here until nothing that it was granted can be spent.
//!
//! ```text
//!          first sync               reply in time
//!   none ─────────────▶ live ◀─────────────────────┐
//!                        │ └────────────────────────┘
//!             lease over │     ▲ sync, after the lower rates were told
//!                        ▼     │
//!                      lapsed ─┘
//!                        │ fallback over, a new incarnation, or the operator's word
//!                        ▼
//!                      ended ──── sync of the same incarnation ───▶ live, with the sums that it reports
//! ```
//! A gateway that comes back after its lease may still refill at the fallback rates, while its granted rates may have gone to
//! others. It is told lower ones first, and has no lease until all of them fit into one reply.

use super::rollout::PolicyOffer;
use super::score::{DuelScores, Scores};
use super::sync::Told;
use crate::buckets::{Seat, SessionNumber, Standing};
use forebay_core::fleet::Presence;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{ChallengerStatus, ModelStatus, SyncRequest};
use std::collections::BTreeSet;

/// What a reply may be late by, on top of the times to live.
const SLACK_US: u64 = 1_000_000;

/// Of what a gateway says about a model, for people.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// All forecasts.
const PPM: u32 = 1_000_000;
/// A forecaster whose loss is a thousand times the demand says nothing by how much more it is.
const PINBALL_PPM_MOST: u64 = 1_000 * PPM as u64;
/// A SHA-256.
const DIGEST_BYTES: usize = 32;

/// How long a gateway may work with what a reply granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// At the granted rates.
    pub lease_us: u64,
    /// At the fallback rates after that.
    pub fallback_us: u64,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Its number, in the parts of accounts.
    pub number: SessionNumber,
    /// The incarnation that may spend.
    pub incarnation: u64,
    /// The newest request counted.
    pub sequence: u64,
    /// When its times to live began to run for the last time, by our clock.
    pub last_reply_at: TimeUs,
    /// Set when nothing that it was granted can be spent any more.
    pub ended_at: Option<TimeUs>,
    /// It has sums that were forgotten here: grants begin with its reports of them.
    pub is_adopted: bool,
    /// Set until the reply of this number, or a later one, is known to have been applied: until then it is asked to report everything.
    pub report_all_until: Option<u64>,
    /// Its lease has ended once, and it is not known to have been told the lower rates: the reply that told the last of them, if
    /// one did.
    pub lapsed: Option<Lapse>,
    /// Customers whose grants the gateway has not been told, or may not have heard.
    pub pending: BTreeSet<CustomerHash>,
    /// Customers of whom it should perhaps hold another part: other gateways need more or less.
    pub due: BTreeSet<CustomerHash>,
    /// Grants of the newest reply, until its arrival is known.
    pub inflight: Vec<CustomerHash>,
    /// What it was told of allocations.
    pub told: Told,
    /// Policy epoch for which all customers were put into `pending`.
    pub granted_epoch: u64,
    /// Requests it has sent since this process started.
    pub syncs: u64,
    /// The finished step of which it was told what the other gateways have used.
    pub usage_told: u64,
    /// What its forecaster said last.
    pub model_status: ModelStatus,
    /// What of it can be compared.
    pub scores: Scores,
    /// The same, in the rounds of alerts.
    pub watched: Scores,
    /// What it says of a challenger beside its model.
    pub duel: DuelScores,
    /// Version of its plugin.
    pub version: String,
    /// Policy that is in force there.
    pub policy_epoch_applied: u64,
    /// Whether it takes what it is sent of a policy.
    pub(super) policy_offer: PolicyOffer,
}

/// How far a session is that came back after its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// There is somebody about whom it was not told.
    Telling,
    /// The reply of this number told the last of them.
    ToldIn(u64),
}

// === impl Session ===

impl Session {
    /// Takes note of what its forecaster says. It is kept for as long as the session, of which there may be a thousand, and a request may be 4 MiB.
    pub(super) fn hear_forecaster(&mut self, status: &ModelStatus) {
        let message = |said: &str| said.chars().take(MESSAGE_CHARS_MAX).collect();
        let digest = |said: &[u8]| match said.len() {
            DIGEST_BYTES => said.to_vec(),
            _ => Vec::new(),
        };
        self.scores.hear(status);
        self.watched.hear(status);
        self.duel.hear(status);
        let challenger = status.challenger.as_ref();
        self.model_status = ModelStatus {
            message: message(&status.message),
            digest: digest(&status.digest),
            challenger: challenger.map(|challenger| ChallengerStatus {
                message: message(&challenger.message),
                digest: digest(&challenger.digest),
                challenger_score: None,
                champion_score: None,
                ..*challenger
            }),
            // What can be believed of the sums is kept as numbers.
            score: None,
            // More is no measurement, and would be no number in a chart.
            pinball_ppm: status.pinball_ppm.min(PINBALL_PPM_MOST),
            coverage_ppm: status.coverage_ppm.min(PPM),
            ..*status
        };
    }

    pub(super) fn new(number: SessionNumber, request: &SyncRequest, now: TimeUs) -> Self {
        // It has applied a reply of somebody: what it was granted is not known here. A forecaster that was started anew may have forgotten
        // the reply, but the ledger has not forgotten the tokens.
        let is_adopted = request.reply_applied > 0
            || request
                .customers
                .iter()
                .any(|report| report.granted_seen_micro != 0)
            || request
                .pools
                .iter()
                .any(|report| report.granted_seen_micro != 0);
        Self {
            number,
            incarnation: request.incarnation,
            sequence: request.sequence,
            last_reply_at: now,
            is_adopted,
            report_all_until: is_adopted.then_some(request.sequence),
            ..Self::default()
        }
    }

    /// Until when the granted rates may be in use: a chunk that was drawn at the very end is spent later.
    fn lapses_at(&self, terms: Terms) -> TimeUs {
        self.last_reply_at
            .plus_us(terms.lease_us)
            .plus_us(SLACK_US)
            .plus_us(CHUNK_LIFE_US)
    }

    /// From when on nothing that was granted can be spent.
    #[must_use]
    pub fn ends_at(&self, terms: Terms) -> TimeUs {
        self.lapses_at(terms).plus_us(terms.fallback_us)
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self, terms: Terms, now: TimeUs) -> Standing {
        if let Some(ended_at) = self.ended_at {
            Standing::Ended(ended_at)
        } else if now < self.lapses_at(terms) {
            Standing::Present(Presence::Live)
        } else if now < self.ends_at(terms) {
            Standing::Present(Presence::Lapsed)
        } else {
            Standing::Ended(self.ends_at(terms))
        }
    }

    /// Nothing that was granted can be spent any more.
    pub(super) fn end(&mut self, at: TimeUs) {
        self.ended_at = Some(at);
        self.lapsed = None;
        self.pending.clear();
        self.due.clear();
        self.inflight.clear();
        self.told = Told::default();
    }

    /// The gateway is back, with the sums that it has.
    pub(super) fn revive(&mut self, request: &SyncRequest, now: TimeUs) {
        self.ended_at = None;
        self.is_adopted = true;
        self.report_all_until = Some(request.sequence);
        self.last_reply_at = now;
        self.granted_epoch = 0;
    }

    pub(super) fn seat(&self, name_hash: u64, terms: Terms, now: TimeUs) -> Seat {
        Seat {
            session: self.number,
            standing: self.standing(terms, now),
            synced_at: self.last_reply_at,
            name_hash,
        }
    }

    /// Notes which reply the gateway has applied. Returns whose grants were in a reply that it has not: they are in the queue again.
    pub(super) fn hear(&mut self, reply_applied: u64) -> Vec<CustomerHash> {
        let inflight = std::mem::take(&mut self.inflight);
        self.told.hear(reply_applied >= self.sequence);
        if self
            .report_all_until
            .is_some_and(|asked| asked < reply_applied)
        {
            self.report_all_until = None;
        }
        if reply_applied >= self.sequence {
            if self.lapsed == Some(Lapse::ToldIn(self.sequence)) {
                self.lapsed = None;
            }
            return Vec::new();
        }
        if self.lapsed.is_some() {
            self.lapsed = Some(Lapse::Telling);
        }
        self.pending.extend(inflight.iter().copied());
        inflight
    }

    /// Whether the reply that is being made may give a lease. A gateway that came back gets none as long as it does not know all of the
    /// lower rates.
    pub(super) fn may_lease(&mut self) -> bool {
        if self.lapsed.is_none() {
            return true;
        }
        let is_told = self.pending.is_empty();
        self.lapsed = Some(if is_told {
            Lapse::ToldIn(self.sequence)
        } else {
            Lapse::Telling
        });
        is_told
    }
}
