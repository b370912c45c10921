//! Linked accounts: what they share before anybody else, and the caps of their sums.
//!
//! Groups are nested. A cap is held by trimming what members want, class by class, before the pool is divided, from the innermost group
//! outwards: the pool then never gives what a cap would take back. To fill all caps and the pool as constraints of one problem would be exact
//! across classes as well, and takes a linear program for what a policy almost never has.

use crate::allocation::terms::Group;
use crate::numbers::clean;
use crate::water::{Vessel, fill};
use forebay_core::resource::ResourceIndex;

/// Who belongs to what, and how much room caps leave on one resource.
pub(crate) struct Family {
    /// For each group, its members' positions, those of inner groups included.
    members: Vec<Vec<usize>>,
    /// For each group, the room beneath its cap, in tokens per second; none where it has no cap.
    rooms_per_s: Vec<Option<f64>>,
    /// For each customer, its groups from the innermost outwards.
    lines: Vec<Vec<usize>>,
}

// === impl Family ===

impl Family {
    pub(crate) fn new(
        groups: &[Group],
        resource: ResourceIndex,
        innermost: impl Iterator<Item = Option<usize>>,
    ) -> Self {
        let mut members = vec![Vec::new(); groups.len()];
        let lines: Vec<Vec<usize>> = innermost
            .enumerate()
            .map(|(customer, group)| {
                let mut line = Vec::new();
                let mut next = group;
                while let Some((group, at)) =
                    next.and_then(|group| groups.get(group).map(|at| (group, at)))
                {
                    line.push(group);
                    if let Some(members) = members.get_mut(group) {
                        members.push(customer);
                    }
                    // Only towards the front, so that no circle goes on for ever.
                    next = at.parent.filter(|parent| *parent < group);
                }
                line
            })
            .collect();
        let rooms_per_s = groups
            .iter()
            .map(|group| group.cap_per_s.at(resource).map(clean))
            .collect();
        Self {
            members,
            rooms_per_s,
            lines,
        }
    }

    /// Makes the amounts of some members smaller until each capped group's fit into its room: by water-filling between 0 and what they are.
    pub(crate) fn trim(&self, amounts_per_s: &mut [(usize, f64)], weight: impl Fn(usize) -> f64) {
        self.trim_from(0, amounts_per_s, weight);
    }

    /// The same for the caps of the groups from a position on.
    fn trim_from(
        &self,
        first: usize,
        amounts_per_s: &mut [(usize, f64)],
        weight: impl Fn(usize) -> f64,
    ) {
        // Only of those whose members want something: a policy may have very many groups, and this is done for each of them.
        let mut capped: Vec<(usize, usize)> = Vec::new();
        for (position, (member, amount)) in amounts_per_s.iter().enumerate() {
            let line = self.lines.get(*member).into_iter().flatten();
            for group in line.filter(|group| **group >= first && *amount > 0.0) {
                if self.room(*group).is_some() {
                    capped.push((*group, position));
                }
            }
        }
        capped.sort_unstable();
        // Inner groups lie behind those that they are a part of.
        for positions in capped.chunk_by(|left, right| left.0 == right.0).rev() {
            let Some(room) = positions.first().and_then(|(group, _)| self.room(*group)) else {
                continue;
            };
            let vessels: Vec<Vessel> = positions
                .iter()
                .filter_map(|(_, position)| amounts_per_s.get(*position))
                .map(|(member, amount)| Vessel {
                    lower_per_s: 0.0,
                    upper_per_s: *amount,
                    weight: weight(*member),
                })
                .collect();
            if vessels.iter().map(|vessel| vessel.upper_per_s).sum::<f64>() <= room {
                continue;
            }
            for ((_, position), fits) in positions.iter().zip(fill(room, &vessels)) {
                if let Some((_, amount)) = amounts_per_s.get_mut(*position) {
                    *amount = amount.min(fits);
                }
            }
        }
    }

    fn room(&self, group: usize) -> Option<f64> {
        self.rooms_per_s.get(group).copied().flatten()
    }

    /// Takes from the rooms of all its groups what a member has been given; what it gives back is negative.
    pub(crate) fn take(&mut self, member: usize, amount_per_s: f64) {
        self.take_from(0, member, amount_per_s);
    }

    fn take_from(&mut self, first: usize, member: usize, amount_per_s: f64) {
        let line = self.lines.get(member).into_iter().flatten();
        for group in line.filter(|group| **group >= first) {
            if let Some(Some(room)) = self.rooms_per_s.get_mut(*group) {
                *room = (*room - amount_per_s).max(0.0);
            }
        }
    }

    /// Gives what members offer of what has been taken for them to members who want it, in the innermost group that has both. Leaves in
    /// `offers_per_s` what is left of them, and returns what each was given. Between groups within one, the caps of the inner ones hold.
    pub(crate) fn share(
        &mut self,
        offers_per_s: &mut [f64],
        mut wants_per_s: Vec<f64>,
        weight: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut given = vec![0.0; wants_per_s.len()];
        for group in (0..self.members.len()).rev() {
            let of_group = || self.members.get(group).into_iter().flatten();
            let offered: f64 = of_group()
                .filter_map(|member| offers_per_s.get(*member))
                .sum();
            if offered <= 0.0 {
                continue;
            }
            let mut wants: Vec<(usize, f64)> = of_group()
                .filter_map(|member| Some((*member, *wants_per_s.get(*member)?)))
                .filter(|(_, want)| *want > 0.0)
                .collect();
            if wants.is_empty() {
                continue;
            }
            self.trim_from(group.saturating_add(1), &mut wants, &weight);
            let moved = offered.min(wants.iter().map(|(_, want)| want).sum());
            if moved <= 0.0 {
                continue;
            }
            let members: Vec<usize> = of_group().copied().collect();
            let vessels: Vec<Vessel> = wants
                .iter()
                .map(|(member, want)| Vessel {
                    lower_per_s: 0.0,
                    upper_per_s: *want,
                    weight: weight(*member),
                })
                .collect();
            for ((member, _), got) in wants.iter().zip(fill(moved, &vessels)) {
                if let (Some(given), Some(want)) =
                    (given.get_mut(*member), wants_per_s.get_mut(*member))
                {
                    *given += got;
                    *want = (*want - got).max(0.0);
                }
                self.take_from(group.saturating_add(1), *member, got);
            }
            for member in members {
                if let Some(offer) = offers_per_s.get_mut(member) {
                    let gone = *offer * (moved / offered);
                    *offer -= gone;
                    self.take_from(group.saturating_add(1), member, -gone);
                }
            }
        }
        given
    }
}
