//! Cycles by other values than the policy's, now and then, where the policy asks for that ([`forebay_sharing::tuning`]).
//!
//! What the tuner knows goes through the words that are in the journal with each cycle, also while the server runs: a server that was
//! restarted goes on from the same words as one that was not. What a cycle chose is among what it was made from, so a replay needs no
//! tuner.
//!
//! Only cycles whose time had come are chosen for. Those in between go by the policy's values, and end what is measured of the one before:
//! what came of a cycle that something has cut short is what was seen until then.

use super::book::{Book, Cause};
use super::priorities::Asked;
use super::rule::Rule;
use forebay_core::resource::PerResource;
use forebay_sharing::Settings;
use forebay_sharing::priority::Kept;
use forebay_sharing::tuning::{
    Context, Features, Knob, Outcome, Ranges, Rules, Tuner, TuningError,
};

/// Of the cycles that are chosen for, the part that explores.
const SHARE: f64 = 0.05;

/// What the policy says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TuningRule {
    ranges: Ranges,
    loss_most: f64,
}

/// What is kept of tuning with a cycle.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tuned {
    /// What the tuner knows.
    pub(crate) words: Vec<u64>,
    /// Fingerprint of the arms that it has.
    pub(crate) arms: u64,
    /// Cycles by each of them.
    pub(crate) cycles: Vec<u64>,
    /// Cycles that were chosen for, and those of them that explored, by whichever arms.
    pub(crate) decisions: u64,
    pub(crate) explored: u64,
    /// How often a guarantee was missed in one of them, and the last time.
    pub(crate) fallbacks: u64,
    pub(crate) fallback: Option<FellBack>,
    /// What was chosen for this cycle; none for one in between.
    pub(crate) choice: Option<Choice>,
}

/// A guarantee was missed in a cycle that explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FellBack {
    pub(crate) cycle: u64,
    pub(crate) until_unix_ms: u64,
}

/// What a cycle was made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) decision: u64,
    /// 0: the policy's own values.
    pub(crate) arm: usize,
    pub(crate) propensity: f64,
}

/// What came of the cycle in force, from the steps that were closed since and lie in it as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    cycle: u64,
    /// The step that was heard last.
    heard: Option<u64>,
    /// None before the first step.
    sums: Option<Outcome>,
}

// === impl TuningRule ===

impl TuningRule {
    pub(crate) fn of(tuning: &forebay_policy::Tuning) -> Self {
        let quantiles = [
            Knob::QuantileOfTier1,
            Knob::QuantileOfTier2,
            Knob::QuantileOfTier3,
        ];
        let [low, high] = tuning.reserve_share;
        let reserve = Ranges::default().with(Knob::ReserveShare, low, high);
        let named = quantiles.into_iter().zip(tuning.quantiles.iter().flatten());
        Self {
            ranges: named.fold(reserve, |ranges, (knob, [low, high])| {
                ranges.with(knob, *low, *high)
            }),
            loss_most: tuning.loss_most,
        }
    }

    /// The tuner that goes on from what is kept, and what was wrong with that.
    pub(super) fn tuner(
        &self,
        own: &Settings,
        before: &Book,
    ) -> Result<(Tuner, Option<TuningError>), TuningError> {
        let [one, two, three, four, five, six, seven, eight, ..] = before.inputs_digest;
        let rules = Rules {
            ranges: self.ranges,
            // What differed from market to market was found without any context.
            features: Features::Constant,
            share: SHARE,
            loss_most: self.loss_most,
            // Kept from the first cycle on.
            seed: u64::from_be_bytes([one, two, three, four, five, six, seven, eight]),
        };
        let fresh = || Tuner::new(own, &rules);
        match before.tuning.as_ref() {
            None => Ok((fresh()?, None)),
            Some(kept) => match fresh()?.taking_up(&kept.words) {
                Ok(tuner) => Ok((tuner, None)),
                Err(error) => Ok((fresh()?.careful(), Some(error))),
            },
        }
    }
}

// === impl Tuned ===

impl Tuned {
    /// Of what the store has and this program did not write: that there was something.
    pub(super) fn lost() -> Self {
        Self::default()
    }

    /// Whether the cycle goes by other values than the policy's.
    pub(crate) fn explores(&self) -> bool {
        self.choice.is_some_and(|choice| choice.arm > 0)
    }
}

