//! Cycles in the store: the newest whole, with what it was made from; of those before it a line each; and statements of months.
//!
//! ```text
//!   1, chunk            256 customers of the newest cycle: what was read and what was given, sums of the running month
//!   2                   the newest cycle without its customers
//!   3, number           a line of a cycle, as JSON
//!   4, month, customer  what a customer has lent and borrowed in a month
//!   5, customer         one that has left (`leaver_rows`)
//!   6                   what tuning has chosen and knows (`tuning_rows`)
//! ```
//! All rows of a cycle are in one batch, so the newest one is there as a whole or is another one. A row for each customer was the worse alternative: a
//! hundred thousand of them every few minutes, for nobody who reads a single one. Those who have left have rows, because few leave in one cycle.

use super::book::{Book, Cause, Closed, Entry, Sums};
use super::leaver_rows::{load_leavers, write_leavers};
use super::leavers::Leavers;
use super::months::Month;
use super::tuning_rows::{load_tuned, write_tuned};
use super::views::CycleView;
use crate::store::{Batch, Store, StoreError, Table};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::priority::{Burn, Raise};
use forebay_sharing::{Customer, Group, Held, Lend, Outlook, Part, Settings, Terms};
use forebay_wire::key::CustomerHash;
use prost::Message;

/// Lines of cycles that are kept.
pub(crate) const RECENT_KEPT: u64 = 288;
/// Statements are kept for so many months before the running one.
pub(crate) const MONTHS_KEPT: u32 = 13;
const CHUNK: usize = 256;

const CUSTOMERS: u8 = 1;
const HEAD: u8 = 2;
const LINES: u8 = 3;
const STATEMENTS: u8 = 4;

#[derive(Clone, PartialEq, Message)]
struct ChunkRecord {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<EntryRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryRecord {
    #[prost(bytes = "vec", tag = "1")]
    hash: Vec<u8>,
    #[prost(uint32, tag = "2")]
    tier: u32,
    #[prost(uint32, tag = "3")]
    priority: u32,
    #[prost(double, tag = "4")]
    weight: f64,
    #[prost(uint32, optional, tag = "5")]
    group: Option<u32>,
    #[prost(double, tag = "6")]
    credits: f64,
    #[prost(uint64, tag = "7")]
    changed_in: u64,
    #[prost(message, optional, tag = "8")]
    sums: Option<SumsRecord>,
    /// As many as the policy has resources.
    #[prost(message, repeated, tag = "9")]
    resources: Vec<ResourceRecord>,
    /// Of a customer whose priority is, or was, raised.
    #[prost(message, optional, tag = "10")]
    raise: Option<RaiseRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct RaiseRecord {
    #[prost(uint32, tag = "1")]
    priority_of_policy: u32,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    #[prost(double, tag = "3")]
    short: f64,
    #[prost(double, tag = "4")]
    long: f64,
    #[prost(double, tag = "5")]
    exact: f64,
    #[prost(uint32, tag = "6")]
    steps: u32,
}

/// Of one customer and resource, in tokens per second.
#[derive(Clone, PartialEq, Message)]
struct ResourceRecord {
    #[prost(double, tag = "1")]
    guarantee: f64,
    #[prost(double, tag = "2")]
    rate: f64,
    #[prost(double, tag = "3")]
    ceiling: f64,
    /// None: all of the guarantee; 0: nothing.
    #[prost(double, optional, tag = "4")]
    lend_limit: Option<f64>,
    #[prost(double, repeated, tag = "5")]
    outlook: Vec<f64>,
    #[prost(double, tag = "6")]
    headroom_wanted: f64,
    #[prost(double, tag = "7")]
    held: f64,
    #[prost(bool, tag = "8")]
    held_is_releasing: bool,
    /// Kept, shared, headroom, bought, borrowed, eased, lent, unmet.
    #[prost(double, repeated, tag = "9")]
    part: Vec<f64>,
    #[prost(bool, tag = "10")]
    is_releasing: bool,
    #[prost(double, tag = "11")]
    recalled: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SumsRecord {
    #[prost(uint32, tag = "1")]
    month: u32,
    /// By resource.
    #[prost(double, repeated, tag = "2")]
    lent: Vec<f64>,
    #[prost(double, repeated, tag = "3")]
    borrowed: Vec<f64>,
    #[prost(double, tag = "4")]
    credits: f64,
}

#[derive(Clone, PartialEq, Message)]
struct GroupRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, optional, tag = "2")]
    parent: Option<u32>,
    #[prost(message, repeated, tag = "3")]
    caps: Vec<CapRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct CapRecord {
    #[prost(uint32, tag = "1")]
    resource: u32,
    #[prost(double, tag = "2")]
    per_s: f64,
}

#[derive(Clone, PartialEq, Message)]
struct HeadRecord {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    at_unix_ms: u64,
    /// Position in `Cause::ALL`.
    #[prost(uint32, tag = "3")]
    cause: u32,
    #[prost(uint64, tag = "4")]
    policy: u64,
    #[prost(uint32, tag = "5")]
    interval_ms: u32,
    #[prost(string, repeated, tag = "6")]
    resources: Vec<String>,
    /// Each of these by resource.
    #[prost(double, repeated, tag = "7")]
    policy_capacity: Vec<f64>,
    #[prost(double, repeated, tag = "8")]
    capacity: Vec<f64>,
    #[prost(double, repeated, tag = "9")]
    reserve: Vec<f64>,
    #[prost(double, repeated, tag = "10")]
    idle: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    groups: Vec<GroupRecord>,
    #[prost(double, repeated, tag = "12")]
    quantiles: Vec<f64>,
    #[prost(double, tag = "13")]
    reserve_share: f64,
    #[prost(double, tag = "14")]
    quiet_share: f64,
    #[prost(bool, tag = "15")]
    with_credits: bool,
    #[prost(double, tag = "16")]
    interval_s: f64,
    #[prost(bytes = "vec", tag = "17")]
    inputs_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "18")]
    result_digest: Vec<u8>,
    #[prost(uint32, tag = "19")]
    chunks: u32,
    #[prost(uint64, tag = "20")]
    left_out: u64,
    /// Whoever has left in a later cycle has a row, or is back; none: that is not known.
    #[prost(uint64, optional, tag = "21")]
    leavers_whole_since: Option<u64>,
}

