//! The forecaster: everything that it keeps, and what it does in a tick.
//!
//! A tick goes through its chores in a fixed order, each in small units with a look at the clock in between: what the control plane
//! sent, the next sync, the walk over the ledger, claims to be written, forecasts. What does not fit waits for the next tick, so a
//! backlog costs freshness and never a blocked main thread. The one exception is loading a model.

mod challenge;

use forebay_core::amount::Micro;
use forebay_core::policy::Policy;
use forebay_forecast::Source;
use forebay_wire::forecaster_config::ForecasterConfig;
use forebay_wire::sync::ModelRelease;
use log::Level;

use self::challenge::show;
use crate::books::Books;
use crate::budget::Budget;
use crate::calendar::Calendar;
use crate::control_plane::ControlPlane;
use crate::host::{CallId, Host, HttpAnswer, Metric};
use crate::inference::{BATCH_ROWS, Progress, Request};
use crate::ledger::{Ledger, PageNumber};
use crate::model::ModelRefresh;
use crate::scan::{Finds, Present};
use crate::series::{Series, SeriesKey};
use crate::settings::{ConfigureError, Environment, Settings};
use crate::shadow::Terms;

/// Part of a tick that may go into applying a reply or walking the ledger, so that neither starves the other.
const CHORE_PART: u32 = 2;

/// What one piece of a reply, one page or one forecast costs at most.
const UNIT_US: u64 = 60;

/// Gauges are set this often.
const GAUGES_US: u64 = 1_000_000;

/// The state machine.
pub struct Forecaster<H> {
    host: H,
    config: ForecasterConfig,
    calendar: Calendar,
    ledger: Ledger,
    control_plane: Option<ControlPlane>,
    models: ModelRefresh,
    challengers: ModelRefresh,
    books: Books,
    gauges_at_us: u64,
    waiting_logged: bool,
}

// === impl Forecaster ===

impl<H: Host> Forecaster<H> {
    /// Reads the configuration and starts, where nobody else could lead.
    ///
    /// # Errors
    /// The configuration or the environment can never work.
    pub fn configure(
        host: H,
        config: &[u8],
        environment: &Environment,
    ) -> Result<Self, ConfigureError> {
        let settings = Settings::read(config, environment)?;
        Ok(Self::start(host, &settings, environment.random))
    }

    /// Starts, and takes the gateway's identity from whoever had it. `owner` is a number that no other forecaster of this gateway has.
    pub(crate) fn start(host: H, settings: &Settings, owner: u64) -> Self {
        let config = settings.config.clone();
        let control_plane = ControlPlane::new(&host, settings, owner);
        let calendar = Calendar::new(&config.calendar, host.monotonic_us(), host.wall_ms());
        let models = ModelRefresh::new(&host, settings.keys.clone(), config.model.max_bytes);
        let challengers = ModelRefresh::beside(settings.keys.clone(), config.model.max_bytes);
        let books = Books::new(0, &config, 1, None);
        Self {
            host,
            config,
            calendar,
            ledger: Ledger::default(),
            control_plane,
            models,
            challengers,
            books,
            gauges_at_us: 0,
            waiting_logged: false,
        }
    }

    /// Whether another forecaster of this gateway has started since. This one must not go on.
    pub(crate) fn is_superseded(&self) -> bool {
        self.control_plane
            .as_ref()
            .is_some_and(ControlPlane::is_superseded)
    }

    /// Time between two ticks.
    #[must_use]
    pub fn tick_period_ms(&self) -> u32 {
        self.config.tick.period_ms
    }

