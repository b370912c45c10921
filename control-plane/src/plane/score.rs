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
}

// === impl Scores ===

impl Scores {
    /// Takes note of what the gateway says of the model that it runs.
    pub(super) fn hear(&mut self, status: &ModelStatus) {
        let digest = ModelDigest::try_from(status.digest.as_slice()).ok();
        let score = status.score.as_ref().and_then(Score::read);
        self.newest = digest.zip(score);
    }

    /// The newest: of which model, and its sums.
    #[must_use]
    pub fn newest(&self) -> Option<(ModelDigest, Score)> {
        self.newest
    }

    /// A round is over and another one begins. Returns what has matured in it, if one and the same model ran.
    pub(super) fn next_round(&mut self, over: u64, next: u64) -> Option<(ModelDigest, Score)> {
        let newest = self.newest;
        let start = self.at_start.take();
        self.at_start = newest.map(|(digest, score)| (next, digest, score));
        let ((digest, after), (round, of, before)) = newest.zip(start)?;
        let since = after.since(&before)?;
        (round == over && of == digest).then_some((digest, since))
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

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            matured: self.matured.saturating_add(other.matured),
            covered: self.covered.saturating_add(other.covered),
            loss: self.loss + other.loss,
            usage: self.usage + other.usage,
        }
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
        assert_eq!(between.loss_per_usage(), Some(0.2));
        assert_eq!(between.coverage(), 0.75);
        assert_eq!(before.since(&after), None, "it has begun anew");
        assert_eq!(before.since(&before), None, "nothing has matured");
        let jumped = score(11, 12 - 1, 0.5, 30.0);
        assert_eq!(jumped.since(&before), None, "losses do not shrink");
    }
}
