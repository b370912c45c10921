//! The filter: the way of a request through a worker.
//!
//! A request that the worker's chunk can pay for costs one look-up and no host call besides the one that fetches its key. Everything
//! else (drawing, denying, settling, telling) is in modules of its own, so that this way stays short enough to be seen at once.

use forebay_core::amount::Micro;
use forebay_core::cache::{ChunkCache, Slot};
use forebay_core::chunk::Amounts;
use forebay_core::draw::Conditions;
use forebay_core::error::CoreError;
use forebay_core::ledger::{CustomerHash, Ledger, Mode, ProtectedScan, Region, WorkerId};
use forebay_core::policy::{Policy, Unknown};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_core::verdict::{Denial, Reason, Verdict};
use forebay_wire::key::KeySecret;

use crate::account::{Account, Accounts};
use crate::cold_start::ColdStartRule;
use crate::host::Host;
use crate::key::KeyFound;
use crate::metrics::{Event, Input, Metrics, Tokens};
use crate::pending::PendingTable;
use crate::rate_headers::RateHeaders;
use crate::request::RequestReader;
use crate::response::settle;
use crate::rule::{self, Rule};
use crate::settings::Settings;
use crate::source_address::{self, PrefixLengths};

/// Customers whose chunks a worker keeps at most.
const MAX_CACHED_CUSTOMERS: usize = 16_384;

/// A request that could not be decided should come back after this time.
const UNDECIDED_RETRY_US: u64 = 1_000_000;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Continue,
    /// It has been answered.
    Stop,
}

/// A configured worker.
#[derive(Debug)]
pub struct Filter {
    pub(crate) settings: Settings,
    pub(crate) rules: Vec<Rule>,
    pub(crate) reader: RequestReader,
    pub(crate) metrics: Metrics,
    pub(crate) accounts: Accounts,
    pub(crate) pending: PendingTable,
    pub(crate) rate_headers: RateHeaders,
    pub(crate) desk: Desk,
    /// Where the tokens of each resource are counted.
    pub(crate) token_metrics: PerResource<Option<usize>>,
    pub(crate) tick: TickState,
    pub(crate) scratch: Vec<u8>,
}

/// What decides: the worker's chunks and its access to the ledger.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) policy: Policy,
    pub(crate) ledger: Ledger,
    pub(crate) cache: ChunkCache,
    pub(crate) workers: u32,
    pub(crate) secret: KeySecret,
    pub(crate) cold_start: ColdStartRule,
}

/// What the tick remembers.
#[derive(Debug)]
pub(crate) struct TickState {
    pub(crate) worker: WorkerId,
    pub(crate) is_leader: bool,
    pub(crate) ticks: u64,
    /// When the last one was.
    pub(crate) at: TimeUs,
    /// Requests since the clock was last looked at.
    pub(crate) requests: u32,
    pub(crate) scan: ProtectedScan,
    /// A policy that could not be read is reported once.
    pub(crate) refused_epoch: Option<u64>,
    /// So is a ledger that cannot be read.
    pub(crate) refused_ledger: Option<CoreError>,
    /// So is a lease that has ended.
    pub(crate) is_lapsed: bool,
}

/// What the configuration comes down to.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) rules: Vec<Rule>,
    pub(crate) rule_names: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) secret: KeySecret,
    pub(crate) policy: Policy,
    pub(crate) ledger: Ledger,
    pub(crate) cold_start: ColdStartRule,
    pub(crate) worker: u64,
    pub(crate) cache_seed: u64,
}

/// A verdict, and when it was found if a clock was read for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) now: Option<TimeUs>,
}

/// What the rules say of a request.
enum Collected {
    /// The accounts are charged.
    Accounts,
    /// Nobody can be charged, so it is denied, in the name of this rule.
    Nobody { rule: usize },
}

// === impl Filter ===

impl Filter {
    pub(crate) fn new<H: Host>(host: &mut H, parts: Parts) -> Self {
        let fetch = rule::fetch(&parts.rules);
        let metrics = Metrics::define(host, &parts.rule_names, &parts.resources);
        let mut filter = Self {
            settings: parts.settings,
            rules: parts.rules,
            reader: RequestReader::new(fetch),
            metrics,
            accounts: Accounts::default(),
            pending: PendingTable::default(),
            rate_headers: RateHeaders::default(),
            desk: Desk {
                policy: parts.policy,
                ledger: parts.ledger,
                cache: ChunkCache::new(MAX_CACHED_CUSTOMERS, parts.cache_seed),
                workers: 1,
                secret: parts.secret,
                cold_start: parts.cold_start,
            },
            token_metrics: PerResource::default(),
            tick: TickState {
                worker: WorkerId(parts.worker),
                is_leader: false,
                ticks: 0,
                at: host.now(),
                requests: 0,
                scan: ProtectedScan::default(),
                refused_epoch: None,
                refused_ledger: None,
                is_lapsed: false,
            },
            scratch: Vec::new(),
        };
        filter.bind_policy(host);
        filter
    }

