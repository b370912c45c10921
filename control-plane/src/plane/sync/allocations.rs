//! What a reply says of allocations: of whom the gateway has something, page by page, and later only what has changed.
//!
//! What is told is in the queue of the session until the reply that told it is known to have been applied, as grants are. Whether a gateway has all of a
//! cycle it says itself; one that says that it has nothing is told everything again. So is one whose cycle is so old that nobody knows any more who has
//! left since: it must forget what it has first. Gateways of before do not, and keep claims of customers that are gone; to name every customer that was
//! ever allocated anything was the worse alternative.

use super::super::state::State;
use super::Caller;
use crate::allocation::Book;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{Allocation, FLAG_CONTENDED, SyncReply};
use hashbrown::HashSet;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Allocations in one reply: about 230 kB on the wire.
const MAX_ALLOCATIONS: usize = 8_192;
/// So many customers beyond those of the cycle a session may remember before it forgets those that are gone.
const KNOWN_SPARE: usize = 4_096;

/// What a session was told of allocations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// All changes up to this cycle are in the queue, or were told; 0: none are.
    queued: u64,
    /// Whom the gateway is to be told of.
    pending: BTreeSet<CustomerHash>,
    /// Of whom the newest reply told, until its arrival is known.
    inflight: Vec<CustomerHash>,
    /// The cycle that the newest reply completes; 0: none.
    completes: u64,
    /// The newest cycle that is known to have arrived in full.
    complete: u64,
    /// The gateway is to forget what it had before, and whether the newest reply says so is not known to have arrived.
    is_anew: bool,
    /// The newest reply says so.
    says_anew: bool,
    /// Whether the gateway has ever said that it has applied one. Older gateways never do.
    answers: bool,
    /// Who was in the queue at least once.
    known: HashSet<CustomerHash>,
}

// === impl Told ===

impl Told {
    /// Notes whether the newest reply has been applied.
    pub(in crate::plane) fn hear(&mut self, has_arrived: bool) {
        let inflight = std::mem::take(&mut self.inflight);
        let completes = std::mem::take(&mut self.completes);
        let says_anew = std::mem::take(&mut self.says_anew);
        if has_arrived {
            self.complete = self.complete.max(completes);
            self.is_anew &= !says_anew;
        } else {
            self.pending.extend(inflight);
        }
    }

    /// Whether the gateway must be told everything: nobody knows what it was told, or it has forgotten it.
    fn is_to_begin(&self, applied: u64, has_applied_nothing: bool) -> bool {
        let has_forgotten = self.answers || has_applied_nothing;
        self.queued == 0 || (has_forgotten && applied < self.complete)
    }

    fn queue(&mut self, customer: CustomerHash) {
        self.pending.insert(customer);
        self.known.insert(customer);
    }
}

/// Adds what the gateway does not know yet.
pub(super) fn add_allocations(state: &mut State, caller: &Caller<'_>, reply: &mut SyncReply) {
    let Some(rule) = state.policies.sharing() else {
        return;
    };
    reply.allocation_ttl_ms = state.allocations.ttl_ms(rule, caller.now.unix_ms);
    let request = caller.request;
    note_contention(state, caller);
    // Customers and resources mean nothing to a gateway that does not have the policy.
    if reply.allocation_ttl_ms == 0 || request.policy_epoch_applied != state.policies.active_epoch()
    {
        return;
    }
    let book = Arc::clone(&state.allocations.book);
    let Some(session) = state.fleet.numbered(caller.session) else {
        return;
    };
    let mut told = std::mem::take(&mut session.told);
    let applied = request.allocation_cycle_applied;
    let is_cut_off = told.queued != 0 && !book.knows_who_left_since(told.queued);
    if is_cut_off || told.is_to_begin(applied, request.reply_applied == 0) {
        told = begin(&book, applied, told.answers);
    }
    told.answers |= applied != 0;
    queue_changes(state, caller, &book, &mut told);
    for customer in heard_of(state, caller, reply) {
        if !told.known.contains(&customer) && book.speaks_of(customer) {
            told.queue(customer);
        }
    }
    while reply.allocations.len() < MAX_ALLOCATIONS
        && let Some(customer) = told.pending.pop_first()
    {
        told.inflight.push(customer);
        let (hash_high, hash_low) = state.directory.spoken(customer, caller.dialect).parts();
        let entry = book.entry(customer);
        reply
            .allocations
            .extend(book.divided().map(|resource| Allocation {
                hash_high,
                hash_low,
                resource: u32::try_from(resource.position()).unwrap_or(u32::MAX),
                // Whoever is in no cycle any more has a claim on nothing.
                rate_micro_per_s: entry.map_or(0, |entry| entry.rate_micro_per_s(resource)),
            }));
    }
    told.says_anew = told.is_anew;
    reply.allocations_anew = told.is_anew;
    if told.pending.is_empty() {
        reply.allocation_cycle = book.number;
        told.completes = book.number;
    }
    if let Some(session) = state.fleet.numbered(caller.session) {
        session.told = told;
    }
}

