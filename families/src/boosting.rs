//! Gradient boosting of one quantile: small trees over binned features, each a step down the pinball loss.
//!
//! Trees are grown leaf by leaf on histograms of the loss' gradient, as LightGBM grows them (Ke et al., NeurIPS 2017), and each leaf then moves by a
//! part of the weighted quantile of its residuals rather than by its mean gradient: the pinball loss has no curvature that would say how
//! far to go (Friedman, Annals of Statistics 29, 2001, treats the absolute loss so).
//!
//! A crate was the better alternative, had there been one: `perpetual` needs a nightly compiler in each of its releases, `forust-ml` and `gbdt` have no quantiles.

/// Bins of a feature; number 0 is "not known".
const BINS: usize = 64;
/// Values that the edges between bins are taken from.
const EDGE_SAMPLE: usize = 20_000;
/// A split must gain more than this.
const GAIN_MIN: f64 = 1e-9;

/// How trees are grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BoostingSettings {
    pub(crate) trees: usize,
    /// Part of its quantile that a leaf moves by.
    pub(crate) rate: f64,
    /// Most leaves of a tree.
    pub(crate) leaves: usize,
    /// Rows of mean weight that a leaf has at least.
    pub(crate) leaf_rows: f64,
    /// Part of the features that a tree may use.
    pub(crate) feature_part: f64,
    /// Part of the rows that a tree is grown on.
    pub(crate) row_part: f64,
}

/// Where the bins of each feature end.
#[derive(Debug)]
pub(crate) struct Binner(Vec<Vec<f32>>);

/// Features as bins: all rows of the first feature, then of the next.
#[derive(Debug)]
pub(crate) struct Binned {
    bins: Vec<u8>,
    rows: usize,
    features: usize,
}

/// A sum of trees.
#[derive(Debug)]
pub(crate) struct Booster {
    start: f64,
    trees: Vec<Vec<Node>>,
}

/// A split, or a leaf where `left` is 0: the root is nobody's child.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    feature: u16,
    bin: u8,
    left: u32,
    right: u32,
    value: f32,
}

/// A leaf of a tree that grows.
struct Leaf {
    node: usize,
    rows: Vec<u32>,
    /// `[feature][bin]`: sums of gradients and of weights.
    histogram: Vec<[f64; 2]>,
    split: Split,
}

#[derive(Clone, Copy, Default)]
struct Split {
    gain: f64,
    feature: usize,
    bin: u8,
}

/// The same numbers each time (xorshift64*).
struct Draws(u64);

/// What a tree is grown on.
struct Grown<'a> {
    data: &'a Binned,
    gradients: &'a [f64],
    weights: &'a [f64],
    features: &'a [usize],
    leaf_weight: f64,
}

// === impl Draws ===

impl Draws {
    /// Evenly from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        high as f64 / (1_u64 << 53) as f64
    }
}

// === impl Binner ===

impl Binner {
    /// Bins with about as many of the rows each; a row is `features` numbers.
    pub(crate) fn new(rows: &[f64], features: usize) -> Self {
        let every = (rows.len() / features.max(1) / EDGE_SAMPLE).max(1);
        let edges = (0..features).map(|feature| {
            let column = rows.iter().skip(feature).step_by(features * every);
            let mut known: Vec<f32> = column
                .map(|value| *value as f32)
                .filter(|value| !value.is_nan())
                .collect();
            known.sort_unstable_by(f32::total_cmp);
            let last = BINS - 1;
            let mut edges: Vec<f32> = (1..last)
                .filter_map(|bin| known.get(bin * known.len() / last).copied())
                .collect();
            edges.dedup();
            edges
        });
        Self(edges.collect())
    }

    /// One row.
    pub(crate) fn row(&self, row: &[f64], out: &mut Vec<u8>) {
        let bins = self.0.iter().zip(row);
        out.extend(bins.map(|(edges, value)| bin_of(edges, *value)));
    }

    /// Many rows.
    pub(crate) fn all(&self, rows: &[f64]) -> Binned {
        let features = self.0.len();
        let count = rows.len() / features.max(1);
        let mut bins = Vec::with_capacity(rows.len());
        for (feature, edges) in self.0.iter().enumerate() {
            let column = rows.iter().skip(feature).step_by(features);
            bins.extend(column.map(|value| bin_of(edges, *value)));
        }
        Binned {
            bins,
            rows: count,
            features,
        }
    }
}

fn bin_of(edges: &[f32], value: f64) -> u8 {
    if value.is_nan() {
        return 0;
    }
    let bin = edges.partition_point(|edge| *edge < value as f32) + 1;
    u8::try_from(bin).unwrap_or(u8::MAX)
}

