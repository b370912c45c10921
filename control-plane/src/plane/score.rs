//! What a gateway says of its model's forecasts, as far as it can be believed.
//!
//! The numbers come over the network, floats among them. They are read once, here, and whatever does not fit is as if it had not been
//! said: a sync must not fail for what only decides about models.

use forebay_core::limits::MAX_RESOURCES;
use forebay_wire::model::ModelDigest;
use forebay_wire::sync::{ForecastScore, ModelStatus};

/// Forecasts that a gateway can have made in its life.
const MATURED_MOST: u64 = 1 << 50;
/// Tokens that they can have been about.
const TOKENS_MOST: f64 = 1e18;

/// Rounds of which nothing counts after a gateway's sums have begun: a gateway that has swapped its model, or was started anew, has learned
/// nothing about its customers yet, and the others have.
pub(super) const WARM_UP_ROUNDS: u64 = 30;

/// Sums of losses that are kept apart: of all resources together, as gateways of older versions say it, and of each.
pub(super) const PARTS: usize = 1 + MAX_RESOURCES;

/// Pinball loss and usage, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub loss: f64,
    pub usage: f64,
}

/// Sums over forecasts that have matured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Forecasts.
    pub matured: u64,
    covered: u64,
    /// All resources together, then each. `None`: not said, or not of the whole time that is asked for.
    parts: [Option<Part>; PARTS],
    /// The gateway tells resources apart.
    is_by_resource: bool,
}

/// The rounds in which began what is being compared. A resource that nobody uses waits for its next usage, so that the loss of claims on silent
/// customers is not left out, and the others go on meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    counts: u64,
    parts: [u64; PARTS],
}

/// What begins anew with the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anew {
    pub counts: bool,
    pub parts: [bool; PARTS],
}

/// What one gateway has said, and had said when the round began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    newest: Option<(ModelDigest, Score)>,
    at_start: Option<Start>,
    /// Rounds in which something has matured since the sums began.
    rounds: u64,
}

/// What a gateway had said at the beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Start {
    /// Of which rounds it takes part in the comparison.
    open: Open,
    digest: ModelDigest,
    score: Score,
}

/// What one gateway has said of two models that run beside one another, for the same customers and steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DuelScores {
    challenger: Scores,
    champion: Scores,
}

// === impl Scores ===

impl Scores {
    /// Takes note of what the gateway says of the model that it runs.
    pub(super) fn hear(&mut self, status: &ModelStatus) {
        let digest = ModelDigest::try_from(status.digest.as_slice()).ok();
        let score = status.score.as_ref().and_then(Score::read);
        self.take(digest.zip(score));
    }

    fn take(&mut self, newest: Option<(ModelDigest, Score)>) {
        let goes_on = self
            .newest
            .zip(newest)
            .is_some_and(|((of, before), (digest, after))| {
                of == digest && !after.is_below(&before)
            });
        if !goes_on {
            self.at_start = None;
            self.rounds = 0;
        }
        self.newest = newest;
    }

    /// The newest: of which model, and its sums.
    #[must_use]
    pub fn newest(&self) -> Option<(ModelDigest, Score)> {
        self.newest
    }

    /// What has matured since the rounds `open` began, if one and the same model ran.
    pub(super) fn in_round(&self, open: &Open) -> Option<(ModelDigest, Score)> {
        let ((digest, after), start) = self.newest.zip(self.at_start)?;
        let mut since = after.since(&start.score)?;
        let took_part = start.open.parts.iter().zip(&open.parts);
        for (part, (ours, asked)) in since.parts.iter_mut().zip(took_part) {
            *part = part.filter(|_| ours == asked);
        }
        let fits = start.open.counts == open.counts && start.digest == digest;
        fits.then_some((digest, since))
    }

