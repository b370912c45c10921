//! `envoy.service.rate_limit_quota.v3`: Envoys that report what they used and are assigned buckets.
//!
//! A bucket id with an entry `customer` is that customer's bucket, for the resource that its entry `resource` names (without one
//! `requests`, or the only one of the policy); a request costs one token, because a report counts requests. Bucket ids without `customer` are not
//! limited. All Envoys of one `forebay serve` pay from the ledger of its one gateway; where several ask for the same customer, each
//! has the part that its demand is of theirs together.

mod crowd;
mod share;

use crate::desk::{Desk, NotReady};
use crate::rls::{CUSTOMER, RESOURCE};
use crowd::{Crowd, Seat};
use envoy_types::pb::envoy::r#type::v3::rate_limit_strategy::{BlanketRule, Strategy};
use envoy_types::pb::envoy::r#type::v3::{RateLimitStrategy, TokenBucket};
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::BucketAction;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_response::bucket_action::{
    AbandonAction, BucketAction as Action, QuotaAssignmentAction,
};
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_server::RateLimitQuotaService;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::rate_limit_quota_usage_reports::BucketQuotaUsage;
use envoy_types::pb::envoy::service::rate_limit_quota::v3::{
    BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
};
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};
use forebay_core::Micro;
use forebay_core::time::TimeUs;
use forebay_wire::key::MAX_KEY_BYTES;
use hashbrown::HashMap;
use share::{Purse, Share, Standing, Told, Used};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Time between two cycles of payments and assignments.
const CYCLE: Duration = Duration::from_millis(100);

/// Bucket ids of one Envoy.
const MAX_BUCKETS: usize = 16_384;

/// A bucket that nobody asked for in so long is forgotten, here and at the Envoy.
const IDLE_US: u64 = 60_000_000;

/// What would end sooner than this is not worth telling: by then there is another lease, or none.
const LEAST_HOLD_US: u64 = 100_000;

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
    stopped: watch::Receiver<bool>,
}

/// An Envoy.
struct Client {
    rlqs: Rlqs,
    seat: Seat,
    domain: String,
    buckets: HashMap<Key, Bucket>,
    replies: mpsc::Sender<Result<RateLimitQuotaResponse, Status>>,
}

/// A bucket id, in order.
type Key = BTreeMap<String, String>;

/// What an Envoy does for a bucket id.
enum Bucket {
    /// It names no customer. Whether the Envoy knows that it is not limited.
    Open { is_told: bool },
    /// It names a customer.
    Paid { share: Box<Share>, payer: Payer },
}

/// Who pays for a bucket.
struct Payer {
    key: String,
    resource: Option<String>,
}

/// A customer's bucket in the ledger, as a share sees it.
struct Wallet<'a> {
    desk: MutexGuard<'a, Desk>,
    payer: &'a Payer,
}

/// What an Envoy is sent, as it comes.
type Replies = ReceiverStream<Result<RateLimitQuotaResponse, Status>>;

// === impl Rlqs ===

impl Rlqs {
    pub(crate) fn new(desk: Arc<Mutex<Desk>>, stopped: watch::Receiver<bool>) -> Self {
        Self {
            desk,
            crowd: Arc::default(),
            stopped,
        }
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wallet<'a>(&'a self, payer: &'a Payer) -> Wallet<'a> {
        Wallet {
            desk: self.desk.lock().unwrap_or_else(PoisonError::into_inner),
            payer,
        }
    }

    fn now(&self) -> TimeUs {
        self.desk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .now()
    }
}

#[tonic::async_trait]
impl RateLimitQuotaService for Rlqs {
    type StreamRateLimitQuotasStream = Replies;

    async fn stream_rate_limit_quotas(
        &self,
        request: Request<Streaming<RateLimitQuotaUsageReports>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, waiting) = mpsc::channel(MAX_WAITING);
        let client = Client {
            seat: self.crowd().seat(),
            rlqs: self.clone(),
            domain: String::new(),
            buckets: HashMap::new(),
            replies,
        };
        tokio::spawn(client.serve(request.into_inner()));
        Ok(Response::new(Replies::new(waiting)))
    }
}

// === impl Client ===

