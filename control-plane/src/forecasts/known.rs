//! What the worker knows of the usage of a deployment: tapes of the largest customers, and sums of all others by the groups that they are in.
//!
//! A survey of the store begins it; closed steps, which the state holds for a moment, go on with it. So a step costs no reading in the store, however many customers there are.
//! Of a step that was closed while a survey or a pass took long, those who are forecast by themselves are read from the store, and the others are not: to all sums that they are a part
//! of it is a gap. To keep the last closed steps in the state was the worse alternative: one may be of a million customers, and a survey may take as long as many.

use super::cells::Subject;
use super::groups::{Group, Grouping};
use super::tape::{add, amount, blank};
use crate::history::Series;
use crate::store::StoreError;
use forebay_core::policy::ContractIndex;
use forebay_wire::key::CustomerHash;
use std::collections::{BTreeMap, HashMap};

/// The usage of a step that is closed, where it is not zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClosedStep {
    pub(crate) step: u64,
    pub(crate) usage: Vec<(Series, f32)>,
}

/// A customer that is forecast by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alone {
    pub(super) tape: Vec<f32>,
    pub(super) groups: Vec<Group>,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OfResource {
    pub(super) alone: BTreeMap<CustomerHash, Alone>,
    /// Sums of all others, by their groups.
    pub(super) rest: BTreeMap<Vec<Group>, Vec<f64>>,
    /// In which steps it is not known what the others have used, as a tape: they were closed unseen.
    pub(super) unseen: Vec<bool>,
    /// How many those were at the last survey.
    pub(super) rest_customers: usize,
}

/// All of it, up to a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// The newest step on all tapes.
    pub(super) newest: u64,
    /// Policy and number of imports that a survey has seen.
    pub(super) policy: u64,
    pub(super) changes: u64,
    /// Steps on a tape at most.
    pub(super) kept: usize,
    /// Customers that are forecast by themselves, by resource.
    pub(super) most: usize,
    pub(super) grouping: Grouping,
    pub(super) resources: Vec<OfResource>,
    /// The closed step that was taken in last.
    pub(super) taken: u64,
    /// Chunks of usage that the survey could not read.
    pub(super) damaged: usize,
}

/// What is asked about steps that are new.
pub(super) struct News<'a> {
    /// Until which step.
    pub(super) newest: u64,
    /// The usage of the newest step that is closed.
    pub(super) closed: &'a ClosedStep,
    /// Whether a gateway reported in a step.
    pub(super) observed: &'a dyn Fn(u64) -> bool,
    /// What the store has of a series, from a step to another; NaN where that cannot be read.
    pub(super) read: &'a dyn Fn(Series, u64, u64) -> Result<Vec<Option<f32>>, StoreError>,
    /// The contracts of customers.
    pub(super) contracts: &'a dyn Fn(&[CustomerHash]) -> Vec<Option<ContractIndex>>,
}

// === impl Known ===

impl Known {
    /// Goes on to a later step.
    ///
    /// # Errors
    /// When a step was closed unseen and the store cannot be read; then nothing has changed.
    pub(super) fn go_on(&mut self, news: &News<'_>) -> Result<(), StoreError> {
        let (from, to) = (self.newest.saturating_add(1), news.newest);
        let is_zero = |step: u64| step <= news.closed.step && (news.observed)(step);
        let is_unseen = |step: u64| is_zero(step) && step != news.closed.step;
        let mut unseen: HashMap<Series, Vec<Option<f32>>> = HashMap::new();
        if (from..=to).any(is_unseen) {
            for series in self.series() {
                unseen.insert(series, (news.read)(series, from, to)?);
            }
        }
        for (of_resource, resource) in self.resources.iter_mut().zip(0..) {
            for (customer, alone) in &mut of_resource.alone {
                let stored = unseen.get(&Series::new(*customer, resource));
                for (step, place) in (from..=to).zip(0..) {
                    let stored = stored.and_then(|values| values.get(place).copied().flatten());
                    let nothing = if is_zero(step) { 0.0 } else { f32::NAN };
                    alone.tape.push(stored.map_or(nothing, amount));
                }
                keep_newest(&mut alone.tape, self.kept);
            }
            for sum in of_resource.rest.values_mut() {
                let known = |step: u64| is_zero(step) && !is_unseen(step);
                sum.extend((from..=to).map(|step| if known(step) { 0.0 } else { f64::NAN }));
                keep_newest(sum, self.kept);
            }
            let has_rest = !of_resource.rest.is_empty();
            let is_passed = |step: u64| has_rest && step < news.closed.step;
            of_resource.unseen.extend((from..=to).map(is_passed));
            keep_newest(&mut of_resource.unseen, self.kept);
        }
        self.newest = self.newest.max(to);
        self.take(news);
        Ok(())
    }

