//! The canary against the others, and what follows from it.
//!
//! Gateways report sums ([`super::super::sides`] adds them up), and once in each step, in its middle, the difference to the last time makes one pair: what had matured at the
//! step's beginning has been reported by then, by all that sync at all, and concerns the same steps of the same fleet. It is done with
//! whichever sync comes first in that half: the evidence goes into its batch, and nothing waits for it. A timer of its own was worse: it
//! would need the lead, the lock and a batch all the same.

use super::super::audit::Deed;
use super::super::canary::{Canary, Promotion};
use super::super::fleet::{Fleet, name_hash};
use super::super::releases::{Release, ReleaseRequest, Signer, promote, release};
use super::super::score::WARM_UP_ROUNDS;
use super::super::session::{Session, Terms};
use super::super::sides::{Report, compare};
use super::super::state::State;
use super::super::{Now, Plane};
use crate::buckets::Standing;
use crate::error::ApiError;
use crate::models::{Finding, Pair, from_hex};
use crate::store::Batch;
use forebay_core::fleet::Presence;
use forebay_core::time::TimeUs;
use forebay_wire::model::{ModelDigest, ReleaseKind};
use forebay_wire::sync::ModelState;
use std::collections::BTreeSet;

/// Why a canary ends.
enum End {
    /// The test has found something.
    Found(Finding),
    /// A gateway does not run it.
    Refused(String),
}

impl Plane {
    /// Takes what the gateway has reported into the comparison, and ends the canary when it is time.
    pub(super) fn watch_canary(&self, state: &mut State, batch: &mut Batch, id: &str, now: Now) {
        let terms = self.settings.terms();
        let book = &mut state.models;
        let champion = digest_of(book.active());
        let Some(canary) = &mut book.canary else {
            return;
        };
        let file = digest_of(book.releases.get(&canary.epoch));
        let (Some(champion), Some(file)) = (champion, file) else {
            return;
        };
        let mut saved = Ok(());
        let session = state.fleet.session(id);
        if !canary.knows(id) {
            let has_its_epoch =
                session.is_some_and(|session| session.model_status.epoch == canary.epoch);
            let present = present(&state.fleet, terms, now.mono);
            if canary.enrol(id, name_hash(id), has_its_epoch, &present) {
                saved = canary.save(batch);
            }
        }
        let round = round_at(now, self.settings.step_ms);
        let is_new_round = round != canary.round;
        if is_new_round {
            canary.round = round;
            if let Some(pair) = close_round(canary, &mut state.fleet, (file, champion), terms, now)
            {
                canary.trial.observe(pair, now.unix_ms);
                saved = saved.and_then(|()| canary.save_trial(batch));
            }
        }
        let refusal = state
            .fleet
            .session(id)
            .filter(|_| canary.runs_at(id))
            .and_then(|session| refusal(session, canary.epoch));
        let end = match refusal {
            Some(reason) => Some(End::Refused(format!("gateway {id} refuses it: {reason}"))),
            None => canary.finding().map(End::Found),
        };
        // What has failed is tried again, but not with each sync.
        let is_due = is_new_round || canary.stuck.is_none();
        if is_new_round {
            canary.stuck = None;
        }
        let is_ours = canary.promotion == Promotion::Auto && is_due;
        let ended = match end.filter(|_| is_ours) {
            Some(end) => self.end_canary(state, batch, end, now),
            None => Ok(()),
        };
        if let Err(error) = saved.map_err(ApiError::from).and(ended) {
            tracing::warn!("the canary stays as it is: {error}; {}", error.hint);
            if let Some(canary) = &mut state.models.canary {
                canary.stuck = Some(error.message);
            }
        }
    }

