//! One gateway's side of the conversation: when to speak, what to say, what to believe.

use forebay_core::ledger::{CustomerHash, Mode};
use forebay_core::pace::Asked;
use forebay_core::resource::ResourceIndex;
use forebay_forecast::Source;
use forebay_wire::forecaster_config::ControlPlaneConfig;
use forebay_wire::key;
use forebay_wire::sync::{
    CONTENT_TYPE, CustomerForecast, ModelStatus, PROTOCOL, PoolReport, SYNC_PATH, SyncReply,
    SyncRequest, Window,
};
use log::Level;
use prost::Message;

use crate::books::Books;
use crate::calendar::Calendar;
use crate::host::{CallId, Host, HttpAnswer, HttpCall, Metric};
use crate::identity::Identity;
use crate::ledger::{Ledger, Shared};
use crate::limits::FORECASTS_MOST;
use crate::model::ModelRefresh;
use crate::series::SeriesKey;
use crate::settings::Settings;
use crate::shadow::Allocations;
use crate::sync::{Applied, InFlight, Inbox, Session, parse};

/// A failure that repeats for the same reason is logged once in so many times.
const LOG_EVERY_FAILURE: u32 = 32;

/// The control plane as this gateway knows it.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    settings: ControlPlaneConfig,
    gateway_id: String,
    /// None where the connection has a certificate instead.
    authorization: Option<String>,
    key_fingerprint: u64,
    identity: Identity,
    session: Session,
    inbox: Inbox,
    allocations: Allocations,
    answering: Option<InFlight>,
    reply_applied: u64,
    step_mismatch_logged: bool,
    /// Why the last sync failed; empty after one that did not.
    last_failure: String,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// `None` where the configuration names none. `owner`: see [`Identity::take`].
    pub(crate) fn new(host: &impl Host, settings: &Settings, owner: u64) -> Option<Self> {
        let access = settings.control_plane.as_ref()?;
        let identity = Identity::take(host, settings.random, owner);
        let seed = identity.incarnation() ^ settings.random;
        let session = Session::new(
            access.config.sync_interval_ms,
            access.config.timeout_ms,
            seed,
            host.monotonic_us(),
        );
        let token = access.token.as_ref();
        Some(Self {
            settings: access.config.clone(),
            gateway_id: access.gateway_id.clone(),
            authorization: token.map(|token| format!("Bearer {token}")),
            key_fingerprint: settings.key_fingerprint,
            identity,
            session,
            inbox: Inbox::new(settings.ledger_size()),
            allocations: Allocations::new(settings.config.series.max_series),
            answering: None,
            reply_applied: 0,
            step_mismatch_logged: false,
            last_failure: String::new(),
        })
    }

    /// Whether another forecaster speaks for this gateway.
    pub(crate) fn is_superseded(&self) -> bool {
        self.identity.is_superseded()
    }

    /// A customer deviated: synchronise early.
    pub(crate) fn hurry(&mut self, now_us: u64) {
        self.session.hurry(now_us);
    }

    /// Sends a sync if one is due and the last reply is applied.
    pub(crate) fn synchronise(
        &mut self,
        host: &impl Host,
        now_us: u64,
        ledger: &mut Ledger,
        books: &mut Books,
        models: &ModelRefresh,
        challengers: &ModelRefresh,
    ) {
        if self.session.give_up_lost(now_us).is_some() {
            self.failed(host, now_us, books, "the host lost the call");
        }
        if !self.inbox.is_empty() || !self.session.is_due(now_us) {
            return;
        }
        let Some(sequence) = self.identity.next_sequence(host) else {
            return;
        };
        let request = self.request(
            host,
            sequence,
            now_us,
            ledger,
            books,
            books.model_status(models, challengers),
        );
        let mut headers = self.headers("POST", SYNC_PATH);
        headers.push(("content-type", CONTENT_TYPE));
        let call = HttpCall {
            cluster: &self.settings.cluster,
            headers: &headers,
            body: &request.encode_to_vec(),
            timeout_ms: self.settings.timeout_ms,
        };
        match host.dispatch(&call) {
            Ok(call) => self.session.sent(call, sequence, now_us),
            Err(_) => self.failed(
                host,
                now_us,
                books,
                "Envoy refused the call; does the cluster exist?",
            ),
        }
    }

    /// Sequence of the newest reply that is applied in full; 0 before the first.
    pub(crate) fn reply_applied(&self) -> u64 {
        self.reply_applied
    }

    /// How long after it was sent a call is lost.
    pub(crate) fn lost_after_us(&self) -> u64 {
        self.session.lost_after_us()
    }

    /// Starts the download of a model.
    pub(crate) fn fetch(&self, host: &impl Host, path: &str) -> Option<CallId> {
        let headers = self.headers("GET", path);
        let timeout_ms = self.settings.timeout_ms;
        host.dispatch(&HttpCall {
            cluster: &self.settings.cluster,
            headers: &headers,
            body: &[],
            timeout_ms,
        })
        .ok()
    }

    fn headers<'a>(&'a self, method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut headers = vec![
            (":method", method),
            (":path", path),
            (":authority", self.settings.authority.as_str()),
        ];
        let authorization = self.authorization.as_deref();
        headers.extend(authorization.map(|value| ("authorization", value)));
        headers
    }

    /// Reads the answer to a sync. `None` when the call is not ours or the answer cannot be used.
    pub(crate) fn answered(
        &mut self,
        host: &impl Host,
        call: CallId,
        answer: &HttpAnswer,
        books: &mut Books,
    ) -> Option<SyncReply> {
        let in_flight = self.session.answered(call)?;
        let now_us = host.monotonic_us();
        match parse(answer, &in_flight) {
            Ok(reply) => {
                host.record(
                    Metric::SyncLatencyUs,
                    now_us.saturating_sub(in_flight.sent_at_us),
                );
                self.answering = Some(in_flight);
                Some(reply)
            }
            Err(error) => {
                self.failed(host, now_us, books, &error.to_string());
                None
            }
        }
    }

    /// Takes over a reply: what concerns the ledger becomes pieces of work, what concerns the series is recorded at once.
    pub(crate) fn accept(
        &mut self,
        host: &impl Host,
        reply: &mut SyncReply,
        ledger: &Ledger,
        books: &mut Books,
        calendar: &Calendar,
    ) {
        let Some(in_flight) = self.answering.take() else {
            return;
        };
        let refused = self.inbox.accept(reply, &in_flight, ledger, host);
        if self.allocations.heard(reply, in_flight.sent_at_us) {
            books.mark_claims();
        }
        if refused > 0 {
            host.increment(Metric::ReplyItemsRefused, refused);
        }
        books.outbox.delivered();
        if reply.report_all {
            books.outbox.mark_everything();
            books.scan.hurry();
        }
        self.load_windows(host, reply, books, calendar);
        let is_partial = books.outbox.is_full()
            || !books.windows.is_empty()
            || self.inbox.is_collecting()
            || reply.grants_left
            || reply.allocation_cycle == 0 && !reply.allocations.is_empty();
        let us = |ms: u32| u64::from(ms).saturating_mul(1_000);
        self.session.succeeded(Asked {
            interval_us: us(reply.sync_interval_ms),
            early_us: us(reply.early_sync_ms),
            is_partial,
        });
        self.last_failure.clear();
        host.increment(Metric::SyncOk, 1);
    }

    /// Applies one piece of the last reply. Returns whether there was one.
    pub(crate) fn apply_next(
        &mut self,
        host: &impl Host,
        ledger: &mut Ledger,
        books: &mut Books,
    ) -> bool {
        let now_us = host.monotonic_us();
        match self.inbox.work(host, ledger, now_us) {
            Applied::Idle => return false,
            Applied::Piece => {}
            Applied::Reseeded => {
                self.identity.renew(host);
                self.reply_applied = 0;
                self.allocations.forget();
                books.outbox.forget();
            }
            Applied::Granted(holdings) => host.increment(Metric::GrantsApplied, holdings),
            Applied::Allocated(all) => self.keep_allocations(&all, books),
            Applied::Policy(epoch) => {
                host.log(Level::Info, &format!("policy epoch {epoch} is in force"))
            }
            // After a renewal the reply belongs to an incarnation that is over.
            Applied::Reply { sequence, .. } if sequence > self.identity.last_sequence() => {}
            Applied::Reply {
                sequence,
                granted_pages,
                allocation_cycle,
            } => {
                self.reply_applied = sequence;
                self.allocations.complete(allocation_cycle);
                books.report_soon(granted_pages);
            }
            Applied::Failed(error) => {
                host.increment(Metric::LedgerConflicts, 1);
                host.log(
                    Level::Warn,
                    &format!(
                        "a reply could not be applied in full and is asked for again: {error}"
                    ),
                );
            }
        }
        true
    }

    /// What is allocated of the pools.
    pub(crate) fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// Lets allocations come into force, and lapse.
    pub(crate) fn turn_allocations(&mut self, now_us: u64, books: &mut Books) {
        if self.allocations.turn(now_us) {
            books.mark_claims();
        }
    }

    fn keep_allocations(&mut self, allocated: &[(SeriesKey, u64)], books: &mut Books) {
        for (key, rate_micro_per_s) in allocated {
            let has_series = |key: &SeriesKey| books.table.find(key).is_some();
            let is_news = self.allocations.put(*key, *rate_micro_per_s, has_series);
            let place = books
                .table
                .find(key)
                .and_then(|slot| books.table.page_of(slot));
            if let Some(place) = place.filter(|_| is_news) {
                books.writer.mark(place);
            }
        }
    }

    fn failed(&mut self, host: &impl Host, now_us: u64, books: &mut Books, reason: &str) {
        let is_news = self.last_failure != reason;
        if is_news || self.session.failures().is_multiple_of(LOG_EVERY_FAILURE) {
            host.log(Level::Warn, &format!("sync failed: {reason}"));
        }
        if is_news {
            reason.clone_into(&mut self.last_failure);
        }
        host.increment(Metric::SyncFailed, 1);
        books.outbox.lost();
        books.windows.lost();
        self.session.failed(now_us);
    }

    fn request(
        &self,
        host: &impl Host,
        sequence: u64,
        now_us: u64,
        ledger: &mut Ledger,
        books: &mut Books,
        status: ModelStatus,
    ) -> SyncRequest {
        let (policy_epoch_seen, policy_cursor) = self.inbox.policy_seen();
        let granted = ledger
            .state()
            .filter(|state| state.mode() != Mode::StandAlone);
        let (customers, deviations) = books.outbox.take();
        SyncRequest {
            protocol: PROTOCOL,
            gateway_id: self.gateway_id.clone(),
            incarnation: self.identity.incarnation(),
            sequence,
            sent_at_us: now_us,
            key_fingerprint: self.key_fingerprint,
            policy_epoch_applied: granted.map_or(0, |state| state.policy_epoch),
            policy_epoch_seen,
            policy_cursor,
            model_status: Some(status),
            customers,
            // Nothing of a later reply is applied yet: no sync is sent before the one before is applied.
            pools: pool_reports(host, ledger, now_us, self.reply_applied),
            windows_wanted: books.windows.ask(),
            window_steps: u32::try_from(books.inference.history_steps()).unwrap_or(0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deviations,
            reply_applied: self.reply_applied,
            forecasts: forecasts(books),
            allocation_cycle_applied: self.allocations.cycle(),
        }
    }

    /// Records windows and the other gateways' usage on our own scale of steps.
    fn load_windows(
        &mut self,
        host: &impl Host,
        reply: &SyncReply,
        books: &mut Books,
        calendar: &Calendar,
    ) {
        let now_us = host.monotonic_us();
        let step_us = calendar.step_us(books.step_s);
        // A step may be off by the rounding of its length to milliseconds.
        let agrees =
            |step_ms: u32| u64::from(step_ms).saturating_mul(1_000).abs_diff(step_us) <= 1_000;
        let began_us =
            now_us.saturating_sub(u64::from(reply.step_elapsed_ms).saturating_mul(1_000));
        // Both sides round; the middle of the server's step is surely inside ours.
        let ours_now = calendar.step_at(began_us.saturating_add(step_us / 2), books.step_s);
        let to_ours = |step: u64| {
            let back = reply.step_now.checked_sub(step)?;
            i64::try_from(ours_now.checked_sub(back)?).ok()
        };
        let mut came = Vec::new();
        for window in &reply.windows {
            let hash =
                CustomerHash(key::CustomerHash::from_parts(window.hash_high, window.hash_low).0);
            came.push(hash);
            if !agrees(window.step_ms) {
                self.log_step_mismatch(host, window.step_ms, step_us);
                continue;
            }
            let Some(newest) = to_ours(window.newest_step) else {
                continue;
            };
            load_window(books, hash, window, newest);
        }
        for usage in reply.step_usage.iter().filter(|_| agrees(reply.step_ms)) {
            let hash =
                CustomerHash(key::CustomerHash::from_parts(usage.hash_high, usage.hash_low).0);
            let slot = series_key(hash, usage.resource).and_then(|key| books.table.find(&key));
            if let (Some(slot), Some(step)) = (slot, to_ours(usage.step))
                && let Some(series) = books.table.get_mut(slot)
            {
                series.add_others(step, usage.usage);
            }
        }
        if reply.step_usage_whole > 0
            && agrees(reply.step_ms)
            && let Some(step) = to_ours(reply.step_usage_whole)
        {
            // The first word counts, so this is for those that were not named.
            for slot in books.table.slots() {
                if let Some(series) = books.table.get_mut(slot) {
                    series.add_others(step, 0.0);
                }
            }
        }
        books
            .windows
            .answered(|customer| reply.windows_left && !came.contains(customer));
    }

    fn log_step_mismatch(&mut self, host: &impl Host, step_ms: u32, step_us: u64) {
        if !std::mem::replace(&mut self.step_mismatch_logged, true) {
            let ours_ms = step_us / 1_000;
            host.log(
                Level::Warn,
                &format!(
                    "the control plane keeps usage in steps of {step_ms} ms, this gateway in steps of {ours_ms} ms: its history cannot be \
                     used; set the control plane's step, or series.step_s and calendar.speed_up here"
                ),
            );
        }
    }
}

