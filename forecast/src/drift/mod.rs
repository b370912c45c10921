//! Whether a series is still what it was: detectors of change, behind one trait.
//!
//! | detector | watches | keeps | tells |
//! |---|---|---|---|
//! | [`Cusum`] | residuals in standard deviations, whose mean is 0 while all is well | two sums | up and down |
//! | [`PageHinkley`] | losses, of whatever mean and size | four sums | up: a loss that falls is no trouble |
//! | [`Adwin`] | bounded values | a window that is as long as it may be, in a few hundred numbers | up and down |
//!
//! Their thresholds follow from how rarely a false alarm is wanted ([`run_length()`]) and not from trying them on data: a threshold that was tried
//! knows the data that it was tried on. The theory supposes independent values of a normal distribution; `forebay-train drift` measures what becomes of
//! it where they are not.
//!
//! A detector forgets everything with its alarm and begins anew, so each change is told once.

mod adwin;
mod cusum;
mod page_hinkley;
mod run_length;

pub use adwin::Adwin;
pub use cusum::Cusum;
pub use page_hinkley::PageHinkley;
pub use run_length::{run_length, threshold};

/// A detector of change.
pub trait Detector {
    /// Takes the next value. What is no finite number is passed over: a gap is no change.
    fn observe(&mut self, value: f64) -> Option<Drift>;
}

/// What a detector says of a change when it has found one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Where the series went.
    pub direction: Direction,
    /// Values since the change, as far as can be told, the newest included.
    pub steps: u32,
}

/// Where a series went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To larger values.
    Up,
    /// To smaller values.
    Down,
}

#[cfg(test)]
mod tests;
