//! Learned matrices by name, and how a gradient changes them (Adam, with a running average of the weights).
//!
//! Plain vectors rather than burn modules: the exporter, the checkpoint and the average all want the numbers, and an
//! optimiser over forty thousand of them is thirty lines.

use std::collections::BTreeMap;

use forebay_traces::generator::SeededRandom;

use crate::network::{Shape, Start};
use crate::tape::Matrix;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
/// Decoupled weight decay per unit of learning rate: keeps unused inputs from drifting.
const DECAY: f32 = 1e-3;
/// A gradient longer than this is shortened: one bursty batch must not undo a hundred quiet ones.
const GRADIENT_NORM_MAX: f32 = 1.0;
/// Share of the running average that each update replaces.
const AVERAGE_RATE: f32 = 0.005;

/// All learned matrices of a network.
pub(crate) type Weights = BTreeMap<String, Matrix>;

/// The state of training: current weights, their running average and Adam's moments.
pub(crate) struct Optimiser {
    /// Weights that gradients are taken at.
    pub(crate) current: Weights,
    /// Their running average: what is validated and exported. It is as good as a much longer, slower training.
    pub(crate) average: Weights,
    first: Weights,
    second: Weights,
    updates: i32,
}

/// Random first weights.
pub(crate) fn start(shape: &Shape, random: &mut SeededRandom) -> Weights {
    shape
        .parameters()
        .into_iter()
        .map(|parameter| {
            let deviation = (2.0 / (parameter.rows + parameter.columns) as f32).sqrt();
            let matrix = Matrix::from_fn(parameter.rows, parameter.columns, |_, _| match parameter
                .start
            {
                Start::Glorot => deviation * random.normal() as f32,
                Start::Value(value) => value,
            });
            (parameter.name.to_owned(), matrix)
        })
        .collect()
}

// === impl Optimiser ===

impl Optimiser {
    pub(crate) fn new(weights: Weights) -> Self {
        let zeros: Weights = weights
            .iter()
            .map(|(name, matrix)| {
                (
                    name.clone(),
                    Matrix::filled(matrix.rows, matrix.columns, 0.0),
                )
            })
            .collect();
        Self {
            average: weights.clone(),
            current: weights,
            first: zeros.clone(),
            second: zeros,
            updates: 0,
        }
    }

    /// One step against the gradients.
    pub(crate) fn update(&mut self, gradients: &BTreeMap<String, Vec<f32>>, rate: f32) {
        let norm = gradients
            .values()
            .flatten()
            .map(|g| g * g)
            .sum::<f32>()
            .sqrt();
        if !norm.is_finite() {
            return;
        }
        let shorten = (GRADIENT_NORM_MAX / norm.max(f32::MIN_POSITIVE)).min(1.0);
        self.updates += 1;
        let unbias1 = 1.0 - BETA1.powi(self.updates);
        let unbias2 = 1.0 - BETA2.powi(self.updates);
        // Early on the average follows closely, so that it does not remember the random start.
        let follow = AVERAGE_RATE.max(1.0 / (1 + self.updates) as f32);
        for (name, weight) in &mut self.current {
            let (Some(gradient), Some(first), Some(second), Some(average)) = (
                gradients.get(name),
                self.first.get_mut(name),
                self.second.get_mut(name),
                self.average.get_mut(name),
            ) else {
                continue;
            };
            let state = first.values.iter_mut().zip(&mut second.values);
            let weights = weight.values.iter_mut().zip(&mut average.values);
            for (((m, v), (w, mean)), g) in state.zip(weights).zip(gradient) {
                let g = g * shorten;
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                let step = (*m / unbias1) / ((*v / unbias2).sqrt() + EPSILON);
                *w -= rate * (step + DECAY * *w);
                *mean += follow * (*w - *mean);
            }
        }
    }
}