impl Client {
    async fn serve(mut self, mut reports: Streaming<RateLimitQuotaUsageReports>) {
        let mut cycles = interval(CYCLE);
        cycles.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = self.rlqs.stopped.clone();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                _ = cycles.tick() => {}
                report = reports.message() => match report {
                    Ok(Some(report)) => {
                        if let Err(refusal) = self.take(report) {
                            // It may not read either; then the stream ends without a reason.
                            drop(self.replies.try_send(Err(refusal)));
                            break;
                        }
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
            self.cycle();
        }
        self.leave();
    }

    fn take(&mut self, report: RateLimitQuotaUsageReports) -> Result<(), Status> {
        // The first report names the domain, later ones need not.
        if self.domain.is_empty() {
            if report.domain.is_empty() {
                return Err(Status::invalid_argument("the first report names no domain"));
            }
            self.domain = report.domain;
        } else if !report.domain.is_empty() && report.domain != self.domain {
            return Err(Status::invalid_argument(format!(
                "the stream began for the domain `{}`; another one needs another stream",
                self.domain
            )));
        }
        for usage in report.bucket_quota_usages {
            self.take_usage(usage)?;
        }
        Ok(())
    }

    fn take_usage(&mut self, usage: BucketQuotaUsage) -> Result<(), Status> {
        let id = usage.bucket_id.unwrap_or_default().bucket;
        if id.is_empty() {
            return Err(Status::invalid_argument("a report has no bucket id"));
        }
        let key: Key = id.into_iter().collect();
        let now = self.rlqs.now();
        if !self.buckets.contains_key(&key) {
            if self.buckets.len() >= MAX_BUCKETS {
                return Err(Status::resource_exhausted(format!(
                    "more than {MAX_BUCKETS} bucket ids on one stream"
                )));
            }
            self.buckets.insert(key.clone(), Bucket::new(&key, now));
        }
        let Some(Bucket::Paid { share, payer }) = self.buckets.get_mut(&key) else {
            return Ok(());
        };
        let used = Used {
            allowed: usage.num_requests_allowed,
            denied: usage.num_requests_denied,
            elapsed_us: usage.time_elapsed.map_or(0, us_of),
        };
        share.report(used, now, &mut self.rlqs.wallet(payer));
        Ok(())
    }

    /// Pays what flows, and sends what has changed.
    fn cycle(&mut self) {
        let now = self.rlqs.now();
        let mut actions = Vec::new();
        let mut forgotten = Vec::new();
        for (key, bucket) in &mut self.buckets {
            // What cannot be sent is not decided: the next cycle will.
            let waiting = self.replies.max_capacity() - self.replies.capacity();
            if waiting + actions.len() / ACTIONS_PER_MESSAGE >= MAX_WAITING {
                break;
            }
            match bucket.cycle(&self.rlqs, self.seat, now) {
                None => {}
                Some(Next::Forget) => {
                    actions.push(action(key, Action::AbandonAction(AbandonAction {})));
                    forgotten.push(key.clone());
                }
                Some(Next::Tell(told, holds)) => {
                    actions.push(action(key, assignment(told, holds)));
                }
            }
        }
        for key in forgotten {
            self.forget(&key, now);
        }
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

    fn forget(&mut self, key: &Key, now: TimeUs) {
        if let Some(Bucket::Paid { mut share, payer }) = self.buckets.remove(key) {
            share.end(now, &mut self.rlqs.wallet(&payer));
            self.rlqs.crowd().leaves(&payer.key, self.seat);
        }
    }

    fn leave(mut self) {
        let now = self.rlqs.now();
        for key in self.buckets.keys().cloned().collect::<Vec<_>>() {
            self.forget(&key, now);
        }
    }
}

/// What an Envoy should hear about a bucket.
enum Next {
    Tell(Told, Option<Duration>),
    Forget,
}

// === impl Bucket ===

impl Bucket {
    fn new(key: &Key, now: TimeUs) -> Self {
        match key.get(CUSTOMER) {
            None => Self::Open { is_told: false },
            Some(customer) => Self::Paid {
                share: Box::new(Share::new(now)),
                payer: Payer {
                    key: customer.clone(),
                    resource: key.get(RESOURCE).cloned(),
                },
            },
        }
    }

    fn cycle(&mut self, rlqs: &Rlqs, seat: Seat, now: TimeUs) -> Option<Next> {
        let (share, payer) = match self {
            Self::Open { is_told: true } => return None,
            Self::Open { is_told } => {
                *is_told = true;
                return Some(Next::Tell(Told::Allow, None));
            }
            Self::Paid { share, payer } => (share, payer),
        };
        if now.since(share.used_at()) >= IDLE_US {
            return Some(Next::Forget);
        }
        let part_permille = {
            let mut crowd = rlqs.crowd();
            crowd.asks(&payer.key, seat, share.demand());
            crowd.part_permille(&payer.key, seat)
        };
        let mut wallet = rlqs.wallet(payer);
        // Where nothing can be said, the Envoy's own rules for that hold: nothing is assigned, and what was ends.
        let (standing, holds_us) = wallet.standing()?;
        let told = share.cycle(standing, part_permille, holds_us, now, &mut wallet)?;
        let holds_us = holds_us.min(share::TTL_US);
        Some(Next::Tell(told, Some(Duration::from_micros(holds_us))))
    }
}

// === impl Wallet ===

impl Wallet<'_> {
    /// How the customer stands, and how long that can be relied on.
    fn standing(&mut self) -> Option<(Standing, u64)> {
        let key = self.payer.key.as_bytes();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Some((Standing::Barred, share::TTL_US));
        }
        match self.desk.look(key, self.payer.resource.as_deref()) {
            Ok(look) => {
                let standing = if look.is_barred {
                    Standing::Barred
                } else if look.is_free {
                    Standing::Free
                } else {
                    Standing::Limited {
                        available: look.available,
                        rate: look.rate,
                        depth: look.depth,
                    }
                };
                (look.holds_us >= LEAST_HOLD_US).then_some((standing, look.holds_us))
            }
            Err(NotReady::NoPolicy) => None,
            Err(error) => {
                tracing::debug!(%error, "a bucket id cannot be assigned anything");
                None
            }
        }
    }