    /// Decides a request.
    pub fn on_request_headers<H: Host>(&mut self, host: &mut H, stream: u32) -> Action {
        self.make_up_for_tick(host);
        self.reader.begin();
        self.accounts.clear();
        if let Collected::Nobody { rule } = self.collect(host) {
            return self.deny_nobody(host, rule);
        }
        if self.accounts.is_empty() {
            self.metrics.count_event(Event::Unmatched);
            return Action::Continue;
        }
        // Before the control plane has answered, no contract is charged.
        let charges_contracts = self.desk.ledger.state().mode() != Mode::Waiting;
        for position in 0.. {
            let Some(account) = self.accounts.get_mut(position) else {
                break;
            };
            let decision = self.desk.decide(host, &mut self.metrics, account);
            account.verdict = decision.verdict;
            account.is_charged = charges_contracts && decision.verdict.is_admitted();
            if let Verdict::Denied(denial) = decision.verdict {
                self.give_back_before(host, position);
                let action = self.deny(host, position, denial, decision.now);
                if action == Action::Continue {
                    self.leave_for_response(stream);
                }
                return action;
            }
        }
        for account in self.accounts.iter() {
            self.metrics
                .count_verdict(account.rule, &account.verdict, false);
            count_tokens(
                &mut self.metrics,
                &self.token_metrics,
                Tokens::Admitted,
                &account.cost,
            );
        }
        if let Some(verdict) = self.accounts.get(0).map(|account| account.verdict) {
            self.leave_for_log(host, &verdict);
        }
        self.leave_for_response(stream);
        Action::Continue
    }

    /// Points the rules to the resources of the policy in force.
    pub(crate) fn bind_policy<H: Host>(&mut self, host: &mut H) {
        // A control plane's policy may lack a resource that a rule charges: that charge is left out until a policy has it.
        let unbound = rule::bind(&mut self.rules, &self.desk.policy);
        if let Some(path) = unbound
            && self.desk.ledger.state().mode() != Mode::Waiting
        {
            let line = format!(
                "{path} is no resource of the policy in force (epoch {}); it is not charged",
                self.desk.policy.epoch
            );
            host.log(crate::host::LogLevel::Warn, &line);
        }
        self.token_metrics = PerResource::default();
        for resource in self.desk.policy.resource_indexes() {
            let name = self
                .desk
                .policy
                .resources
                .get(resource.position())
                .map(|resource| resource.name.as_str());
            *self.token_metrics.at_mut(resource) =
                name.and_then(|name| self.metrics.resource(name));
        }
        self.metrics.set_policy_epoch(host, self.desk.policy.epoch);
    }

    /// Asks the rules whom to charge.
    fn collect<H: Host>(&mut self, host: &mut H) -> Collected {
        let Self {
            rules,
            reader,
            metrics,
            accounts,
            ..
        } = self;
        for (index, rule) in rules.iter().enumerate() {
            let open = |resource: &Option<ResourceIndex>| {
                resource.is_some_and(|resource| !accounts.has_charged(resource))
            };
            if !rule.charges.iter().any(|charge| open(&charge.resource))
                || !rule.matcher.matches(host, reader)
            {
                continue;
            }
            let Some(draft) = accounts.draft(index) else {
                break;
            };
            match rule.key.find(host, reader, &mut draft.key) {
                KeyFound::Yes => {}
                KeyFound::Skip => continue,
                KeyFound::Missing => {
                    metrics.count_input(Input::KeyMissing);
                    return Collected::Nobody { rule: index };
                }
                KeyFound::TooLong => {
                    metrics.count_input(Input::KeyTooLong);
                    return Collected::Nobody { rule: index };
                }
            }
            for (position, charge) in rule.charges.iter().enumerate() {
                if let Some(resource) = charge.resource
                    && !accounts.has_charged(resource)
                {
                    let cost = charge.cost.of(host, reader, metrics);
                    accounts.charge(resource, cost, position);
                }
            }
            accounts.commit();
        }
        Collected::Accounts
    }

    /// Gives back what the accounts before this one have paid: a request is admitted by all of them or by none. In a dry run too:
    /// what it counts is what would have been.
    fn give_back_before<H: Host>(&mut self, host: &mut H, position: usize) {
        for account in self.accounts.iter_mut().take(position) {
            if !core::mem::take(&mut account.is_charged) {
                continue;
            }
            for resource in self.desk.policy.resource_indexes() {
                settle(
                    host,
                    &mut self.desk,
                    &mut self.metrics,
                    &account.key,
                    resource,
                    Micro::ZERO.minus(*account.cost.at(resource)),
                    *account.payers.at(resource),
                );
            }
        }
    }

    fn deny_nobody<H: Host>(&mut self, host: &mut H, rule: usize) -> Action {
        let denial = Denial {
            reason: Reason::Unknown,
            resource: ResourceIndex::FIRST,
            retry_at: TimeUs::NEVER,
        };
        let dry_run = self.desk.policy.dry_run;
        self.metrics
            .count_verdict(rule, &Verdict::Denied(denial), dry_run);
        self.accounts.clear();
        self.leave_for_log(host, &Verdict::Denied(denial));
        if dry_run {
            return Action::Continue;
        }
        self.render_rate_headers();
        self.reply(host, denial, None);
        Action::Stop
    }
}