    /// Does one tick's work.
    pub fn on_tick(&mut self) {
        let started_us = self.host.monotonic_us();
        let budget = Budget::start(&self.host, self.config.tick.budget_us);
        if self.refresh_model(started_us) || self.refresh_challenger(started_us) {
            // A swap has used this tick and more.
            return;
        }
        if self.ledger.refresh(&self.host) {
            self.reshape();
        }
        if self
            .calendar
            .follow(started_us, self.host.wall_ms(), self.books.step_s)
        {
            self.host.log(
                Level::Warn,
                "the wall clock jumped: the running step counts as a gap",
            );
        }
        self.apply_replies(started_us, budget);
        self.synchronise(started_us);
        // A run of the network is the one unit that needs most of a tick: it goes first, or it would come on top of the rest.
        let runs_first = self.books.inference.is_run_due();
        if runs_first {
            self.forecast(budget);
        }
        self.walk(budget);
        self.write_claims(budget);
        if !runs_first {
            self.forecast(budget);
            self.write_claims(budget);
        }
        self.challenge(budget);
        let now_us = self.host.monotonic_us();
        self.set_gauges(now_us);
        self.host.record(
            Metric::TickUs,
            self.host.monotonic_us().saturating_sub(started_us),
        );
    }

    /// Takes the answer to a call that was started in a tick.
    pub fn on_http_response(&mut self, call: CallId, mut answer: HttpAnswer) {
        let now_us = self.host.monotonic_us();
        if let Some(result) = self.models.fetched(call, &mut answer, now_us) {
            if let Err(refusal) = result {
                self.model_refused(&refusal.to_string());
            }
            return;
        }
        if let Some(result) = self.challengers.fetched(call, &mut answer, now_us) {
            if let Err(refusal) = result {
                self.challenger_refused(&refusal.to_string());
            }
            return;
        }
        let Some(control_plane) = self.control_plane.as_mut() else {
            return;
        };
        let Some(mut reply) = control_plane.answered(&self.host, call, &answer, &mut self.books)
        else {
            return;
        };
        control_plane.accept(
            &self.host,
            &mut reply,
            &self.ledger,
            &mut self.books,
            &self.calendar,
        );
        if let Some(offer) = &reply.model {
            self.consider(offer, now_us);
        }
        self.consider_challenger(reply.challenger.as_ref(), now_us);
    }

    fn consider(&mut self, offer: &ModelRelease, now_us: u64) {
        let epoch_of = |models: &ModelRefresh| models.running().map(|running| running.epoch);
        let before = epoch_of(&self.models);
        if let Err(refusal) = self.models.offer(&self.host, offer, now_us) {
            self.model_refused(&refusal.to_string());
        }
        if let Some(epoch) = epoch_of(&self.models)
            && before != Some(epoch)
        {
            self.host.record(Metric::ModelEpoch, epoch);
            self.host.log(
                Level::Info,
                &format!("the running model goes on under epoch {epoch}"),
            );
        }
    }

    /// Moves a model on its way one step further. Returns true when one was loaded or refused: that is all of this tick.
    fn refresh_model(&mut self, now_us: u64) -> bool {
        use crate::model::Step;
        if let Some(control_plane) = &self.control_plane
            && self
                .models
                .give_up_lost(now_us, control_plane.lost_after_us())
        {
            self.model_refused("the host lost the call that fetches it; it will be tried again");
        }
        match self.models.next(now_us) {
            Step::Rest => false,
            Step::Fetch(path) => {
                let call = self
                    .control_plane
                    .as_ref()
                    .and_then(|control_plane| control_plane.fetch(&self.host, &path));
                self.models.fetching(call, now_us);
                false
            }
            Step::Load => {
                let limits = forebay_forecast::Limits::default();
                match self.models.load(&self.host, &limits, BATCH_ROWS) {
                    Ok(epoch) => self.swap(epoch, now_us),
                    Err(refusal) => self.model_refused(&refusal.to_string()),
                }
                true
            }
        }
    }

    fn swap(&mut self, epoch: u64, started_us: u64) {
        let model = self.models.running().map(|running| &running.model);
        self.books.change_model(&self.config, model);
        // What was decided of a challenger was decided beside the model before: one that did not fit that one may fit this one. The next
        // reply offers it again if it is still to be compared.
        self.challengers.dismiss();
        self.begin_duel();
        self.host.record(Metric::ModelEpoch, epoch);
        let took_us = self.host.monotonic_us().saturating_sub(started_us);
        self.host.record(Metric::ModelSwapUs, took_us);
        self.host.log(
            Level::Info,
            &format!("model epoch {epoch} runs; the swap took {took_us} us"),
        );
    }

