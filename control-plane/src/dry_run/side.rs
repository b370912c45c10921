//! From the tables of a policy to one side of a comparison: one resource of it, in plain numbers.

use crate::allocation::Rule;
use forebay_core::Micro;
use forebay_core::limits::MICRO_PER_TOKEN;
use forebay_core::policy::{ContractIndex, Policy};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Group, Lend, Settings, Terms, to_per_s};
use forebay_simulator::pool::what_if::{Division, Member, Pool, Side};

/// Seconds from one cycle to the next where the policy divides nothing: forecasts change then.
const CYCLE_S: u32 = 300;
const MS_PER_S: u32 = 1_000;

/// A policy, and the resource of it that is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) rule: Option<&'a Rule>,
    pub(crate) resource: ResourceIndex,
}

// === impl Reading ===

impl Reading<'_> {
    /// What holds for all customers. There are none yet.
    pub(crate) fn side(&self) -> Side {
        let cycle_s = self.rule.map_or(CYCLE_S, |rule| {
            (rule.interval_ms.saturating_add(MS_PER_S / 2) / MS_PER_S).max(1)
        });
        let shadow = &self.policy.shadow;
        let pool = self.policy.pool(self.resource).map(|pool| Pool {
            capacity_per_s: to_per_s(pool.capacity),
            depth: tokens(pool.depth),
            protected_share: f64::from(shadow.protected_permille) / 1e3,
            claimed_quantile: shadow
                .enabled
                .then(|| f64::from(shadow.quantile_permille) / 1e3),
        });
        Side {
            pool,
            division: self.rule.map(|rule| self.division(rule, cycle_s)),
            cycle_s,
            members: Vec::new(),
        }
    }

    /// A customer with a contract, in a group of linked accounts; who has none is refused.
    pub(crate) fn member(&self, row: Option<ContractIndex>, group: Option<usize>) -> Member {
        let Some((row, contract)) = row.and_then(|row| Some((row, self.policy.contract(row)?)))
        else {
            return Member::refused();
        };
        let limits = contract.limits.at(self.resource);
        let lend = self.rule.map(|rule| *rule.lend(row).at(self.resource));
        Member {
            tier: contract.tier,
            priority: contract.priority,
            weight: f64::from(contract.weight),
            group,
            terms: Terms {
                guarantee_per_s: to_per_s(limits.guarantee),
                rate_per_s: to_per_s(limits.rate),
                ceiling_per_s: to_per_s(limits.ceiling),
                lend: lend.unwrap_or(Lend::Auto),
            },
            burst: tokens(limits.burst),
            borrow_depth: tokens(limits.borrow_limit),
            refused_until_s: 0,
            is_exempt: false,
        }
    }

    fn division(&self, rule: &Rule, cycle_s: u32) -> Division {
        let groups = rule.groups.iter().map(|group| Group {
            parent: group.parent,
            cap_per_s: PerResource::only_first(*group.cap_per_s.at(self.resource)),
        });
        Division {
            settings: Settings {
                interval_s: f64::from(cycle_s),
                ..rule.settings
            },
            groups: groups.collect(),
        }
    }
}

fn tokens(amount: Micro) -> f64 {
    amount.get() as f64 / MICRO_PER_TOKEN as f64
}
