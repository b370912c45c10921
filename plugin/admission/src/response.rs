//! What a response needs of its request: headers to set, estimates to settle; and what an access log needs of both.
//!
//! All of it is optional, and a configuration without it leaves nothing behind, so its responses are over after one comparison.

use forebay_core::amount::Micro;
use forebay_core::chunk::{Amounts, Payer};
use forebay_core::ledger::CustomerHash;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::verdict::{Reason, Verdict};

use crate::cost::{self, Cost};
use crate::filter::{Desk, Filter};
use crate::host::Host;
use crate::metrics::{Event, Input, Metrics, Tokens};
use crate::pending::Settlement;
use crate::rate_headers::BucketView;
use crate::rule::{Charge, Rule};

const VERDICT_STATE: &str = "forebay.verdict";
const CUSTOMER_STATE: &str = "forebay.customer";

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Filter {
    /// Leaves verdict and customer for access logs. Of several customers it is the first one.
    pub(crate) fn leave_for_log<H: Host>(&mut self, host: &mut H, verdict: &Verdict) {
        if self.settings.access_log.verdict {
            host.set_filter_state(
                VERDICT_STATE,
                word(verdict, self.desk.policy.dry_run).as_bytes(),
            );
        }
        if self.settings.access_log.customer
            && let Some(account) = self.accounts.iter().next()
        {
            let customer = match self.desk.cache.get_mut(&account.key) {
                Some(slot) => slot.customer,
                None => CustomerHash(self.desk.secret.hash(&account.key).0),
            };
            host.set_filter_state(CUSTOMER_STATE, &hex(&customer));
        }
    }

    /// Keeps what the response to a request that goes on will need.
    pub(crate) fn leave_for_response(&mut self, stream: u32) {
        let settles = self
            .accounts
            .iter()
            .any(|account| settlements(&self.rules, account).next().is_some());
        if !settles && !self.settings.has_rate_headers {
            return;
        }
        let Some((pending, loses)) = self.pending.begin(stream) else {
            return;
        };
        if loses {
            self.metrics.count_input(Input::SettleTooMany);
        }
        for account in self.accounts.iter() {
            for settlement in settlements(&self.rules, account) {
                pending.add(&account.key, settlement);
            }
        }
        if self.settings.has_rate_headers {
            collect_buckets(&mut self.desk, &self.accounts, &mut pending.buckets);
        }
    }

    /// Sets the headers and settles the estimates of a response.
    pub fn on_response_headers<H: Host>(&mut self, host: &mut H, stream: u32) {
        if self.pending.is_empty() {
            return;
        }
        let Self {
            pending,
            rules,
            desk,
            metrics,
            settings,
            rate_headers,
            scratch,
            token_metrics,
            ..
        } = self;
        let Some(pending) = pending.take(stream) else {
            return;
        };
        if !pending.buckets.is_empty() {
            rate_headers.render(&pending.buckets, &desk.policy.resources, &settings.headers);
            for (name, value) in rate_headers.each() {
                host.set_response_header(name, value);
            }
        }
        for (position, settlement) in pending.settlements.iter().enumerate() {
            let charge = rules
                .get(settlement.rule)
                .and_then(|rule| rule.charges.get(settlement.charge));
            let Some(Charge {
                // The policy may have changed since the request, and with it the resource's place.
                resource: Some(resource),
                cost:
                    Cost::Settle {
                        response_header,
                        max,
                        ..
                    },
                ..
            }) = charge.filter(|_| settlement.is_charged)
            else {
                continue;
            };
            let is_there = host.response_header(response_header, scratch);
            let actual = cost::reported(is_there.then_some(scratch.as_slice()), *max, metrics);
            if let Some(actual) = actual {
                let difference = actual.minus(settlement.estimate);
                settle(
                    host,
                    desk,
                    metrics,
                    pending.key(position),
                    *resource,
                    difference,
                    settlement.payer,
                );
                let metric = *token_metrics.at(*resource);
                count_difference(metrics, metric, difference);
            }
        }
        // Two settlements may have read the same header, so it is removed when all have.
        for settlement in &pending.settlements {
            let charge = rules
                .get(settlement.rule)
                .and_then(|rule| rule.charges.get(settlement.charge));
            if let Some(Cost::Settle {
                response_header, ..
            }) = charge.map(|charge| &charge.cost)
            {
                host.remove_response_header(response_header);
            }
        }
    }

    /// Renders the rate-limit headers of the present request.
    pub(crate) fn render_rate_headers(&mut self) {
        let mut buckets = Vec::new();
        if self.settings.has_rate_headers {
            collect_buckets(&mut self.desk, &self.accounts, &mut buckets);
        }
        self.rate_headers.render(
            &buckets,
            &self.desk.policy.resources,
            &self.settings.headers,
        );
    }
}

