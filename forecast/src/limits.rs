//! Every bound on a model file, with its unit.
//!
//! A model is data from outside that runs on Envoy's main thread. Each bound is what the largest sensible model of the
//! contract needs, times a margin; an operator with a bigger machine may raise them, a file may not.

/// Bounds that [`Model::load`](crate::Model::load) enforces before and after tract has seen the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Size of the file. Small, because decoding a protobuf of empty messages takes a hundred times its size.
    pub file_bytes: usize,
    /// Nodes in the graph.
    pub nodes: usize,
    /// Weights in all initializers and constants together.
    pub weights: usize,
    /// Elements of any tensor that the graph makes while running one batch.
    pub tensor_elements: usize,
    /// Dimensions of any tensor.
    pub rank: usize,
    /// Iterations of one recurrent layer.
    pub loop_steps: usize,
    /// Floating-point operations for one customer.
    pub flops_per_row: u64,
    /// `window`: steps of usage that the model sees.
    pub window_steps: usize,
    /// `horizons`: steps ahead.
    pub horizons: usize,
    /// `quantiles` per horizon.
    pub quantiles: usize,
    /// `season_steps`: how far back a past covariate may reach.
    pub season_steps: usize,
    /// Rows of one batch.
    pub batch_rows: usize,
    /// Largest difference from the golden output, relative to the larger of 1 and the expected value.
    pub golden_tolerance: f32,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 20,
            nodes: 1_000,
            weights: 250_000,
            tensor_elements: 4 << 20,
            rank: 6,
            loop_steps: 512,
            flops_per_row: 2_000_000,
            window_steps: 512,
            horizons: 96,
            quantiles: 16,
            season_steps: 20_160,
            batch_rows: 256,
            golden_tolerance: 1e-3,
        }
    }
}
