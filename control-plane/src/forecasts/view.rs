//! Forecasts as the API shows them.

use super::book::{Book, Tally};
use super::cells::{Cell, Subject};
use super::forecast::Row;
use super::groups::Group;
use super::horizon::HORIZONS;
use crate::error::ApiError;
use forebay_wire::key::CustomerHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// Customers and groups in one answer.
const MAX_LISTED: usize = 1_000;

/// Which forecasts are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForecastsQuery {
    /// Of this customer only: its key, or `hash:` and its hash.
    #[serde(default)]
    pub customer: Option<String>,
    /// Of this group only: `all`, `rest`, `tier:N`, `contract:NAME` or `group:NAME` (linked accounts).
    #[serde(default)]
    pub group: Option<String>,
    /// Of this resource only.
    #[serde(default)]
    pub resource: Option<String>,
    /// Those behind this group or customer (`hash:` and its hash). Groups come first, then customers by hash.
    #[serde(default)]
    pub after: Option<String>,
    /// At most so many customers and groups, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The same, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(super) only: Option<Subject>,
    pub(super) after: Option<Subject>,
    pub(super) resource: Option<u8>,
    pub(super) limit: usize,
}

/// Forecasts of the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ForecastsView {
    /// When the newest step that is known has ended; absent before the first forecasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_until_unix_ms: Option<u64>,
    /// How far ahead is forecast.
    pub horizons: Vec<HorizonView>,
    /// Series (of a customer and a resource) that are forecast by themselves: the largest.
    pub series: usize,
    /// Those that were forecast together, as the group `rest`, when the history was surveyed last.
    pub rest_series: usize,
    /// Chunks of 64 steps of a series that could not be read then. They are gaps.
    #[serde(default)]
    pub damaged_chunks: usize,
    /// Groups first, then customers by hash.
    pub forecasts: Vec<SubjectForecasts>,
    /// What has come of forecasts since the start.
    pub scores: Vec<ForecastScore>,
}

/// A horizon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HorizonView {
    /// Its name: `5m`, `15m`, `30m`, `1h`, `1d` or `1w`.
    pub horizon: String,
    /// Its length.
    pub length_ms: u64,
    /// Why it is not forecast; absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// Forecasts of a customer or group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectForecasts {
    /// `hash:` and the customer's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Name of the resource.
    pub resource: String,
    /// By horizon.
    pub horizons: Vec<HorizonForecast>,
}

/// Forecast of the time from one moment to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HorizonForecast {
    /// Name of the horizon.
    pub horizon: String,
    /// Its beginning: nothing later was known.
    pub from_unix_ms: u64,
    /// Its end.
    pub to_unix_ms: u64,
    /// Mean rate within it. Medians of a group's members add up to that of the group; no other quantiles do.
    pub mean_per_s: QuantilesView,
    /// Rate of the peak step within it. Peaks add up to nothing: not all come at once.
    pub peak_per_s: QuantilesView,
    /// How likely the mean rate is to be what is low, normal, high or a spike for it; absent where too little is known, or nothing ever changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odds: Option<OddsView>,
}

/// Quantiles in tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuantilesView {
    /// One in ten is at most this.
    pub p10: f32,
    /// The median.
    pub p50: f32,
    /// Nine in ten are at most this.
    pub p90: f32,
    /// 99 in 100 are at most this.
    pub p99: f32,
}

/// Probabilities that add up to 1. Without any forecast they are 0.1, 0.8, 0.09 and 0.01.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OddsView {
    /// At most what one in ten was lately.
    pub low: f64,
    /// Between the other two.
    pub normal: f64,
    /// Above what nine in ten were.
    pub high: f64,
    /// Above what 99 in 100 were.
    pub spike: f64,
}

