//! Finished steps that wait to be sent, between those who answer syncs and the one who sends.
//!
//! Bounded, and putting something in never waits: when the other side is away for long, the oldest steps make room. To drop the newest
//! was the worse alternative: when the other side is back, what is there is then hours old and the present is missing.

use forebay_wire::key::CustomerHash;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Samples that may wait: 32 MB. Of 10 000 customers that ask in each step these are 100 steps.
const MAX_WAITING: usize = 1_000_000;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The customer.
    pub customer: CustomerHash,
    /// Index of the resource.
    pub resource: u8,
    /// Tokens in the step.
    pub tokens: f64,
}

/// Values of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSamples {
    /// When it ended.
    pub ended_unix_ms: i64,
    /// Its length.
    pub step_ms: u32,
    /// Names of resources, by index.
    pub resources: Arc<[String]>,
    /// The values.
    pub samples: Vec<Sample>,
}

/// A part of a step, to be sent in one request.
pub(super) type Batch = StepSamples;

/// Why values are not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Too many waited.
    QueueFull,
    /// The other side does not want them.
    Refused,
    /// The store did not take the step that they are of.
    NotSaved,
    /// The server stopped before they were sent.
    Stopped,
}

/// What became of values since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent and taken.
    pub sent: u64,
    /// Not sent, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Requests that failed and were tried again.
    pub failed_requests: u64,
    /// Waiting now, or on their way.
    pub waiting: usize,
}

/// The queue.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    max_waiting: usize,
    news: Notify,
    is_closed: watch::Sender<bool>,
    sent: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    failed_requests: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first.
    steps: VecDeque<StepSamples>,
    waiting: usize,
    on_their_way: usize,
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        Self::with_room(MAX_WAITING)
    }
}

impl Outbox {
    /// An empty one for so many samples.
    pub(super) fn with_room(max_waiting: usize) -> Self {
        Self {
            queue: Mutex::default(),
            max_waiting,
            news: Notify::new(),
            is_closed: watch::Sender::new(false),
            sent: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            failed_requests: AtomicU64::new(0),
        }
    }

    /// Puts the values of a step in. Never waits.
    pub fn offer(&self, step: StepSamples) {
        if *self.is_closed.borrow() {
            self.count_dropped(DropReason::Stopped, step.samples.len());
            return;
        }
        if step.samples.is_empty() {
            return;
        }
        let mut dropped = 0_usize;
        {
            let mut queue = self.lock();
            queue.waiting = queue.waiting.saturating_add(step.samples.len());
            queue.steps.push_back(step);
            while queue.waiting > self.max_waiting {
                let too_many = queue.waiting.saturating_sub(self.max_waiting);
                dropped = dropped
                    .saturating_add(queue.take(too_many).map_or(0, |batch| batch.samples.len()));
            }
        }
        self.count_dropped(DropReason::QueueFull, dropped);
        self.news.notify_one();
    }

    /// Notes values that will never be put in.
    pub fn count_dropped(&self, reason: DropReason, samples: usize) {
        let count = self.dropped.get(reason as usize);
        count.map(|count| count.fetch_add(samples as u64, Ordering::Relaxed));
    }

