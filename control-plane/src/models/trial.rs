//! Whether a canary's model forecasts better than the one before, decided as soon as the evidence allows and not earlier.
//!
//! Each pair is one step of the fleet's usage, forecast by both models. A resource's difference is that of both losses over their sum, whatever its
//! tokens are; a pair's is the mean of those of its resources. What is tested is the mean of that bounded difference, by betting
//! against the claim that it is on the wrong side (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
//! JRSS B 86(1), 2024): the stake of each bet is chosen from the pairs before it, so that, as long as the claim holds, the wealth is a
//! supermartingale that begins with 1, and the probability that it *ever* reaches 1/a is at most a (Ville). So one may look after each
//! pair, for as long as one likes. Pairs need be neither independent nor alike: the claim is about each pair's mean, given those before.
//!
//! A test at a fixed number of pairs was worse: a bad model would run on until then, and looking earlier would break its promise. So was
//! a threshold on the ratio of two averages, which promises nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest probability of promoting a model that is worse by [`MARGIN`] or more, and of rolling back one that is not worse at all.
const ALPHA: f64 = 0.05;

/// Two bets lead to each decision, and each may be wrong with half of the probability.
const WEALTH_NEEDED: f64 = 2.0 / ALPHA;

/// How much worse "not worse" may be, as a difference of losses over their sum: 4 % of the loss.
const MARGIN: f64 = 0.02;

/// How much less of the usage the 0.9 quantile may cover than that of the model before.
const COVERAGE_MARGIN: f64 = 0.05;

/// A model is promoted after so many pairs at the earliest, and not before they span the time that the caller asks for: the test is about
/// the pairs that there were, and only time shows whether those to come are like them. To take a model back nothing is waited for.
const PAIRS_FOR_PROMOTION: u64 = 100;

/// Where they are to span a day, there must be some in so many of its hours: first and last pair alone say nothing of the time in between.
const HOURS_FOR_PROMOTION: u32 = 18;
const HOUR_MS: u64 = 3_600_000;
const DAY_HOURS: u64 = 24;

/// Largest loss per unit of usage that is believed.
const LOSS_MOST: f64 = 1e9;

/// Largest evidence that is shown.
const WEALTH_SHOWN_MOST: f64 = 1e12;

/// Part of what may be staked: a stake of all of it could lose everything in one pair.
const STAKE_MOST: f64 = 0.75;

/// Stands for the variance of the differences before there are any: bets begin small.
const VARIANCE_FIRST: f64 = 0.05;

/// One step of usage, forecast by both models. Losses are per unit of usage, in the mean of the resources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// By how much the canary's loss is lower, within -1 and 1 whatever the losses are.
    gain: f64,
    canary_loss: f64,
    others_loss: f64,
    canary_coverage: f64,
    others_coverage: f64,
}

/// What has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Its loss is lower.
    Better,
    /// Its loss is higher by less than the margin, if at all.
    NotWorse,
    /// Its loss is higher.
    Worse,
    /// Its upper quantile covers too little.
    Uncovered,
}

/// Bets against the claim that the mean of differences within -1 and 1 is at most `claimed`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bet {
    claimed: f64,
    log_wealth: f64,
    count: f64,
    sum: f64,
    squares: f64,
}

/// The evidence so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// When the first pair was taken.
    #[serde(default)]
    first_unix_ms: Option<u64>,
    /// When the newest one was.
    #[serde(default)]
    newest_unix_ms: u64,
    /// Hours of the day, in UTC, in which pairs were taken: a bit each.
    #[serde(default)]
    hours: u32,
    pairs: u64,
    canary_loss: f64,
    others_loss: f64,
    canary_coverage: f64,
    others_coverage: f64,
    better: Bet,
    not_worse: Bet,
    worse: Bet,
    uncovered: Bet,
}

