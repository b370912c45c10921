//! Spillover as the API shows it.

use super::desk::Board;
use super::scores::{Labelled, OfPool};
use super::study::{Studied, Study};
use super::words::sentence;
use crate::error::ApiError;
use forebay_core::resource::ResourceIndex;
use forebay_sharing::risk::{Interval, Link, Matrix, Pair};
use forebay_wire::key::CustomerHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pairs, and links, in one answer.
const MAX_LISTED: usize = 1_000;

/// What pairs are wanted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Tiers.
    Tier,
    /// Groups of linked accounts, the innermost that a customer belongs to.
    Group,
}

/// Which pairs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpilloverQuery {
    /// Pairs of this customer on either side: its key, or `hash:` and its hash.
    #[serde(default)]
    pub customer: Option<String>,
    /// Pairs in which this customer's spike is looked at.
    #[serde(default)]
    pub spiker: Option<String>,
    /// Pairs in which this customer would be short.
    #[serde(default)]
    pub hit: Option<String>,
    /// Of this resource only.
    #[serde(default)]
    pub resource: Option<String>,
    /// Not of customers but of `tier` or `group`.
    #[serde(default)]
    pub by: Option<By>,
    /// Those behind the first so many.
    #[serde(default)]
    pub offset: Option<usize>,
    /// At most so many pairs, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Which links are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinksQuery {
    /// Of this resource only.
    #[serde(default)]
    pub resource: Option<String>,
    /// At most so many links of each resource, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The query for pairs, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    customer: Option<CustomerHash>,
    spiker: Option<CustomerHash>,
    hit: Option<CustomerHash>,
    resource: Option<ResourceIndex>,
    by: Option<By>,
    offset: usize,
    limit: usize,
}

/// Whose spike would leave whom short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpilloverView {
    /// What is known of the past; absent before the first study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<StudyView>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// The cycle of the allocation whose forecasts, capacities and settings the scores go by; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<u64>,
    /// When they were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_unix_ms: Option<u64>,
    /// Pairs that fit the query.
    pub total: usize,
    /// The largest score first.
    pub pairs: Vec<AccountPair>,
    /// Headroom in force that follows from pairs of customers.
    pub headroom: Vec<HeadroomView>,
}

/// A study of the usage history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StudyView {
    /// From this time on.
    pub from_unix_ms: u64,
    /// Up to this one.
    pub until_unix_ms: u64,
    /// Length of its steps: five minutes, or those of the history where they are longer.
    pub step_ms: u64,
    /// Within which time after a spike somebody else counts as left short by it.
    pub reach_ms: u64,
    /// Series (of a customer and a resource) in it: the largest.
    pub series: usize,
    /// Ordered pairs that rise together, or one after the other, beyond chance.
    pub links: usize,
    /// How long it took.
    pub took_ms: u64,
}

/// From a lower to an upper bound, of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntervalView {
    /// Not below.
    pub low: f64,
    /// Not above.
    pub high: f64,
}

/// Whose part of the demand beyond forecasts it is that leaves an account short. The sum is 1, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SharesView {
    /// The spike.
    pub spike: f64,
    /// The account that is short.
    pub own: f64,
    /// All others.
    pub others: f64,
}

/// Two customers, tiers or groups, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountPair {
    /// Whose spike: `hash:` and the customer's hash, `tier:N` or `group:NAME`.
    pub spiker: String,
    /// Who would be short.
    pub hit: String,
    /// The resource.
    pub resource: String,
    /// By which part of its rate the expected shortage of the second grows when the first one spikes.
    pub score: f64,
    /// Of the score.
    pub score_interval: IntervalView,
    /// The probability that it is short given the spike, less that at any time.
    pub likelihood: f64,
    /// Of the likelihood.
    pub likelihood_interval: IntervalView,
    /// The probability that it is short at any time.
    pub usual: f64,
    /// What it then lacks, in tokens per second.
    pub magnitude_per_s: f64,
    /// Of the magnitude.
    pub magnitude_interval: IntervalView,
    /// The probability that shortages differ as much by chance.
    pub p_value: f64,
    /// Where the demand comes from.
    pub shares: SharesView,
    /// What the history shows of the two; absent for tiers and groups, and where they have only the pool in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkView>,
    /// All of that in a sentence.
    pub explanation: String,
}

