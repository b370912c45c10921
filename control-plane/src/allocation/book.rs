//! A cycle as it is in force: what it was made from, and what it gives to whom.

use super::leavers::Leavers;
use super::months::Month;
use super::rule::ttl_ms;
use super::tuning::Tuned;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::priority::Raise;
use forebay_sharing::{Allocation, Customer, Group, Part, Settings, allocate, credits_after};
use forebay_wire::key::CustomerHash;

/// No cycle.
pub(crate) const NEVER: u64 = 0;

/// Why a cycle was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its time had come.
    #[default]
    Interval,
    /// A policy came into force.
    Policy,
    /// A gateway was lost, came back or began to take part.
    Gateways,
    /// There is more or less of a resource than before.
    Capacity,
    /// A customer's demand has left its forecast, and stays there.
    Contention,
    /// Somebody asked for it.
    Asked,
    /// A customer is capped at its contract from now on, or no more.
    Anomaly,
    /// A guarantee was missed in a cycle that tuning has made by other values than the policy's.
    Fallback,
}

/// A customer in a cycle.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) hash: CustomerHash,
    /// What was known of it.
    pub(crate) customer: Customer,
    /// What it got.
    pub(crate) parts: PerResource<Part>,
    /// What it had lent in the cycle before, and has back.
    pub(crate) recalled_per_s: PerResource<f64>,
    /// Its priority by the policy, and how far it is raised above that.
    pub(crate) priority_of_policy: u8,
    pub(crate) raise: Raise,
    /// The cycle since which it has as much as it has.
    pub(crate) changed_in: u64,
    /// What it has lent and borrowed in the running month, up to this cycle.
    pub(crate) sums: Sums,
}

/// What was lent and borrowed in a month.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) month: Month,
    /// Tokens per second, times the seconds for which they were lent.
    pub(crate) lent: PerResource<f64>,
    pub(crate) borrowed: PerResource<f64>,
    /// Credits that came, less those that went.
    pub(crate) credits: f64,
}

/// Sums of a month that will not grow any more here.
pub(crate) type Closed = Vec<(CustomerHash, Sums)>;

/// What part of a pool is lent, by where it comes from. What is lent is what is borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lending {
    /// All of it, in tokens per second.
    pub(crate) lent_per_s: f64,
    /// Which part of what customers have of the pool is somebody's guarantee.
    pub(crate) of_pool: f64,
}

/// A cycle.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Counts up from 1; 0: there was none yet.
    pub(crate) number: u64,
    /// When it came into force.
    pub(crate) at_unix_ms: u64,
    pub(crate) cause: Cause,
    /// The policy that it goes by.
    pub(crate) policy: u64,
    pub(crate) interval_ms: u32,
    pub(crate) resources: Vec<String>,
    pub(crate) policy_capacity_per_s: PerResource<f64>,
    pub(crate) capacity_per_s: PerResource<f64>,
    pub(crate) reserve_per_s: PerResource<f64>,
    pub(crate) idle_per_s: PerResource<f64>,
    pub(crate) groups: Vec<Group>,
    pub(crate) group_names: Vec<String>,
    pub(crate) settings: Settings,
    /// Where tuning is, or was, on: what was chosen, and what is known.
    pub(crate) tuning: Option<Tuned>,
    /// By hash.
    pub(crate) entries: Vec<Entry>,
    /// Customers that there was no room for.
    pub(crate) left_out: usize,
    /// Who had an allocation and has none any more.
    pub(crate) leavers: Leavers,
    /// SHA-256 of what it was made from, and of what it gives.
    pub(crate) inputs_digest: [u8; 32],
    pub(crate) result_digest: [u8; 32],
}

// === impl Cause ===

impl Cause {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Interval,
        Self::Policy,
        Self::Gateways,
        Self::Capacity,
        Self::Contention,
        Self::Asked,
        Self::Anomaly,
        Self::Fallback,
    ];

    /// As in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Policy => "policy",
            Self::Gateways => "gateways",
            Self::Capacity => "capacity",
            Self::Contention => "contention",
            Self::Asked => "asked",
            Self::Anomaly => "anomaly",
            Self::Fallback => "fallback",
        }
    }
}

// === impl Sums ===

impl Sums {
    pub(super) fn is_nothing(&self) -> bool {
        let amounts = self.lent.iter().chain(self.borrowed.iter());
        amounts.chain([&self.credits]).all(|amount| *amount == 0.0)
    }
}

// === impl Lending ===

impl Lending {
    /// What a part has of others' guarantees, by reason: linked accounts', as headroom, and for what it asks for.
    pub(crate) fn borrowed_per_s(&self, part: &Part) -> [f64; 3] {
        [
            part.shared_per_s,
            part.headroom_per_s * self.of_pool,
            (part.bought_per_s + part.borrowed_per_s) * self.of_pool,
        ]
    }
}

// === impl Book ===

impl Book {
    /// The entry of a customer.
    pub(crate) fn entry(&self, customer: CustomerHash) -> Option<&Entry> {
        let place = self
            .entries
            .binary_search_by(|entry| entry.hash.cmp(&customer));
        self.entries.get(place.ok()?)
    }