/// What has come of forecasts of a resource and horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ForecastScore {
    /// Name of the resource.
    pub resource: String,
    /// Name of the horizon.
    pub horizon: String,
    /// `customers` or `groups`.
    pub of: String,
    /// Forecasts whose time is over.
    pub matured: u64,
    /// Those besides whose outcome is not known: of customers that are not among the largest any more, and of gaps.
    #[serde(default)]
    pub unscored: u64,
    /// Share of the mean rates that were at most their 0.9 quantile.
    pub coverage: f64,
    /// Share of the peak steps that were at most theirs.
    pub peak_coverage: f64,
    /// Pinball loss of the 0.9 quantile of mean rates over mean rates.
    pub loss: f64,
    /// Ranked probability score of the odds: 0 is best. Absent without odds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odds_loss: Option<f64>,
    /// The same of odds that know nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_odds_loss: Option<f64>,
}

// === impl Wanted ===

impl Wanted {
    /// Understands a query; `hash_of` and `resource_of` know keys and names.
    pub(crate) fn of(
        query: &ForecastsQuery,
        hash_of: impl Fn(&str) -> Result<CustomerHash, ApiError>,
        resource_of: impl Fn(&str) -> Result<u8, ApiError>,
    ) -> Result<Self, ApiError> {
        let customer = |key: &str| hash_of(key).map(Subject::Customer);
        let only = match (&query.customer, &query.group) {
            (Some(_), Some(_)) => {
                let hint = "ask for one of the two";
                let message = "a customer and a group are wanted at once";
                return Err(ApiError::malformed(message, hint).at("group"));
            }
            (Some(key), None) => Some(customer(key).map_err(|error| error.at("customer"))?),
            (None, Some(name)) => Some(Subject::Group(group(name, "group")?)),
            (None, None) => None,
        };
        let after = match &query.after {
            Some(text) if text.starts_with("hash:") => {
                Some(customer(text).map_err(|error| error.at("after"))?)
            }
            Some(text) => Some(Subject::Group(group(text, "after")?)),
            None => None,
        };
        Ok(Self {
            only,
            after,
            resource: query.resource.as_deref().map(resource_of).transpose()?,
            limit: query.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED),
        })
    }
}

fn group(text: &str, place: &str) -> Result<Group, ApiError> {
    let tier = text.strip_prefix("tier:").map(str::parse);
    let contract = text.strip_prefix("contract:");
    let linked = text.strip_prefix("group:");
    match (text, tier, contract, linked) {
        ("all", ..) => Ok(Group::All),
        ("rest", ..) => Ok(Group::Rest),
        (_, Some(Ok(tier)), ..) => Ok(Group::Tier(tier)),
        (_, _, Some(name), _) => Ok(Group::Contract(name.to_owned())),
        (.., Some(name)) => Ok(Group::Linked(name.to_owned())),
        _ => {
            let hint = "groups are `all`, `rest`, `tier:N`, `contract:NAME` and `group:NAME`";
            Err(ApiError::malformed("this is no group of customers", hint).at(place))
        }
    }
}

// === impl Book ===

impl Book {
    /// What is wanted of it.
    ///
    /// # Errors
    /// When there is no forecast of the customer or group that is named.
    pub(crate) fn view(&self, wanted: &Wanted, step_ms: u32) -> Result<ForecastsView, ApiError> {
        let step_ms = u64::from(step_ms);
        let horizons = HORIZONS.iter().zip(&self.lacks);
        let horizons = horizons.map(|(horizon, lack)| HorizonView {
            horizon: horizon.name.to_owned(),
            length_ms: horizon.length_ms,
            unavailable: lack.clone(),
        });
        let is_of_resource = |tally: &&Tally| {
            wanted
                .resource
                .is_none_or(|resource| self.name(resource) == tally.resource)
        };
        let forecasts = self.chosen(wanted, step_ms);
        if forecasts.is_empty()
            && let Some(subject) = &wanted.only
        {
            return Err(no_forecast(subject));
        }
        Ok(ForecastsView {
            known_until_unix_ms: self
                .newest
                .map(|newest| newest.saturating_add(1).saturating_mul(step_ms)),
            horizons: horizons.collect(),
            series: self.series,
            rest_series: self.rest_series,
            damaged_chunks: self.damaged_chunks,
            forecasts,
            scores: self
                .tallies
                .iter()
                .filter(|tally| tally.score.matured > 0)
                .filter(is_of_resource)
                .map(ForecastScore::of)
                .collect(),
        })
    }