// === impl Binned ===

impl Binned {
    fn feature(&self, feature: usize) -> &[u8] {
        &self.bins[feature * self.rows..(feature + 1) * self.rows]
    }
}

// === impl Booster ===

impl Booster {
    /// Learns the quantile `level` of the targets. The same input gives the same trees.
    pub(crate) fn learn(
        data: &Binned,
        targets: &[f64],
        weights: &[f64],
        level: f64,
        settings: &BoostingSettings,
    ) -> Self {
        let mut draws = Draws(0x9E37_79B9_7F4A_7C15 ^ (level * 1e6) as u64);
        let mut all: Vec<(f64, f64)> = targets
            .iter()
            .copied()
            .zip(weights.iter().copied())
            .collect();
        let start = weighted_quantile(&mut all, level);
        let mean_weight = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let mut forecasts = vec![start; data.rows];
        let mut gradients = vec![0.0; data.rows];
        let mut trees = Vec::with_capacity(settings.trees);
        for _ in 0..settings.trees {
            let known = targets.iter().zip(&forecasts).zip(weights);
            for (gradient, ((target, forecast), weight)) in gradients.iter_mut().zip(known) {
                *gradient = weight
                    * if target > forecast {
                        level
                    } else {
                        level - 1.0
                    };
            }
            let rows: Vec<u32> = (0..data.rows as u32)
                .filter(|_| draws.next() < settings.row_part)
                .collect();
            let features: Vec<usize> = (0..data.features)
                .filter(|_| draws.next() < settings.feature_part)
                .collect();
            let grown = Grown {
                data,
                gradients: &gradients,
                weights,
                features: &features,
                leaf_weight: settings.leaf_rows * mean_weight,
            };
            let (mut tree, leaves) = grown.tree(rows, settings.leaves);
            for leaf in leaves {
                let residual = |row: &u32| {
                    let row = *row as usize;
                    (targets[row] - forecasts[row], weights[row])
                };
                let mut residuals: Vec<(f64, f64)> = leaf.rows.iter().map(residual).collect();
                let moved = settings.rate * weighted_quantile(&mut residuals, level);
                tree[leaf.node].value = moved as f32;
            }
            for (row, forecast) in forecasts.iter_mut().enumerate() {
                *forecast += leaf_value(&tree, |feature| data.feature(feature)[row]);
            }
            trees.push(tree);
        }
        Self { start, trees }
    }

    /// The forecast of a row of bins.
    pub(crate) fn forecast(&self, row: &[u8]) -> f64 {
        let moves = self
            .trees
            .iter()
            .map(|tree| leaf_value(tree, |feature| row[feature]));
        self.start + moves.sum::<f64>()
    }
}

fn leaf_value(tree: &[Node], bin: impl Fn(usize) -> u8) -> f64 {
    let mut node = tree[0];
    while node.left != 0 {
        let goes_left = bin(usize::from(node.feature)) <= node.bin;
        node = tree[if goes_left { node.left } else { node.right } as usize];
    }
    f64::from(node.value)
}

// === impl Grown ===

