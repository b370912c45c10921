//! Remote write: the task that sends what waits in the outbox, one request after the other.
//!
//! Several requests at once were the worse alternative: a value that overtakes an older one of its series makes the database refuse the
//! older one.

use super::endpoint::{Answer, Bounds, Connection, Endpoint};
use super::message::{HEADERS, encode};
use super::outbox::{Batch, Counts, DropReason, Outbox, StepSamples};
use bytes::Bytes;
use hyper::StatusCode;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Samples in one request: about 300 kB before compression.
const BATCH: usize = 2_000;

/// What one request may take.
const BOUNDS: Bounds = Bounds {
    answer_within: Duration::from_secs(20),
    answer_bytes: 64 << 10,
};

/// Between two attempts: at first, then twice as long each time, and at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) first: Duration,
    pub(super) most: Duration,
    /// For how long a server is left alone that says so: beyond that it is more likely to be wrong than busy.
    pub(super) most_asked: Duration,
}

const PACE: Pace = Pace {
    first: Duration::from_millis(500),
    most: Duration::from_secs(60),
    most_asked: Duration::from_secs(600),
};

/// How long the end of the server waits for what is left. Another replica can lead only after that.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// A running sender. Dropping it ends it at once.
#[derive(Debug)]
pub struct RemoteWrite {
    outbox: Arc<Outbox>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Sender {
    endpoint: Endpoint,
    outbox: Arc<Outbox>,
    connection: Connection,
    pace: Pace,
    /// Statuses of refusals that were logged.
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
    Failed {
        reason: String,
        retry_after: Option<Duration>,
    },
}

// === impl RemoteWrite ===

impl RemoteWrite {
    /// Starts to send.
    #[must_use]
    pub fn start(endpoint: Endpoint, runtime: &Handle) -> Self {
        Self::start_with(endpoint, Outbox::default(), PACE, runtime)
    }

    pub(super) fn start_with(
        endpoint: Endpoint,
        outbox: Outbox,
        pace: Pace,
        runtime: &Handle,
    ) -> Self {
        let outbox = Arc::new(outbox);
        let sender = Sender {
            endpoint,
            outbox: Arc::clone(&outbox),
            connection: Connection::default(),
            pace,
            refusals_logged: HashSet::new(),
            failures: 0,
        };
        let task = Mutex::new(Some(runtime.spawn(sender.run())));
        Self { outbox, task }
    }

    /// Puts the values of a step in the queue. Never waits.
    pub fn offer(&self, step: StepSamples) {
        self.outbox.offer(step);
    }

    /// Notes values that will never be in the queue.
    pub fn count_dropped(&self, reason: DropReason, samples: usize) {
        self.outbox.count_dropped(reason, samples);
    }

    /// What became of values.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.outbox.counts()
    }

    /// Sends what is left, without waiting for anything that does not work at once, and ends.
    pub async fn finish(&self) {
        self.outbox.close();
        let Some(mut task) = self.lock_task().take() else {
            return;
        };
        if timeout(FLUSH_WITHIN, &mut task).await.is_err() {
            task.abort();
        }
        let lost = self.outbox.abandon();
        if lost > 0 {
            tracing::warn!(
                samples = lost,
                "not all usage was sent by remote write before the end"
            );
        }
    }

    fn lock_task(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RemoteWrite {
    fn drop(&mut self) {
        if let Some(task) = self.lock_task().take() {
            task.abort();
            let lost = self.outbox.abandon();
            if lost > 0 {
                tracing::warn!(
                    samples = lost,
                    "this replica leads no longer: usage that waited for remote write is lost"
                );
            }
        }
    }
}

// === impl Sender ===

impl Sender {
    async fn run(mut self) {
        loop {
            if let Some(batch) = self.outbox.take(BATCH) {
                let is_delivered = self.deliver(&batch).await;
                if !is_delivered {
                    return;
                }
            } else if self.outbox.is_closed() {
                return;
            } else {
                self.connection.close();
                self.outbox.changed().await;
            }
        }
    }

    /// Tries until the batch is taken or refused. False when there is no more time for that.
    async fn deliver(&mut self, batch: &Batch) -> bool {
        let body = match encode(batch) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                tracing::error!(%error, "usage cannot be compressed for remote write");
                self.outbox.was_dropped(DropReason::Refused);
                return true;
            }
        };
        loop {
            let is_last_try = self.outbox.is_closed();
            let wait = match self.attempt(body.clone()).await {
                Outcome::Sent => {
                    self.sent();
                    return true;
                }
                Outcome::Refused { status, reason } => {
                    self.refused(status, &reason);
                    return true;
                }
                Outcome::Failed {
                    reason,
                    retry_after,
                } => self.failed(&reason, retry_after),
            };
            if is_last_try {
                return false;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.outbox.closed() => {}
            }
        }
    }

    async fn attempt(&mut self, body: Bytes) -> Outcome {
        let endpoint = &self.endpoint;
        let exchange = endpoint.post(&mut self.connection, &HEADERS, body, BOUNDS);
        match exchange.await {
            Ok(answer) => Outcome::of(&answer),
            Err(error) => Outcome::Failed {
                reason: error.to_string(),
                retry_after: None,
            },
        }
    }

    fn sent(&mut self) {
        self.outbox.was_sent();
        if self.failures > 0 {
            tracing::info!(to = %self.endpoint, attempts_failed = self.failures, "remote write works again");
            self.failures = 0;
        }
    }

    fn refused(&mut self, status: StatusCode, reason: &str) {
        self.outbox.was_dropped(DropReason::Refused);
        self.failures = 0;
        if self.refusals_logged.insert(status) {
            tracing::error!(
                to = %self.endpoint,
                %status,
                "remote write was refused, and what was sent is dropped; logged once for each status, \
                 forebay_remote_write_samples_dropped_total counts the rest: {reason}"
            );
        }
    }

    /// Returns how long to wait.
    fn failed(&mut self, reason: &str, retry_after: Option<Duration>) -> Duration {
        self.outbox.count_failed_request();
        if self.failures == 0 {
            tracing::warn!(to = %self.endpoint, "remote write failed and is tried again: {reason}");
        }
        let doubled = self
            .pace
            .first
            .saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        match retry_after {
            Some(asked) => asked.clamp(self.pace.first, self.pace.most_asked),
            None => doubled.min(self.pace.most),
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
            return Self::Failed {
                reason: format!("{status} {}", answer.excerpt()),
                retry_after: answer.retry_after,
            };
        }
        Self::Refused {
            status,
            reason: answer.excerpt(),
        }
    }
}
