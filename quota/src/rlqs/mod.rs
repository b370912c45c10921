//! `envoy.service.rate_limit_quota.v3`: Envoys that report what they used and are assigned buckets.
//!
//! A bucket id with an entry `customer` is that customer's bucket, for the resource that its entry `resource` names (without one
//! `requests`, or the only one of the policy); a request costs one token, because a report counts requests. All Envoys of one
//! `forebay serve` pay from the ledger of its one gateway; where several ask for the same customer, each has the part that its demand is
//! of theirs together.
//!
//! An Envoy reports all of its buckets every 5 s and on each new stream, so nothing that a client can put into a bucket id may end
//! a stream: it would end the next one too. What cannot be a customer is denied, and what there is no room for is forgotten by the
//! Envoy, which goes by its own rule for buckets without an assignment then.

mod bucket;
mod crowd;
mod estates;
mod share;

use crate::asked::{Id, Reports, Usage};
use crate::desk::Desk;
use bucket::{Bucket, Next};
use crowd::Crowd;
use envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy};
use envoy_types::pb::envoy::r#type::v3::{RateLimitStrategy, TokenBucket};
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::BucketAction;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::{
    AbandonAction, BucketAction as Action, QuotaAssignmentAction,
};
use envoy_types::pb::envoy::service::rate_limit_quota::v3::{BucketId, RateLimitQuotaResponse};
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};
use estates::Estates;
use forebay_core::time::TimeUs;
use hashbrown::HashMap;
use share::{CYCLE_US, Told, Used};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Bucket ids of one Envoy.
const MAX_BUCKETS: usize = 65_536;

/// Longest bucket id, names and values together.
const MAX_ID_BYTES: usize = 4_096;

/// A bucket that nobody asked for in so long is forgotten, here and at the Envoy. Its next request is a first one again, which an Envoy
/// denies or admits by a rule of its own.
const IDLE_US: u64 = 3_600 * US_PER_S;

/// Assignments in one message.
const ACTIONS_PER_MESSAGE: usize = 256;

/// Messages that may wait for an Envoy that does not read.
const MAX_WAITING: usize = 64;

const US_PER_S: u64 = 1_000_000;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Rlqs {
    desk: Arc<Mutex<Desk>>,
    crowd: Arc<Mutex<Crowd>>,
    estates: Arc<Mutex<Estates>>,
    stopped: watch::Receiver<bool>,
}

/// What an Envoy is sent, as it comes.
pub(crate) type Replies = ReceiverStream<Result<RateLimitQuotaResponse, Status>>;

/// A bucket id, in order.
type Key = BTreeMap<String, String>;

/// An Envoy.
struct Client {
    rlqs: Rlqs,
    domain: Vec<u8>,
    buckets: HashMap<Key, Bucket>,
    /// To be looked at before the next tick.
    reported: Vec<Key>,
    actions: Vec<BucketAction>,
    replies: mpsc::Sender<Result<RateLimitQuotaResponse, Status>>,
}

// === impl Rlqs ===

impl Rlqs {
    pub(crate) fn new(desk: Arc<Mutex<Desk>>, stopped: watch::Receiver<bool>) -> Self {
        Self {
            desk,
            crowd: Arc::default(),
            estates: Arc::default(),
            stopped,
        }
    }

    /// Serves an Envoy for as long as its stream lasts.
    pub(crate) fn serve(&self, reports: Streaming<Reports>) -> Replies {
        let (replies, waiting) = mpsc::channel(MAX_WAITING);
        let client = Client {
            rlqs: self.clone(),
            domain: Vec::new(),
            buckets: HashMap::new(),
            reported: Vec::new(),
            actions: Vec::new(),
            replies,
        };
        tokio::spawn(client.serve(reports));
        Replies::new(waiting)
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        lock(&self.crowd)
    }

    fn estates(&self) -> MutexGuard<'_, Estates> {
        lock(&self.estates)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }
}

/// Nothing under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Client ===

