//! The tasks that tell Alertmanagers, one for each.
//!
//! As Prometheus does it: what fires is sent again each minute, and is said to end after four, so that three requests may fail before an
//! alert looks resolved that is not.

use super::book::{Book, Notice, Record};
use super::message::{Told, encode};
use crate::prometheus::{Answer, Bounds, Connection, Endpoint};
use bytes::Bytes;
use hyper::StatusCode;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Where alerts go, below the address of an Alertmanager.
const PATH: &str = "api/v2/alerts";

const HEADERS: [(&str, &str); 1] = [("content-type", "application/json")];

/// Alerts in one request.
const BATCH: usize = 64;

/// What one request may take.
const BOUNDS: Bounds = Bounds {
    answer_within: Duration::from_secs(10),
    answer_bytes: 64 << 10,
};

/// How long the end of the server waits for what was not told yet. Another replica can lead only after that.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// When alerts are sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What fires is sent again after so long.
    pub resend_after: Duration,
    /// Between two attempts at first, then twice as long each time.
    pub first_retry: Duration,
    /// And at most.
    pub most_retry: Duration,
}

/// Intervals that an alert is said to go on for.
const INTERVALS: u32 = 4;

/// Running tasks. Dropping it ends them at once.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    counters: Vec<(String, Arc<Counters>)>,
}

/// What an Alertmanager was told since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// Where it is.
    pub to: String,
    /// Alerts that it has taken; each one again whenever it was sent again.
    pub sent: u64,
    /// Requests that failed or were refused.
    pub failed: u64,
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    /// Something has to be told at once.
    news: watch::Sender<()>,
    is_closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
}

struct Teller {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    pace: Pace,
    record: Record,
    connection: Connection,
    refusals_logged: HashSet<StatusCode>,
    /// Attempts that failed since the last one that did not.
    failures: u32,
}

/// How an attempt ended.
enum Outcome {
    Sent,
    /// The same request would be refused again.
    Refused {
        status: StatusCode,
        reason: String,
    },
    /// It may go well later.
    Failed(String),
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self {
            resend_after: Duration::from_secs(60),
            first_retry: Duration::from_millis(500),
            most_retry: Duration::from_secs(30),
        }
    }
}

// === impl Notifier ===