    /// Whether nothing of what is on the tapes is kept any more at this step.
    pub(super) fn is_far_behind(&self, newest: u64) -> bool {
        let ahead = newest.saturating_sub(self.newest);
        usize::try_from(ahead).is_ok_and(|ahead| ahead > self.kept)
    }

    /// Whether a closed step is on the tapes and was not taken in: nobody had reported for long, and time went on without it.
    pub(super) fn lacks(&self, closed: u64) -> bool {
        let back = self.newest.checked_sub(closed);
        let is_kept = back.is_some_and(|back| back < self.kept as u64);
        is_kept && self.taken != closed
    }

    fn series(&self) -> Vec<Series> {
        let of_resource = |(resource, of): (u8, &OfResource)| {
            let customers = of.alone.keys();
            customers
                .map(|customer| Series::new(*customer, resource))
                .collect::<Vec<_>>()
        };
        (0..).zip(&self.resources).flat_map(of_resource).collect()
    }

    /// Takes in the usage of the step that was closed last, in place of what is there: the store may not have had it yet.
    pub(super) fn take(&mut self, news: &News<'_>) {
        let closed = news.closed;
        if !self.lacks(closed.step) {
            return;
        }
        let back = usize::try_from(self.newest.saturating_sub(closed.step)).unwrap_or(usize::MAX);
        self.taken = closed.step;
        let is_zero = (news.observed)(closed.step);
        for of_resource in &mut self.resources {
            for alone in of_resource.alone.values_mut() {
                set(&mut alone.tape, back, |usage| match usage.is_nan() {
                    true if is_zero => 0.0,
                    _ => usage,
                });
            }
            for sum in of_resource.rest.values_mut() {
                set(sum, back, |sum| match sum.is_nan() {
                    true if is_zero => 0.0,
                    _ => sum,
                });
            }
            set(&mut of_resource.unseen, back, |_| false);
        }
        let mut others = Vec::new();
        for (series, usage) in &closed.usage {
            let Some(of_resource) = self.resources.get_mut(usize::from(series.resource)) else {
                continue;
            };
            match of_resource.alone.get_mut(&series.customer) {
                Some(alone) => set(&mut alone.tape, back, |_| amount(*usage)),
                None => others.push((*series, amount(*usage))),
            }
        }
        let customers: Vec<CustomerHash> =
            others.iter().map(|(series, _)| series.customer).collect();
        let contracts = (news.contracts)(&customers);
        let mut of_rest: BTreeMap<(u8, Vec<Group>), f64> = BTreeMap::new();
        for ((series, usage), contract) in others.into_iter().zip(contracts) {
            let groups = self.grouping.of(series.customer, contract);
            let most = self.most;
            if let Some(of_resource) = self.resources.get_mut(usize::from(series.resource))
                && let Some(groups) = of_resource.meet(series.customer, groups, usage, back, most)
                && !usage.is_nan()
            {
                *of_rest.entry((series.resource, groups)).or_default() += f64::from(usage);
            }
        }
        for ((resource, groups), usage) in of_rest {
            if let Some(of_resource) = self.resources.get_mut(usize::from(resource)) {
                of_resource.add_rest(groups, usage, back);
            }
        }
    }

    /// Usage of a subject in the steps after `from` up to `to`, as far as it is known.
    pub(super) fn usage_of(&self, subject: &Subject, resource: u8, from: u64, to: u64) -> Vec<f64> {
        let steps = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let mut sum = vec![f64::NAN; steps];
        let (Some(of_resource), Some(back)) = (
            self.resources.get(usize::from(resource)),
            self.newest.checked_sub(to),
        ) else {
            return sum;
        };
        let back = usize::try_from(back).unwrap_or(usize::MAX);
        match subject {
            Subject::Customer(customer) => {
                if let Some(alone) = of_resource.alone.get(customer) {
                    add(&mut sum, part(&alone.tape, back, steps));
                }
            }
            Subject::Group(group) => {
                for alone in of_resource.alone.values() {
                    if alone.groups.contains(group) {
                        add(&mut sum, part(&alone.tape, back, steps));
                    }
                }
                for (groups, of_rest) in &of_resource.rest {
                    if *group == Group::Rest || groups.contains(group) {
                        add(&mut sum, part(of_rest, back, steps));
                        blank(&mut sum, part(&of_resource.unseen, back, steps));
                    }
                }
            }
        }
        sum
    }
}