    /// Some of the rounds `open` are over, and others begin.
    pub(super) fn next_round(&mut self, open: &Open, next: &Open) {
        /// A round that no comparison begins with.
        const NEVER: u64 = u64::MAX;
        let counts_go_on = next.counts == open.counts;
        if !counts_go_on && self.in_round(open).is_some() {
            self.rounds = self.rounds.saturating_add(1);
        }
        let takes_part = |start: &Start| start.open.counts == open.counts;
        let before = self.at_start.filter(takes_part);
        if counts_go_on && before.is_none() {
            return;
        }
        self.at_start = self.newest.map(|(digest, newest)| {
            let mut start = Start {
                open: *next,
                digest,
                score: newest,
            };
            if let Some(before) = before.filter(|_| counts_go_on) {
                start.score.matured = before.score.matured;
                start.score.covered = before.score.covered;
            }
            let ours = start.open.parts.iter_mut().zip(&mut start.score.parts);
            for (place, ((round, part), was)) in ours.zip(&open.parts).enumerate() {
                if *round != *was {
                    continue;
                }
                // It goes on for those who were there when it began.
                let begun = before.filter(|before| before.open.parts.get(place) == Some(was));
                match begun {
                    Some(before) => *part = before.score.parts.get(place).copied().flatten(),
                    None => *round = NEVER,
                }
            }
            start
        });
    }

    /// Rounds that are still to come before anything counts.
    pub(super) const fn warm_up_left(&self) -> u64 {
        WARM_UP_ROUNDS.saturating_sub(self.rounds)
    }
}

// === impl DuelScores ===

impl DuelScores {
    /// Takes note of what the gateway says of both. Sums that are not of the same forecasts are not believed.
    pub(super) fn hear(&mut self, status: &ModelStatus) {
        let both = status.challenger.as_ref().and_then(|said| {
            let digest = ModelDigest::try_from(said.digest.as_slice()).ok()?;
            let challenger = Score::read(said.challenger_score.as_ref()?)?;
            let champion = Score::read(said.champion_score.as_ref()?)?;
            let are_same =
                challenger.matured == champion.matured && challenger.has_usage_of(&champion);
            are_same.then_some(((digest, challenger), (digest, champion)))
        });
        let (challenger, champion) = both.unzip();
        self.challenger.take(challenger);
        self.champion.take(champion);
    }

    /// Of which challenger it speaks.
    pub(super) fn digest(&self) -> Option<ModelDigest> {
        self.challenger.newest().map(|(digest, _)| digest)
    }

    /// What has matured since the rounds `open` began: the challenger's, and that of the model in force.
    pub(super) fn in_round(&self, open: &Open) -> Option<(ModelDigest, (Score, Score))> {
        let (digest, challenger) = self.challenger.in_round(open)?;
        let (_, champion) = self.champion.in_round(open)?;
        Some((digest, (challenger, champion)))
    }

    /// Some of the rounds `open` are over, and others begin.
    pub(super) fn next_round(&mut self, open: &Open, next: &Open) {
        self.challenger.next_round(open, next);
        self.champion.next_round(open, next);
    }

    /// Rounds that are still to come before anything counts.
    pub(super) fn warm_up_left(&self) -> u64 {
        self.challenger
            .warm_up_left()
            .max(self.champion.warm_up_left())
    }
}

// === impl Open ===

impl Open {
    /// All of them began in this round.
    pub(super) const fn at(round: u64) -> Self {
        Self {
            counts: round,
            parts: [round; PARTS],
        }
    }

    /// The same, but for those that begin anew in this round.
    pub(super) fn next(&self, anew: &Anew, round: u64) -> Self {
        let mut next = *self;
        if anew.counts {
            next.counts = round;
        }
        for (part, is_anew) in next.parts.iter_mut().zip(anew.parts) {
            if is_anew {
                *part = round;
            }
        }
        next
    }
}

// === impl Anew ===

impl Anew {
    pub(super) const ALL: Self = Self {
        counts: true,
        parts: [true; PARTS],
    };
}

// === impl Part ===

impl Part {
    fn read(loss: f64, usage: f64) -> Option<Self> {
        let is_sum = |tokens: f64| (0.0..=TOKENS_MOST).contains(&tokens);
        (is_sum(loss) && is_sum(usage)).then_some(Self { loss, usage })
    }

    fn since(&self, before: &Self) -> Option<Self> {
        Self::read(self.loss - before.loss, self.usage - before.usage)
    }

    /// Loss over usage; `None` while nothing was used.
    fn ratio(&self) -> Option<f64> {
        (self.usage > 0.0).then(|| self.loss / self.usage)
    }
}

// === impl Score ===