fn load_window(books: &mut Books, customer: CustomerHash, window: &Window, newest: i64) {
    let Some(slot) = series_key(customer, window.resource).and_then(|key| books.table.find(&key))
    else {
        return;
    };
    let Some(series) = books.table.get_mut(slot) else {
        return;
    };
    let usage = window.usage.iter().enumerate().map(|(index, usage)| {
        let byte = window.mask.get(index / 8).copied().unwrap_or(0);
        let observed = byte.wrapping_shr(u32::try_from(index % 8).unwrap_or(0)) & 1 == 1;
        Some(*usage).filter(|_| observed)
    });
    series.load(newest, usage);
    books.inference.push(slot);
}

fn series_key(customer: CustomerHash, resource: u32) -> Option<SeriesKey> {
    let resource = ResourceIndex::new(usize::try_from(resource).ok()?)?;
    Some(SeriesKey { customer, resource })
}

fn pool_reports(
    host: &impl Host,
    ledger: &mut Ledger,
    now_us: u64,
    reply_applied: u64,
) -> Vec<PoolReport> {
    let Some((core, conditions)) = ledger.at(now_us) else {
        return Vec::new();
    };
    let Ok(pools) = core.pools(&mut Shared(host), &conditions) else {
        return Vec::new();
    };
    let with_pool = conditions
        .policy
        .resource_indexes()
        .filter(|resource| conditions.policy.pool(*resource).is_some());
    with_pool
        .map(|resource| {
            let pool = pools.pools.at(resource);
            PoolReport {
                resource: u32::try_from(resource.position()).unwrap_or(0),
                drawn_micro: pool.spent_cum,
                balance_micro: pool.outstanding.balance(pool.bucket.level).get(),
                granted_seen_micro: pool.moved_cum,
                wish_rate_micro_per_s: 0,
                reply_applied,
            }
        })
        .collect()
}

/// Forecasts that have not been shown yet, as many as fit.
fn forecasts(books: &mut Books) -> Vec<CustomerForecast> {
    let fresh = books.fresh.take(FORECASTS_MOST);
    let per_s = 1.0 / books.step_real_s;
    fresh
        .into_iter()
        .filter_map(|slot| {
            let (key, series) = books.table.get(slot)?;
            let forecast = series.forecast()?;
            let (hash_high, hash_low) = forebay_wire::key::CustomerHash(key.customer.0).parts();
            Some(CustomerForecast {
                hash_high,
                hash_low,
                resource: u32::try_from(key.resource.position()).unwrap_or(0),
                low_per_s: forecast.low * per_s,
                median_per_s: forecast.median * per_s,
                high_per_s: forecast.high * per_s,
                by_network: forecast.source == Source::Network,
            })
        })
        .collect()
}