/// The evidence, as people see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Steps that were compared and count.
    pub pairs: u64,
    /// Time that they span.
    pub span_ms: u64,
    /// Hours of the day that have one.
    pub hours: u32,
    /// Mean pinball loss of the canaries' 0.9 quantile over usage, in the mean of the resources.
    pub canary_loss: f64,
    /// The same of the other gateways.
    pub others_loss: f64,
    /// Share of the canaries' forecasts whose 0.9 quantile covered the usage.
    pub canary_coverage: f64,
    /// The same of the other gateways.
    pub others_coverage: f64,
    /// Evidence that the canary's model is better, as an e-value.
    pub better: f64,
    /// That it is not worse by the margin.
    pub not_worse: f64,
    /// That it is worse.
    pub worse: f64,
    /// That its upper quantile covers less, by more than the margin.
    pub uncovered: f64,
    /// The e-value that decides.
    pub needed: f64,
}

// === impl Evidence ===

impl Evidence {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        format!(
            "{} pairs in {} s, loss {:.4} against {:.4}, coverage {:.3} against {:.3}, e-values better {:.3}, not worse {:.3}, worse {:.3}, uncovered {:.3}, of {} needed",
            self.pairs,
            self.span_ms / 1_000,
            self.canary_loss,
            self.others_loss,
            self.canary_coverage,
            self.others_coverage,
            self.better,
            self.not_worse,
            self.worse,
            self.uncovered,
            self.needed
        )
    }
}

// === impl Pair ===

impl Pair {
    /// Losses of the canary and of the others for each resource that was used, and the shares of all forecasts that held. `None` for numbers
    /// that cannot be what they stand for, and where nothing was used.
    ///
    /// The gain is the mean of the resources' gains. That of the mean losses was worse: a resource whose usage hardly anybody can foresee has a
    /// loss of ten times another's, and would hide what becomes of that one.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // four resources at most
    pub fn new(losses: &[(f64, f64)], coverages: (f64, f64)) -> Option<Self> {
        let is_loss = |loss: f64| (0.0..=LOSS_MOST).contains(&loss);
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let all_fit = losses
            .iter()
            .all(|(canary, others)| is_loss(*canary) && is_loss(*others));
        if losses.is_empty() || !all_fit || !is_share(coverages.0) || !is_share(coverages.1) {
            return None;
        }
        let mean = |value: fn(&(f64, f64)) -> f64| {
            losses.iter().map(value).sum::<f64>() / losses.len() as f64
        };
        Some(Self {
            gain: mean(|(canary, others)| gain(*canary, *others)),
            canary_loss: mean(|(canary, _)| *canary),
            others_loss: mean(|(_, others)| *others),
            canary_coverage: coverages.0,
            others_coverage: coverages.1,
        })
    }

    /// The canary's, and that of the others.
    #[cfg(test)]
    pub(crate) fn losses(self) -> (f64, f64) {
        (self.canary_loss, self.others_loss)
    }

    #[cfg(test)]
    pub(crate) fn gain(self) -> f64 {
        self.gain
    }
}

fn gain(canary_loss: f64, others_loss: f64) -> f64 {
    let sum = canary_loss + others_loss;
    if sum > 0.0 {
        ((others_loss - canary_loss) / sum).clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

// === impl Finding ===

impl Finding {
    /// Whether the canary's model should run everywhere.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Better | Self::NotWorse)
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better than the one before",
            Self::NotWorse => "not worse than the one before",
            Self::Worse => "worse than the one before",
            Self::Uncovered => "covers less of the usage than the one before",
        }
    }
}

// === impl Bet ===