// === impl OfResource ===

impl OfResource {
    /// Takes in usage of somebody who is not known by itself: as one more customer where there is room and all others are known too, for then it has no
    /// history. Returns the groups of one who is counted with the rest.
    fn meet(
        &mut self,
        customer: CustomerHash,
        groups: Vec<Group>,
        usage: f32,
        back: usize,
        most: usize,
    ) -> Option<Vec<Group>> {
        if !self.rest.is_empty() || self.alone.len() >= most {
            return Some(groups);
        }
        let mut tape = vec![f32::NAN; back.saturating_add(1)];
        set(&mut tape, back, |_| usage);
        self.alone.insert(customer, Alone { tape, groups });
        None
    }

    /// Takes in what all of the rest who are in these groups have used in a step. A survey may have read more of it, where it was imported, or less, where the
    /// store did not have it yet: the higher counts.
    fn add_rest(&mut self, groups: Vec<Group>, usage: f64, back: usize) {
        let sum = self.rest.entry(groups).or_default();
        if let Some(lacking) = back.saturating_add(1).checked_sub(sum.len()) {
            sum.splice(0..0, std::iter::repeat_n(f64::NAN, lacking));
        }
        set(sum, back, |sum| usage.max(sum));
    }
}

/// Forgets what is oldest.
fn keep_newest<T>(tape: &mut Vec<T>, most: usize) {
    let surplus = tape.len().saturating_sub(most);
    tape.drain(..surplus);
}

/// Changes the value so many steps before the end of a tape.
fn set<T: Copy>(tape: &mut [T], back: usize, change: impl FnOnce(T) -> T) {
    if let Some(value) = tape.iter_mut().rev().nth(back) {
        *value = change(*value);
    }
}