    fn resource(&self) -> Option<&str> {
        self.payer.resource.as_deref()
    }
}

impl Purse for Wallet<'_> {
    fn draw(&mut self, amount: Micro) -> bool {
        let charge = charge(self.payer, amount);
        let outcome = self.desk.decide(&[charge], true);
        outcome.is_ok_and(|outcome| outcome.is_admitted)
    }

    fn owe(&mut self, amount: Micro) {
        if amount > Micro::ZERO
            && let Err(error) = self.desk.settle(&charge(self.payer, amount))
        {
            tracing::debug!(%error, "what an Envoy has used cannot be charged");
        }
    }

    fn give_back(&mut self, amount: Micro) {
        let amount = Micro::ZERO.minus(amount);
        if let Err(error) = self.desk.settle(&charge(self.payer, amount)) {
            tracing::debug!(%error, resource = self.resource(), "what an Envoy has not used is lost");
        }
    }

    fn lack(&mut self, amount: Micro) {
        let charge = charge(self.payer, amount);
        // Nothing is kept: only a denial is counted, and one that would be admitted tells nobody of a lack.
        drop(self.desk.decide(&[charge], false));
    }
}

fn charge(payer: &Payer, amount: Micro) -> crate::desk::Charge<'_> {
    crate::desk::Charge {
        key: payer.key.as_bytes(),
        resource: payer.resource.as_deref(),
        amount,
    }
}

fn action(key: &Key, action: Action) -> BucketAction {
    BucketAction {
        bucket_id: Some(BucketId {
            bucket: key.clone().into_iter().collect(),
        }),
        bucket_action: Some(action),
    }
}

fn assignment(told: Told, holds: Option<Duration>) -> Action {
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
                seconds: i64::try_from(terms.fill_interval_s).unwrap_or(i64::MAX),
                nanos: 0,
            }),
        }),
    };
    Action::QuotaAssignmentAction(QuotaAssignmentAction {
        assignment_time_to_live: holds.map(|holds| ProtoDuration {
            seconds: i64::try_from(holds.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(holds.subsec_nanos()).unwrap_or(0),
        }),
        rate_limit_strategy: Some(RateLimitStrategy {
            strategy: Some(strategy),
        }),
    })
}

fn us_of(duration: ProtoDuration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds
        .saturating_mul(US_PER_S)
        .saturating_add(nanos / 1_000)
}