impl Grown<'_> {
    /// The tree, and its leaves without values.
    fn tree(&self, rows: Vec<u32>, leaves_most: usize) -> (Vec<Node>, Vec<Leaf>) {
        let mut nodes = vec![Node::default()];
        let histogram = self.histogram(&rows);
        let mut leaves = vec![self.leaf(0, rows, histogram)];
        while leaves.len() < leaves_most {
            let by_gain =
                |a: &(usize, &Leaf), b: &(usize, &Leaf)| a.1.split.gain.total_cmp(&b.1.split.gain);
            let best = leaves.iter().enumerate().max_by(by_gain);
            let Some((index, _)) = best.filter(|(_, leaf)| leaf.split.gain > GAIN_MIN) else {
                break;
            };
            let leaf = leaves.swap_remove(index);
            let bins = self.data.feature(leaf.split.feature);
            let goes_left = |row: &u32| bins[*row as usize] <= leaf.split.bin;
            let (left, right): (Vec<u32>, Vec<u32>) = leaf.rows.into_iter().partition(goes_left);
            // The histogram of one side is what the other leaves of the whole.
            let is_left_smaller = left.len() <= right.len();
            let smaller = self.histogram(if is_left_smaller { &left } else { &right });
            let mut larger = leaf.histogram;
            for (whole, part) in larger.iter_mut().zip(&smaller) {
                whole[0] -= part[0];
                whole[1] -= part[1];
            }
            let (of_left, of_right) = match is_left_smaller {
                true => (smaller, larger),
                false => (larger, smaller),
            };
            let at = nodes.len();
            nodes.extend([Node::default(); 2]);
            nodes[leaf.node] = Node {
                feature: leaf.split.feature as u16,
                bin: leaf.split.bin,
                left: at as u32,
                right: at as u32 + 1,
                value: 0.0,
            };
            leaves.push(self.leaf(at, left, of_left));
            leaves.push(self.leaf(at + 1, right, of_right));
        }
        (nodes, leaves)
    }

    fn leaf(&self, node: usize, rows: Vec<u32>, histogram: Vec<[f64; 2]>) -> Leaf {
        let split = self.best_split(&histogram);
        Leaf {
            node,
            rows,
            histogram,
            split,
        }
    }

    fn histogram(&self, rows: &[u32]) -> Vec<[f64; 2]> {
        let mut histogram = vec![[0.0; 2]; self.data.features * BINS];
        for feature in self.features {
            let bins = self.data.feature(*feature);
            let cells = &mut histogram[feature * BINS..(feature + 1) * BINS];
            for row in rows {
                let row = *row as usize;
                let cell = &mut cells[usize::from(bins[row])];
                cell[0] += self.gradients[row];
                cell[1] += self.weights[row];
            }
        }
        histogram
    }

    /// What lowers the loss most, with every row having the same curvature.
    fn best_split(&self, histogram: &[[f64; 2]]) -> Split {
        let score =
            |[gradient, weight]: [f64; 2]| gradient * gradient / weight.max(f64::MIN_POSITIVE);
        let plus = |a: [f64; 2], b: &[f64; 2]| [a[0] + b[0], a[1] + b[1]];
        let mut best = Split::default();
        for feature in self.features {
            let cells = &histogram[feature * BINS..(feature + 1) * BINS];
            let whole = cells.iter().fold([0.0; 2], plus);
            let mut left = [0.0; 2];
            for (bin, cell) in cells.iter().enumerate() {
                left = plus(left, cell);
                let right = [whole[0] - left[0], whole[1] - left[1]];
                if right[1] < self.leaf_weight {
                    break;
                }
                if left[1] < self.leaf_weight {
                    continue;
                }
                let gain = score(left) + score(right) - score(whole);
                if gain > best.gain {
                    best = Split {
                        gain,
                        feature: *feature,
                        bin: bin as u8,
                    };
                }
            }
        }
        best
    }
}

/// The least value with so large a part of the weight at or below it; 0 without values. Sorts them.
fn weighted_quantile(values: &mut [(f64, f64)], level: f64) -> f64 {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = level * values.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    let reached = values.iter().find(|(_, weight)| {
        sum += weight;
        sum >= wanted
    });
    reached.or(values.last()).map_or(0.0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BoostingSettings = BoostingSettings {
        trees: 60,
        rate: 0.2,
        leaves: 4,
        leaf_rows: 20.0,
        feature_part: 1.0,
        row_part: 1.0,
    };

    #[test]
    fn a_weighted_quantile_is_the_least_value_with_enough_weight_below_it() {
        let mut values = vec![(3.0, 1.0), (1.0, 1.0), (2.0, 8.0)];
        assert_eq!(weighted_quantile(&mut values, 0.1), 1.0);
        assert_eq!(weighted_quantile(&mut values, 0.5), 2.0);
        assert_eq!(weighted_quantile(&mut values, 0.95), 3.0);
        assert_eq!(weighted_quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn quantiles_of_a_step_are_learned_on_both_sides_and_where_nothing_is_known() {
        // Below one half targets lie evenly in 0..1, above in 10..20, unknown in 5..6.
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let mut draws = Draws(1);
        for i in 0..6_000 {
            let (x, noise) = (draws.next(), draws.next());
            let unknown = i % 3 == 0;
            rows.extend([if unknown { f64::NAN } else { x }, draws.next()]);
            targets.push(match (unknown, x < 0.5) {
                (true, _) => 5.0 + noise,
                (false, true) => noise,
                (false, false) => 10.0 + 10.0 * noise,
            });
        }
        let binner = Binner::new(&rows, 2);
        let data = binner.all(&rows);
        let booster = Booster::learn(&data, &targets, &vec![1.0; targets.len()], 0.9, &SETTINGS);
        for (x, expected) in [(0.2, 0.9), (0.8, 19.0), (f64::NAN, 5.9)] {
            let mut row = Vec::new();
            binner.row(&[x, 0.5], &mut row);
            let found = booster.forecast(&row);
            assert!(
                (found - expected).abs() < 0.05 * f64::max(expected, 2.0),
                "{x}: {found} instead of {expected}"
            );
        }
    }
}