/// Everything is to be told: what the gateway has of customers that have left since its cycle is void, and if that cannot be told one by one, all that
/// it has is.
fn begin(book: &Book, applied: u64, answers: bool) -> Told {
    let mut told = Told {
        answers,
        ..Told::default()
    };
    let left = || book.leavers.since(applied);
    told.is_anew =
        applied == 0 || !book.knows_who_left_since(applied) || left().count() > MAX_ALLOCATIONS;
    if !told.is_anew {
        for customer in left() {
            told.queue(customer);
        }
    }
    told
}

/// Takes note of customers whose demand has left its forecast.
fn note_contention(state: &mut State, caller: &Caller<'_>) {
    let reports = caller.request.customers.iter();
    let contended = reports.filter(|report| report.flags & FLAG_CONTENDED != 0);
    let contended = contended.map(|report| (report.hash_high, report.hash_low));
    let deviations = caller.request.deviations.iter();
    let deviations = deviations.map(|signal| (signal.hash_high, signal.hash_low));
    for (high, low) in contended.chain(deviations) {
        let customer = CustomerHash::from_parts(high, low);
        let customer = state.directory.filed(customer, caller.dialect);
        if is_contended(state, caller, customer) {
            state.allocations.note_contended(customer, caller.now.mono);
        }
    }
}

/// Whether what a gateway says of contention is to be believed: it has a part of the customer, and the customer asks for more than it is allocated. Made-up
/// contention would call for cycles, and take the place of what is real; and who has enough needs no other allocation.
fn is_contended(state: &State, caller: &Caller<'_>, customer: CustomerHash) -> bool {
    let book = &state.allocations.book;
    let (Some(entry), Some(account)) = (book.entry(customer), state.accounts.get(&customer)) else {
        return false;
    };
    let now = caller.now.mono;
    let asks_for_more = book.divided().any(|resource| {
        let holdings = account.holdings_of(resource.position());
        let paces = holdings.map(|holding| holding.pace.average_per_s(now));
        paces.sum::<f64>() > entry.parts.at(resource).allocated_per_s()
    });
    account.part(caller.session).is_some() && asks_for_more
}

/// Puts those into the queue of whom the gateway has something, and who have another allocation than it was told.
fn queue_changes(state: &State, caller: &Caller<'_>, book: &Book, told: &mut Told) {
    let since = std::mem::replace(&mut told.queued, book.number);
    if since == book.number {
        return;
    }
    if told.known.len() > book.entries.len().saturating_add(KNOWN_SPARE) {
        told.known.retain(|customer| book.speaks_of(*customer));
    }
    let entries = book.entries.iter();
    let changed = entries.filter(|entry| entry.changed_in > since);
    let changed = changed.map(|entry| entry.hash);
    let gone = book.leavers.since(since);
    for customer in changed.chain(gone) {
        let has_part = || {
            let account = state.accounts.get(&customer);
            account.is_some_and(|account| account.part(caller.session).is_some())
        };
        if told.known.contains(&customer) || has_part() {
            told.queue(customer);
        }
    }
}

/// Customers that the request or the reply is about.
fn heard_of(state: &State, caller: &Caller<'_>, reply: &SyncReply) -> Vec<CustomerHash> {
    let reported = caller.request.customers.iter();
    let reported = reported.map(|report| (report.hash_high, report.hash_low));
    let wanted = caller.request.windows_wanted.iter();
    let wanted = wanted.map(|wish| (wish.hash_high, wish.hash_low));
    let granted = reply.grants.iter();
    let granted = granted.map(|grant| (grant.hash_high, grant.hash_low));
    let all = reported.chain(wanted).chain(granted);
    all.map(|(high, low)| {
        let customer = CustomerHash::from_parts(high, low);
        state.directory.filed(customer, caller.dialect)
    })
    .collect()
}