// === impl Desk ===

impl Desk {
    /// Decides one account of a request: from the worker's chunk if it can, otherwise by drawing from the ledger.
    fn decide<H: Host>(
        &mut self,
        host: &mut H,
        metrics: &mut Metrics,
        account: &mut Account,
    ) -> Decision {
        let mut now = None;
        let cost = &account.cost;
        if let Some(slot) = self.cache.get_mut(&account.key) {
            if let Some(verdict) = slot.chunk.spend(cost) {
                return Decision { verdict, now };
            }
            let at = host.now();
            now = Some(at);
            if let Some(denial) = slot.chunk.deny_again(cost, at) {
                return Decision {
                    verdict: Verdict::Denied(denial),
                    now,
                };
            }
        }
        let now = now.unwrap_or_else(|| host.now());
        let verdict = self.draw(host, metrics, account, now).unwrap_or_else(|_| {
            metrics.count_event(Event::DrawFailed);
            let retry_at = now.plus_us(UNDECIDED_RETRY_US);
            Verdict::Denied(Denial {
                reason: Reason::Contract,
                resource: ResourceIndex::FIRST,
                retry_at,
            })
        });
        Decision {
            verdict,
            now: Some(now),
        }
    }

    fn draw<H: Host>(
        &mut self,
        host: &mut H,
        metrics: &mut Metrics,
        account: &mut Account,
        now: TimeUs,
    ) -> Result<Verdict, CoreError> {
        metrics.count_event(Event::Draw);
        if self.ledger.state().mode() == Mode::Waiting {
            return self.cold_start.decide(host, &account.cost, now);
        }
        let mut customer = CustomerHash(self.secret.hash(&account.key).0);
        if let Unknown::Commons {
            prefix_len_v4,
            prefix_len_v6,
            ..
        } = self.policy.unknown
            && !self.is_listed(host, &customer)?
        {
            let lengths = PrefixLengths {
                v4: prefix_len_v4,
                v6: prefix_len_v6,
            };
            write_commons_key(host, lengths, &mut account.key);
            customer = CustomerHash(self.secret.hash(&account.key).0);
        }
        let (conditions, ledger, cache) = self.parts(now);
        let evicted = |slot: &mut Slot| {
            if ledger
                .give_back(host, &conditions, &slot.customer, &mut slot.chunk)
                .is_err()
            {
                metrics.count_event(Event::ChunkLost);
            }
        };
        let Some(slot) = cache.add(&account.key, customer, evicted) else {
            return Err(CoreError::NotSeeded {
                key: String::from("the worker's cache"),
            });
        };
        // The chunk of the commons, found under a key of its own, has not been asked yet.
        if let Some(verdict) = slot.chunk.spend(&account.cost) {
            return Ok(verdict);
        }
        if let Some(denial) = slot.chunk.deny_again(&account.cost, now) {
            return Ok(Verdict::Denied(denial));
        }
        let verdict = ledger.draw(
            host,
            &conditions,
            &slot.customer,
            &account.cost,
            &mut slot.chunk,
        );
        account.payers = slot.chunk.payers;
        verdict
    }

    /// The conditions of an exchange, the ledger to exchange with, and the chunks.
    pub(crate) fn parts(&mut self, now: TimeUs) -> (Conditions<'_>, &mut Ledger, &mut ChunkCache) {
        let conditions = Conditions {
            policy: &self.policy,
            lease: self.ledger.state().lease,
            now,
            workers: self.workers,
        };
        (conditions, &mut self.ledger, &mut self.cache)
    }

    fn is_listed<H: Host>(
        &mut self,
        host: &mut H,
        customer: &CustomerHash,
    ) -> Result<bool, CoreError> {
        let page = self.ledger.state().layout.page_of(Region::Policy, customer);
        Ok(self
            .ledger
            .view_page(host, Region::Policy, page)?
            .find(customer)
            .is_some())
    }
}

/// Replaces `key` by that of the commons that a client belongs to. NUL keeps it apart from every key that a header can bring; clients
/// whose address is not known share one.
fn write_commons_key<H: Host>(host: &mut H, lengths: PrefixLengths, key: &mut Vec<u8>) {
    let mut address = Vec::new();
    let mut network = Vec::new();
    if !host.property(source_address::PROPERTY, &mut address)
        || !source_address::write_network(&address, lengths, &mut network)
    {
        network.clear();
    }
    key.clear();
    key.extend_from_slice(b"\0commons ");
    key.append(&mut network);
}

pub(crate) fn count_tokens(
    metrics: &mut Metrics,
    token_metrics: &PerResource<Option<usize>>,
    tokens: Tokens,
    amounts: &Amounts,
) {
    for (metric, amount) in token_metrics.iter().zip(amounts.iter()) {
        if let Some(metric) = metric
            && *amount > Micro::ZERO
        {
            metrics.count_tokens(tokens, *metric, *amount);
        }
    }
}
