//! The network computed by burn, with gradients when training and without them when checking.

use std::collections::BTreeMap;
use std::ops::Range;

use burn_core::tensor::{Device, Tensor, TensorData, activation};

use crate::tape::{Matrix, Tape};
use crate::weights::Weights;

/// Computes values at once. Weights are leaves of the gradient graph when the device has autodiff.
pub(crate) struct GradientTape<'a> {
    device: &'a Device,
    weights: &'a Weights,
    used: BTreeMap<String, Tensor<2>>,
    constants: BTreeMap<String, Tensor<2>>,
}

/// A matrix as a tensor of burn.
pub(crate) fn tensor(matrix: Matrix, device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(matrix.values, [matrix.rows, matrix.columns]),
        device,
    )
}

// === impl GradientTape ===

impl<'a> GradientTape<'a> {
    pub(crate) fn new(weights: &'a Weights, device: &'a Device) -> Self {
        Self {
            device,
            weights,
            used: BTreeMap::new(),
            constants: BTreeMap::new(),
        }
    }

    /// Gradients of `loss` at every weight that was used.
    pub(crate) fn gradients(&self, loss: &Tensor<1>) -> BTreeMap<String, Vec<f32>> {
        let gradients = loss.backward();
        self.used
            .iter()
            .filter_map(|(name, weight)| {
                let gradient = weight.grad(&gradients)?.into_data().try_to_vec().ok()?;
                Some((name.clone(), gradient))
            })
            .collect()
    }
}

impl Tape for GradientTape<'_> {
    type Value = Tensor<2>;

    fn weight(&mut self, name: &str) -> Tensor<2> {
        if let Some(weight) = self.used.get(name) {
            return weight.clone();
        }
        let mut weight = tensor(self.weights[name].clone(), self.device);
        if self.device.is_autodiff() {
            weight = weight.require_grad();
        }
        self.used.insert(name.to_owned(), weight.clone());
        weight
    }

    fn constant(&mut self, name: &str, matrix: Matrix) -> Tensor<2> {
        self.constants
            .entry(name.to_owned())
            .or_insert_with(|| tensor(matrix, self.device))
            .clone()
    }

    fn matmul(&mut self, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a.clone().matmul(b.clone())
    }

    fn add(&mut self, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a.clone() + b.clone()
    }

    fn sub(&mut self, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a.clone() - b.clone()
    }

    fn mul(&mut self, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a.clone() * b.clone()
    }

    fn div(&mut self, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a.clone() / b.clone()
    }

    fn tanh(&mut self, a: &Tensor<2>) -> Tensor<2> {
        activation::tanh(a.clone())
    }

    fn softplus(&mut self, a: &Tensor<2>) -> Tensor<2> {
        activation::softplus(a.clone(), 1.0)
    }

    fn exp(&mut self, a: &Tensor<2>) -> Tensor<2> {
        a.clone().exp()
    }

    fn log(&mut self, a: &Tensor<2>) -> Tensor<2> {
        a.clone().log()
    }

    fn clamp(&mut self, a: &Tensor<2>, low: f32, high: f32) -> Tensor<2> {
        a.clone().clamp(low, high)
    }

    fn columns(&mut self, a: &Tensor<2>, range: Range<usize>) -> Tensor<2> {
        let [rows, _] = a.dims();
        a.clone().slice([0..rows, range])
    }

    fn join(&mut self, parts: &[Tensor<2>]) -> Tensor<2> {
        Tensor::cat(parts.to_vec(), 1)
    }

    fn gru(&mut self, inputs: &Tensor<2>, steps: usize) -> Tensor<2> {
        let (weight, bias) = (self.weight("gru.input"), self.weight("gru.input_bias"));
        let (state_weight, state_bias) = (self.weight("gru.state"), self.weight("gru.state_bias"));
        let [hidden, gates] = state_weight.dims();
        let [rows, _] = inputs.dims();
        let samples = rows / steps;
        // The input side of all steps at once: one large product instead of many small ones.
        let inputs = (inputs.clone().matmul(weight) + bias).reshape([samples, steps * gates]);
        let mut state = Tensor::zeros([samples, hidden], self.device);
        for step in 0..steps {
            let start = step * gates;
            let from_input = inputs.clone().slice([0..samples, start..start + gates]);
            let from_state = state.clone().matmul(state_weight.clone()) + state_bias.clone();
            let part =
                |all: &Tensor<2>, range: Range<usize>| all.clone().slice([0..samples, range]);
            let both = part(&from_input, 0..2 * hidden) + part(&from_state, 0..2 * hidden);
            let both = activation::sigmoid(both);
            let keep = part(&both, 0..hidden);
            let reset = part(&both, hidden..2 * hidden);
            let new =
                part(&from_input, 2 * hidden..gates) + reset * part(&from_state, 2 * hidden..gates);
            let new = activation::tanh(new);
            state = new.clone() + keep * (state - new);
        }
        state
    }

    fn reshape(&mut self, a: &Tensor<2>, columns: usize) -> Tensor<2> {
        let [rows, before] = a.dims();
        a.clone().reshape([rows * before / columns, columns])
    }
}
