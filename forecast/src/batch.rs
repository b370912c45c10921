//! Windows of many customers, laid out as the tensors of the ONNX contract.
//!
//! The batch is filled in place and reused, so a tick allocates nothing for its inputs; rows that are not used stay
//! zero, which the contract allows (a mask of zeros).

use crate::features::PastFeature;
use crate::spec::ModelSpec;
use crate::window::SeriesWindow;

/// Inputs of one inference, for up to `capacity` customers.
#[derive(Clone, Debug)]
pub struct Batch {
    capacity: usize,
    rows: usize,
    pub(crate) usage: Vec<f32>,
    pub(crate) mask: Vec<f32>,
    pub(crate) calendar: Vec<f32>,
    pub(crate) past: Vec<f32>,
    scratch: Vec<f32>,
    scratch_mask: Vec<f32>,
    /// The newest step of the row before: most rows of a batch share it, and with it the calendar.
    calendar_of: Option<i64>,
}

/// Every row of the batch is taken: run it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch already has all of its {capacity} rows; run it and clear it first")]
pub struct BatchFull {
    /// Rows that the batch was made for.
    pub capacity: usize,
}

// === impl Batch ===

impl Batch {
    /// An empty batch of `capacity` rows for models with this spec.
    #[must_use]
    pub fn new(spec: &ModelSpec, capacity: usize) -> Self {
        let cells = |per_row: usize| vec![0.0; capacity.saturating_mul(per_row)];
        Self {
            capacity,
            rows: 0,
            usage: cells(spec.window),
            mask: cells(spec.window),
            calendar: cells(spec.calendar_row_len()),
            past: cells(spec.past_row_len()),
            scratch: vec![0.0; spec.window],
            scratch_mask: vec![0.0; spec.window],
            calendar_of: None,
        }
    }

    /// Rows pushed since the last [`Batch::clear`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether no row was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the next push would be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows >= self.capacity
    }

    /// Rows the batch can take.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The input `usage`, rows outer: what a trainer must feed its network with, so that it sees what the gateway sees.
    #[must_use]
    pub fn usage(&self) -> &[f32] {
        &self.usage
    }

    /// The input `mask`, rows outer.
    #[must_use]
    pub fn mask(&self) -> &[f32] {
        &self.mask
    }

    /// The input `calendar`, rows outer, then steps.
    #[must_use]
    pub fn calendar(&self) -> &[f32] {
        &self.calendar
    }

    /// The input `past`, rows outer, then steps; empty without past features.
    #[must_use]
    pub fn past(&self) -> &[f32] {
        &self.past
    }

    /// Forgets all rows and zeroes their cells.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.calendar_of = None;
        for cells in [
            &mut self.usage,
            &mut self.mask,
            &mut self.calendar,
            &mut self.past,
        ] {
            cells.fill(0.0);
        }
    }

    /// Adds the window of one customer as the next row.
    ///
    /// # Errors
    /// [`BatchFull`] when there is no row left.
    pub fn push(&mut self, spec: &ModelSpec, window: &SeriesWindow) -> Result<(), BatchFull> {
        if self.is_full() {
            return Err(BatchFull {
                capacity: self.capacity,
            });
        }
        let row = self.rows;
        window.fill_forward(
            row_mut(&mut self.usage, row, spec.window),
            Some(row_mut(&mut self.mask, row, spec.window)),
        );
        let newest = window.newest_step().unwrap_or(0);
        self.push_calendar(spec, row, newest);
        self.push_past(spec, row, window);
        self.rows = row.saturating_add(1);
        Ok(())
    }

    fn push_calendar(&mut self, spec: &ModelSpec, row: usize, newest: i64) {
        let len = spec.calendar_row_len();
        let start = row.saturating_mul(len);
        if self.calendar_of == Some(newest)
            && start >= len
            && self.calendar.len() >= start.saturating_add(len)
        {
            self.calendar
                .copy_within(start.saturating_sub(len)..start, start);
            return;
        }
        let columns = spec.calendar_features.len().max(1);
        for (i, cells) in row_mut(&mut self.calendar, row, len)
            .chunks_mut(columns)
            .enumerate()
        {
            let unix_s = spec
                .calendar_step(newest, i)
                .saturating_mul(i64::from(spec.step_s));
            for (cell, feature) in cells.iter_mut().zip(&spec.calendar_features) {
                *cell = feature.value(unix_s);
            }
        }
        self.calendar_of = Some(newest);
    }

    fn push_past(&mut self, spec: &ModelSpec, row: usize, window: &SeriesWindow) {
        let columns = spec.past_features.len();
        if columns == 0 {
            return;
        }
        window.fill_forward_before(
            spec.past_skip(),
            &mut self.scratch,
            Some(&mut self.scratch_mask),
        );
        let cells = row_mut(&mut self.past, row, spec.past_row_len());
        for ((cells, usage), observed) in cells
            .chunks_mut(columns)
            .zip(&self.scratch)
            .zip(&self.scratch_mask)
        {
            for (cell, feature) in cells.iter_mut().zip(&spec.past_features) {
                *cell = match feature {
                    PastFeature::SeasonAhead => *usage,
                    PastFeature::SeasonAheadMask => *observed,
                };
            }
        }
    }
}