/// Adds a cycle to a batch, in the place of the one before.
pub(crate) fn write(batch: &mut Batch, (book, line): (&Book, &CycleView), before: &Book) {
    let chunks = book.entries.chunks(CHUNK);
    let count = chunks.len();
    for (number, entries) in (0_u32..).zip(chunks) {
        let record = ChunkRecord {
            entries: entries
                .iter()
                .map(|entry| EntryRecord::of(entry, book.resources.len()))
                .collect(),
        };
        batch.put_message(Table::Sharing, &[&chunk_key(number)], &record);
    }
    let had = before.entries.len().div_ceil(CHUNK);
    for number in (0_u32..).take(had).skip(count) {
        batch.delete(Table::Sharing, chunk_key(number));
    }
    write_tuned(batch, book.number, book.tuning.as_ref());
    write_leavers(batch, &book.leavers, &before.leavers);
    let head = HeadRecord::of(book, count);
    batch.put_message(Table::Sharing, &[&[HEAD]], &head);
    // What cannot be written as JSON is no line; plain numbers and names always can.
    let line = serde_json::to_vec(line).unwrap_or_default();
    batch.put(Table::Sharing, line_key(book.number), line);
    if let Some(old) = book.number.checked_sub(RECENT_KEPT) {
        batch.delete(Table::Sharing, line_key(old));
    }
}

/// Adds sums of months to those that the store has.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn write_closed(
    batch: &mut Batch,
    store: &dyn Store,
    closed: &Closed,
) -> Result<(), StoreError> {
    for (customer, sums) in closed {
        let mut all = stored(store, *customer, sums.month)?.unwrap_or_default();
        all.add(sums);
        let key = statement_key(sums.month, *customer);
        batch.put_message(
            Table::Sharing,
            &[&key],
            &SumsRecord::of(&all, MAX_RESOURCES),
        );
    }
    Ok(())
}

/// Deletes statements that are too old.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn drop_old_statements(
    batch: &mut Batch,
    store: &dyn Store,
    running: Month,
) -> Result<(), StoreError> {
    let Some(last) = running.0.checked_sub(MONTHS_KEPT.saturating_add(1)) else {
        return Ok(());
    };
    let from = statement_key(Month(0), CustomerHash([0; 16]));
    let to = statement_key(Month(last), CustomerHash([u8::MAX; 16]));
    for (key, _) in store.range(Table::Sharing, &from, &to)? {
        batch.delete(Table::Sharing, key);
    }
    Ok(())
}

/// What the store has of a customer and month, without what the newest cycle knows of it.
fn stored(
    store: &dyn Store,
    customer: CustomerHash,
    month: Month,
) -> Result<Option<Sums>, StoreError> {
    let row = store.get(Table::Sharing, &statement_key(month, customer))?;
    let record = row.map(|row| SumsRecord::decode(row.as_slice()).map_err(|error| damaged(&error)));
    Ok(record.transpose()?.map(|record| record.to_sums()))
}