    /// What became of values.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let queue = self.lock();
        let waiting = queue.waiting.saturating_add(queue.on_their_way);
        drop(queue);
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self
                .dropped
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            failed_requests: self.failed_requests.load(Ordering::Relaxed),
            waiting,
        }
    }

    /// The next values to send, of one step. They count as waiting until it is said what became of them.
    pub(super) fn take(&self, most: usize) -> Option<Batch> {
        let mut queue = self.lock();
        let batch = queue.take(most)?;
        queue.on_their_way = batch.samples.len();
        Some(batch)
    }

    /// What was taken has arrived.
    pub(super) fn was_sent(&self) {
        let samples = std::mem::take(&mut self.lock().on_their_way);
        self.sent.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// What was taken is given up.
    pub(super) fn was_dropped(&self, reason: DropReason) {
        let samples = std::mem::take(&mut self.lock().on_their_way);
        self.count_dropped(reason, samples);
    }

    /// A request has failed and will be tried again.
    pub(super) fn count_failed_request(&self) {
        self.failed_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until there may be something to send, or nothing more will come.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.news.notified() => {}
            () = self.closed() => {}
        }
    }

    /// Nothing more comes in.
    pub(super) fn close(&self) {
        self.is_closed.send_replace(true);
    }

    /// Whether nothing more comes in.
    pub(super) fn is_closed(&self) -> bool {
        *self.is_closed.borrow()
    }

    /// Waits until nothing more comes in.
    pub(super) async fn closed(&self) {
        // The sender lives in this very struct.
        drop(
            self.is_closed
                .subscribe()
                .wait_for(|is_closed| *is_closed)
                .await,
        );
    }

    /// Gives up all that waits. Returns how much that was.
    pub(super) fn abandon(&self) -> usize {
        let mut queue = self.lock();
        let queue = std::mem::take(&mut *queue);
        let samples = queue.waiting.saturating_add(queue.on_their_way);
        self.count_dropped(DropReason::Stopped, samples);
        samples
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Queue ===

impl Queue {
    /// Takes so many of the oldest at most, of one step.
    fn take(&mut self, most: usize) -> Option<Batch> {
        let oldest = self.steps.front_mut()?;
        let keep = oldest.samples.len().saturating_sub(most);
        let samples = oldest.samples.split_off(keep);
        let batch = StepSamples {
            ended_unix_ms: oldest.ended_unix_ms,
            step_ms: oldest.step_ms,
            resources: Arc::clone(&oldest.resources),
            samples,
        };
        if keep == 0 {
            self.steps.pop_front();
        }
        self.waiting = self.waiting.saturating_sub(batch.samples.len());
        Some(batch)
    }
}

// === impl DropReason ===

impl DropReason {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::Refused,
        Self::NotSaved,
        Self::Stopped,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::NotSaved => "not_saved",
            Self::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: i64, samples: u8) -> StepSamples {
        let sample = |customer| Sample {
            customer: CustomerHash([customer; 16]),
            resource: 0,
            tokens: 1.0,
        };
        StepSamples {
            ended_unix_ms: number,
            step_ms: 1,
            resources: Arc::from(["requests".to_owned()]),
            samples: (0..samples).map(sample).collect(),
        }
    }

    fn waiting(outbox: &Outbox) -> Vec<(i64, usize)> {
        let queue = outbox.lock();
        let steps = queue.steps.iter();
        steps
            .map(|step| (step.ended_unix_ms, step.samples.len()))
            .collect()
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let outbox = Outbox::with_room(10);
        for number in 1..=3 {
            outbox.offer(step(number, 4));
        }
        assert_eq!(waiting(&outbox), [(1, 2), (2, 4), (3, 4)]);
        outbox.offer(step(4, 25));
        assert_eq!(waiting(&outbox), [(4, 10)]);
        let counts = outbox.counts();
        assert_eq!((counts.waiting, counts.dropped), (10, [27, 0, 0, 0]));
    }

    #[test]
    fn what_was_taken_waits_until_it_is_said_what_became_of_it() {
        let outbox = Outbox::with_room(10);
        outbox.offer(step(1, 5));
        outbox.offer(step(2, 1));
        let sizes = |most| {
            outbox
                .take(most)
                .map(|batch| (batch.ended_unix_ms, batch.samples.len()))
        };
        assert_eq!(sizes(3), Some((1, 3)));
        assert_eq!(outbox.counts().waiting, 6);
        outbox.was_sent();
        assert_eq!(sizes(3), Some((1, 2)), "no batch is of two steps");
        outbox.was_dropped(DropReason::Refused);
        assert_eq!(sizes(3), Some((2, 1)));
        assert_eq!(outbox.abandon(), 1);
        let counts = outbox.counts();
        assert_eq!((counts.sent, counts.waiting), (3, 0));
        assert_eq!(counts.dropped, [0, 2, 0, 1]);
        outbox.close();
        outbox.offer(step(3, 2));
        assert_eq!(outbox.counts().dropped, [0, 2, 0, 3]);
    }
}