impl Score {
    /// Reads what a gateway says. `None` if that cannot be.
    pub(super) fn read(said: &ForecastScore) -> Option<Self> {
        let mut of_each = [None; MAX_RESOURCES];
        for one in &said.resources {
            let place = of_each.get_mut(usize::try_from(one.resource).ok()?)?;
            if place.replace(Part::read(one.loss, one.usage)?).is_some() {
                return None;
            }
        }
        let is_by_resource = !said.resources.is_empty();
        let mut parts = [None; PARTS];
        let (all, each) = parts.split_first_mut()?;
        *all = Some(Part::read(said.loss, said.usage)?);
        for (part, of_one) in each.iter_mut().zip(of_each) {
            // Of a resource that is not named nothing has matured.
            *part = is_by_resource.then(|| of_one.unwrap_or_default());
        }
        let fits = (1..=MATURED_MOST).contains(&said.matured) && said.covered <= said.matured;
        fits.then_some(Self {
            matured: said.matured,
            covered: said.covered,
            parts,
            is_by_resource,
        })
    }

    /// What has matured since `before`. `None` if nothing has, or the sums have begun anew in between.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let matured = self.matured.checked_sub(before.matured)?;
        let covered = self.covered.checked_sub(before.covered)?;
        let mut parts = [None; PARTS];
        let both = self.parts.iter().zip(&before.parts);
        for (part, (after, before)) in parts.iter_mut().zip(both) {
            *part = match (after, before) {
                (Some(after), Some(before)) => Some(after.since(before)?),
                _ => None,
            };
        }
        let fits = matured > 0 && covered <= matured;
        fits.then_some(Self {
            matured,
            covered,
            parts,
            is_by_resource: self.is_by_resource,
        })
    }

    /// Whether it cannot have grown out of `before`: the sums have begun anew.
    fn is_below(&self, before: &Self) -> bool {
        let shrinks = |(after, before): (&Option<Part>, &Option<Part>)| match (after, before) {
            (Some(after), Some(before)) => after.loss < before.loss || after.usage < before.usage,
            _ => false,
        };
        self.matured < before.matured
            || self.covered < before.covered
            || self.is_by_resource != before.is_by_resource
            || self.parts.iter().zip(&before.parts).any(shrinks)
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut parts = [None; PARTS];
        for (sum, (one, other)) in parts.iter_mut().zip(self.parts.iter().zip(&other.parts)) {
            *sum = one.zip(*other).map(|(one, other)| Part {
                loss: one.loss + other.loss,
                usage: one.usage + other.usage,
            });
        }
        Self {
            matured: self.matured.saturating_add(other.matured),
            covered: self.covered.saturating_add(other.covered),
            parts,
            is_by_resource: self.is_by_resource && other.is_by_resource,
        }
    }

    /// Forecasts, to reckon with.
    #[allow(clippy::cast_precision_loss)] // below 2^50
    pub(super) fn count(&self) -> f64 {
        self.matured as f64
    }

    /// Whether resources are told apart.
    pub(super) fn is_by_resource(&self) -> bool {
        self.is_by_resource
    }

    /// Loss and usage, in the order of [`PARTS`].
    pub(super) fn parts(&self) -> &[Option<Part>; PARTS] {
        &self.parts
    }

    fn has_usage_of(&self, other: &Self) -> bool {
        let usage = |part: &Option<Part>| part.map(|part| part.usage);
        self.parts
            .iter()
            .map(usage)
            .eq(other.parts.iter().map(usage))
    }

    /// Pinball loss over usage, in the mean of the resources that were used; `None` while nothing was.
    #[allow(clippy::cast_precision_loss)] // four at most
    pub(super) fn loss_per_usage(&self) -> Option<f64> {
        let (all, each) = self.parts.split_first()?;
        let parts = match self.is_by_resource {
            true => each,
            false => std::slice::from_ref(all),
        };
        let ratios = || parts.iter().flatten().filter_map(Part::ratio);
        let used = ratios().count();
        (used > 0).then(|| ratios().sum::<f64>() / used as f64)
    }

    /// Share of forecasts whose 0.9 quantile was not exceeded.
    #[allow(clippy::cast_precision_loss)] // counts below 2^50
    pub(super) fn coverage(&self) -> f64 {
        if self.matured == 0 {
            return 0.0;
        }
        self.covered as f64 / self.matured as f64
    }
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