/// Two customers that rise together, or one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkView {
    /// Who comes first.
    pub from: String,
    /// Who rises with it, or after it.
    pub to: String,
    /// How much later, at the largest correlation.
    pub lag_ms: u64,
    /// Of what is left beside season and events, as normal scores.
    pub correlation: f64,
    /// The probability that the second is in its upper tail given that the first one is.
    pub tail_dependence: f64,
    /// Of it.
    pub tail_interval: IntervalView,
    /// The same if they had nothing in common.
    pub tail_by_chance: f64,
    /// Spikes of the first one.
    pub spikes: usize,
    /// Those of them that one of the second follows.
    pub followed: usize,
}

/// Extra room for a customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeadroomView {
    /// `hash:` and the customer's hash.
    pub customer: String,
    /// Name of the resource.
    pub resource: String,
    /// What cycles are asked to give, in tokens per second: they give it after all guarantees, as far as something is left.
    pub per_s: f64,
    /// Then it is over.
    pub until_unix_ms: u64,
    /// Because of whose spike.
    pub spiker: String,
    /// Who would be short.
    pub hit: String,
}

/// Who rises with whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinksView {
    /// What is known of the past; absent before the first study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<StudyView>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// By resource.
    pub resources: Vec<MatricesView>,
}

/// Links of a resource, and matrices of the 64 customers with the strongest ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MatricesView {
    /// Name of the resource.
    pub resource: String,
    /// The largest correlation first.
    pub links: Vec<LinkView>,
    /// Of whom the rows and columns of both matrices are.
    pub accounts: Vec<String>,
    /// Correlations at the same step.
    pub correlations: Vec<Vec<f64>>,
    /// The same, with what both have in common with others taken out.
    pub partial_correlations: Vec<Vec<f64>>,
}

// === impl Wanted ===

impl Wanted {
    /// Understands a query; `hash_of` and `resource_of` know keys and names.
    pub(crate) fn of(
        query: &SpilloverQuery,
        hash_of: impl Fn(&str) -> Result<CustomerHash, ApiError>,
        resource_of: impl Fn(&str) -> Result<ResourceIndex, ApiError>,
    ) -> Result<Self, ApiError> {
        let customer = |key: &Option<String>, place| {
            let hash = key.as_deref().map(&hash_of).transpose();
            hash.map_err(|error| error.at(place))
        };
        let wanted = Self {
            customer: customer(&query.customer, "customer")?,
            spiker: customer(&query.spiker, "spiker")?,
            hit: customer(&query.hit, "hit")?,
            resource: query.resource.as_deref().map(resource_of).transpose()?,
            by: query.by,
            offset: query.offset.unwrap_or(0),
            limit: query.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED),
        };
        let names = [wanted.customer, wanted.spiker, wanted.hit];
        if wanted.by.is_some() && names.iter().any(Option::is_some) {
            let hint = "ask for customers, or for tiers or groups";
            let message = "pairs of a customer and pairs of tiers or groups are wanted at once";
            return Err(ApiError::malformed(message, hint).at("by"));
        }
        Ok(wanted)
    }

    fn is_of(&self, resource: ResourceIndex) -> bool {
        self.resource.is_none_or(|wanted| wanted == resource)
    }

    fn takes(&self, from: CustomerHash, to: CustomerHash) -> bool {
        self.customer
            .is_none_or(|wanted| wanted == from || wanted == to)
            && self.spiker.is_none_or(|wanted| wanted == from)
            && self.hit.is_none_or(|wanted| wanted == to)
    }
}