    fn chosen(&self, wanted: &Wanted, step_ms: u64) -> Vec<SubjectForecasts> {
        let first = match (&wanted.only, &wanted.after) {
            (Some(only), _) => Bound::Included((only.clone(), 0)),
            (None, Some(after)) => Bound::Excluded((after.clone(), u8::MAX)),
            (None, None) => Bound::Unbounded,
        };
        let limit = if wanted.only.is_some() {
            1
        } else {
            wanted.limit
        };
        let mut chosen = Vec::new();
        let mut subjects = 0_usize;
        let mut last = None;
        for ((subject, resource), cells) in self.cells.range((first, Bound::Unbounded)) {
            let is_other = wanted.only.as_ref().is_some_and(|only| only != subject);
            if is_other {
                break;
            }
            if wanted.resource.is_some_and(|wanted| wanted != *resource) {
                continue;
            }
            if last != Some(subject) {
                subjects = subjects.saturating_add(1);
                last = Some(subject);
            }
            if subjects > limit {
                break;
            }
            let is_group = subject.is_group();
            let of_horizon = HORIZONS.iter().zip(cells).filter_map(|(horizon, cell)| {
                Some(HorizonForecast::of(
                    horizon.name,
                    horizon.length_ms,
                    cell.as_ref()?,
                    step_ms,
                ))
            });
            chosen.push(SubjectForecasts {
                customer: (!is_group).then(|| subject.to_string()),
                group: is_group.then(|| subject.to_string()),
                resource: self.name(*resource).to_owned(),
                horizons: of_horizon.collect(),
            });
        }
        chosen
    }

    fn name(&self, resource: u8) -> &str {
        let name = self.resources.get(usize::from(resource));
        name.map_or("", String::as_str)
    }
}

fn no_forecast(subject: &Subject) -> ApiError {
    let hint = match subject {
        Subject::Customer(_) => {
            "forecasts come some moments after a start, and of the largest customers: all others are in the group `rest`"
        }
        Subject::Group(_) => "`forebay forecasts` shows the groups that there are",
    };
    let message = format!("there is no forecast of {subject}");
    let place = if subject.is_group() {
        "group"
    } else {
        "customer"
    };
    ApiError::not_found("no_forecast", message, hint).at(place)
}

// === impl HorizonForecast ===

impl HorizonForecast {
    fn of(horizon: &str, length_ms: u64, cell: &Cell, step_ms: u64) -> Self {
        let from_unix_ms = cell.made_at.saturating_add(1).saturating_mul(step_ms);
        let made = &cell.made;
        let odds = made.scenarios.map(|scenarios| {
            let [low, normal, high, spike] = scenarios.probabilities(&made.mean);
            OddsView {
                low,
                normal,
                high,
                spike,
            }
        });
        Self {
            horizon: horizon.to_owned(),
            from_unix_ms,
            to_unix_ms: from_unix_ms.saturating_add(length_ms),
            mean_per_s: QuantilesView::of(made.mean),
            peak_per_s: QuantilesView::of(made.peak),
            odds,
        }
    }
}

// === impl QuantilesView ===

impl QuantilesView {
    fn of([p10, p50, p90, p99]: Row) -> Self {
        Self { p10, p50, p90, p99 }
    }
}

// === impl ForecastScore ===

impl ForecastScore {
    fn of(tally: &Tally) -> Self {
        let score = &tally.score;
        let of_all = |part: f64| part / (score.matured as f64).max(1.0);
        let of_odds = |sum: f64| (score.odds > 0).then(|| sum / score.odds as f64);
        let loss = if score.usage > 0.0 {
            score.loss / score.usage
        } else {
            0.0
        };
        Self {
            resource: tally.resource.clone(),
            horizon: tally.horizon.to_owned(),
            of: tally.of.to_owned(),
            matured: score.matured,
            unscored: score.unscored,
            coverage: of_all(score.covered as f64),
            peak_coverage: of_all(score.peaks_covered as f64),
            loss,
            odds_loss: of_odds(score.odds_loss),
            usual_odds_loss: of_odds(score.usual_odds_loss),
        }
    }
}
