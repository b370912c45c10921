//! The network: a GRU over patches of the recent usage beside the same span one season earlier, which predicts how far
//! the logarithm of usage moves away from its last value.
//!
//! Choices and the worse alternatives:
//! - *Patches.* One recurrent step reads several usage steps. Step by step, 48 steps cost more than Envoy's main thread
//!   can give, and a plain dense layer over 48 steps forgets their order.
//! - *The change, in logarithms of scaled usage.* Levels are easier to say and score worse at short horizons; linear
//!   changes cannot say "twice as much as usual" for customers of different sizes.
//! - *Scale inside the graph*, from the mean of the window and of the season: whoever runs the file need not know it.
//! - *Quantiles as median plus or minus sums of positive steps*: they cannot cross.

use crate::tape::{Matrix, Tape};

/// Usage this small, in units of the scale, is not told apart from zero.
const LOG_FLOOR: f32 = 0.1;
/// Below this mean per step (tokens) the scale stays put, so that silence divides by something.
const SCALE_MIN: f32 = 1e-3;
/// `e^LOG_MAX` times the scale is the highest forecast; it keeps the exponential finite.
const LOG_MAX: f32 = 8.0;
/// Newest steps of the window that the head sees directly, beside the recurrent state.
const TAIL_STEPS: usize = 12;
/// Steps before the forecast ones, one season earlier, that the head sees directly.
const SEASON_LEAD_STEPS: usize = 6;

/// Sizes of a network.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// Steps of usage: `W`, a multiple of `patch`.
    pub(crate) window: usize,
    /// Forecast steps: `H`.
    pub(crate) horizons: usize,
    /// Forecast quantiles; 0.5 is among them.
    pub(crate) quantiles: Vec<f32>,
    /// Calendar features: `C`.
    pub(crate) calendar: usize,
    /// Usage steps per recurrent step.
    pub(crate) patch: usize,
    /// Size of the recurrent state.
    pub(crate) hidden: usize,
    /// Size of the dense layer.
    pub(crate) dense: usize,
}

/// What the network reads; one row per sample.
pub(crate) struct Inputs<V> {
    /// `[N, W]`.
    pub(crate) usage: V,
    /// `[N, W]`.
    pub(crate) mask: V,
    /// `[N, W]`: usage one season earlier, ending with the forecast steps.
    pub(crate) season: V,
    /// `[N, W]`.
    pub(crate) season_mask: V,
    /// `[N, C]` of the last forecast step.
    pub(crate) calendar: V,
}

/// A learned matrix: its name, size and how it starts.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) start: Start,
}

/// First values of a learned matrix.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Random, with the variance that keeps signals of this many inputs and outputs alive (Glorot).
    Glorot,
    /// The same everywhere.
    Value(f32),
}

// === impl Shape ===

impl Shape {
    fn median(&self) -> usize {
        self.quantiles
            .iter()
            .position(|q| *q == 0.5)
            .unwrap_or(self.quantiles.len() / 2)
    }

    fn patches(&self) -> usize {
        self.window / self.patch
    }

    fn tail(&self) -> usize {
        TAIL_STEPS.min(self.window)
    }

    fn season_tail(&self) -> usize {
        (self.horizons + SEASON_LEAD_STEPS).min(self.window)
    }

    fn head_inputs(&self) -> usize {
        self.hidden + self.tail() + self.season_tail() + self.calendar + 2
    }

    fn spreads(&self) -> usize {
        self.horizons * (self.quantiles.len() - 1)
    }

    /// Floats of one output row.
    pub(crate) fn outputs(&self) -> usize {
        self.horizons * self.quantiles.len()
    }

    /// Every learned matrix.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let parameter = |name, rows, columns, start| Parameter {
            name,
            rows,
            columns,
            start,
        };
        let gates = 3 * self.hidden;
        let head = self.head_inputs();
        vec![
            parameter("gru.input", 2 * self.patch + 1, gates, Start::Glorot),
            parameter("gru.input_bias", 1, gates, Start::Value(0.0)),
            parameter("gru.state", self.hidden, gates, Start::Glorot),
            parameter("gru.state_bias", 1, gates, Start::Value(0.0)),
            parameter("dense.weight", head, self.dense, Start::Glorot),
            parameter("dense.bias", 1, self.dense, Start::Value(0.0)),
            // Zero: the first forecast is "as the last value", and training moves away from it.
            parameter("median.direct", head, self.horizons, Start::Value(0.0)),
            parameter("median.dense", self.dense, self.horizons, Start::Value(0.0)),
            parameter("median.bias", 1, self.horizons, Start::Value(0.0)),
            parameter("spread.dense", self.dense, self.spreads(), Start::Glorot),
            // softplus(-1) is 0.31: quantiles start about 30 % apart.
            parameter("spread.bias", 1, self.spreads(), Start::Value(-1.0)),
        ]
    }

    /// Matrix that copies the median of each horizon to all of its quantiles.
    fn median_to_quantiles(&self) -> Matrix {
        let q = self.quantiles.len();
        Matrix::from_fn(self.horizons, self.outputs(), |h, out| {
            f32::from(u8::from(out / q == h))
        })
    }

    /// Matrix that adds up the positive steps between neighbouring quantiles, away from the median.
    fn spreads_to_quantiles(&self) -> Matrix {
        let (q, median) = (self.quantiles.len(), self.median());
        Matrix::from_fn(self.spreads(), self.outputs(), |spread, out| {
            let (h, gap) = (spread / (q - 1), spread % (q - 1));
            let quantile = out % q;
            if out / q != h {
                0.0
            } else if gap >= median && quantile > gap {
                1.0
            } else if gap < median && quantile <= gap {
                -1.0
            } else {
                0.0
            }
        })
    }
}