/// What a customer has lent and borrowed in a month, up to a cycle.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn statement_of(
    store: &dyn Store,
    book: &Book,
    customer: CustomerHash,
    month: Month,
) -> Result<Sums, StoreError> {
    let mut sums = stored(store, customer, month)?.unwrap_or_default();
    sums.month = month;
    if let Some(entry) = book.entry(customer)
        && entry.sums.month == month
    {
        sums.add(&entry.sums);
    }
    Ok(sums)
}

/// The newest cycle, and lines of those before it, oldest first.
///
/// # Errors
/// When the store cannot be read, or holds what this program did not write.
pub(crate) fn load(store: &dyn Store) -> Result<(Book, Vec<CycleView>), StoreError> {
    let Some(row) = store.get(Table::Sharing, &[HEAD])? else {
        return Ok((Book::default(), Vec::new()));
    };
    let head = HeadRecord::decode(row.as_slice()).map_err(|error| damaged(&error))?;
    let mut book = head.to_book()?;
    book.leavers = Leavers {
        all: load_leavers(store)?,
        whole_since: head.leavers_whole_since.unwrap_or(head.number),
    };
    book.tuning = load_tuned(store, head.number)?;
    let last = chunk_key(head.chunks.saturating_sub(1));
    let rows = match head.chunks {
        0 => Vec::new(),
        _ => store.range(Table::Sharing, &chunk_key(0), &last)?,
    };
    if rows.len() != head.chunks as usize {
        return Err(damaged(&"customers of the newest cycle are missing"));
    }
    for (_, row) in rows {
        let record = ChunkRecord::decode(row.as_slice()).map_err(|error| damaged(&error))?;
        for entry in &record.entries {
            book.entries.push(entry.to_entry()?);
        }
    }
    let is_in_order = book.entries.is_sorted_by(|one, next| one.hash < next.hash);
    if !is_in_order {
        return Err(damaged(&"customers of the newest cycle are out of order"));
    }
    let lines = store.range(Table::Sharing, &line_key(0), &line_key(u64::MAX))?;
    let lines = lines
        .iter()
        .map(|(_, line)| serde_json::from_slice(line).map_err(|error| damaged(&error)));
    Ok((book, lines.collect::<Result<_, _>>()?))
}

/// Whether what the newest cycle was made from still gives what it gave; none where there is no cycle.
///
/// # Errors
/// When the store cannot be read, or holds what this program did not write.
pub fn replays(store: &dyn Store) -> Result<Option<bool>, StoreError> {
    let (book, _) = load(store)?;
    Ok((book.number > 0).then(|| book.replay() == book.allocation()))
}

fn chunk_key(number: u32) -> Vec<u8> {
    [&[CUSTOMERS][..], &number.to_be_bytes()[..]].concat()
}

fn line_key(number: u64) -> Vec<u8> {
    [&[LINES][..], &number.to_be_bytes()[..]].concat()
}

fn statement_key(month: Month, customer: CustomerHash) -> Vec<u8> {
    [
        &[STATEMENTS][..],
        &month.0.to_be_bytes()[..],
        &customer.0[..],
    ]
    .concat()
}

pub(super) fn damaged(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        what: "allocation",
        reason: error.to_string(),
    }
}

fn listed(values: &PerResource<f64>, resources: usize) -> Vec<f64> {
    values.iter().copied().take(resources).collect()
}

fn by_resource(values: &[f64]) -> PerResource<f64> {
    let mut all = PerResource::default();
    for (resource, value) in ResourceIndex::first(MAX_RESOURCES).zip(values) {
        *all.at_mut(resource) = *value;
    }
    all
}

pub(super) fn fixed<const N: usize, T: Copy>(values: &[T]) -> Result<[T; N], StoreError> {
    values
        .try_into()
        .map_err(|_| damaged(&"there are more or fewer numbers than there should be"))
}

fn place(position: Option<usize>) -> Option<u32> {
    position.and_then(|position| u32::try_from(position).ok())
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, other: &Self) {
        self.month = other.month;
        self.credits += other.credits;
        for resource in ResourceIndex::first(MAX_RESOURCES) {
            *self.lent.at_mut(resource) += other.lent.at(resource);
            *self.borrowed.at_mut(resource) += other.borrowed.at(resource);
        }
    }
}

// === impl SumsRecord ===

impl SumsRecord {
    fn of(sums: &Sums, resources: usize) -> Self {
        Self {
            month: sums.month.0,
            lent: listed(&sums.lent, resources),
            borrowed: listed(&sums.borrowed, resources),
            credits: sums.credits,
        }
    }

