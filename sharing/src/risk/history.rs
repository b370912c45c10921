//! What is known of the past: usage of all customers on one grid of steps, and the events that somebody has announced.

/// Usage of customers on one grid. A step of which nothing is known is `NaN` and never 0: an outage that counted as silence would make
/// all customers fall and rise together.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Length of a step in seconds.
    pub step_s: u32,
    /// When the first step began, in seconds after the midnight from a Sunday to a Monday, on the clock that customers live by.
    pub first_s: i64,
    /// For each customer, denied demand included. Steps behind the end of a short series count as not known, and so does what is infinite or negative.
    pub usage: &'a [Vec<f32>],
    /// What was known beforehand.
    pub events: &'a [Event],
}

/// A kind of event, such as a campaign: all its occurrences in the history.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Whose demand it moves: positions of customers.
    pub customers: Vec<usize>,
    /// Whether it was on, for each step.
    pub is_on: Vec<bool>,
}

// === impl History ===

impl History<'_> {
    /// How many steps the longest series has.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.usage.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Seconds from Monday's midnight to a step.
    pub(crate) fn second_of_week(&self, step: usize) -> usize {
        const WEEK_S: i128 = 7 * 86_400;
        let since = i128::from(self.first_s) + step as i128 * i128::from(self.step_s.max(1));
        usize::try_from(since.rem_euclid(WEEK_S)).unwrap_or(0)
    }
}