// === impl Board ===

impl Board {
    /// Pairs that are wanted.
    ///
    /// # Errors
    /// When a pair is named, and has no score.
    pub(crate) fn view(
        &self,
        wanted: &Wanted,
        policy: u64,
        now_unix_ms: u64,
    ) -> Result<SpilloverView, ApiError> {
        let mut found: Vec<(&OfPool, &Studied, &Pair, Option<&Labelled>)> = Vec::new();
        let pools = self.scores.pools.iter();
        let pools = pools.filter(|pool| wanted.is_of(pool.resource));
        for (pool, studied) in pools.filter_map(|pool| Some((pool, self.studied(pool.resource)?))) {
            let labelled = wanted.by.map(|by| match by {
                By::Tier => &pool.tiers,
                By::Group => &pool.groups,
            });
            let pairs = labelled.map_or(&pool.pairs, |labelled| &labelled.pairs);
            let pairs = pairs.iter().filter(|pair| {
                let hash = |place: usize| studied.customers.get(place).copied();
                let pair = hash(pair.from).zip(hash(pair.to));
                labelled.is_some() || pair.is_some_and(|(from, to)| wanted.takes(from, to))
            });
            found.extend(pairs.map(|pair| (pool, studied, pair, labelled)));
        }
        // Those of each pool are in order already, and stay so where scores are equal.
        found.sort_by(|one, other| other.2.score.total_cmp(&one.2.score));
        if found.is_empty() && wanted.spiker.is_some() && wanted.hit.is_some() {
            let message = "there is no score of this pair";
            let hint = "a pair has one where a spike of the first leaves the second short more than usual: with room for all nobody has; `unavailable` of /v1/spillover says if nothing is scored";
            return Err(ApiError::not_found("no_pair", message, hint).at("hit"));
        }
        let total = found.len();
        let page = found.into_iter().skip(wanted.offset).take(wanted.limit);
        let pairs = page.map(|(pool, studied, pair, labelled)| {
            self.pair_view(pool.resource, studied, pair, labelled)
        });
        let extras = self.scores.headroom.in_force(policy, now_unix_ms);
        let extras = extras.filter(|extra| wanted.is_of(extra.resource));
        let headroom = extras.filter(|extra| wanted.takes(extra.because.0, extra.because.1));
        Ok(SpilloverView {
            study: self.study_view(),
            unavailable: self.lack.clone(),
            cycle: (self.scores.cycle > 0).then_some(self.scores.cycle),
            at_unix_ms: (self.scores.cycle > 0).then_some(self.scores.at_unix_ms),
            total,
            pairs: pairs.collect(),
            headroom: headroom
                .map(|extra| HeadroomView {
                    customer: name_of(extra.customer),
                    resource: self.resource(extra.resource),
                    per_s: extra.per_s,
                    until_unix_ms: extra.ends_unix_ms,
                    spiker: name_of(extra.because.0),
                    hit: name_of(extra.because.1),
                })
                .collect(),
        })
    }

    /// Links and matrices, of one resource or of all.
    pub(crate) fn links(&self, resource: Option<ResourceIndex>, limit: Option<usize>) -> LinksView {
        let limit = limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
        let pools = self
            .study
            .iter()
            .flat_map(|study| study.pools.iter().map(move |pool| (study, pool)));
        let pools = pools.filter(|(_, pool)| resource.is_none_or(|wanted| wanted == pool.resource));
        let resources = pools.map(|(study, pool)| MatricesView {
            resource: self.resource(pool.resource),
            links: pool
                .links
                .iter()
                .take(limit)
                .map(|link| pool.link_view(link, study))
                .collect(),
            accounts: pool
                .matrices
                .accounts
                .iter()
                .map(|account| pool.name(*account))
                .collect(),
            correlations: rows(&pool.matrices.correlations),
            partial_correlations: rows(&pool.matrices.partial),
        });
        LinksView {
            study: self.study_view(),
            unavailable: self.lack.clone(),
            resources: resources.collect(),
        }
    }

