//! What a gateway says of its model's forecasts, as far as it can be believed.
//!
//! The numbers come over the network, floats among them. They are read once, here, and whatever does not fit is as if it had not been
//! said: a sync must not fail for what only decides about models.

use forebay_wire::model::ModelDigest;
use forebay_wire::sync::{ForecastScore, ModelStatus};

/// Forecasts that a gateway can have made in its life.
const MATURED_MOST: u64 = 1 << 50;
/// Tokens that they can have been about.
const TOKENS_MOST: f64 = 1e18;

/// Rounds of which nothing counts after a gateway's sums have begun: a gateway that has swapped its model, or was started anew, has learned
/// nothing about its customers yet, and the others have.
pub(super) const WARM_UP_ROUNDS: u64 = 30;

/// Sums over forecasts that have matured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Forecasts.
    pub matured: u64,
    covered: u64,
    loss: f64,
    usage: f64,
}

/// What one gateway has said, and had said when the round began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    newest: Option<(ModelDigest, Score)>,
    /// With the number of the round.
    at_start: Option<(u64, ModelDigest, Score)>,
    /// Rounds in which something has matured since the sums began.
    rounds: u64,
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

    /// What has matured since the round `open` began, if one and the same model ran.
    pub(super) fn in_round(&self, open: u64) -> Option<(ModelDigest, Score)> {
        let ((digest, after), (round, of, before)) = self.newest.zip(self.at_start)?;
        let since = after.since(&before)?;
        (round == open && of == digest).then_some((digest, since))
    }

    /// The round `open` is over, and another one begins.
    pub(super) fn next_round(&mut self, open: u64, next: u64) {
        if self.in_round(open).is_some() {
            self.rounds = self.rounds.saturating_add(1);
        }
        self.at_start = self.newest.map(|(digest, score)| (next, digest, score));
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
                challenger.matured == champion.matured && challenger.usage == champion.usage;
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

    /// What has matured since the round `open` began: the challenger's, and that of the model in force.
    pub(super) fn in_round(&self, open: u64) -> Option<(ModelDigest, (Score, Score))> {
        let (digest, challenger) = self.challenger.in_round(open)?;
        let (_, champion) = self.champion.in_round(open)?;
        Some((digest, (challenger, champion)))
    }

    /// The round `open` is over, and another one begins.
    pub(super) fn next_round(&mut self, open: u64, next: u64) {
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

// === impl Score ===

impl Score {
    /// Reads what a gateway says. `None` if that cannot be.
    pub(super) fn read(said: &ForecastScore) -> Option<Self> {
        let is_sum = |tokens: f64| (0.0..=TOKENS_MOST).contains(&tokens);
        let fits = (1..=MATURED_MOST).contains(&said.matured)
            && said.covered <= said.matured
            && is_sum(said.loss)
            && is_sum(said.usage);
        fits.then_some(Self {
            matured: said.matured,
            covered: said.covered,
            loss: said.loss,
            usage: said.usage,
        })
    }

    /// What has matured since `before`. `None` if nothing has, or the sums have begun anew in between.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let matured = self.matured.checked_sub(before.matured)?;
        let covered = self.covered.checked_sub(before.covered)?;
        let (loss, usage) = (self.loss - before.loss, self.usage - before.usage);
        let fits = matured > 0 && covered <= matured && loss >= 0.0 && usage >= 0.0;
        fits.then_some(Self {
            matured,
            covered,
            loss,
            usage,
        })
    }

    /// Whether it cannot have grown out of `before`: the sums have begun anew.
    fn is_below(&self, before: &Self) -> bool {
        self.matured < before.matured
            || self.covered < before.covered
            || self.loss < before.loss
            || self.usage < before.usage
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            matured: self.matured.saturating_add(other.matured),
            covered: self.covered.saturating_add(other.covered),
            loss: self.loss + other.loss,
            usage: self.usage + other.usage,
        }
    }

    /// Forecasts, to reckon with.
    #[allow(clippy::cast_precision_loss)] // below 2^50
    pub(super) fn count(&self) -> f64 {
        self.matured as f64
    }

    /// Pinball loss.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// What was used.
    pub(super) fn usage(&self) -> f64 {
        self.usage
    }

    /// Pinball loss over usage; `None` while nothing was used.
    pub(super) fn loss_per_usage(&self) -> Option<f64> {
        (self.usage > 0.0).then(|| self.loss / self.usage)
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
mod tests {
    use super::*;
    use forebay_wire::sync::ModelStatus;

    fn said(matured: u64, covered: u64, loss: f64, usage: f64) -> ForecastScore {
        ForecastScore {
            matured,
            covered,
            loss,
            usage,
        }
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        assert!(Score::read(&said(10, 9, 1.0, 20.0)).is_some());
        for wrong in [
            said(0, 0, 0.0, 0.0),
            said(10, 11, 1.0, 20.0),
            said(u64::MAX, 0, 1.0, 20.0),
            said(10, 9, f64::NAN, 20.0),
            said(10, 9, -1.0, 20.0),
            said(10, 9, f64::INFINITY, 20.0),
            said(10, 9, 1.0, f64::NAN),
            said(10, 9, 1.0, -0.5),
            said(10, 9, 1.0, f64::MAX),
        ] {
            assert_eq!(Score::read(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_difference_is_what_happened_in_between_and_never_negative() {
        let score = |matured, covered, loss, usage| {
            Score::read(&said(matured, covered, loss, usage)).unwrap()
        };
        let (before, after) = (score(10, 9, 1.0, 20.0), score(14, 12, 3.0, 30.0));
        let between = after.since(&before).unwrap();
        assert_eq!((between.loss(), between.usage()), (2.0, 10.0));
        assert_eq!(between.coverage(), 0.75);
        assert_eq!(before.since(&after), None, "it has begun anew");
        assert_eq!(before.since(&before), None, "nothing has matured");
        let jumped = score(11, 12 - 1, 0.5, 30.0);
        assert_eq!(jumped.since(&before), None, "losses do not shrink");
    }

    #[test]
    fn a_gateway_warms_up_anew_when_its_sums_or_its_model_begin_anew() {
        let mut scores = Scores::default();
        let mut round = 0;
        let mut live = |scores: &mut Scores, model: u8, matured: u64| {
            scores.hear(&ModelStatus {
                digest: vec![model; 32],
                score: Some(said(matured, matured, 1.0, matured as f64)),
                ..ModelStatus::default()
            });
            scores.next_round(round, round + 1);
            round += 1;
        };
        for matured in 1..=WARM_UP_ROUNDS + 1 {
            assert!(scores.warm_up_left() > 0, "{matured}");
            live(&mut scores, 1, matured);
        }
        assert_eq!(scores.warm_up_left(), 0);
        live(&mut scores, 1, 5);
        assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS, "its sums fell");
        live(&mut scores, 1, 6);
        assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS - 1);
        live(&mut scores, 2, 7);
        assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS, "another model");
    }
}
