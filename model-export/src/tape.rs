//! The network is written down once, against this trait, and read twice: by the trainer, which computes with burn and
//! needs gradients, and by the exporter, which emits ONNX nodes.
//!
//! burn imports ONNX but does not export it. Two descriptions of one network, one for training and one for export,
//! would agree only as long as somebody keeps comparing them; one description cannot disagree with itself.

use std::ops::Range;

/// A matrix of plain numbers, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Number of columns.
    pub(crate) columns: usize,
    /// `values[row * columns + column]`.
    pub(crate) values: Vec<f32>,
}

/// Operations on two-dimensional values, rows = samples. Sizes of 1 broadcast as usual.
pub(crate) trait Tape {
    /// A value of the computation.
    type Value: Clone;

    /// A learned matrix.
    fn weight(&mut self, name: &str) -> Self::Value;
    /// A fixed matrix.
    fn constant(&mut self, name: &str, matrix: Matrix) -> Self::Value;
    /// Matrix product.
    fn matmul(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Sum.
    fn add(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Difference.
    fn sub(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Product, element by element.
    fn mul(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Quotient, element by element.
    fn div(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;
    /// Hyperbolic tangent.
    fn tanh(&mut self, a: &Self::Value) -> Self::Value;
    /// `ln(1 + e^a)`.
    fn softplus(&mut self, a: &Self::Value) -> Self::Value;
    /// Exponential.
    fn exp(&mut self, a: &Self::Value) -> Self::Value;
    /// Natural logarithm.
    fn log(&mut self, a: &Self::Value) -> Self::Value;
    /// Limits every element to `low..=high`.
    fn clamp(&mut self, a: &Self::Value, low: f32, high: f32) -> Self::Value;
    /// Some neighbouring columns.
    fn columns(&mut self, a: &Self::Value, range: Range<usize>) -> Self::Value;
    /// Columns side by side.
    fn join(&mut self, parts: &[Self::Value]) -> Self::Value;
    /// State of a GRU after the last of `steps` steps, from zero: `[N * steps, F]` to `[N, hidden]`. Its weights are
    /// `gru.input`, `gru.input_bias`, `gru.state` and `gru.state_bias`; gates side by side: keep, reset, new.
    fn gru(&mut self, inputs: &Self::Value, steps: usize) -> Self::Value;
    /// The same numbers in rows of `columns`.
    fn reshape(&mut self, a: &Self::Value, columns: usize) -> Self::Value;
}

// === impl Matrix ===

impl Matrix {
    /// All elements equal.
    pub(crate) fn filled(rows: usize, columns: usize, value: f32) -> Self {
        Self {
            rows,
            columns,
            values: vec![value; rows * columns],
        }
    }

    /// Each element from its row and column.
    pub(crate) fn from_fn(
        rows: usize,
        columns: usize,
        mut element: impl FnMut(usize, usize) -> f32,
    ) -> Self {
        let values = (0..rows * columns)
            .map(|i| element(i / columns, i % columns))
            .collect();
        Self {
            rows,
            columns,
            values,
        }
    }

    /// Rows as columns.
    pub(crate) fn transposed(&self) -> Self {
        Self::from_fn(self.columns, self.rows, |row, column| {
            self.values[column * self.columns + row]
        })
    }
}
