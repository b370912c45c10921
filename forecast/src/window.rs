//! The usage of one customer and resource, step by step: the only thing that a forecast is made from.
//!
//! A ring of `f32` in which NaN stands for a gap. A separate mask would be cleaner to read and a quarter bigger; with
//! ten thousand customers and a season of history each, memory is what decides.

/// A bounded series of usage per step, newest last. Steps are numbered since the Unix epoch: `unix_s / step_s`.
#[derive(Clone, Debug)]
pub struct SeriesWindow {
    ring: Vec<f32>,
    /// Where the next value goes.
    next: usize,
    /// Number of the newest step; `None` while nothing was recorded.
    newest: Option<i64>,
    /// How many of the newest steps were recorded (as usage or as a gap), at most the capacity.
    len: usize,
}

// === impl SeriesWindow ===

impl SeriesWindow {
    /// An empty series that remembers `capacity_steps` steps (at least one).
    #[must_use]
    pub fn new(capacity_steps: usize) -> Self {
        Self {
            ring: vec![f32::NAN; capacity_steps.max(1)],
            next: 0,
            newest: None,
            len: 0,
        }
    }

    /// Steps remembered so far, gaps included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was recorded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Steps that can be remembered.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.len()
    }

    /// The number of the newest step.
    #[must_use]
    pub fn newest_step(&self) -> Option<i64> {
        self.newest
    }

    /// Records the usage of step number `step`; `None` is a gap (nobody knows, which is not the same as zero).
    ///
    /// Steps that were skipped become gaps. A step that is already remembered is replaced, so a window that arrives
    /// late from the control plane may be recorded over what the gateway saw alone. Steps older than the ring are
    /// ignored.
    pub fn record(&mut self, step: i64, usage: Option<f32>) {
        let value = usage
            .filter(|v| v.is_finite())
            .map_or(f32::NAN, |v| v.max(0.0));
        let Some(newest) = self.newest else {
            self.push(step, value);
            return;
        };
        let ahead = step.saturating_sub(newest);
        if ahead > 0 {
            let skipped = usize::try_from(ahead)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            for _ in 0..skipped.min(self.ring.len()) {
                self.push(step, f32::NAN);
            }
            self.push(step, value);
            return;
        }
        let back = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
        if back < self.ring.len() {
            let slot = self.slot(back);
            if let Some(place) = self.ring.get_mut(slot) {
                *place = value;
            }
            self.len = self.len.max(back.saturating_add(1));
        }
    }

    /// The usage `back` steps before the newest one; `None` for a gap and for what is not remembered.
    #[must_use]
    pub fn back(&self, back: usize) -> Option<f32> {
        if back >= self.len {
            return None;
        }
        self.ring
            .get(self.slot(back))
            .copied()
            .filter(|v| !v.is_nan())
    }

    /// Writes the newest `out.len()` steps, oldest first, gaps carried forward (0 before the first usage).
    ///
    /// `mask`, when given, receives 1 for observed steps and 0 for gaps.
    pub fn fill_forward(&self, out: &mut [f32], mut mask: Option<&mut [f32]>) {
        self.fill_forward_from(0, out, &mut mask);
    }

    /// As [`SeriesWindow::fill_forward`], for the `out.len()` steps that end `skip` steps before the newest.
    pub fn fill_forward_before(&self, skip: usize, out: &mut [f32], mut mask: Option<&mut [f32]>) {
        self.fill_forward_from(skip, out, &mut mask);
    }

    /// All remembered steps, oldest first, gaps carried forward. Reuses `out`.
    pub fn filled(&self, out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.len, 0.0);
        self.fill_forward(out, None);
    }

    /// The largest usage among the newest `steps` steps; `None` when all of them are gaps.
    #[must_use]
    pub fn max_of_last(&self, steps: usize) -> Option<f32> {
        let known = self.newest(steps).filter(|usage| !usage.is_nan());
        // Not `f32::max`, which is a function call in wasm.
        known.reduce(|most, usage| if usage > most { usage } else { most })
    }

    /// The mean of the observed usage among the newest `steps` steps; `None` when all of them are gaps.
    #[must_use]
    pub fn mean_of_last(&self, steps: usize) -> Option<f32> {
        let (mut sum, mut count) = (0.0_f64, 0_u32);
        for usage in self.newest(steps).filter(|usage| !usage.is_nan()) {
            sum += f64::from(usage);
            count = count.saturating_add(1);
        }
        (count > 0).then(|| (sum / f64::from(count)) as f32)
    }

    /// How many of the newest `steps` steps were observed.
    #[must_use]
    pub fn observed_of_last(&self, steps: usize) -> usize {
        self.newest(steps).filter(|usage| !usage.is_nan()).count()
    }

    fn fill_forward_from(&self, skip: usize, out: &mut [f32], mask: &mut Option<&mut [f32]>) {
        let len = out.len();
        // What was last seen before the requested part, so that its first gap is not taken for silence.
        let mut carried = (skip.saturating_add(len)..self.len)
            .find_map(|back| self.back(back))
            .unwrap_or(0.0);
        // What is not remembered comes first, then the ring in the order of time.
        let wanted = skip.saturating_add(len);
        let unknown = wanted.saturating_sub(self.len.max(skip)).min(len);
        let known = len.saturating_sub(unknown);
        let steps = std::iter::repeat_n(f32::NAN, unknown)
            .chain(self.newest(wanted.saturating_sub(unknown)).take(known));
        for (i, (place, usage)) in out.iter_mut().zip(steps).enumerate() {
            let observed = !usage.is_nan();
            if observed {
                carried = usage;
            }
            *place = carried;
            if let Some(flag) = mask.as_deref_mut().and_then(|m| m.get_mut(i)) {
                *flag = if observed { 1.0 } else { 0.0 };
            }
        }
    }

    fn push(&mut self, step: i64, value: f32) {
        if let Some(place) = self.ring.get_mut(self.next) {
            *place = value;
        }
        self.next = self
            .next
            .saturating_add(1)
            .checked_rem(self.ring.len())
            .unwrap_or(0);
        self.len = self.len.saturating_add(1).min(self.ring.len());
        self.newest = Some(step);
    }

    /// The newest `steps` steps, at most all that are remembered, oldest first; NaN is a gap.
    ///
    /// Two slices in a row: a remainder for each step was most of what it cost to blend a forecast.
    fn newest(&self, steps: usize) -> impl Iterator<Item = f32> {
        let steps = steps.min(self.len);
        let start = self.slot(steps.saturating_sub(1));
        let (wrapped, first) = self.ring.split_at_checked(start).unwrap_or_default();
        first.iter().chain(wrapped).copied().take(steps)
    }

    /// The ring's index of the step `back` steps before the newest; `back` is below the capacity.
    fn slot(&self, back: usize) -> usize {
        let capacity = self.ring.len();
        self.next
            .saturating_add(capacity)
            .saturating_sub(1)
            .saturating_sub(back)
            .checked_rem(capacity)
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(window: &SeriesWindow) -> Vec<f32> {
        let mut out = vec![];
        window.filled(&mut out);
        out
    }

    #[test]
    fn old_steps_leave_the_ring() {
        let mut window = SeriesWindow::new(3);
        for step in 0..5 {
            window.record(step, Some(step as f32));
        }
        assert_eq!(filled(&window), [2.0, 3.0, 4.0]);
        assert_eq!(window.newest_step(), Some(4));
    }

    #[test]
    fn skipped_steps_are_gaps_and_gaps_are_carried_forward() {
        let mut window = SeriesWindow::new(8);
        window.record(10, Some(1.0));
        window.record(13, Some(4.0));
        assert_eq!(window.back(1), None);
        assert_eq!(filled(&window), [1.0, 1.0, 1.0, 4.0]);
        let (mut usage, mut mask) = ([9.0; 2], [9.0; 2]);
        window.fill_forward(&mut usage, Some(&mut mask));
        assert_eq!((usage, mask), ([1.0, 4.0], [0.0, 1.0]));
    }

    #[test]
    fn a_window_shorter_than_asked_starts_with_masked_zeros() {
        let mut window = SeriesWindow::new(8);
        window.record(0, Some(5.0));
        let (mut usage, mut mask) = ([9.0; 3], [9.0; 3]);
        window.fill_forward(&mut usage, Some(&mut mask));
        assert_eq!((usage, mask), ([0.0, 0.0, 5.0], [0.0, 0.0, 1.0]));
    }

    #[test]
    fn late_history_replaces_what_was_seen_and_fills_what_was_not() {
        let mut window = SeriesWindow::new(4);
        window.record(10, Some(1.0));
        window.record(8, Some(7.0));
        window.record(10, Some(2.0));
        window.record(1, Some(99.0));
        assert_eq!(filled(&window), [7.0, 7.0, 2.0]);
    }

    #[test]
    fn a_jump_beyond_the_ring_leaves_only_gaps() {
        let mut window = SeriesWindow::new(3);
        window.record(0, Some(1.0));
        window.record(i64::MAX, Some(2.0));
        assert_eq!(window.observed_of_last(3), 1);
        assert_eq!(window.max_of_last(3), Some(2.0));
    }

    #[test]
    fn values_that_are_no_usage_are_gaps() {
        let mut window = SeriesWindow::new(3);
        window.record(0, Some(f32::NAN));
        window.record(1, Some(f32::INFINITY));
        window.record(2, Some(-3.0));
        assert_eq!(
            (window.back(2), window.back(1), window.back(0)),
            (None, None, Some(0.0))
        );
        assert_eq!(window.mean_of_last(3), Some(0.0));
    }
}
