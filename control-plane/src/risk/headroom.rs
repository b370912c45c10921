//! Headroom in force: what cycles of the allocation take as an input.
//!
//! Each customer has what was found last, until its time is over: a risk that is still there is found again each time that pairs are scored. It
//! holds for the policy that it was found under and for no other, since resources and terms may mean something else there.

use forebay_core::resource::ResourceIndex;
use forebay_policy::Spillover;
use forebay_sharing::risk::{Pair, Protect, Rules, headroom};
use forebay_wire::key::CustomerHash;
use forebay_wire::policy;
use std::collections::BTreeSet;

/// Extra room for one customer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extra {
    pub(super) customer: CustomerHash,
    pub(super) resource: ResourceIndex,
    pub(super) per_s: f64,
    pub(super) ends_unix_ms: u64,
    /// Because of which pair: whose spike, and who would be short.
    pub(super) because: (CustomerHash, CustomerHash),
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Headroom {
    pub(super) policy: u64,
    pub(super) extras: Vec<Extra>,
}

/// What was found for a pool.
pub(super) struct Found<'a> {
    pub(super) resource: ResourceIndex,
    pub(super) capacity_per_s: f64,
    pub(super) customers: &'a [CustomerHash],
    pub(super) pairs: &'a [Pair],
}

// === impl Headroom ===

impl Headroom {
    /// What customers have at a time, under a policy.
    pub(crate) fn in_force(&self, policy: u64, now_unix_ms: u64) -> impl Iterator<Item = &Extra> {
        let extras = self.extras.iter().filter(move |_| policy == self.policy);
        extras.filter(move |extra| now_unix_ms < extra.ends_unix_ms)
    }

    /// What follows from new scores: what they are worth, and what others still have of before, as far as the policy's share of the capacity goes.
    pub(super) fn after(
        &self,
        policy: u64,
        rule: &Spillover,
        found: &[Found<'_>],
        now_unix_ms: u64,
    ) -> Self {
        let rules = Rules {
            threshold: rule.threshold_score,
            protect: match rule.protect {
                policy::Protect::Hit => Protect::Impacted,
                policy::Protect::Spiker => Protect::FeedSpiker,
            },
            ttl_s: f64::from(rule.ttl_ms) / 1e3,
        };
        let ends_unix_ms = now_unix_ms.saturating_add(u64::from(rule.ttl_ms));
        let mut extras = Vec::new();
        for pool in found {
            let hash = |place: usize| pool.customers.get(place).copied();
            let mut left = pool.capacity_per_s * rule.headroom_share;
            let mut has = BTreeSet::new();
            for extra in headroom(pool.pairs, &rules, left, 0.0) {
                let because = (hash(extra.because.0), hash(extra.because.1));
                let (Some(customer), (Some(from), Some(to))) = (hash(extra.customer), because)
                else {
                    continue;
                };
                left -= extra.per_s;
                has.insert(customer);
                extras.push(Extra {
                    customer,
                    resource: pool.resource,
                    per_s: extra.per_s,
                    ends_unix_ms,
                    because: (from, to),
                });
            }
            let before = self.in_force(policy, now_unix_ms);
            for extra in before.filter(|extra| extra.resource == pool.resource) {
                let per_s = extra.per_s.min(left);
                if per_s > 0.0 && !has.contains(&extra.customer) {
                    left -= per_s;
                    extras.push(Extra { per_s, ..*extra });
                }
            }
        }
        Self { policy, extras }
    }
}

// === impl Extra ===

impl Extra {
    /// Whose, of which resource, and how much.
    pub(crate) fn amount(&self) -> (CustomerHash, ResourceIndex, f64) {
        (self.customer, self.resource, self.per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_sharing::risk::{Interval, Shares};

    const RULE: Spillover = Spillover {
        threshold_score: 0.02,
        headroom_share: 0.1,
        ttl_ms: 60_000,
        protect: policy::Protect::Hit,
    };

    fn pair(from: usize, to: usize, score: f64, magnitude_per_s: f64) -> Pair {
        Pair {
            from,
            to,
            likelihood: 0.5,
            likelihood_interval: Interval::default(),
            p_value: 0.0,
            usual: 0.1,
            magnitude_per_s,
            magnitude_interval: Interval::default(),
            score,
            score_interval: Interval::default(),
            shares: Shares::default(),
        }
    }

    fn hash(number: u8) -> CustomerHash {
        CustomerHash([number; 16])
    }

    fn after(
        before: &Headroom,
        policy: u64,
        rule: &Spillover,
        pairs: &[Pair],
        now_unix_ms: u64,
    ) -> Headroom {
        let found = Found {
            resource: ResourceIndex::FIRST,
            capacity_per_s: 1_000.0,
            customers: &[hash(0), hash(1), hash(2)],
            pairs,
        };
        before.after(policy, rule, &[found], now_unix_ms)
    }

    fn amounts(headroom: &Headroom, policy: u64, now_unix_ms: u64) -> Vec<(u8, f64)> {
        let extras = headroom.in_force(policy, now_unix_ms);
        extras
            .map(|extra| (extra.customer.0[0], extra.per_s))
            .collect()
    }

    #[test]
    fn headroom_ends_with_its_time_and_with_its_policy_and_is_found_again_while_the_risk_is_there()
    {
        let nothing = Headroom::default();
        let first = after(&nothing, 7, &RULE, &[pair(0, 1, 0.2, 30.0)], 1_000);
        assert_eq!(amounts(&first, 7, 60_999), [(1, 30.0)]);
        assert_eq!(amounts(&first, 7, 61_000), []);
        assert_eq!(amounts(&first, 8, 1_000), []);
        let again = after(&first, 7, &RULE, &[pair(0, 1, 0.2, 20.0)], 31_000);
        assert_eq!(amounts(&again, 7, 90_999), [(1, 20.0)]);
        let still = after(&first, 7, &RULE, &[], 31_000);
        assert_eq!(
            amounts(&still, 7, 60_999),
            [(1, 30.0)],
            "no longer than it was given for"
        );
        assert_eq!(amounts(&still, 7, 61_000), []);
        assert_eq!(after(&first, 8, &RULE, &[], 31_000).extras, []);
    }

    #[test]
    fn no_more_is_given_than_the_share_of_the_capacity() {
        let nothing = Headroom::default();
        let first = after(&nothing, 7, &RULE, &[pair(0, 1, 0.2, 70.0)], 1_000);
        let pairs = [pair(1, 2, 0.3, 60.0), pair(1, 0, 0.01, 10.0)];
        let both = after(&first, 7, &RULE, &pairs, 2_000);
        assert_eq!(amounts(&both, 7, 2_000), [(2, 60.0), (1, 40.0)]);
        let nothing_given = Spillover {
            headroom_share: 0.0,
            ..RULE
        };
        assert_eq!(after(&first, 7, &nothing_given, &pairs, 2_000).extras, []);
    }

    #[test]
    fn it_is_for_whom_the_policy_says() {
        let spiker = Spillover {
            protect: policy::Protect::Spiker,
            ..RULE
        };
        let nothing = Headroom::default();
        let given = after(&nothing, 7, &spiker, &[pair(0, 1, 0.2, 30.0)], 0);
        assert_eq!(amounts(&given, 7, 0), [(0, 30.0)]);
        assert_eq!(given.extras[0].because, (hash(0), hash(1)));
    }
}