/// The charges of an account that are estimates.
fn settlements<'a>(
    rules: &'a [Rule],
    account: &'a crate::account::Account,
) -> impl Iterator<Item = Settlement> + use<'a> {
    let rule = rules.get(account.rule);
    let charges = rule.map(|rule| rule.charges.as_slice()).unwrap_or_default();
    charges
        .iter()
        .enumerate()
        .filter_map(move |(position, charge)| {
            let resource = charge.resource?;
            let is_estimate = matches!(charge.cost, Cost::Settle { .. })
                && *account.charges.at(resource) == Some(position);
            is_estimate.then(|| Settlement {
                rule: account.rule,
                charge: position,
                is_charged: account.is_charged,
                estimate: *account.cost.at(resource),
                payer: *account.payers.at(resource),
                key_end: 0,
            })
        })
}

/// The buckets that the accounts are charged to, the tightest first.
fn collect_buckets(
    desk: &mut Desk,
    accounts: &crate::account::Accounts,
    into: &mut Vec<BucketView>,
) {
    into.clear();
    for account in accounts.iter() {
        let Some(slot) = desk.cache.get_mut(&account.key) else {
            continue;
        };
        let Some(contract) = desk
            .policy
            .contract(slot.chunk.contract)
            .filter(|_| slot.chunk.drawn_at.is_some())
        else {
            continue;
        };
        for resource in desk.policy.resource_indexes() {
            if account.charges.at(resource).is_some() {
                let limits = contract.limits.at(resource);
                let remaining = slot.chunk.remaining(resource);
                into.push(BucketView {
                    resource,
                    burst: limits.burst,
                    rate: limits.rate,
                    remaining,
                });
            }
        }
    }
    let tightest =
        (0..into.len()).min_by_key(|position| into.get(*position).map(|bucket| bucket.remaining));
    if let Some(tightest) = tightest {
        into.swap(0, tightest);
    }
}

/// Charges the difference to an estimate, or gives it back to whoever has paid.
pub(crate) fn settle<H: Host>(
    host: &mut H,
    desk: &mut Desk,
    metrics: &mut Metrics,
    key: &[u8],
    resource: ResourceIndex,
    difference: Micro,
    payer: Payer,
) {
    if difference == Micro::ZERO {
        return;
    }
    let (customer, unpaid) = match desk.cache.get_mut(key) {
        Some(slot) => (
            slot.customer,
            slot.chunk.settle(resource, difference, payer),
        ),
        // Its chunk has made room for another customer's; the ledger takes the difference itself.
        None => (CustomerHash(desk.secret.hash(key).0), difference),
    };
    if unpaid == Micro::ZERO {
        return;
    }
    let mut amounts: Amounts = PerResource::default();
    *amounts.at_mut(resource) = unpaid;
    let (conditions, ledger, _) = desk.parts(host.now());
    if ledger
        .charge(host, &conditions, &customer, &amounts, payer)
        .is_err()
    {
        metrics.count_event(Event::DrawFailed);
    }
}

fn count_difference(metrics: &mut Metrics, metric: Option<usize>, difference: Micro) {
    let Some(metric) = metric else { return };
    if difference > Micro::ZERO {
        metrics.count_tokens(Tokens::SettledMore, metric, difference);
    } else {
        metrics.count_tokens(Tokens::SettledLess, metric, difference);
    }
}

/// The verdict for access logs. Unlike in metrics, where verdict and reason are labels of their own, it is one word.
fn word(verdict: &Verdict, dry_run: bool) -> &'static str {
    match (verdict, dry_run) {
        (Verdict::Denied(denial), false) => match denial.reason {
            Reason::Contract => "denied:contract",
            Reason::Pool => "denied:pool",
            Reason::Banned => "denied:banned",
            Reason::Unknown => "denied:unknown",
        },
        (Verdict::Denied(denial), true) => match denial.reason {
            Reason::Contract => "dry_run:contract",
            Reason::Pool => "dry_run:pool",
            Reason::Banned => "dry_run:banned",
            Reason::Unknown => "dry_run:unknown",
        },
        (admitted, _) => admitted.word(),
    }
}

fn hex(customer: &CustomerHash) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(customer.0) {
        let nibbles = [byte >> 4, byte & 0x0f];
        for (digit, nibble) in pair.iter_mut().zip(nibbles) {
            *digit = HEX_DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    digits
}