    fn to_sums(&self) -> Sums {
        Sums {
            month: Month(self.month),
            lent: by_resource(&self.lent),
            borrowed: by_resource(&self.borrowed),
            credits: self.credits,
        }
    }
}

// === impl EntryRecord ===

impl EntryRecord {
    fn of(entry: &Entry, resources: usize) -> Self {
        let customer = &entry.customer;
        let of_each = ResourceIndex::first(resources);
        Self {
            hash: entry.hash.0.to_vec(),
            tier: u32::from(customer.tier.number()),
            priority: u32::from(customer.priority),
            weight: customer.weight,
            group: place(customer.group),
            credits: customer.credits,
            changed_in: entry.changed_in,
            sums: Some(SumsRecord::of(&entry.sums, resources)),
            resources: of_each
                .map(|resource| ResourceRecord::of(entry, resource))
                .collect(),
            raise: (!entry.raise.is_over()).then(|| RaiseRecord::of(entry)),
        }
    }

    fn to_entry(&self) -> Result<Entry, StoreError> {
        let tier = u8::try_from(self.tier).ok().and_then(Tier::from_number);
        let priority = u8::try_from(self.priority);
        let mut entry = Entry {
            hash: CustomerHash(fixed(&self.hash)?),
            customer: Customer {
                tier: tier.ok_or_else(|| damaged(&"there is no such tier"))?,
                priority: priority.map_err(|error| damaged(&error))?,
                weight: self.weight,
                group: self.group.map(|group| group as usize),
                terms: PerResource::default(),
                outlook: PerResource::default(),
                headroom_per_s: PerResource::default(),
                held: PerResource::default(),
                credits: self.credits,
            },
            parts: PerResource::default(),
            recalled_per_s: PerResource::default(),
            priority_of_policy: priority.unwrap_or(0),
            raise: Raise::default(),
            changed_in: self.changed_in,
            sums: self
                .sums
                .as_ref()
                .map_or_else(Sums::default, SumsRecord::to_sums),
        };
        for (resource, record) in ResourceIndex::first(MAX_RESOURCES).zip(&self.resources) {
            record.put_into(&mut entry, resource)?;
        }
        if let Some(raise) = &self.raise {
            raise.put_into(&mut entry)?;
        }
        Ok(entry)
    }
}

// === impl RaiseRecord ===

impl RaiseRecord {
    fn of(entry: &Entry) -> Self {
        let raise = &entry.raise;
        Self {
            priority_of_policy: u32::from(entry.priority_of_policy),
            at_ms: raise.at_ms,
            short: raise.burn.short,
            long: raise.burn.long,
            exact: raise.exact,
            steps: u32::from(raise.steps),
        }
    }

    fn put_into(&self, entry: &mut Entry) -> Result<(), StoreError> {
        let small = |number: u32| u8::try_from(number).map_err(|error| damaged(&error));
        entry.priority_of_policy = small(self.priority_of_policy)?;
        entry.raise = Raise {
            at_ms: self.at_ms,
            burn: Burn {
                short: self.short,
                long: self.long,
            },
            exact: self.exact,
            steps: small(self.steps)?,
        };
        Ok(())
    }
}

// === impl ResourceRecord ===

impl ResourceRecord {
    fn of(entry: &Entry, resource: ResourceIndex) -> Self {
        let customer = &entry.customer;
        let terms = customer.terms.at(resource);
        let held = customer.held.at(resource);
        let part = entry.parts.at(resource);
        Self {
            guarantee: terms.guarantee_per_s,
            rate: terms.rate_per_s,
            ceiling: terms.ceiling_per_s,
            lend_limit: match terms.lend {
                Lend::Auto => None,
                Lend::Never => Some(0.0),
                Lend::UpTo(limit_per_s) => Some(limit_per_s),
            },
            outlook: customer.outlook.at(resource).quantiles_per_s.to_vec(),
            headroom_wanted: *customer.headroom_per_s.at(resource),
            held: held.per_s,
            held_is_releasing: held.is_releasing,
            part: vec![
                part.kept_per_s,
                part.shared_per_s,
                part.headroom_per_s,
                part.bought_per_s,
                part.borrowed_per_s,
                part.eased_per_s,
                part.lent_per_s,
                part.unmet_per_s,
            ],
            is_releasing: part.is_releasing,
            recalled: *entry.recalled_per_s.at(resource),
        }
    }

