//! Counting without host calls: a request adds to plain numbers, and the tick carries them to the proxy.
//!
//! A host call for each request and counter would cost as much as the decision. All metrics are defined once, at configure time, because
//! defining takes the proxy's symbol table lock; none is per customer, because their number has no bound. proxy-wasm has no labels, so
//! they are part of the name (`.rule=api`) and `envoy/stats-tags.yaml` takes them out again.

use forebay_core::amount::Micro;
use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::verdict::{Reason, Verdict};

use crate::host::{Host, MetricId, MetricKind};

/// Counters carried to the proxy by one tick at most; the others wait for the next.
const FLUSHED_PER_TICK: usize = 64;

/// What came of a request, as a label.
const OUTCOMES: [&str; 11] = [
    "verdict=shadow",
    "verdict=standard",
    "verdict=borrowed",
    "verdict=denied.reason=contract",
    "verdict=denied.reason=pool",
    "verdict=denied.reason=banned",
    "verdict=denied.reason=unknown",
    "verdict=dry_run.reason=contract",
    "verdict=dry_run.reason=pool",
    "verdict=dry_run.reason=banned",
    "verdict=dry_run.reason=unknown",
];

/// Something in a request or response that could not be used as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Input {
    KeyMissing,
    KeyTooLong,
    CostNegative,
    CostNotANumber,
    CostAboveMax,
    SettleMissing,
    SettleNegative,
    SettleNotANumber,
    SettleAboveMax,
    SettleTooMany,
}

const INPUTS: [&str; 10] = [
    "key_missing",
    "key_too_long",
    "cost_negative",
    "cost_not_a_number",
    "cost_above_max",
    "settle_missing",
    "settle_negative",
    "settle_not_a_number",
    "settle_above_max",
    "settle_too_many",
];

/// Something that the plugin did or failed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Event {
    /// A request that no rule matched.
    Unmatched,
    /// An exchange with the ledger.
    Draw,
    /// One that failed; the request was denied.
    DrawFailed,
    /// A chunk that went back to the ledger.
    ChunkReturned,
    /// A chunk that could not go back; its tokens are lost.
    ChunkLost,
    /// A policy that could not be read.
    PolicyRefused,
    /// A tick on which the ledger could not be read.
    LedgerRefused,
    /// A lease that ended without a new one; the leader counts it once.
    LeaseLapsed,
}

const EVENTS: [&str; 8] = [
    "unmatched",
    "draw",
    "draw_failed",
    "chunk_returned",
    "chunk_lost",
    "policy_refused",
    "ledger_refused",
    "lease_lapsed",
];

/// Tokens, by what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Tokens {
    /// Charged when the request came.
    Admitted,
    /// Asked for by denied requests.
    Denied,
    /// Charged in addition when the response came.
    SettledMore,
    /// Given back when the response came.
    SettledLess,
}

const TOKENS: [&str; 4] = ["admitted", "denied", "settled_more", "settled_less"];

/// The metrics of one configuration.
#[derive(Debug)]
pub(crate) struct Metrics {
    counters: Vec<Counter>,
    resources: Vec<String>,
    inputs_at: usize,
    events_at: usize,
    tokens_at: usize,
    next_flush: usize,
    retry_after_ms: Option<MetricId>,
    tick_us: Option<MetricId>,
    policy_epoch: Option<MetricId>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    id: Option<MetricId>,
    /// Not carried yet; micro-tokens for counters of tokens.
    pending: u64,
    /// How much of `pending` is one unit of the counter.
    unit: u64,
}

// === impl Metrics ===

impl Metrics {
    /// Defines all metrics for these rules and the resources that they charge.
    pub(crate) fn define<H: Host>(host: &mut H, rules: &[String], resources: &[String]) -> Self {
        let mut counters = Vec::new();
        let mut counter = |host: &mut H, name: &str, unit: u64| {
            let id = host.define_metric(MetricKind::Counter, name);
            counters.push(Counter {
                id,
                pending: 0,
                unit,
            });
            counters.len()
        };
        let mut inputs_at = 0;
        for rule in rules {
            for outcome in OUTCOMES {
                inputs_at = counter(host, &format!("forebay.decisions.rule={rule}.{outcome}"), 1);
            }
        }
        let mut events_at = inputs_at;
        for kind in INPUTS {
            events_at = counter(host, &format!("forebay.bad_inputs.kind={kind}"), 1);
        }
        let mut tokens_at = events_at;
        for kind in EVENTS {
            tokens_at = counter(host, &format!("forebay.events.kind={kind}"), 1);
        }
        for resource in resources {
            for kind in TOKENS {
                let name = format!("forebay.tokens.kind={kind}.resource={resource}");
                counter(host, &name, MICRO_PER_TOKEN.unsigned_abs());
            }
        }
        Self {
            counters,
            resources: resources.to_vec(),
            inputs_at,
            events_at,
            tokens_at,
            next_flush: 0,
            retry_after_ms: host.define_metric(MetricKind::Histogram, "forebay.retry_after_ms"),
            tick_us: host.define_metric(MetricKind::Histogram, "forebay.tick_us"),
            policy_epoch: host.define_metric(MetricKind::Gauge, "forebay.policy_epoch"),
        }
    }