impl Notifier {
    /// Starts to tell the Alertmanagers at these addresses.
    #[must_use]
    pub fn start(alertmanagers: Vec<Endpoint>, pace: Pace, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            book: Mutex::default(),
            news: watch::Sender::new(()),
            is_closed: watch::Sender::new(false),
        });
        let (mut tasks, mut counters) = (Vec::new(), Vec::new());
        for alertmanager in alertmanagers {
            let counted = Arc::new(Counters::default());
            counters.push((alertmanager.to_string(), Arc::clone(&counted)));
            let teller = Teller {
                endpoint: alertmanager.below(PATH),
                shared: Arc::clone(&shared),
                counters: counted,
                pace,
                record: Record::default(),
                connection: Connection::default(),
                refusals_logged: HashSet::new(),
                failures: 0,
            };
            tasks.push(runtime.spawn(teller.run()));
        }
        Self {
            shared,
            tasks: Mutex::new(tasks),
            counters,
        }
    }

    /// Says all that fires now. Never waits.
    pub fn set(&self, firing: Vec<Notice>, now_unix_ms: u64) {
        let is_news = self.shared.lock().set(firing, now_unix_ms);
        if is_news {
            self.shared.news.send_replace(());
        }
    }

    /// What each Alertmanager was told.
    #[must_use]
    pub fn notified(&self) -> Vec<Notified> {
        let counted = self.counters.iter().map(|(to, counters)| Notified {
            to: to.clone(),
            sent: counters.sent.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
        });
        counted.collect()
    }

    /// Tells what is left, without waiting for anything that does not work at once, and ends. What fires is not said to be over: the next
    /// run, or another replica, will find it firing.
    pub async fn finish(&self) {
        self.shared.is_closed.send_replace(true);
        let tasks = std::mem::take(&mut *self.lock_tasks());
        let until = Instant::now() + FLUSH_WITHIN;
        for mut task in tasks {
            let left = until.saturating_duration_since(Instant::now());
            if timeout(left, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    fn lock_tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        for task in self.lock_tasks().drain(..) {
            task.abort();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server ends.
    async fn closed(&self) {
        let mut is_closed = self.is_closed.subscribe();
        // The sender lives in this very struct.
        drop(is_closed.wait_for(|is_closed| *is_closed).await);
    }
}

// === impl Teller ===

impl Teller {
    async fn run(mut self) {
        let mut news = self.shared.news.subscribe();
        loop {
            // What comes in from here on wakes it again.
            news.mark_unchanged();
            let is_last_try = *self.shared.is_closed.borrow();
            let due = self.due();
            let retry_after = if due.is_empty() {
                if is_last_try {
                    return;
                }
                self.connection.close();
                None
            } else {
                let retry_after = self.tell(&due).await;
                if retry_after.is_none() {
                    continue;
                }
                if is_last_try {
                    return;
                }
                retry_after
            };
            match retry_after {
                // News do not hurry a server that does not work: they are told with the rest.
                Some(wait) => {
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = self.shared.closed() => {}
                    }
                }
                None => {
                    let again = self.record.next(self.pace.resend_after);
                    tokio::select! {
                        _ = news.changed() => {}
                        () = until(again) => {}
                        () = self.shared.closed() => {}
                    }
                }
            }
        }
    }

    fn due(&mut self) -> Vec<Told> {
        let book = self.shared.lock();
        book.tidy(&mut self.record);
        book.due(&self.record, self.pace.resend_after, Instant::now(), BATCH)
    }

    /// Returns how long to wait if it has to be tried again.
    async fn tell(&mut self, due: &[Told]) -> Option<Duration> {
        match self.attempt(due).await {
            Outcome::Sent => {
                self.record.note(due, Instant::now());
                let count = due.len() as u64;
                self.counters.sent.fetch_add(count, Ordering::Relaxed);
                if self.failures > 0 {
                    tracing::info!(to = %self.endpoint, attempts_failed = self.failures, "Alertmanager takes alerts again");
                    self.failures = 0;
                }
                None
            }
            Outcome::Refused { status, reason } => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                // It would be refused again; the next time is with what fires then.
                self.record.note(due, Instant::now());
                if self.refusals_logged.insert(status) {
                    tracing::error!(
                        to = %self.endpoint,
                        %status,
                        "Alertmanager refuses alerts; logged once for each status, \
                         forebay_alertmanager_requests_failed_total counts the rest: {reason}"
                    );
                }
                None
            }
            Outcome::Failed(reason) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                if self.failures == 0 {
                    tracing::warn!(to = %self.endpoint, "Alertmanager was not told of alerts, and it is tried again: {reason}");
                }
                let doubled = self
                    .pace
                    .first_retry
                    .saturating_mul(1_u32 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                Some(doubled.min(self.pace.most_retry))
            }
        }
    }

    async fn attempt(&mut self, due: &[Told]) -> Outcome {
        let lasts = self.pace.resend_after.saturating_mul(INTERVALS);
        let until = unix_ms().saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        let body = Bytes::from(encode(due, until));
        let exchange = self
            .endpoint
            .post(&mut self.connection, &HEADERS, body, BOUNDS);
        match exchange.await {
            Ok(answer) => Outcome::of(&answer),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    fn of(answer: &Answer) -> Self {
        let status = answer.status;
        if status.is_success() {
            return Self::Sent;
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Self::Failed(format!("{status} {}", answer.excerpt()));
        }
        Self::Refused {
            status,
            reason: answer.excerpt(),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