impl Bet {
    fn against(claimed: f64) -> Self {
        Self {
            claimed,
            log_wealth: 0.0,
            count: 0.0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    /// Takes a difference. The stake was decided by those before it: that is what makes the wealth evidence.
    fn observe(&mut self, difference: f64) {
        let beyond = difference - self.claimed;
        self.log_wealth += (self.stake() * beyond).ln_1p();
        self.count += 1.0;
        self.sum += beyond;
        self.squares += beyond * beyond;
    }

    /// About what makes the wealth grow fastest if the differences go on as they were: mean over second moment.
    fn stake(&self) -> f64 {
        let mean = self.sum / (self.count + 1.0);
        let second_moment = (VARIANCE_FIRST + self.squares) / (self.count + 1.0);
        let worst = 1.0 + self.claimed;
        (mean / second_moment).clamp(0.0, STAKE_MOST / worst)
    }

    fn wealth(&self) -> f64 {
        // JSON knows no infinity.
        self.log_wealth.exp().min(WEALTH_SHOWN_MOST)
    }

    fn is_won(&self) -> bool {
        self.log_wealth >= WEALTH_NEEDED.ln()
    }
}

// === impl Trial ===

impl Default for Trial {
    fn default() -> Self {
        Self {
            first_unix_ms: None,
            newest_unix_ms: 0,
            hours: 0,
            pairs: 0,
            canary_loss: 0.0,
            others_loss: 0.0,
            canary_coverage: 0.0,
            others_coverage: 0.0,
            better: Bet::against(0.0),
            not_worse: Bet::against(-MARGIN),
            worse: Bet::against(0.0),
            uncovered: Bet::against(COVERAGE_MARGIN),
        }
    }
}

impl Trial {
    /// Takes a pair, of a step that ended at this time.
    pub fn observe(&mut self, pair: Pair, at_unix_ms: u64) {
        self.first_unix_ms.get_or_insert(at_unix_ms);
        self.newest_unix_ms = at_unix_ms;
        self.hours |= 1 << (at_unix_ms / HOUR_MS % DAY_HOURS);
        self.pairs = self.pairs.saturating_add(1);
        self.canary_loss += pair.canary_loss;
        self.others_loss += pair.others_loss;
        self.canary_coverage += pair.canary_coverage;
        self.others_coverage += pair.others_coverage;
        let gain = pair.gain;
        self.better.observe(gain);
        self.not_worse.observe(gain);
        self.worse.observe(-gain);
        self.uncovered
            .observe(pair.others_coverage - pair.canary_coverage);
    }

    /// What has been shown; harm first, and what promotes not before the pairs span this time.
    #[must_use]
    pub fn finding(&self, promotion_span_ms: u64) -> Option<Finding> {
        let is_spread = promotion_span_ms < DAY_HOURS * HOUR_MS
            || self.hours.count_ones() >= HOURS_FOR_PROMOTION;
        let may_promote =
            self.pairs >= PAIRS_FOR_PROMOTION && self.span_ms() >= promotion_span_ms && is_spread;
        if self.worse.is_won() {
            Some(Finding::Worse)
        } else if self.uncovered.is_won() {
            Some(Finding::Uncovered)
        } else if self.better.is_won() && may_promote {
            Some(Finding::Better)
        } else if self.not_worse.is_won() && may_promote {
            Some(Finding::NotWorse)
        } else {
            None
        }
    }

    fn span_ms(&self) -> u64 {
        let first = self.first_unix_ms.unwrap_or(self.newest_unix_ms);
        self.newest_unix_ms.saturating_sub(first)
    }

    /// The evidence, for people.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a count for a mean
    pub fn evidence(&self) -> Evidence {
        let mean = |sum: f64| {
            if self.pairs == 0 {
                0.0
            } else {
                sum / self.pairs as f64
            }
        };
        Evidence {
            pairs: self.pairs,
            span_ms: self.span_ms(),
            hours: self.hours.count_ones(),
            canary_loss: mean(self.canary_loss),
            others_loss: mean(self.others_loss),
            canary_coverage: mean(self.canary_coverage),
            others_coverage: mean(self.others_coverage),
            better: self.better.wealth(),
            not_worse: self.not_worse.wealth(),
            worse: self.worse.wealth(),
            uncovered: self.uncovered.wealth(),
            needed: WEALTH_NEEDED,
        }
    }
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
