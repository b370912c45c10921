//! What is known to come: matches, releases, sales, holidays. What each kind does to a customer's demand is learned from its past occurrences, taken out of
//! the history before any family sees it, and put into the forecasts again.
//!
//! So all families know of events, the simplest as well, and none has to find out with a few occurrences what thousands of steps without one
//! hide. Features of the boosted family were the worse alternative: a holiday that comes twice is one split in a thousand, and the last value a day later
//! would still be that of the holiday.

mod curve;
mod effects;
mod forecasting;

use crate::History;
pub(crate) use forecasting::Foresight;
use std::collections::BTreeMap;
use std::ops::Range;

/// Parts of an event's time that its beginning and its end reach out by, where nobody has said more.
const LEAD_PART: f64 = 0.5;
const DECAY_PART: f64 = 1.0;

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;

/// Something that is to happen, or has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What events of the same effect have in common.
    pub kind: String,
    /// Unix time of its beginning, in seconds.
    pub starts_s: i64,
    /// The first moment after it.
    pub ends_s: i64,
    /// How long before its beginning it may be felt; without one, half of its time.
    pub lead_s: Option<u32>,
    /// How long after its end it may be felt; without one, as long as it took.
    pub decay_s: Option<u32>,
    /// Hour of the day of its beginning by the clock of those who come to it; without one, by UTC.
    pub local_hour: Option<u8>,
    /// When it became known; without one, long before.
    pub known_s: Option<i64>,
    /// When it became known that it will not be; without one, it is to be, or was.
    pub known_until_s: Option<i64>,
    /// How sure it is to happen, from 0 to 1.
    pub confidence: f64,
    /// How many times the usual demand is expected of it, before any occurrence has shown.
    pub factor: Option<f64>,
}

/// The events that concern a customer, by their beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agenda {
    events: Vec<Event>,
    /// Of each event, the number of its kind and of its kind at its hour.
    groups: Vec<(usize, usize)>,
}

/// The events that are felt at each step of a history. Found once: a year-long event among thousands of short ones would else be passed at every
/// look.
///
/// All of them: which ones count at a step depends on what is known, and to leave some out here would let an event that nobody knows of yet take the
/// place of one that is known. So whoever makes an agenda bounds for how long its events are felt altogether.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Felt {
    /// Where each step's begin; one more at the end.
    begins: Vec<usize>,
    /// Numbers of events, by their beginning.
    items: Vec<u32>,
}

/// Events that count at one step, of those that are known; more are left out, those that begin last.
const FELT_MOST: usize = 8;

// === impl Event ===

impl Event {
    /// One that surely happens and was known long before.
    #[must_use]
    pub fn new(kind: impl Into<String>, starts_s: i64, ends_s: i64) -> Self {
        Self {
            kind: kind.into(),
            starts_s,
            ends_s,
            lead_s: None,
            decay_s: None,
            local_hour: None,
            known_s: None,
            known_until_s: None,
            confidence: 1.0,
            factor: None,
        }
    }

    fn duration_s(&self) -> i64 {
        self.ends_s.saturating_sub(self.starts_s).max(1)
    }

    fn lead_s(&self) -> i64 {
        let usual = (self.duration_s() as f64 * LEAD_PART) as i64;
        self.lead_s.map_or(usual, i64::from)
    }

    fn decay_s(&self) -> i64 {
        let usual = (self.duration_s() as f64 * DECAY_PART) as i64;
        self.decay_s.map_or(usual, i64::from)
    }

    /// Where in it a moment lies: -1 to 0 before its beginning, 0 to 1 during it, 1 to 2 after its end; `None` where it is not felt.
    fn position(&self, unix_s: f64) -> Option<f64> {
        let (starts, ends) = (self.starts_s as f64, self.ends_s as f64);
        let part = |from: f64, len: i64| (unix_s - from) / len.max(1) as f64;
        let position = if unix_s < starts {
            part(starts, self.lead_s())
        } else if unix_s < ends {
            part(starts, self.duration_s())
        } else {
            1.0 + part(ends, self.decay_s())
        };
        (-1.0..2.0).contains(&position).then_some(position)
    }

