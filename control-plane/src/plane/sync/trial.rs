//! The canary against the others, and what follows from it.
//!
//! Gateways report sums, and once in each step, in its middle, the difference to the last time makes one pair: what had matured at the
//! step's beginning has been reported by then, by all that sync at all, and concerns the same steps of the same fleet. It is done with
//! whichever sync comes first in that half: the evidence goes into its batch, and nothing waits for it. A timer of its own was worse: it
//! would need the lead, the lock and a batch all the same.

use super::super::audit::Deed;
use super::super::canary::Promotion;
use super::super::fleet::{Fleet, name_hash};
use super::super::releases::{Release, ReleaseRequest, Signer, promote, release};
use super::super::session::{Session, Terms};
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

/// Why a canary ends.
enum End {
    /// The test has found something.
    Found(Finding),
    /// A gateway does not run it.
    Refused(String),
}

/// The means of one side.
#[derive(Default)]
struct Side {
    gateways: u32,
    loss: f64,
    coverage: f64,
}

// === impl Side ===

impl Side {
    fn add(&mut self, loss: f64, coverage: f64) {
        self.gateways = self.gateways.saturating_add(1);
        self.loss += loss;
        self.coverage += coverage;
    }

    fn means(&self) -> Option<(f64, f64)> {
        let gateways = f64::from(self.gateways);
        (self.gateways > 0).then(|| (self.loss / gateways, self.coverage / gateways))
    }
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
        if canary.enrol(id, name_hash(id)) {
            saved = canary.save(batch);
        }
        let round = round_at(now, self.settings.step_ms);
        if round != canary.round {
            let before = std::mem::replace(&mut canary.round, round);
            let sides = (file, champion);
            let runs_at = |gateway: &str| canary.runs_at(gateway);
            if let Some(pair) = pair(
                &mut state.fleet,
                runs_at,
                sides,
                (before, round),
                terms,
                now.mono,
            ) {
                canary.trial.observe(pair);
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
            None => canary.trial.finding().map(End::Found),
        };
        let is_ours = canary.promotion == Promotion::Auto && canary.stuck.is_none();
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
fn round_at(now: Now, step_ms: u32) -> u64 {
    let step_ms = u64::from(step_ms.max(1));
    now.unix_ms
        .saturating_add(step_ms / 2)
        .checked_div(step_ms)
        .unwrap_or(0)
}

fn digest_of(release: Option<&Release>) -> Option<ModelDigest> {
    from_hex(&release?.digest)
}

/// What has matured in the round that is over, of the canary's file on one side and of the champion's on the other. Every session begins
/// the next round with what it has said by now.
fn pair(
    fleet: &mut Fleet,
    runs_at: impl Fn(&str) -> bool,
    (canary, champion): (ModelDigest, ModelDigest),
    (before, round): (u64, u64),
    terms: Terms,
    now: TimeUs,
) -> Option<Pair> {
    let (mut canaries, mut others) = (Side::default(), Side::default());
    for (id, session) in fleet.named_sessions_mut() {
        let is_live = session.standing(terms, now) == Standing::Present(Presence::Live);
        let Some(matured) = session.scores.next_round(before, round).filter(|_| is_live) else {
            continue;
        };
        let (digest, score) = matured;
        let Some(loss) = score.loss_per_usage() else {
            continue;
        };
        match runs_at(id) {
            true if digest == canary => canaries.add(loss, score.coverage()),
            false if digest == champion => others.add(loss, score.coverage()),
            // Still the model before, or again.
            _ => {}
        }
    }
    Pair::new(canaries.means()?, others.means()?)
}

fn refusal(session: &Session, epoch: u64) -> Option<String> {
    let status = &session.model_status;
    let is_refused = status.state() == ModelState::Refused && status.offered_epoch == epoch;
    is_refused.then(|| status.message.chars().take(200).collect())
}