impl Client {
    async fn serve(mut self, mut reports: Streaming<Reports>) {
        let mut cycles = interval(Duration::from_micros(CYCLE_US));
        cycles.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = self.rlqs.stopped.clone();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                _ = cycles.tick() => self.cycle(),
                report = reports.message() => match report {
                    Ok(Some(report)) => {
                        if let Err(refusal) = self.take(report) {
                            // It may not read either; then the stream ends without a reason.
                            drop(self.replies.try_send(Err(refusal)));
                            break;
                        }
                        self.answer();
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a stream of quota reports broke off");
                        break;
                    }
                },
            }
            if self.replies.is_closed() {
                break;
            }
        }
        self.leave();
    }

    fn take(&mut self, report: Reports) -> Result<(), Status> {
        // The first report names the domain, later ones need not.
        if self.domain.is_empty() {
            if report.domain.is_empty() {
                return Err(Status::invalid_argument("the first report names no domain"));
            }
            self.domain = report.domain;
        } else if !report.domain.is_empty() && report.domain != self.domain {
            return Err(Status::invalid_argument(format!(
                "the stream began for the domain `{}`; another one needs another stream",
                String::from_utf8_lossy(&self.domain)
            )));
        }
        for usage in report.usages {
            self.take_usage(usage);
        }
        Ok(())
    }

    fn take_usage(&mut self, usage: Usage) {
        // One without a name cannot be answered.
        let Some(key) = usage.bucket_id.and_then(read).filter(|key| !key.is_empty()) else {
            return;
        };
        let now = self.rlqs.desk().now();
        if !self.buckets.contains_key(&key) {
            let length: usize = key
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            if self.buckets.len() >= MAX_BUCKETS || length > MAX_ID_BYTES {
                self.actions.push(abandon(&key));
                return;
            }
            let bucket = Bucket::new(&self.rlqs, &key, now);
            self.buckets.insert(key.clone(), bucket);
        }
        if let Some(bucket) = self.buckets.get_mut(&key) {
            let used = Used {
                allowed: usage.allowed,
                denied: usage.denied,
                elapsed_us: usage.time_elapsed.map_or(0, us_of),
            };
            bucket.report(&self.rlqs, used, now);
            self.reported.push(key);
        }
    }

    /// Answers what was just reported.
    fn answer(&mut self) {
        let now = self.rlqs.desk().now();
        for key in std::mem::take(&mut self.reported) {
            self.look(&key, now);
        }
        self.send();
    }

    /// Pays what flows, and sends what has changed.
    fn cycle(&mut self) {
        let now = self.rlqs.desk().now();
        let due = self.buckets.iter().filter(|(_, bucket)| bucket.is_due(now));
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            self.look(&key, now);
        }
        self.send();
    }

    fn look(&mut self, key: &Key, now: TimeUs) {
        // What cannot be sent is not decided: a later cycle will.
        let waiting = self.replies.max_capacity() - self.replies.capacity();
        if waiting + self.actions.len() / ACTIONS_PER_MESSAGE + 1 >= MAX_WAITING {
            return;
        }
        let Some(bucket) = self.buckets.get_mut(key) else {
            return;
        };
        match bucket.cycle(&self.rlqs, now) {
            None => {}
            Some(Next::Tell(told, holds_s)) => self.actions.push(assign(key, told, holds_s)),
            Some(Next::Forget) => {
                self.buckets.remove(key);
                self.actions.push(abandon(key));
            }
        }
    }

    fn send(&mut self) {
        let actions = std::mem::take(&mut self.actions);
        for actions in actions.chunks(ACTIONS_PER_MESSAGE) {
            let reply = RateLimitQuotaResponse {
                bucket_action: actions.to_vec(),
            };
            if self.replies.try_send(Ok(reply)).is_err() {
                // The Envoy is gone, or does not read: what it was told ends by itself.
                return;
            }
        }
    }

    fn leave(self) {
        let now = self.rlqs.desk().now();
        for (key, bucket) in self.buckets {
            bucket.leave(&self.rlqs, key, now);
        }
    }
}

/// A bucket id, unless it is not text: no answer could name it.
fn read(id: Id) -> Option<Key> {
    let text = |bytes| String::from_utf8(bytes).ok();
    let entries = id.bucket.into_iter();
    entries
        .map(|entry| Some((text(entry.key)?, text(entry.value)?)))
        .collect()
}

fn abandon(key: &Key) -> BucketAction {
    action(key, Action::AbandonAction(AbandonAction {}))
}

fn action(key: &Key, action: Action) -> BucketAction {
    BucketAction {
        bucket_id: Some(BucketId {
            bucket: key.clone().into_iter().collect(),
        }),
        bucket_action: Some(action),
    }
}

fn assign(key: &Key, told: Told, holds_s: u64) -> BucketAction {
    let blanket = |rule: BlanketRule| Strategy::BlanketRule(rule.into());
    let strategy = match told {
        Told::Nothing | Told::Deny => blanket(BlanketRule::DenyAll),
        Told::Allow => blanket(BlanketRule::AllowAll),
        Told::Bucket(terms) => Strategy::TokenBucket(TokenBucket {
            max_tokens: terms.max_tokens,
            tokens_per_fill: Some(UInt32Value {
                value: terms.tokens_per_fill,
            }),
            fill_interval: Some(ProtoDuration {
                seconds: terms.fill_interval_s.into(),
                nanos: i32::try_from(terms.fill_interval_nanos).unwrap_or(0),
            }),
        }),
    };
    let assignment = QuotaAssignmentAction {
        assignment_time_to_live: Some(ProtoDuration {
            seconds: i64::try_from(holds_s).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        rate_limit_strategy: Some(RateLimitStrategy {
            strategy: Some(strategy),
        }),
    };
    action(key, Action::QuotaAssignmentAction(assignment))
}

fn us_of(duration: ProtoDuration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds
        .saturating_mul(US_PER_S)
        .saturating_add(nanos / 1_000)
}