    fn model_refused(&self, reason: &str) {
        self.host.increment(Metric::ModelRefused, 1);
        self.host.log(Level::Warn, reason);
    }

    /// The ledger was seeded, or seeded anew with another shape.
    fn reshape(&mut self) {
        let Some(state) = self.ledger.state() else {
            return;
        };
        let pages = PageNumber::count(&state.layout);
        let model = self.models.running().map(|running| &running.model);
        self.books = Books::new(
            pages,
            &self.config,
            self.books.generation.wrapping_add(1),
            model,
        );
        self.host.log(
            Level::Info,
            &format!(
                "the ledger has {pages} pages, policy epoch {}",
                state.policy_epoch
            ),
        );
        self.begin_duel();
    }

    fn apply_replies(&mut self, started_us: u64, budget: Budget) {
        let Some(control_plane) = self.control_plane.as_mut() else {
            return;
        };
        let part = budget.at_most(&self.host, self.config.tick.budget_us / CHORE_PART);
        while part.allows(&self.host, UNIT_US)
            && control_plane.apply_next(&self.host, &mut self.ledger, &mut self.books)
        {}
        control_plane.turn_allocations(started_us, &mut self.books);
        if let Some(policy) = self.ledger.policy() {
            self.books.accuracy.set_quantile(quantile_of(policy));
        }
    }

    fn synchronise(&mut self, now_us: u64) {
        let Some(control_plane) = self.control_plane.as_mut() else {
            return;
        };
        control_plane.synchronise(
            &self.host,
            now_us,
            &mut self.ledger,
            &mut self.books,
            &self.models,
            &self.challengers,
        );
    }

    fn walk(&mut self, budget: Budget) {
        let now_us = self.host.monotonic_us();
        if self.ledger.policy().is_none() {
            if !self.waiting_logged {
                self.waiting_logged = true;
                self.host
                    .log(Level::Info, "waiting for a ledger with a policy");
            }
            return;
        }
        let present = Present {
            step: step_number(self.calendar.step_at(now_us, self.books.step_s)),
            step_us: self.calendar.step_us(self.books.step_s),
            now_us,
            shadow: &self.config.shadow,
            reply_applied: self
                .control_plane
                .as_ref()
                .map_or(0, ControlPlane::reply_applied),
        };
        let part = budget.at_most(&self.host, self.config.tick.budget_us / CHORE_PART);
        let mut deviated = false;
        while part.allows(&self.host, UNIT_US)
            && self
                .books
                .scan
                .start_if_due(&self.ledger, &self.books.outbox, &present)
        {
            let Books {
                table,
                inference,
                scan,
                outbox,
                windows,
                writer,
                accuracy,
                score,
                duel,
                ..
            } = &mut self.books;
            let mut finds = Finds {
                table,
                inference,
                outbox,
                windows,
                writer,
                accuracy,
                score,
                duel: duel.as_mut(),
            };
            deviated |= scan.visit_next(&self.host, &self.ledger, &mut finds, &present);
        }
        if let Some(control_plane) = self.control_plane.as_mut().filter(|_| deviated) {
            control_plane.hurry(self.host.monotonic_us());
        }
    }

    fn write_claims(&mut self, budget: Budget) {
        let now_us = self.host.monotonic_us();
        self.books
            .writer
            .rescale(&mut self.ledger, &self.host, now_us);
        let step_us = self.calendar.step_us(self.books.step_s);
        let terms = Terms {
            config: &self.config.shadow,
            step_us,
            now_us,
            allocations: self.control_plane.as_ref().map(ControlPlane::allocations),
        };
        while !self.books.writer.is_idle() && budget.allows(&self.host, UNIT_US) {
            let Books { table, writer, .. } = &mut self.books;
            match writer.write_next(&self.host, &mut self.ledger, table, &terms) {
                Some(Ok(report)) => {
                    self.host
                        .increment(Metric::ShadowRefillsNetwork, report.by_network);
                    self.host
                        .increment(Metric::ShadowRefillsFallback, report.by_fallback);
                    self.host
                        .increment(Metric::ShadowRefillsAllocation, report.by_allocation);
                }
                Some(Err(_)) => {
                    self.host.increment(Metric::LedgerConflicts, 1);
                    break;
                }
                None => break,
            }
        }
    }