    pub(crate) fn count_verdict(&mut self, rule: usize, verdict: &Verdict, dry_run: bool) {
        let outcome: usize = match verdict {
            Verdict::Shadow => 0,
            Verdict::Standard => 1,
            Verdict::Borrowed => 2,
            Verdict::Denied(denial) => match (denial.reason, dry_run) {
                (Reason::Contract, false) => 3,
                (Reason::Pool, false) => 4,
                (Reason::Banned, false) => 5,
                (Reason::Unknown, false) => 6,
                (Reason::Contract, true) => 7,
                (Reason::Pool, true) => 8,
                (Reason::Banned, true) => 9,
                (Reason::Unknown, true) => 10,
            },
        };
        self.add(
            rule.saturating_mul(OUTCOMES.len()).saturating_add(outcome),
            1,
        );
    }

    pub(crate) fn count_input(&mut self, input: Input) {
        self.add(self.inputs_at.saturating_add(input as usize), 1);
    }

    pub(crate) fn count_event(&mut self, event: Event) {
        self.add(self.events_at.saturating_add(event as usize), 1);
    }

    /// `resource` is the position among the resources that the rules charge.
    pub(crate) fn count_tokens(&mut self, tokens: Tokens, resource: usize, amount: Micro) {
        let at = resource
            .saturating_mul(TOKENS.len())
            .saturating_add(tokens as usize);
        self.add(
            self.tokens_at.saturating_add(at),
            amount.get().unsigned_abs(),
        );
    }

    /// Position of a resource among those that the rules charge.
    pub(crate) fn resource(&self, name: &str) -> Option<usize> {
        self.resources.iter().position(|resource| resource == name)
    }

    pub(crate) fn record_retry_after<H: Host>(&mut self, host: &mut H, ms: u64) {
        if let Some(id) = self.retry_after_ms {
            host.record_metric(id, ms);
        }
    }

    pub(crate) fn record_tick<H: Host>(&mut self, host: &mut H, us: u64) {
        if let Some(id) = self.tick_us {
            host.record_metric(id, us);
        }
    }

    pub(crate) fn set_policy_epoch<H: Host>(&mut self, host: &mut H, epoch: u64) {
        if let Some(id) = self.policy_epoch {
            host.record_metric(id, epoch);
        }
    }

    /// Carries counters to the proxy, a bounded number of them.
    pub(crate) fn flush<H: Host>(&mut self, host: &mut H) {
        let mut flushed = 0_usize;
        for _ in 0..self.counters.len() {
            if flushed >= FLUSHED_PER_TICK {
                return;
            }
            let at = self.next_flush;
            self.next_flush = at
                .checked_add(1)
                .filter(|next| *next < self.counters.len())
                .unwrap_or(0);
            if let Some(counter) = self.counters.get_mut(at)
                && counter.flush(host)
            {
                flushed = flushed.saturating_add(1);
            }
        }
    }

    fn add(&mut self, at: usize, by: u64) {
        if let Some(counter) = self.counters.get_mut(at) {
            counter.pending = counter.pending.saturating_add(by);
        }
    }
}

// === impl Counter ===

impl Counter {
    fn flush<H: Host>(&mut self, host: &mut H) -> bool {
        let whole = self.pending.checked_div(self.unit).unwrap_or(0);
        let Some(id) = self.id.filter(|_| whole > 0) else {
            return false;
        };
        self.pending = self.pending.checked_rem(self.unit).unwrap_or(0);
        host.add_metric(id, i64::try_from(whole).unwrap_or(i64::MAX));
        true
    }
}