    fn pair_view(
        &self,
        resource: ResourceIndex,
        studied: &Studied,
        pair: &Pair,
        labelled: Option<&Labelled>,
    ) -> AccountPair {
        let name = |place: usize| match labelled {
            Some(labelled) => labelled.names.get(place).cloned().unwrap_or_default(),
            None => studied.name(place),
        };
        let link = match labelled {
            Some(_) => None,
            None => studied.link(pair.from, pair.to),
        };
        let mut view = AccountPair {
            spiker: name(pair.from),
            hit: name(pair.to),
            resource: self.resource(resource),
            score: pair.score,
            score_interval: pair.score_interval.into(),
            likelihood: pair.likelihood,
            likelihood_interval: pair.likelihood_interval.into(),
            usual: pair.usual,
            magnitude_per_s: pair.magnitude_per_s,
            magnitude_interval: pair.magnitude_interval.into(),
            p_value: pair.p_value,
            shares: SharesView {
                spike: pair.shares.spike,
                own: pair.shares.own,
                others: pair.shares.others,
            },
            link: link
                .zip(self.study.as_deref())
                .map(|(link, study)| studied.link_view(link, study)),
            explanation: String::new(),
        };
        let reach_ms = self.study.as_deref().map_or(0, Study::reach_ms);
        view.explanation = sentence(&view, reach_ms);
        view
    }

    fn studied(&self, resource: ResourceIndex) -> Option<&Studied> {
        let mut pools = self.study.as_deref()?.pools.iter();
        pools.find(|pool| pool.resource == resource)
    }

    fn resource(&self, resource: ResourceIndex) -> String {
        let study = self.study.as_deref();
        let name = study.and_then(|study| study.resources.get(resource.position()));
        name.cloned().unwrap_or_default()
    }

    fn study_view(&self) -> Option<StudyView> {
        let study = self.study.as_deref()?;
        let length_ms = study.grid.step_ms.saturating_mul(study.grid.steps as u64);
        Some(StudyView {
            from_unix_ms: study.grid.from_ms,
            until_unix_ms: study.grid.from_ms.saturating_add(length_ms),
            step_ms: study.grid.step_ms,
            reach_ms: study.reach_ms(),
            series: study.series(),
            links: study.links(),
            took_ms: study.took_us / 1_000,
        })
    }
}

// === impl Study ===

impl Study {
    fn reach_ms(&self) -> u64 {
        self.grid.step_ms.saturating_mul(self.reach_steps as u64)
    }

    pub(super) fn series(&self) -> usize {
        self.pools.iter().map(|pool| pool.customers.len()).sum()
    }

    pub(super) fn links(&self) -> usize {
        self.pools.iter().map(|pool| pool.links.len()).sum()
    }
}

// === impl Studied ===

impl Studied {
    fn name(&self, place: usize) -> String {
        self.customers
            .get(place)
            .copied()
            .map(name_of)
            .unwrap_or_default()
    }

    fn link_view(&self, link: &Link, study: &Study) -> LinkView {
        LinkView {
            from: self.name(link.from),
            to: self.name(link.to),
            lag_ms: study.grid.step_ms.saturating_mul(link.lag_steps as u64),
            correlation: link.correlation,
            tail_dependence: link.tail.dependence,
            tail_interval: link.tail.interval.into(),
            tail_by_chance: link.tail.by_chance,
            spikes: link.coincidence.spikes,
            followed: link.coincidence.followed,
        }
    }
}

impl From<Interval> for IntervalView {
    fn from(interval: Interval) -> Self {
        Self {
            low: interval.low,
            high: interval.high,
        }
    }
}

fn name_of(customer: CustomerHash) -> String {
    format!("hash:{customer}")
}

fn rows(matrix: &Matrix) -> Vec<Vec<f64>> {
    matrix.rows().map(<[f64]>::to_vec).collect()
}
