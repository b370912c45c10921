//! The challenger against the model in force, and what follows from it.
//!
//! As with a canary, once in each step, in its middle, the difference of what gateways report to the last time makes one pair. Here each
//! gateway reports both sums, over the same customers and steps.

use super::super::audit::Deed;
use super::super::canary::Promotion;
use super::super::challenger::{Challenger, withdraw};
use super::super::fleet::Fleet;
use super::super::releases::{ReleaseRequest, Signer, release};
use super::super::score::{Score, WARM_UP_ROUNDS};
use super::super::session::{Session, Terms};
use super::super::sides::compare_beside;
use super::super::state::State;
use super::super::{Now, Plane};
use super::trial::{digest_of, round_at};
use crate::buckets::Standing;
use crate::error::ApiError;
use crate::models::{Finding, Pair, from_hex};
use crate::store::Batch;
use forebay_core::fleet::Presence;
use forebay_wire::model::{ModelDigest, ReleaseKind};

/// Why a comparison ends.
enum End {
    /// The test has found something.
    Found(Finding),
    /// A gateway does not run it.
    Refused(String),
}

impl Plane {
    /// Takes what the gateway has reported into the comparison, and ends it when it is time.
    pub(super) fn watch_challenger(
        &self,
        state: &mut State,
        batch: &mut Batch,
        id: &str,
        now: Now,
    ) {
        let book = &mut state.models;
        let champion = digest_of(book.active());
        let Some((challenger, champion)) = book.challenger.as_mut().zip(champion) else {
            return;
        };
        let Some(file) = from_hex::<32>(&challenger.digest) else {
            return;
        };
        let mut saved = Ok(());
        let round = round_at(now, self.settings.step_ms);
        let is_new_round = round != challenger.round;
        if is_new_round {
            challenger.round = round;
            challenger.stuck = None;
            let terms = self.settings.terms();
            let files = (file, champion);
            if let Some(pair) = close_round(challenger, &mut state.fleet, files, terms, now) {
                challenger.trial.observe(pair, now.unix_ms);
                saved = challenger.save_trial(batch);
            }
        }
        // One that does not run the model in force yet speaks of another pair.
        let runs_champion = |session: &&Session| session.model_status.digest == champion;
        let session = state.fleet.session(id).filter(runs_champion);
        let refusal = session.and_then(|session| challenger.refusal(session));
        let end = match refusal {
            Some(reason) => Some(End::Refused(format!("gateway {id} refuses it: {reason}"))),
            None => challenger.finding().map(End::Found),
        };
        // What has failed is tried again, but not with each sync.
        let is_ours = challenger.promotion == Promotion::Auto && challenger.stuck.is_none();
        let ended = match end.filter(|_| is_ours) {
            Some(end) => self.end_challenge(state, batch, file, end, now),
            None => Ok(()),
        };
        if let Err(error) = saved.map_err(ApiError::from).and(ended) {
            tracing::warn!("the challenger stays as it is: {error}; {}", error.hint);
            if let Some(challenger) = &mut state.models.challenger {
                challenger.stuck = Some(error.message);
            }
        }
    }

    fn end_challenge(
        &self,
        state: &mut State,
        batch: &mut Batch,
        file: ModelDigest,
        end: End,
        now: Now,
    ) -> Result<(), ApiError> {
        let (is_good, reason) = match end {
            End::Found(finding) => (finding.is_good(), finding.words().to_owned()),
            End::Refused(reason) => (false, reason),
        };
        let digest = crate::models::hex(&file);
        let (action, outcome) = if is_good {
            let request = ReleaseRequest {
                digest: Some(file),
                kind: ReleaseKind::Release,
                signed: None,
                share: None,
            };
            let signer = Signer {
                key: self.signing_key.as_ref(),
                public_key: None,
            };
            let done = release(&mut state.models, batch, now, &request, signer, Vec::new())?;
            ("model.promote", done.outcome)
        } else {
            ("model.withdraw", withdraw(&mut state.models, batch))
        };
        tracing::info!(%reason, "{action}: {outcome}");
        let deed = Deed::of_the_server(action, digest).with("reason", Some(reason));
        let keep = self.settings.audit_keep;
        state.audit.append(batch, deed, outcome, now, keep);
        Ok(())
    }
}

/// What has matured in the round that is over, of both models, at gateways that run both and are warm. Every session begins the next round
/// with what it has said by now; but where nothing is used the round goes on, resource by resource.
fn close_round(
    challenger: &mut Challenger,
    fleet: &mut Fleet,
    (file, champion): (ModelDigest, ModelDigest),
    terms: Terms,
    now: Now,
) -> Option<Pair> {
    let open = challenger.open;
    let runs_both = |session: &Session, digest: ModelDigest| {
        let is_live = session.standing(terms, now.mono) == Standing::Present(Presence::Live);
        is_live && digest == file && session.model_status.digest == champion
    };
    let reports = fleet.sessions().filter_map(|(_, session)| {
        let (digest, scores) = session.duel.in_round(&open)?;
        let is_warm = session.duel.warm_up_left() == 0;
        (is_warm && runs_both(session, digest)).then_some(scores)
    });
    let (compared, anew) = compare_beside(&reports.collect::<Vec<(Score, Score)>>());
    let next = open.next(&anew, challenger.round);
    if next != open {
        let mut left = WARM_UP_ROUNDS;
        for (_, session) in fleet.named_sessions_mut() {
            session.duel.next_round(&open, &next);
            if session
                .duel
                .digest()
                .is_some_and(|digest| runs_both(session, digest))
            {
                left = left.min(session.duel.warm_up_left());
            }
        }
        challenger.open = next;
        challenger.warm_up_left = left;
    }
    challenger.lacks = compared.err().map(|missing| {
        let before = challenger.lacks.filter(|(before, _)| *before == missing);
        (
            missing,
            before.map_or(1, |(_, rounds)| rounds.saturating_add(1)),
        )
    });
    compared.ok()
}
