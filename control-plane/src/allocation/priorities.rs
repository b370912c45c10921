//! Whose guarantee was not kept lately, step by step: what raises priorities ([`forebay_sharing::priority`]).
//!
//! Gateways say what was asked for and what was denied, and not for which reason. So what counts as denied within a guarantee is what was admitted less
//! than guaranteed in a closed step: the contract's own denials begin beyond it. A reason in each report was the worse alternative for now: it is a counter
//! more in each entry of the ledger, for a figure that the sums of a minute show as well.
//!
//! A raise is in the journal with the cycle that goes by it, and goes on from there when the server was restarted.

use super::book::Book;
use forebay_core::resource::ResourceIndex;
use forebay_sharing::priority::{Kept, Prioritize, Raise};
use forebay_wire::key::CustomerHash;
use hashbrown::HashMap;

/// What a customer asked for of a resource in a step, and what of that was denied, in tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) customer: CustomerHash,
    pub(crate) resource: ResourceIndex,
    pub(crate) demand: f64,
    pub(crate) denied: f64,
}

/// Raises that are not over. They are of customers in a cycle, so no more than those.
#[derive(Clone, Debug, Default)]
pub(crate) struct Priorities {
    raises: HashMap<CustomerHash, Raise>,
    /// The step that was heard last; none before the first since the start.
    heard: Option<u64>,
}

// === impl Priorities ===

impl Priorities {
    /// Takes in a closed step. The first time, raises of the cycle in force are taken up.
    pub(crate) fn hear(
        &mut self,
        settings: &Prioritize,
        book: &Book,
        (step, step_ms): (u64, u32),
        usage: impl Iterator<Item = Asked>,
    ) {
        if self.heard.is_none() {
            let raised = book.entries.iter().filter(|entry| !entry.raise.is_over());
            self.raises = raised.map(|entry| (entry.hash, entry.raise)).collect();
        }
        if self.heard.replace(step) == Some(step) {
            return;
        }
        let span_ms = u64::from(step_ms);
        let mut worst: HashMap<CustomerHash, Kept> = HashMap::new();
        for asked in usage.filter(|asked| asked.denied > 0.0) {
            let Some(entry) = book.entry(asked.customer) else {
                continue;
            };
            let guarantee_per_s = entry.customer.terms.at(asked.resource).guarantee_per_s;
            let kept = Kept::of(span_ms, guarantee_per_s, asked.demand, asked.denied);
            let other = worst.entry(asked.customer).or_default();
            if kept.denied_share() > other.denied_share() {
                *other = kept;
            }
        }
        let ended_ms = step.saturating_add(1).saturating_mul(span_ms);
        for (customer, kept) in worst {
            if kept.denied_share() > 0.0 {
                let raise = self.raises.entry(customer).or_default();
                *raise = raise.after(settings, ended_ms, Some(&kept));
            }
        }
        self.raises
            .retain(|_, raise| !raise.after(settings, ended_ms, None).is_over());
    }

    /// How far a customer's priority is raised at a time.
    pub(crate) fn at(&self, settings: &Prioritize, customer: CustomerHash, unix_ms: u64) -> Raise {
        let raise = self.raises.get(&customer).copied();
        raise.map_or_else(Raise::default, |raise| raise.after(settings, unix_ms, None))
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Entry, Sums};
    use super::*;
    use forebay_core::policy::Tier;
    use forebay_core::resource::PerResource;
    use forebay_sharing::{Customer, Terms};

    const ACME: CustomerHash = CustomerHash([1; 16]);
    const BOLT: CustomerHash = CustomerHash([2; 16]);
    const STEP_MS: u32 = 60_000;

    fn book() -> Book {
        let entry = |hash, guarantee_per_s| {
            let terms = PerResource::only_first(Terms {
                guarantee_per_s,
                ..Terms::default()
            });
            Entry {
                hash,
                customer: Customer {
                    tier: Tier::One,
                    priority: 0,
                    weight: 1.0,
                    group: None,
                    terms,
                    outlook: PerResource::default(),
                    headroom_per_s: PerResource::default(),
                    held: PerResource::default(),
                    credits: 0.0,
                },
                parts: PerResource::default(),
                recalled_per_s: PerResource::default(),
                priority_of_policy: 0,
                raise: Raise::default(),
                changed_in: 0,
                sums: Sums::default(),
            }
        };
        Book {
            entries: vec![entry(ACME, 10.0), entry(BOLT, 0.0)],
            ..Book::default()
        }
    }

    fn asked(customer: CustomerHash, demand: f64, denied: f64) -> Asked {
        Asked {
            customer,
            resource: ResourceIndex::FIRST,
            demand,
            denied,
        }
    }

    #[test]
    fn only_what_is_denied_of_a_guarantee_raises_and_each_step_counts_once() {
        let (settings, book) = (Prioritize::default(), book());
        let mut priorities = Priorities::default();
        let usage = [asked(ACME, 900.0, 900.0), asked(BOLT, 900.0, 900.0)];
        priorities.hear(&settings, &book, (7, STEP_MS), usage.into_iter());
        let ended_ms = 8 * 60_000;
        let raise = priorities.at(&settings, ACME, ended_ms);
        assert_eq!(raise.steps, 2, "{raise:?}");
        assert_eq!(priorities.at(&settings, BOLT, ended_ms), Raise::default());
        priorities.hear(&settings, &book, (7, STEP_MS), usage.into_iter());
        assert_eq!(priorities.at(&settings, ACME, ended_ms), raise);
        // 600 of 900 tokens were admitted, which is all that is guaranteed.
        let mut kept = Priorities::default();
        let usage = [asked(ACME, 900.0, 300.0)];
        kept.hear(&settings, &book, (7, STEP_MS), usage.into_iter());
        assert_eq!(kept.at(&settings, ACME, ended_ms), Raise::default());
    }

    #[test]
    fn raises_go_on_where_the_cycle_in_force_has_them_and_are_forgotten_when_they_are_over() {
        let (settings, mut book) = (Prioritize::default(), book());
        let mut before = Priorities::default();
        let usage = [asked(ACME, 900.0, 900.0)];
        before.hear(&settings, &book, (7, STEP_MS), usage.into_iter());
        book.entries[0].raise = before.at(&settings, ACME, 8 * 60_000);
        let mut priorities = Priorities::default();
        priorities.hear(&settings, &book, (8, STEP_MS), std::iter::empty());
        let now_ms = 9 * 60_000;
        let (one, other) = (
            priorities.at(&settings, ACME, now_ms),
            before.at(&settings, ACME, now_ms),
        );
        assert_eq!(one, other);
        assert_eq!(one.steps, 2);
        priorities.hear(&settings, &book, (3_000, STEP_MS), std::iter::empty());
        assert_eq!(priorities.raises.len(), 0);
    }
}