/// By which values the cycle after `before` is made, and what is kept of that.
pub(super) fn choose(
    before: &Book,
    rule: &Rule,
    told: &Told,
    (cause, now_unix_ms): (Cause, u64),
) -> (Settings, Option<Tuned>) {
    let own = rule.settings;
    let had = before.tuning.clone();
    // What was explored counts for as long as anybody knows of it, also after tuning was off for a while.
    let off = |had: Option<Tuned>| {
        (
            own,
            had.map(|had| Tuned {
                choice: None,
                ..had
            }),
        )
    };
    let Some(tuning) = rule.tuning else {
        return off(had);
    };
    let (mut tuner, damage) = match tuning.tuner(&own, before) {
        Ok(tuner) => tuner,
        Err(error) => {
            tracing::warn!("nothing is tuned: {error}");
            return off(had);
        }
    };
    if let Some(damage) = damage {
        tracing::warn!(cycle = before.number, "tuning begins anew: {damage}");
    }
    let mut tuned = had.unwrap_or_default();
    let arms = tuner.arms().fingerprint();
    if tuned.arms != arms || tuned.cycles.len() != tuner.arms().len() {
        tuned.arms = arms;
        tuned.cycles = vec![0; tuner.arms().len()];
    }
    let observed = tuner.observe(now_unix_ms, told.of(before.number));
    if let Some(fallback) = observed.fallback {
        tuned.fallbacks = tuned.fallbacks.saturating_add(1);
        tuned.fallback = Some(FellBack {
            cycle: before.number,
            until_unix_ms: fallback.until_ms,
        });
    }
    let decision =
        (cause == Cause::Interval).then(|| tuner.choose(now_unix_ms, &Context::default()));
    tuned.words = tuner.words();
    tuned.choice = decision.map(|decision| Choice {
        decision: decision.number,
        arm: decision.arm,
        propensity: decision.propensity,
    });
    let Some(decision) = decision else {
        return (own, Some(tuned));
    };
    if let Some(cycles) = tuned.cycles.get_mut(decision.arm) {
        *cycles = cycles.saturating_add(1);
    }
    tuned.decisions = tuned.decisions.saturating_add(1);
    tuned.explored = tuned.explored.saturating_add(u64::from(decision.arm > 0));
    (decision.settings, Some(tuned))
}

// === impl Told ===

impl Told {
    /// Takes in a closed step, once.
    ///
    /// A guarantee was missed where less was admitted than guaranteed, as for priorities. Whether more was admitted than there was is not
    /// asked: what a pool had saved up cannot be told from it, and its gateways keep to it in whole numbers whatever the values are.
    pub(crate) fn hear(
        &mut self,
        book: &Book,
        (step, step_ms): (u64, u32),
        usage: impl Iterator<Item = Asked>,
    ) {
        if self.cycle != book.number {
            self.cycle = book.number;
            self.sums = None;
        }
        let span_ms = u64::from(step_ms);
        let is_known = self.heard.replace(step) == Some(step);
        if is_known || step.saturating_mul(span_ms) < book.at_unix_ms {
            return;
        }
        let span_s = span_ms as f64 / 1e3;
        let mut sums = self.sums.unwrap_or_default();
        let mut of_each: PerResource<(f64, f64)> = PerResource::default();
        for asked in usage {
            let admitted = (asked.demand - asked.denied).max(0.0);
            let (wanted, got) = of_each.at_mut(asked.resource);
            *got += admitted;
            let Some(entry) = book.entry(asked.customer) else {
                *wanted += admitted;
                continue;
            };
            let terms = entry.customer.terms.at(asked.resource);
            let within = asked.demand.min(terms.ceiling_per_s * span_s);
            *wanted += within.max(admitted);
            if terms.guarantee_per_s > 0.0 && asked.demand > 0.0 {
                let kept = Kept::of(span_ms, terms.guarantee_per_s, asked.demand, asked.denied);
                sums.promised += 1.0;
                sums.missed += f64::from(u8::from(kept.denied_share() > 0.0));
            }
        }
        // In seconds of each capacity, so that resources can be added up.
        for resource in book.divided() {
            let capacity_per_s = *book.policy_capacity_per_s.at(resource);
            let (wanted, got) = *of_each.at(resource);
            let left = (book.capacity_per_s.at(resource) * span_s - got).max(0.0);
            sums.asked += wanted / capacity_per_s;
            sums.admitted += got / capacity_per_s;
            sums.false_rejected += (wanted - got).clamp(0.0, left) / capacity_per_s;
        }
        self.sums = Some(sums);
    }

    /// What came of a cycle so far; none where no step has told.
    pub(crate) fn of(&self, cycle: u64) -> Option<&Outcome> {
        self.sums.as_ref().filter(|_| self.cycle == cycle)
    }

    /// Whether a cycle must not go on as it is.
    pub(crate) fn ends(&self, book: &Book) -> bool {
        let explores = book.tuning.as_ref().is_some_and(Tuned::explores);
        explores && self.of(book.number).is_some_and(Outcome::breaks_promise)
    }
}