    /// Hour of the day: the same kind may do different things at noon and in the evening.
    fn hour(&self) -> u8 {
        let of_day = || self.starts_s.rem_euclid(DAY_S) / HOUR_S;
        let hour = self.local_hour.map_or_else(of_day, i64::from);
        u8::try_from(hour).unwrap_or(0)
    }

    /// The stretch of Unix time in which it may be felt.
    #[must_use]
    pub fn felt(&self) -> Range<i64> {
        self.starts_s.saturating_sub(self.lead_s())..self.ends_s.saturating_add(self.decay_s())
    }

    fn is_known(&self, unix_s: i64) -> bool {
        let is_over = |until_s| until_s <= unix_s;
        self.known_s.is_none_or(|known_s| known_s <= unix_s)
            && !self.known_until_s.is_some_and(is_over)
    }
}

// === impl Agenda ===

impl Agenda {
    /// Of these, in any order. Those that end before they begin, or whose confidence is no probability, are left out.
    #[must_use]
    pub fn new(events: impl IntoIterator<Item = Event>) -> Self {
        let is_sound = |event: &Event| {
            event.starts_s < event.ends_s && (0.0..=1.0).contains(&event.confidence)
        };
        let mut events: Vec<Event> = events.into_iter().filter(is_sound).collect();
        events
            .sort_by(|a, b| (a.starts_s, a.ends_s, &a.kind).cmp(&(b.starts_s, b.ends_s, &b.kind)));
        let (mut kinds, mut hours) = (BTreeMap::new(), BTreeMap::new());
        let groups = events.iter().map(|event| {
            let (next_kind, next_hour) = (kinds.len(), hours.len());
            let kind = *kinds.entry(event.kind.clone()).or_insert(next_kind);
            let hour = *hours.entry((kind, event.hour())).or_insert(next_hour);
            (kind, hour)
        });
        let groups = groups.collect();
        Self { events, groups }
    }

    /// True without a single event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events, by their beginning.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Those that are felt at each of the first `steps` steps of a grid.
    pub(crate) fn felt(&self, grid: &History, steps: usize) -> Felt {
        if self.is_empty() {
            return Felt::default();
        }
        let step_s = i64::from(grid.step_s.max(1));
        let step_of = |unix_s: i64| {
            let step = unix_s.saturating_sub(grid.start_s).div_euclid(step_s);
            usize::try_from(step).unwrap_or(0).min(steps)
        };
        let felt_by = |event: &Event| {
            let felt = event.felt();
            let (mut first, mut end) = (step_of(felt.start), step_of(felt.end));
            let is_felt = |step: usize| event.position(middle_s(grid, step)).is_some();
            // Of the steps at its edges, those whose middle is within.
            if first < end && !is_felt(first) {
                first += 1;
            }
            if end < steps && is_felt(end) {
                end += 1;
            }
            first..end
        };
        let mut begins = vec![0_usize; steps + 1];
        for event in &self.events {
            for step in felt_by(event) {
                begins[step + 1] += 1;
            }
        }
        for step in 0..steps {
            begins[step + 1] += begins[step];
        }
        let mut ends = begins.clone();
        let mut items = vec![0_u32; begins[steps]];
        for (event, nth) in self.events.iter().zip(0..) {
            for step in felt_by(event) {
                items[ends[step]] = nth;
                ends[step] += 1;
            }
        }
        Felt { begins, items }
    }
}

// === impl Felt ===

impl Felt {
    /// Numbers of events that are felt at a step; none beyond the steps that were asked for.
    fn at(&self, step: usize) -> &[u32] {
        match (self.begins.get(step), self.begins.get(step + 1)) {
            (Some(begin), Some(end)) => &self.items[*begin..*end],
            _ => &[],
        }
    }
}

/// The middle of a step, in Unix time.
fn middle_s(history: &History, step: usize) -> f64 {
    history.stamp_s(step) as f64 + f64::from(history.step_s) / 2.0
}