/// What of `steps` values that end so many before the end of a tape is on it.
fn part<T>(tape: &[T], back: usize, steps: usize) -> &[T] {
    let end = tape.len().saturating_sub(back);
    tape.get(end.saturating_sub(steps)..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLD: ContractIndex = ContractIndex(0);

    fn hash(number: u8) -> CustomerHash {
        CustomerHash([number; 16])
    }

    fn known(most: usize) -> Known {
        Known {
            newest: 10,
            policy: 1,
            changes: 0,
            kept: 4,
            most,
            grouping: Grouping::default(),
            resources: vec![OfResource::default()],
            taken: 0,
            damaged: 0,
        }
    }

    fn closed(step: u64, usage: &[(u8, f32)]) -> ClosedStep {
        let of = |(customer, usage): &(u8, f32)| (Series::new(hash(*customer), 0), *usage);
        ClosedStep {
            step,
            usage: usage.iter().map(of).collect(),
        }
    }

    fn go_on(known: &mut Known, newest: u64, closed: &ClosedStep, stored: Option<f32>) {
        known
            .go_on(&News {
                newest,
                closed,
                observed: &|step| step != 13,
                read: &|_, from, to| Ok((from..=to).map(|_| stored).collect()),
                contracts: &|customers| vec![Some(GOLD); customers.len()],
            })
            .unwrap();
    }

    fn tape(known: &Known, customer: u8) -> Vec<Option<f32>> {
        let values = known.resources[0].alone[&hash(customer)].tape.iter();
        values
            .map(|value| Some(*value).filter(|value| !value.is_nan()))
            .collect()
    }

    #[test]
    fn closed_steps_make_tapes_longer_and_silence_is_a_gap_only_where_nobody_reported() {
        let mut known = known(2);
        go_on(&mut known, 11, &closed(11, &[(1, 5.0)]), None);
        go_on(&mut known, 12, &closed(12, &[(2, 7.0)]), None);
        // Nobody has reported in step 13, and step 14 is not closed yet.
        go_on(&mut known, 13, &closed(12, &[(2, 7.0)]), None);
        go_on(
            &mut known,
            14,
            &closed(14, &[(1, 1.0), (2, f32::INFINITY)]),
            None,
        );
        assert_eq!(tape(&known, 1), [Some(5.0), Some(0.0), None, Some(1.0)]);
        assert_eq!(tape(&known, 2), [Some(7.0), None, None]);
        assert_eq!(known.newest, 14);
        go_on(&mut known, 15, &closed(15, &[]), None);
        assert_eq!(
            tape(&known, 1),
            [Some(0.0), None, Some(1.0), Some(0.0)],
            "no more is kept"
        );
    }

    #[test]
    fn steps_that_were_closed_unseen_are_read_from_the_store() {
        let mut known = known(1);
        go_on(&mut known, 11, &closed(11, &[(1, 5.0)]), None);
        go_on(&mut known, 14, &closed(14, &[(1, 6.0)]), Some(3.0));
        assert_eq!(
            tape(&known, 1),
            [Some(5.0), Some(3.0), Some(3.0), Some(6.0)]
        );
    }

    #[test]
    fn what_the_store_has_and_nobody_can_read_is_a_gap_and_no_silence() {
        let mut known = known(1);
        go_on(&mut known, 11, &closed(11, &[(1, 5.0)]), None);
        go_on(&mut known, 14, &closed(14, &[(1, 6.0)]), Some(f32::NAN));
        assert_eq!(tape(&known, 1), [Some(5.0), None, None, Some(6.0)]);
    }

    #[test]
    fn a_step_that_was_closed_unseen_is_a_gap_to_all_sums_that_others_are_a_part_of() {
        let mut known = known(1);
        let all = [(1, 5.0), (2, 1.0), (3, 2.0)];
        go_on(&mut known, 11, &closed(11, &all), None);
        go_on(&mut known, 14, &closed(14, &all), Some(5.0));
        let usage = |known: &Known, subject| -> Vec<Option<f64>> {
            let usage = known.usage_of(&subject, 0, 10, 14).into_iter();
            usage
                .map(|value| Some(value).filter(|value| !value.is_nan()))
                .collect()
        };
        let (of_all, of_rest) = (Subject::Group(Group::All), Subject::Group(Group::Rest));
        assert_eq!(usage(&known, of_all), [Some(8.0), None, None, Some(8.0)]);
        assert_eq!(usage(&known, of_rest), [Some(3.0), None, None, Some(3.0)]);
        let alone = Subject::Customer(hash(1));
        assert_eq!(usage(&known, alone), [Some(5.0); 4]);
    }

    #[test]
    fn what_a_survey_has_read_of_the_rest_is_not_lost_with_the_step_that_is_closed() {
        let mut known = known(0);
        let groups = vec![Group::All];
        known.resources[0].rest.insert(groups, vec![9.0]);
        go_on(&mut known, 10, &closed(10, &[(2, 1.0), (3, 2.0)]), None);
        go_on(&mut known, 11, &closed(11, &[(2, 1.0), (3, 2.0)]), None);
        let usage = known.usage_of(&Subject::Group(Group::All), 0, 9, 11);
        assert_eq!(usage, [9.0, 3.0]);
    }

    #[test]
    fn a_step_that_is_closed_after_long_silence_is_taken_in_although_time_has_gone_on() {
        let mut known = known(1);
        go_on(&mut known, 11, &closed(11, &[(1, 5.0), (2, 1.0)]), None);
        // By the clock: nobody had reported when it was looked at, and then somebody did.
        go_on(&mut known, 15, &closed(11, &[(1, 5.0), (2, 1.0)]), None);
        assert!(!known.lacks(11) && known.lacks(15) && !known.lacks(16));
        go_on(&mut known, 15, &closed(15, &[(1, 6.0), (2, 2.0)]), None);
        assert!(!known.lacks(15));
        let usage = known.usage_of(&Subject::Group(Group::All), 0, 14, 15);
        assert_eq!(usage, [8.0]);
    }

    #[test]
    fn a_step_in_which_nobody_reported_in_time_says_nothing_of_those_who_are_not_named() {
        let mut known = known(2);
        go_on(&mut known, 11, &closed(11, &[(1, 5.0), (2, 7.0)]), None);
        go_on(&mut known, 13, &closed(13, &[(1, 1.0)]), None);
        assert_eq!(tape(&known, 1), [Some(5.0), Some(0.0), Some(1.0)]);
        assert_eq!(tape(&known, 2), [Some(7.0), Some(0.0), None]);
    }

    #[test]
    fn whoever_comes_when_there_is_no_room_is_counted_with_the_rest() {
        let mut known = known(1);
        go_on(
            &mut known,
            11,
            &closed(11, &[(1, 5.0), (2, 1.0), (3, 2.0)]),
            None,
        );
        go_on(&mut known, 12, &closed(12, &[(3, 4.0)]), None);
        assert_eq!(known.resources[0].alone.len(), 1);
        let usage = |subject| known.usage_of(&subject, 0, 10, 12);
        assert_eq!(usage(Subject::Group(Group::Rest)), [3.0, 4.0]);
        assert_eq!(usage(Subject::Group(Group::All)), [8.0, 4.0]);
        assert_eq!(usage(Subject::Customer(hash(1))), [5.0, 0.0]);
    }
}