    fn forecast(&mut self, budget: Budget) {
        let Some(policy) = self.ledger.policy() else {
            return;
        };
        let now_us = self.host.monotonic_us();
        let step_us = self.calendar.step_us(self.books.step_s);
        self.books.step_real_s = step_us as f32 / 1e6;
        let Books {
            table,
            inference,
            writer,
            fresh,
            duel,
            step_s,
            ..
        } = &mut self.books;
        let ceiling = |key: &SeriesKey, contract| ceiling_per_step(policy, key, contract, step_us);
        let request = Request {
            step: step_number(self.calendar.step_at(now_us, *step_s)),
            quantile: quantile_of(policy),
            ceiling: &ceiling,
        };
        let mut failed = None;
        while failed.is_none() && inference.may_start(|unit_us| budget.allows(&self.host, unit_us))
        {
            let model = self.models.running_mut().map(|running| &mut running.model);
            match inference.work(&self.host, table, model, &request) {
                Progress::Idle => break,
                Progress::Worked => {}
                Progress::Begun(slot) => show(duel, table, slot, inference, &request),
                Progress::Ready(slot) => {
                    if let Some(place) = table.page_of(slot) {
                        writer.mark(place);
                    }
                    let by_network = |series: &Series| {
                        series
                            .forecast()
                            .is_some_and(|forecast| forecast.source == Source::Network)
                    };
                    if table
                        .get(slot)
                        .is_some_and(|(_, series)| by_network(series))
                    {
                        self.host.increment(Metric::ForecastsNetwork, 1);
                    } else {
                        show(duel, table, slot, inference, &request);
                    }
                    if self.control_plane.is_some() {
                        fresh.push(slot);
                    }
                }
                Progress::Failed(reason) => failed = Some(reason),
            }
        }
        if let Some(reason) = failed {
            self.models.withdraw(&reason);
            self.model_refused(&reason);
            self.host.record(Metric::ModelEpoch, 0);
            self.books.change_model(&self.config, None);
        }
    }

    fn set_gauges(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.gauges_at_us) < GAUGES_US {
            return;
        }
        self.gauges_at_us = now_us;
        self.host.record(
            Metric::Series,
            u64::try_from(self.books.table.len()).unwrap_or(0),
        );
        self.host
            .record(Metric::PinballPpm, self.books.accuracy.pinball_ppm());
        self.host
            .record(Metric::CoveragePpm, self.books.accuracy.coverage_ppm());
        if let Some(control_plane) = &self.control_plane {
            let in_force = control_plane.allocations().in_force();
            self.host
                .record(Metric::Allocations, u64::try_from(in_force).unwrap_or(0));
        }
        if let Some(state) = self.ledger.state() {
            self.host.record(Metric::PolicyEpoch, state.policy_epoch);
        }
    }
}

impl<H: std::fmt::Debug> std::fmt::Debug for Forecaster<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forecaster")
            .field("host", &self.host)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What a contract allows in one step, in tokens.
fn ceiling_per_step(
    policy: &Policy,
    key: &SeriesKey,
    contract: forebay_core::policy::ContractIndex,
    step_us: u64,
) -> Option<f32> {
    let limits = policy.contract(contract)?.limits.at(key.resource);
    let amount: Micro = limits.ceiling.amount_in(step_us).plus(limits.burst);
    Some(amount.whole_tokens() as f32)
}

fn quantile_of(policy: &Policy) -> f32 {
    f32::from(policy.shadow.quantile_permille) / 1_000.0
}

fn step_number(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
