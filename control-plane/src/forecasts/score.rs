//! What came of forecasts.
//!
//! Of each series and horizon one forecast waits for its outcome at a time, so outcomes do not overlap and each counts once. What was said is kept as it was said: no forecast is made
//! anew for its score.

use super::forecast::{Made, UPPER};
use forebay_families::{CLIMATE, QUANTILES, pinball, ranked_probability_score};

/// Forecasts this close below an outcome, as a part of it, count as right: they are in single precision.
const SLACK: f64 = 2e-7;

/// Sums over outcomes since the start; rates in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    pub(crate) matured: u64,
    /// Forecasts whose time was over when their outcome was not known: of customers that were not among the largest any more, or of steps that were gaps. Who is large
    /// depends on what came, so what is scored without them is a choice, and they are counted.
    pub(crate) unscored: u64,
    /// Mean rates at or below their 0.9 quantile.
    pub(crate) covered: u64,
    /// Peak steps at or below theirs.
    pub(crate) peaks_covered: u64,
    /// Pinball losses of the 0.9 quantile of mean rates.
    pub(crate) loss: f64,
    /// Mean rates that came.
    pub(crate) usage: f64,
    /// Outcomes for which there were odds, and the ranked probability scores of those and of the usual odds.
    pub(crate) odds: u64,
    pub(crate) odds_loss: f64,
    pub(crate) usual_odds_loss: f64,
}

// === impl Score ===

impl Score {
    /// Nobody knows what came.
    pub(super) fn miss(&mut self) {
        self.unscored = self.unscored.saturating_add(1);
    }

    /// Takes in what came.
    pub(super) fn take(&mut self, made: &Made, mean: f64, peak: f64) {
        let [said, said_of_peak] = [made.mean, made.peak].map(|row| f64::from(row[UPPER]));
        let is_within = |came: f64, said: f64| u64::from(came * (1.0 - SLACK) <= said);
        self.matured = self.matured.saturating_add(1);
        self.covered = self.covered.saturating_add(is_within(mean, said));
        let peaks = is_within(peak, said_of_peak);
        self.peaks_covered = self.peaks_covered.saturating_add(peaks);
        self.loss += pinball(QUANTILES[UPPER], said, mean);
        self.usage += mean;
        if let Some(scenarios) = made.scenarios {
            let came = scenarios.class(mean);
            let odds = scenarios.probabilities(&made.mean);
            self.odds = self.odds.saturating_add(1);
            self.odds_loss += ranked_probability_score(&odds, came);
            self.usual_odds_loss += ranked_probability_score(&CLIMATE, came);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_what_was_said_of_them() {
        let made = Made {
            mean: [1.0, 2.0, 10.0, 12.0],
            peak: [2.0, 4.0, 20.0, 30.0],
            scenarios: None,
        };
        let mut score = Score::default();
        score.take(&made, 10.0, 21.0);
        score.take(&made, 20.0, 20.0);
        score.miss();
        assert_eq!(
            (
                score.matured,
                score.covered,
                score.peaks_covered,
                score.unscored
            ),
            (2, 1, 1, 1)
        );
        assert!((score.loss - 9.0).abs() < 1e-9 && score.usage == 30.0);
        assert_eq!((score.odds, score.odds_loss), (0, 0.0));
    }
}
