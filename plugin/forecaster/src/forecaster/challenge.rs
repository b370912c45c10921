//! How a challenger comes, fights and goes. Nothing here changes what the model in force does.

use forebay_forecast::Limits;
use forebay_wire::sync::ModelRelease;
use log::Level;

use super::{Forecaster, step_number};
use crate::budget::Budget;
use crate::challenger::{Duel, Pace};
use crate::host::{Host, Metric};
use crate::inference::{BATCH_ROWS, Inference, Request};
use crate::model::Step;
use crate::series::{SeriesTable, SlotId};

impl<H: Host> Forecaster<H> {
    /// Takes note of the challenger that a sync reply names, or that it names none.
    pub(super) fn consider_challenger(&mut self, offer: Option<&ModelRelease>, now_us: u64) {
        let champion = self.models.running().map(|running| running.epoch);
        let Some((offer, epoch)) = offer.zip(champion) else {
            if self.challengers.dismiss() {
                self.begin_duel();
                self.host
                    .log(Level::Info, "no model is compared with the running one");
            }
            return;
        };
        self.challengers.follow(epoch);
        if let Err(refusal) = self.challengers.offer(&self.host, offer, now_us) {
            self.challenger_refused(&refusal.to_string());
        }
    }

    /// Moves a challenger on its way one step further. Returns true when one was loaded or refused: that is all of this tick.
    pub(super) fn refresh_challenger(&mut self, now_us: u64) -> bool {
        let lost_after_us = self
            .control_plane
            .as_ref()
            .map(|control_plane| control_plane.lost_after_us());
        if lost_after_us.is_some_and(|after_us| self.challengers.give_up_lost(now_us, after_us)) {
            self.host.log(
                Level::Warn,
                "the host lost the call that fetches the challenger; it will be tried again",
            );
        }
        match self.challengers.next(now_us) {
            Step::Rest => false,
            Step::Fetch(path) => {
                let control_plane = self.control_plane.as_ref();
                let call =
                    control_plane.and_then(|control_plane| control_plane.fetch(&self.host, &path));
                self.challengers.fetching(call, now_us);
                false
            }
            Step::Load => {
                let limits = Limits::default();
                match self.challengers.load(&self.host, &limits, BATCH_ROWS) {
                    Ok(_) => self.begin_duel(),
                    Err(refusal) => self.challenger_refused(&refusal.to_string()),
                }
                true
            }
        }
    }

    /// Begins to compare the models that run beside one another, from nothing.
    pub(super) fn begin_duel(&mut self) {
        self.books.duel = None;
        let mut epoch = 0;
        if let Some((champion, challenger)) = self.models.running().zip(self.challengers.running())
        {
            let duel = Duel::between(
                &champion.model,
                &challenger.model,
                &challenger.digest,
                self.config.shadow.cap_factor,
                self.books.inference.history_steps(),
            );
            match duel {
                Ok(duel) => {
                    epoch = challenger.epoch;
                    self.books.duel = Some(duel);
                    let line = format!("a challenger runs beside the model, epoch {epoch}");
                    self.host.log(Level::Info, &line);
                }
                Err(unfit) => {
                    self.drop_challenger(&unfit.to_string());
                    return;
                }
            }
        }
        self.host.record(Metric::ChallengerEpoch, epoch);
    }

    /// Lets the challenger forecast, with what is left of the tick and only when the champion has no work.
    pub(super) fn challenge(&mut self, budget: Budget) {
        if !self.books.inference.is_idle() {
            return;
        }
        let now_us = self.host.monotonic_us();
        let step = step_number(self.calendar.step_at(now_us, self.books.step_s));
        let Some((duel, challenger)) = self.books.duel.as_mut().zip(self.challengers.running_mut())
        else {
            return;
        };
        duel.tick(step);
        let mut failed = None;
        while failed.is_none() && duel.may_start(|unit_us| budget.allows(&self.host, unit_us)) {
            match duel.work(&self.host, &mut challenger.model) {
                Pace::Idle => break,
                Pace::Worked => {}
                Pace::Failed(reason) => failed = Some(reason),
            }
        }
        if let Some(reason) = failed {
            self.drop_challenger(&reason);
        }
    }

    /// A challenger that was loaded cannot go on.
    fn drop_challenger(&mut self, reason: &str) {
        self.challengers.withdraw(reason);
        self.challenger_refused(reason);
    }

    pub(super) fn challenger_refused(&mut self, reason: &str) {
        self.books.duel = None;
        self.host.record(Metric::ChallengerEpoch, 0);
        self.host.increment(Metric::ChallengerRefused, 1);
        let line = format!("the challenger is not compared: {reason}");
        self.host.log(Level::Warn, &line);
    }
}

/// The champion has begun to forecast a series, or found that there is nothing to forecast.
pub(super) fn show(
    duel: &mut Option<Duel>,
    table: &SeriesTable,
    slot: SlotId,
    inference: &Inference,
    request: &Request<'_>,
) {
    let Some((duel, (key, series))) = duel.as_mut().zip(table.get(slot)) else {
        return;
    };
    if series.is_active(inference.window_steps()) {
        let ceiling = (request.ceiling)(key, series.contract);
        duel.see(key, series.window(), request.step, ceiling);
    } else {
        duel.forget(key);
    }
}