/// The cells of one row; empty outside the tensor, which the callers' bounds exclude.
fn row_mut(cells: &mut [f32], row: usize, len: usize) -> &mut [f32] {
    let start = row.saturating_mul(len);
    cells
        .get_mut(start..start.saturating_add(len))
        .unwrap_or(&mut [])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::CalendarFeature;

    fn spec() -> ModelSpec {
        ModelSpec {
            step_s: 3_600,
            window: 4,
            horizons: vec![1, 2],
            season_steps: 6,
            calendar_features: vec![CalendarFeature::DaySin, CalendarFeature::Weekend],
            past_features: vec![PastFeature::SeasonAhead, PastFeature::SeasonAheadMask],
            ..ModelSpec::example()
        }
    }

    fn ramp(steps: i64, capacity: usize) -> SeriesWindow {
        let mut window = SeriesWindow::new(capacity);
        for step in 0..steps {
            window.record(step, Some(step as f32));
        }
        window
    }

    #[test]
    fn the_past_covariate_ends_with_the_forecast_steps_one_season_earlier() {
        let spec = spec();
        let mut batch = Batch::new(&spec, 2);
        batch.push(&spec, &ramp(20, 16)).unwrap();
        // The newest step is 19, the last horizon is step 21; one season (6) earlier that is step 15.
        assert_eq!(
            batch.past[..8],
            [12.0, 1.0, 13.0, 1.0, 14.0, 1.0, 15.0, 1.0]
        );
        assert_eq!(batch.usage[..4], [16.0, 17.0, 18.0, 19.0]);
        assert_eq!(batch.mask[..4], [1.0; 4]);
    }

    #[test]
    fn rows_with_the_same_newest_step_share_the_calendar() {
        let spec = spec();
        let mut batch = Batch::new(&spec, 3);
        batch.push(&spec, &ramp(20, 16)).unwrap();
        batch.push(&spec, &ramp(20, 16)).unwrap();
        batch.push(&spec, &ramp(21, 16)).unwrap();
        let len = spec.calendar_row_len();
        assert_eq!(batch.calendar[..len], batch.calendar[len..2 * len]);
        assert_ne!(batch.calendar[..len], batch.calendar[2 * len..]);
        assert_eq!(
            batch.calendar[len],
            CalendarFeature::DaySin.value(16 * 3_600)
        );
    }

    #[test]
    fn a_full_batch_refuses_and_a_cleared_one_is_zero() {
        let spec = spec();
        let mut batch = Batch::new(&spec, 1);
        batch.push(&spec, &ramp(20, 16)).unwrap();
        assert_eq!(
            batch.push(&spec, &ramp(20, 16)),
            Err(BatchFull { capacity: 1 })
        );
        batch.clear();
        assert!(batch.is_empty() && batch.usage.iter().all(|v| *v == 0.0));
    }
}
