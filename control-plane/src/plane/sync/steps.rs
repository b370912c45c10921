//! The steps of usage history: which one runs, and what was asked for in the one that has ended.
//!
//! A step ends for all customers at once, and each has a row to be written. To write them all with the sync that ended it was worse: with
//! twenty thousand customers it held the lock for a tenth of a second, and hundreds of syncs queued behind it. So some are closed with
//! each sync, and the step is published when all are. What is not closed when the server is killed is missing from the history.

use super::super::clock::Now;
use super::super::export::EndedStep;
use super::super::state::{META_COVERAGE, Settings, State};
use super::reports::tokens;
use super::usage::{Finished, FinishedUsage};
use crate::history::{Series, step_at};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::key::CustomerHash;
use smallvec::SmallVec;
use std::sync::Arc;

/// Customers that are closed with one sync at least, and the part of all of them that is.
const CLOSED_AT_ONCE: usize = 256;
const PARTS_OF_ALL: usize = 32;

/// A clock that is corrected while it runs goes back by less than this: the running step then lasts until the clock is there again.
const SET_BACK_STEPS: u64 = 3;

/// Whether a step is so far in the future of the wall clock's that the clock must have been set back since.
pub(in crate::plane) fn is_set_back(from: u64, to: u64) -> bool {
    from > to.saturating_add(SET_BACK_STEPS)
}

/// A step that has ended, while its customers are closed.
#[derive(Debug)]
pub struct Closing {
    finished: Finished,
    /// Those who are still to be closed.
    left: Vec<CustomerHash>,
    /// How many are closed with one sync.
    at_once: usize,
    /// It ended in this run.
    is_news: bool,
}

impl State {
    /// The newest step that is closed for all customers.
    #[must_use]
    pub fn newest_closed(&self) -> u64 {
        let running = self.closing.as_ref().map_or(self.step_now, |closing| {
            closing.finished.step.min(self.step_now)
        });
        running.saturating_sub(1)
    }

    /// Moves the running step on, and closes some customers of the one that has ended. Returns the steps that are closed with this.
    ///
    /// The step follows the wall clock back as well once that was set back by more than [`SET_BACK_STEPS`]: a clock that was a year
    /// ahead for a moment would stop the history for a year otherwise. What was counted under the wrong clock since the last step
    /// ended is dropped, and the steps from the new one on count as not observed, since they are still to come.
    ///
    /// `is_report`: the sync that moves it on says what was asked for since a step ago at most. One that comes later is of other steps as well,
    /// is not counted, and must not make a zero of the running one.
    pub(in crate::plane) fn advance_history(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        settings: &Settings,
        is_report: bool,
        now: Now,
    ) -> Result<Vec<EndedStep>, StoreError> {
        let step = step_at(now.unix_ms, settings.step_ms);
        let is_next = step > self.step_now || is_set_back(self.step_now, step);
        // One step is closed before the next one is begun with.
        let mut ended = Vec::from_iter(self.close(store, batch, is_next)?);
        if step > self.step_now {
            let left: Vec<CustomerHash> = std::mem::take(&mut self.active).into_iter().collect();
            self.closing = Some(Closing {
                at_once: CLOSED_AT_ONCE.max(left.len() / PARTS_OF_ALL),
                left,
                // After a start the step that ends first is the last one with demand, and may have ended in an earlier run.
                is_news: self.coverage.newest() <= self.step_now,
                finished: Finished::of(self.step_now),
            });
            self.step_now = step;
            self.ring.close_idle(step);
            match self.close(store, batch, false) {
                Ok(next) => ended.extend(next),
                // The next sync goes on with it; what has been closed must not be forgotten.
                Err(error) if !ended.is_empty() => {
                    tracing::error!(%error, "a step of usage history cannot be closed yet");
                }
                Err(error) => return Err(error),
            }
        } else if is_set_back(self.step_now, step) {
            tracing::warn!(
                from = self.step_now,
                to = step,
                "the wall clock was set back, and the steps of usage history with it"
            );
            self.active.clear();
            self.step_now = step;
            self.coverage.rewind(step);
            self.ring.close_idle(step);
        }
        if is_report && self.coverage.observe(self.step_now) {
            batch.put(Table::Meta, META_COVERAGE, self.coverage.encode());
        }
        Ok(ended)
    }

    /// Closes some customers of the step that has ended, or all of them. Returns the step when none is left.
    ///
    /// # Errors
    /// When a chunk cannot be read: the next sync goes on with its customer.
    pub(in crate::plane) fn close(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        all: bool,
    ) -> Result<Option<EndedStep>, StoreError> {
        let Some(mut closing) = self.closing.take() else {
            return Ok(None);
        };
        let most = if all { usize::MAX } else { closing.at_once };
        let mut closed = 0;
        while closed < most
            && let Some(customer) = closing.left.last().copied()
        {
            if let Err(error) = self.close_customer(store, batch, customer, &mut closing.finished) {
                self.closing = Some(closing);
                return Err(error);
            }
            closing.left.pop();
            closed += 1;
        }
        if !closing.left.is_empty() {
            self.closing = Some(closing);
            return Ok(None);
        }
        let finished = Arc::new(closing.finished);
        if finished.usage.is_empty() && !self.coverage.observed(finished.step) {
            // Nobody has reported in it: that it was a step without demand is not known, and nobody is told so.
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.finished, Arc::clone(&finished));
        Ok(closing.is_news.then_some(EndedStep { before, finished }))
    }

    /// What a customer has asked for in a step goes to the history.
    fn close_customer(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        customer: CustomerHash,
        finished: &mut Finished,
    ) -> Result<(), StoreError> {
        let Some(account) = self.accounts.get(&customer) else {
            return Ok(());
        };
        let step = finished.step;
        let demands = account.holdings.iter().enumerate();
        let demands = demands.map(|(resource, holding)| {
            let (demand, denied) = holding.usage.with_denied(step);
            (resource, demand, denied)
        });
        let demands: SmallVec<[(usize, u64, u64); 1]> =
            demands.filter(|(_, demand, _)| *demand > 0).collect();
        for (resource, demand, _) in &demands {
            let series = Series::new(customer, u8::try_from(*resource).unwrap_or(u8::MAX));
            let usage = tokens(*demand);
            match self.ring.set(store, batch, series, step, usage) {
                Ok(()) => {}
                // All gateways would wait for ever for one customer.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%error, %customer, "64 steps of the customer's usage are lost");
                    self.ring.set_anew(batch, series, step, usage);
                }
                Err(error) => return Err(error),
            }
        }
        for (resource, demand, denied) in demands {
            let by_part = account.parts.iter().filter_map(|part| {
                let holding = part.holdings.get(resource)?;
                Some((part.session(), holding.usage.of(step)))
            });
            let with_any = by_part.clone().filter(|(_, own)| *own > 0);
            let (gateways, known) = with_any.fold((0_u32, 0_u64), |(gateways, known), (_, own)| {
                (gateways.saturating_add(1), known.saturating_add(own))
            });
            let usage = FinishedUsage {
                customer,
                resource,
                demand,
                denied,
                gateways: (known >= demand).then_some(gateways),
            };
            finished.add(usage, by_part);
        }
        Ok(())
    }
}