/// The forward pass: tokens per step, `[N, H * Q]`.
pub(crate) fn forward<T: Tape>(tape: &mut T, shape: &Shape, inputs: &Inputs<T::Value>) -> T::Value {
    let scale = scale(tape, shape, inputs);
    let usage = logs(tape, &inputs.usage, &scale);
    let season = logs(tape, &inputs.season, &scale);
    let last = tape.columns(&usage, shape.window - 1..shape.window);
    let usage = tape.sub(&usage, &last);
    let season = tape.sub(&season, &last);
    // A season that was never seen says "as now".
    let season = tape.mul(&season, &inputs.season_mask);

    let state = recurrent(tape, shape, &usage, &season, &inputs.mask);
    let tail = tape.columns(&usage, shape.window - shape.tail()..shape.window);
    let season_tail = tape.columns(&season, shape.window - shape.season_tail()..shape.window);
    let season_known = tape.columns(&inputs.season_mask, shape.window - 1..shape.window);
    let head = tape.join(&[
        state,
        tail,
        season_tail,
        season_known,
        last.clone(),
        inputs.calendar.clone(),
    ]);

    let dense = affine(tape, &head, "dense.weight", "dense.bias");
    let dense = tape.tanh(&dense);
    let median = affine(tape, &dense, "median.dense", "median.bias");
    let direct = tape.weight("median.direct");
    let direct = tape.matmul(&head, &direct);
    let median = tape.add(&median, &direct);
    let median = tape.add(&median, &last);
    let spread = affine(tape, &dense, "spread.dense", "spread.bias");
    let spread = tape.softplus(&spread);

    let expand = tape.constant("median_to_quantiles", shape.median_to_quantiles());
    let accumulate = tape.constant("spreads_to_quantiles", shape.spreads_to_quantiles());
    let median = tape.matmul(&median, &expand);
    let spread = tape.matmul(&spread, &accumulate);
    let logs = tape.add(&median, &spread);
    let logs = tape.clamp(&logs, LOG_FLOOR.ln(), LOG_MAX);
    let amounts = tape.exp(&logs);
    let floor = tape.constant("log_floor", Matrix::filled(1, 1, LOG_FLOOR));
    let amounts = tape.sub(&amounts, &floor);
    // e^ln(floor) - floor may round to a tiny negative number.
    let amounts = tape.clamp(&amounts, 0.0, f32::MAX);
    tape.mul(&amounts, &scale)
}

/// Mean usage per step over the window and the season, `[N, 1]`.
fn scale<T: Tape>(tape: &mut T, shape: &Shape, inputs: &Inputs<T::Value>) -> T::Value {
    let ones = tape.constant("ones", Matrix::filled(shape.window, 1, 1.0));
    let now = tape.mul(&inputs.usage, &inputs.mask);
    let then = tape.mul(&inputs.season, &inputs.season_mask);
    let total = tape.add(&now, &then);
    let total = tape.matmul(&total, &ones);
    let count = tape.add(&inputs.mask, &inputs.season_mask);
    let count = tape.matmul(&count, &ones);
    let count = tape.clamp(&count, 1.0, f32::MAX);
    let mean = tape.div(&total, &count);
    tape.clamp(&mean, SCALE_MIN, f32::MAX)
}

fn logs<T: Tape>(tape: &mut T, amounts: &T::Value, scale: &T::Value) -> T::Value {
    let scaled = tape.div(amounts, scale);
    let floor = tape.constant("log_floor", Matrix::filled(1, 1, LOG_FLOOR));
    let scaled = tape.add(&scaled, &floor);
    tape.log(&scaled)
}

/// The state after the last patch, `[N, hidden]`.
fn recurrent<T: Tape>(
    tape: &mut T,
    shape: &Shape,
    usage: &T::Value,
    season: &T::Value,
    mask: &T::Value,
) -> T::Value {
    let patches = shape.patches();
    let average = Matrix::from_fn(shape.window, patches, |step, patch| {
        f32::from(u8::from(step / shape.patch == patch)) / shape.patch as f32
    });
    let average = tape.constant("patch_average", average);
    let known = tape.matmul(mask, &average);
    let usage = tape.reshape(usage, shape.patch);
    let season = tape.reshape(season, shape.patch);
    let known = tape.reshape(&known, 1);
    let inputs = tape.join(&[usage, season, known]);
    tape.gru(&inputs, patches)
}

fn affine<T: Tape>(tape: &mut T, input: &T::Value, weight: &str, bias: &str) -> T::Value {
    let weight = tape.weight(weight);
    let bias = tape.weight(bias);
    let product = tape.matmul(input, &weight);
    tape.add(&product, &bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn quantiles_add_up_from_the_median_outwards() {
        let shape = Shape {
            horizons: 2,
            ..Recipe::servegen_10m().shape()
        };
        // One spread of 1 between neighbouring quantiles of the first horizon, of 2 in the second.
        let spreads = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0];
        let matrix = shape.spreads_to_quantiles();
        let out: Vec<f32> = (0..shape.outputs())
            .map(|column| {
                (0..spreads.len())
                    .map(|row| spreads[row] * matrix.values[row * matrix.columns + column])
                    .sum()
            })
            .collect();
        assert_eq!(out, [-1.0, 0.0, 1.0, 2.0, -2.0, 0.0, 2.0, 4.0]);
        let median = shape.median_to_quantiles();
        assert_eq!(median.values[..8], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