    fn put_into(&self, entry: &mut Entry, resource: ResourceIndex) -> Result<(), StoreError> {
        let customer = &mut entry.customer;
        *customer.terms.at_mut(resource) = Terms {
            guarantee_per_s: self.guarantee,
            rate_per_s: self.rate,
            ceiling_per_s: self.ceiling,
            lend: match self.lend_limit {
                None => Lend::Auto,
                Some(0.0) => Lend::Never,
                Some(limit_per_s) => Lend::UpTo(limit_per_s),
            },
        };
        *customer.outlook.at_mut(resource) = Outlook {
            quantiles_per_s: fixed(&self.outlook)?,
        };
        *customer.headroom_per_s.at_mut(resource) = self.headroom_wanted;
        *customer.held.at_mut(resource) = Held {
            per_s: self.held,
            is_releasing: self.held_is_releasing,
        };
        let [kept, shared, headroom, bought, borrowed, eased, lent, unmet] = fixed(&self.part)?;
        *entry.parts.at_mut(resource) = Part {
            kept_per_s: kept,
            shared_per_s: shared,
            headroom_per_s: headroom,
            bought_per_s: bought,
            borrowed_per_s: borrowed,
            eased_per_s: eased,
            lent_per_s: lent,
            unmet_per_s: unmet,
            is_releasing: self.is_releasing,
        };
        *entry.recalled_per_s.at_mut(resource) = self.recalled;
        Ok(())
    }
}

// === impl HeadRecord ===

impl HeadRecord {
    fn of(book: &Book, chunks: usize) -> Self {
        let resources = book.resources.len();
        let groups = book.groups.iter().zip(&book.group_names);
        let cause = Cause::ALL.iter().position(|cause| *cause == book.cause);
        Self {
            number: book.number,
            at_unix_ms: book.at_unix_ms,
            cause: place(cause).unwrap_or(0),
            policy: book.policy,
            interval_ms: book.interval_ms,
            resources: book.resources.clone(),
            policy_capacity: listed(&book.policy_capacity_per_s, resources),
            capacity: listed(&book.capacity_per_s, resources),
            reserve: listed(&book.reserve_per_s, resources),
            idle: listed(&book.idle_per_s, resources),
            groups: groups
                .map(|(group, name)| GroupRecord {
                    name: name.clone(),
                    parent: place(group.parent),
                    caps: (0_u32..)
                        .zip(group.cap_per_s.iter())
                        .filter_map(|(resource, cap)| {
                            let per_s = (*cap)?;
                            Some(CapRecord { resource, per_s })
                        })
                        .collect(),
                })
                .collect(),
            quantiles: book.settings.quantiles.to_vec(),
            reserve_share: book.settings.reserve_share,
            quiet_share: book.settings.quiet_share,
            with_credits: book.settings.with_credits,
            interval_s: book.settings.interval_s,
            inputs_digest: book.inputs_digest.to_vec(),
            result_digest: book.result_digest.to_vec(),
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            left_out: book.left_out as u64,
            leavers_whole_since: Some(book.leavers.whole_since),
        }
    }

    /// Without its customers.
    fn to_book(&self) -> Result<Book, StoreError> {
        let cause = Cause::ALL.get(self.cause as usize);
        let groups = self.groups.iter().map(|group| {
            let mut cap_per_s = PerResource::default();
            for cap in &group.caps {
                if let Some(resource) = ResourceIndex::new(cap.resource as usize) {
                    *cap_per_s.at_mut(resource) = Some(cap.per_s);
                }
            }
            Group {
                parent: group.parent.map(|parent| parent as usize),
                cap_per_s,
            }
        });
        Ok(Book {
            number: self.number,
            at_unix_ms: self.at_unix_ms,
            cause: *cause.ok_or_else(|| damaged(&"a cycle has no such cause"))?,
            policy: self.policy,
            interval_ms: self.interval_ms,
            resources: self.resources.clone(),
            policy_capacity_per_s: by_resource(&self.policy_capacity),
            capacity_per_s: by_resource(&self.capacity),
            reserve_per_s: by_resource(&self.reserve),
            idle_per_s: by_resource(&self.idle),
            groups: groups.collect(),
            group_names: self.groups.iter().map(|group| group.name.clone()).collect(),
            settings: Settings {
                quantiles: fixed(&self.quantiles)?,
                reserve_share: self.reserve_share,
                quiet_share: self.quiet_share,
                with_credits: self.with_credits,
                interval_s: self.interval_s,
            },
            left_out: usize::try_from(self.left_out).unwrap_or(usize::MAX),
            inputs_digest: fixed(&self.inputs_digest)?,
            result_digest: fixed(&self.result_digest)?,
            ..Book::default()
        })
    }
}