    /// Whether gateways may have to be told something about a customer.
    pub(crate) fn speaks_of(&self, customer: CustomerHash) -> bool {
        self.entry(customer).is_some() || self.leavers.left_lately(customer, self.number)
    }

    /// Whether it is known who has left since a cycle. Of one that is still to come, which a server with another store has made, nothing is.
    pub(crate) fn knows_who_left_since(&self, cycle: u64) -> bool {
        (self.leavers.whole_since..=self.number).contains(&cycle)
    }

    /// Resources that are divided.
    pub(crate) fn divided(&self) -> impl Iterator<Item = ResourceIndex> {
        let resources = ResourceIndex::first(self.resources.len());
        resources.filter(|resource| *self.policy_capacity_per_s.at(*resource) > 0.0)
    }

    /// The name of a resource.
    pub(crate) fn name_of(&self, resource: ResourceIndex) -> &str {
        let name = self.resources.get(resource.position());
        name.map_or("", String::as_str)
    }

    /// How lending stands on a resource.
    pub(crate) fn lending(&self, resource: ResourceIndex) -> Lending {
        let parts = || self.entries.iter().map(|entry| entry.parts.at(resource));
        let lent_per_s: f64 = parts().map(|part| part.lent_per_s).sum();
        let shared: f64 = parts().map(|part| part.shared_per_s).sum();
        let of_pool: f64 = parts().map(Part::of_pool_per_s).sum();
        let lent_to_pool = (lent_per_s - shared).max(0.0);
        Lending {
            lent_per_s,
            of_pool: if of_pool > 0.0 {
                (lent_to_pool / of_pool).min(1.0)
            } else {
                0.0
            },
        }
    }

    /// What the same inputs give.
    pub(crate) fn replay(&self) -> Allocation {
        let customers: Vec<Customer> = self
            .entries
            .iter()
            .map(|entry| entry.customer.clone())
            .collect();
        allocate(
            &self.capacity_per_s,
            &customers,
            &self.groups,
            &self.settings,
        )
    }

    /// What it gives.
    pub(crate) fn allocation(&self) -> Allocation {
        Allocation {
            parts: self.entries.iter().map(|entry| entry.parts).collect(),
            reserve_per_s: self.reserve_per_s,
            idle_per_s: self.idle_per_s,
        }
    }

    /// Sums and credits of its customers once it has been in force for some time.
    pub(super) fn settled(&self, seconds: f64) -> Vec<(Sums, f64)> {
        let customers: Vec<Customer> = self
            .entries
            .iter()
            .map(|entry| entry.customer.clone())
            .collect();
        let allocation = self.allocation();
        let credits = credits_after(&self.capacity_per_s, &customers, &allocation, seconds);
        let month = Month::at(self.at_unix_ms);
        let lendings: Vec<(ResourceIndex, Lending)> = self
            .divided()
            .map(|resource| (resource, self.lending(resource)))
            .collect();
        let settled = self.entries.iter().zip(credits).map(|(entry, credits)| {
            let mut sums = entry.sums;
            sums.month = month;
            sums.credits += credits - entry.customer.credits;
            for (resource, lending) in &lendings {
                let part = entry.parts.at(*resource);
                *sums.lent.at_mut(*resource) += part.lent_per_s * seconds;
                let borrowed: f64 = lending.borrowed_per_s(part).iter().sum();
                *sums.borrowed.at_mut(*resource) += borrowed * seconds;
            }
            (sums, credits)
        });
        settled.collect()
    }

    /// For how long it was in force. While the server was away, or no cycle could be made, allocations ended by themselves.
    pub(super) fn lasted_s(&self, now_unix_ms: u64) -> f64 {
        if self.number == NEVER {
            return 0.0;
        }
        let lasted_ms = now_unix_ms.saturating_sub(self.at_unix_ms);
        lasted_ms.min(u64::from(ttl_ms(self.interval_ms))) as f64 / 1e3
    }
}

// === impl Entry ===

impl Entry {
    /// What it is told to gateways, in micro-tokens per second. Rounded down, so that all together are no more than there is.
    pub(crate) fn rate_micro_per_s(&self, resource: ResourceIndex) -> u64 {
        let per_s = self.parts.at(resource).allocated_per_s();
        // From a float a negative number becomes 0, and none is too large.
        (per_s * 1e6) as u64
    }

    /// What follows from the cycle before.
    pub(super) fn follow(&mut self, before: &Self) {
        let mut is_same = true;
        for resource in ResourceIndex::first(self.parts.iter().len()) {
            is_same &= self.rate_micro_per_s(resource) == before.rate_micro_per_s(resource);
            let (part, had) = (self.parts.at(resource), before.parts.at(resource));
            let no_more_lent = had.lent_per_s - part.lent_per_s;
            let kept_more = part.kept_per_s - had.kept_per_s;
            *self.recalled_per_s.at_mut(resource) = no_more_lent.min(kept_more).max(0.0);
        }
        if is_same {
            self.changed_in = before.changed_in;
        }
    }
}
