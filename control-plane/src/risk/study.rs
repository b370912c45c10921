//! Who rises with whom, by the usage history: made once an hour, and the same from the same history.

use super::past::{Grid, OfPool, Past};
use crate::allocation::Occasion;
use forebay_core::policy::ContractIndex;
use forebay_core::resource::ResourceIndex;
use forebay_sharing::risk::{
    Dependence, History, Link, Matrix, correlate, links, partial_correlations, residuals,
};
use forebay_wire::key::CustomerHash;

/// How long after a spike its consequences are looked for.
const REACH_MS: u64 = 1_800_000;
/// Draws of bootstraps: the same each time, so that a restart finds the same.
const SEED: u64 = 1;
/// Accounts that matrices are made of: those with the strongest links.
pub(super) const IN_MATRICES: usize = 64;
/// Links that are kept to be shown.
const LINKS_KEPT: usize = 4_096;

/// Matrices of the accounts with the strongest links.
#[derive(Clone, Debug)]
pub(super) struct Matrices {
    /// Positions in the study.
    pub(super) accounts: Vec<usize>,
    /// At the same step.
    pub(super) correlations: Matrix,
    /// The same, what both have from others taken out.
    pub(super) partial: Matrix,
}

/// A pool.
#[derive(Clone, Debug)]
pub(super) struct Studied {
    pub(super) resource: ResourceIndex,
    /// In ascending order; positions in all that follows are places here.
    pub(super) customers: Vec<CustomerHash>,
    pub(super) dependence: Dependence,
    /// The strongest ones first.
    pub(super) links: Vec<Link>,
    pub(super) matrices: Matrices,
}

/// All pools.
#[derive(Clone, Debug)]
pub(crate) struct Study {
    pub(super) resources: Vec<String>,
    pub(super) grid: Grid,
    pub(super) reach_steps: usize,
    pub(super) pools: Vec<Studied>,
    /// How long reading and reckoning took.
    pub(super) took_us: u64,
}

// === impl Study ===

impl Study {
    /// Of usage, with the policy's occasions and the contracts of each pool's customers. None where the history is too short for any season: what is left beside a
    /// profile of a day or two would link everybody.
    pub(super) fn of(
        past: Past,
        occasions: &[Occasion],
        contracts: &[Vec<Option<ContractIndex>>],
    ) -> Option<Self> {
        let reach_steps = REACH_MS.checked_div(past.grid.step_ms).unwrap_or(0).max(1);
        let reach_steps = usize::try_from(reach_steps).unwrap_or(1);
        let pools = past.pools.into_iter().zip(contracts);
        let pools: Vec<Studied> = pools
            .filter_map(|((resource, pool), contracts)| {
                let events = past.grid.events(occasions, &pool, contracts);
                Studied::of(resource, pool, past.grid, &events, reach_steps)
            })
            .collect();
        (!pools.is_empty()).then_some(Self {
            resources: past.resources,
            grid: past.grid,
            reach_steps,
            pools,
            took_us: 0,
        })
    }
}

// === impl Studied ===

impl Studied {
    fn of(
        resource: ResourceIndex,
        pool: OfPool,
        grid: Grid,
        events: &[forebay_sharing::risk::Event],
        reach_steps: usize,
    ) -> Option<Self> {
        let OfPool { customers, usage } = pool;
        let residuals = residuals(&History {
            step_s: u32::try_from(grid.step_ms / 1_000).unwrap_or(u32::MAX),
            first_s: grid.second_of_week(&usage),
            usage: &usage,
            events,
        });
        drop(usage);
        let is_known = |customer: usize| residuals.of(customer).iter().any(|value| !value.is_nan());
        if !(0..customers.len()).any(is_known) {
            return None;
        }
        let mut links = links(&residuals, reach_steps, SEED);
        let dependence = Dependence::of(&residuals, &links, reach_steps);
        links.sort_by(|one, other| {
            let stronger = other.correlation.total_cmp(&one.correlation);
            stronger.then_with(|| (one.from, one.to).cmp(&(other.from, other.to)))
        });
        let mut accounts: Vec<usize> = Vec::new();
        for account in links.iter().flat_map(|link| [link.from, link.to]) {
            if accounts.len() < IN_MATRICES && !accounts.contains(&account) {
                accounts.push(account);
            }
        }
        accounts.sort_unstable();
        let part = residuals.part(&accounts);
        let places = 0..accounts.len();
        let pairs = places
            .clone()
            .flat_map(|from| places.clone().map(move |to| (from, to)));
        let pairs: Vec<(usize, usize)> = pairs.filter(|(from, to)| from != to).collect();
        links.truncate(LINKS_KEPT);
        Some(Self {
            resource,
            customers,
            dependence,
            links,
            matrices: Matrices {
                correlations: correlate(&part, &pairs, 0).matrix(0),
                partial: partial_correlations(&part),
                accounts,
            },
        })
    }

    /// The link of an ordered pair, if it has one.
    pub(super) fn link(&self, from: usize, to: usize) -> Option<&Link> {
        self.links
            .iter()
            .find(|link| (link.from, link.to) == (from, to))
    }
}