    fn end_canary(
        &self,
        state: &mut State,
        batch: &mut Batch,
        end: End,
        now: Now,
    ) -> Result<(), ApiError> {
        let canary = state.models.canary.as_ref();
        let object = canary.and_then(|canary| state.models.releases.get(&canary.epoch));
        let object = object.map_or(String::new(), |release| release.digest.clone());
        let (is_good, reason) = match end {
            End::Found(finding) => (finding.is_good(), finding.words().to_owned()),
            End::Refused(reason) => (false, reason),
        };
        let (action, done) = if is_good {
            ("model.promote", promote(&mut state.models, batch)?)
        } else {
            let request = ReleaseRequest {
                digest: None,
                kind: ReleaseKind::RollBack,
                signed: None,
                share: None,
            };
            let signer = Signer {
                key: self.signing_key.as_ref(),
                public_key: None,
            };
            let done = release(&mut state.models, batch, now, &request, signer, Vec::new())?;
            ("model.rollback", done)
        };
        tracing::info!(%reason, "{action}: {}", done.outcome);
        let deed = Deed::of_the_server(action, object).with("reason", Some(reason));
        let keep = self.settings.audit_keep;
        state.audit.append(batch, deed, done.outcome, now, keep);
        Ok(())
    }
}

/// Steps are cut in their middle.
pub(in crate::plane) fn round_at(now: Now, step_ms: u32) -> u64 {
    let step_ms = u64::from(step_ms.max(1));
    now.unix_ms
        .saturating_add(step_ms / 2)
        .checked_div(step_ms)
        .unwrap_or(0)
}

pub(super) fn digest_of(release: Option<&Release>) -> Option<ModelDigest> {
    from_hex(&release?.digest)
}

fn present(fleet: &Fleet, terms: Terms, now: TimeUs) -> BTreeSet<String> {
    let present = fleet.present(terms, now);
    present.into_iter().map(|(_, id)| id).collect()
}

/// What has matured in the round that is over, of the canary's file on one side and of the champion's on the other, at gateways that are
/// warm. Every session begins the next round with what it has said by now; but where nothing is used the round goes on, resource by
/// resource, so that the loss of claims on silent customers is not left out.
fn close_round(
    canary: &mut Canary,
    fleet: &mut Fleet,
    (file, champion): (ModelDigest, ModelDigest),
    terms: Terms,
    now: Now,
) -> Option<Pair> {
    let open = canary.open;
    let side_of = |id: &str, session: &Session, digest: ModelDigest| {
        let is_live = session.standing(terms, now.mono) == Standing::Present(Presence::Live);
        match canary.runs_at(id) {
            true if is_live && digest == file => Some(true),
            false if is_live && digest == champion => Some(false),
            // Still the model before, or again.
            _ => None,
        }
    };
    let reports = fleet.sessions().filter_map(|(id, session)| {
        let (digest, score) = session.scores.in_round(&open)?;
        let is_canary = side_of(id, session, digest)?;
        let is_warm = session.scores.warm_up_left() == 0;
        is_warm.then_some(Report { is_canary, score })
    });
    let (compared, anew) = compare(&reports.collect::<Vec<_>>());
    let next = open.next(&anew, canary.round);
    if next != open {
        let (mut canaries, mut others) = (WARM_UP_ROUNDS, WARM_UP_ROUNDS);
        for (id, session) in fleet.named_sessions_mut() {
            session.scores.next_round(&open, &next);
            let newest = session.scores.newest();
            let side = newest.and_then(|(digest, _)| side_of(id, session, digest));
            let left = session.scores.warm_up_left();
            match side {
                Some(true) => canaries = canaries.min(left),
                Some(false) => others = others.min(left),
                None => {}
            }
        }
        canary.open = next;
        canary.warm_up_left = canaries.max(others);
    }
    canary.lacks = compared.err().map(|lack| {
        let before = canary.lacks.filter(|(before, _)| *before == lack);
        (
            lack,
            before.map_or(1, |(_, rounds)| rounds.saturating_add(1)),
        )
    });
    compared.ok()
}

fn refusal(session: &Session, epoch: u64) -> Option<String> {
    let status = &session.model_status;
    let is_refused = status.state() == ModelState::Refused && status.offered_epoch == epoch;
    is_refused.then(|| status.message.chars().take(200).collect())
}
