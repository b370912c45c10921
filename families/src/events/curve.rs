//! How demand rises and falls in the course of an event, as logarithms of how many times the usual it is.

/// Bins before, during and after: as fine as some occurrences can fill.
const BEFORE: usize = 4;
const DURING: usize = 8;
const AFTER: usize = 4;
const BINS: usize = BEFORE + DURING + AFTER;
/// Variance between occurrences that is supposed before they have shown theirs: one occurrence says little of small effects and much of large ones.
const VARIANCE: f64 = 0.04;

/// Means over occurrences, and the time that they are of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed([Bin; BINS]);

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: f64,
    sum: f64,
    squares: f64,
    /// Sum of the positions of what was observed: a bin may be wider than a step.
    positions: f64,
}

/// A curve over positions from -1 to 2.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curve(Vec<(f64, f64)>);

// === impl Observed ===

impl Observed {
    /// The bin of a position from -1 to 2.
    pub(crate) fn bin(position: f64) -> usize {
        let (first, part, bins) = match position {
            ..0.0 => (0, position + 1.0, BEFORE),
            0.0..1.0 => (BEFORE, position, DURING),
            _ => (BEFORE + DURING, position - 1.0, AFTER),
        };
        first + ((part * bins as f64) as usize).min(bins - 1)
    }

    /// Adds an occurrence: positions with logarithms of how many times the usual demand was.
    pub(crate) fn add(&mut self, occurrence: &[(f64, f64)]) {
        let mut means = [(0.0, 0.0, 0.0); BINS];
        for (position, log) in occurrence {
            let (count, logs, positions) = &mut means[Self::bin(*position)];
            *count += 1.0;
            *logs += log;
            *positions += position;
        }
        for (bin, (count, logs, positions)) in self.0.iter_mut().zip(means) {
            if count > 0.0 {
                let mean = logs / count;
                bin.count += 1.0;
                bin.sum += mean;
                bin.squares += mean * mean;
                bin.positions += positions / count;
            }
        }
    }

    /// What was observed, as far as it can be told from what was supposed: the more occurrences, the more alike, and the larger the
    /// distance, the nearer to their mean (the positive part of James' and Stein's estimator, with the variance between occurrences for each bin).
    pub(crate) fn curve(&self, supposed: &Curve) -> Curve {
        let seen = self.0.iter().filter(|bin| bin.count > 0.0);
        let points = seen.map(|bin| {
            let position = bin.positions / bin.count;
            let mean = bin.sum / bin.count;
            let spread = (bin.squares / bin.count - mean * mean).max(0.0);
            let variance = spread + VARIANCE / bin.count;
            let before = supposed.at(position);
            let distance = (mean - before) * (mean - before);
            let sure = (1.0 - variance / bin.count / distance.max(f64::MIN_POSITIVE)).max(0.0);
            (position, before + sure * (mean - before))
        });
        // It begins and ends with nothing: a step from there to the first bin's mean would be the curve's, and not the demand's.
        let (begins, ends) = (-1.0, 2.0);
        let edges = |at: f64| std::iter::once((at, 0.0));
        Curve(edges(begins).chain(points).chain(edges(ends)).collect())
    }
}

// === impl Curve ===

impl Curve {
    /// The same factor during all of the event.
    pub(crate) fn flat(factor: f64) -> Self {
        let log = factor.max(1e-3).ln();
        let edge = 1e-9;
        Self(vec![
            (-edge, 0.0),
            (0.0, log),
            (1.0 - edge, log),
            (1.0, 0.0),
        ])
    }

    /// Between what is known on either side; the nearest beyond.
    pub(crate) fn at(&self, position: f64) -> f64 {
        let next = self.0.partition_point(|(at, _)| *at < position);
        let before = next.checked_sub(1).map(|last| self.0[last]);
        match (before, self.0.get(next).copied()) {
            (None, None) => 0.0,
            (Some((_, log)), None) | (None, Some((_, log))) => log,
            (Some((from, a)), Some((to, b))) => a + (b - a) * (position - from) / (to - from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_a_bin_of_its_part() {
        let bins = [-1.0, -1e-9, 0.0, 0.999, 1.0, 1.999].map(Observed::bin);
        assert_eq!(bins, [0, 3, 4, 11, 12, 15]);
    }

    #[test]
    fn large_effects_are_believed_at_once_and_small_ones_after_many_occurrences() {
        let seen = |log: f64, times: usize| {
            let mut observed = Observed::default();
            (0..times).for_each(|_| observed.add(&[(0.1, log), (0.12, log)]));
            observed.curve(&Curve::default()).at(0.11)
        };
        assert!(seen(1.0, 1) > 0.95);
        assert!(seen(0.05, 1) < 0.01);
        assert!(seen(0.05, 20) > 0.045);
    }

    #[test]
    fn occurrences_that_contradict_each_other_say_nothing() {
        let mut observed = Observed::default();
        for log in [0.5, -0.5, 0.4, -0.4] {
            observed.add(&[(0.5, log)]);
        }
        assert!(observed.curve(&Curve::flat(1.5)).at(0.5).abs() < 1.5_f64.ln());
        assert!(observed.curve(&Curve::default()).at(0.5).abs() < 1e-9);
    }

    #[test]
    fn a_curve_begins_and_ends_with_nothing() {
        let mut observed = Observed::default();
        observed.add(&[(-0.9, 2.0), (0.5, 2.0), (1.9, 2.0)]);
        let curve = observed.curve(&Curve::default());
        assert_eq!([-1.0, 2.0].map(|at| curve.at(at)), [0.0, 0.0]);
        assert!(curve.at(-0.95) > 0.9 && curve.at(0.5) > 1.9);
    }

    #[test]
    fn a_curve_is_linear_between_what_was_seen() {
        let curve = Curve(vec![(0.0, 1.0), (1.0, 3.0)]);
        assert_eq!([-0.5, 0.25, 1.5].map(|at| curve.at(at)), [1.0, 1.5, 3.0]);
    }
}
