//! Progressive filling over several resources: everybody's part of what it wants rises with one common level.
//!
//! A customer wants an amount of each resource and gets the same part of all of them, because a request takes all of its resources or
//! none. Its part is a straight line of the level between a start and an end. Where everybody starts at 0 and rises by weight over its
//! dominant share, that is dominant resource fairness (Ghodsi et al., NSDI 2011, section 4; with weights); where who is owed more starts
//! earlier, it is Karma's order (Vuppalapati et al., OSDI 2023: the richest borrow first). The level rises until a resource is used
//! up; then those who want that resource stop, and it rises on for the others.
//!
//! The usual loop gives one unit at a time to whoever has least. Rates have no unit, and ten thousand customers no time for it.

use forebay_core::resource::{PerResource, ResourceIndex};

/// One customer's wish in the filling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Of each resource, in tokens per second.
    pub(crate) want_per_s: PerResource<f64>,
    /// The level at which its part begins to rise.
    pub(crate) start: f64,
    /// How far the level rises until it has all. Positive.
    pub(crate) length: f64,
}

/// The part of its wish that each gets, from 0 to 1; the room is left with what is not used.
pub(crate) fn rise(room_per_s: &mut PerResource<f64>, wishes: &[Wish]) -> Vec<f64> {
    let mut caps = vec![1.0_f64; wishes.len()];
    let mut open: Vec<ResourceIndex> = resources().collect();
    loop {
        // The first resource that is used up, and the level at which it is.
        let first = open
            .iter()
            .filter_map(|resource| {
                let full = level_of_full(*room_per_s.at(*resource), *resource, wishes, &caps)?;
                Some((*resource, full))
            })
            .min_by(|(_, left), (_, right)| left.total_cmp(right));
        let Some((resource, level)) = first else {
            break;
        };
        open.retain(|other| *other != resource);
        for (cap, wish) in caps.iter_mut().zip(wishes) {
            if *wish.want_per_s.at(resource) > 0.0 {
                *cap = cap.min(wish.part_at(level));
            }
        }
    }
    for resource in resources() {
        let used = |caps: &[f64]| -> f64 {
            let parts = wishes.iter().zip(caps);
            parts
                .map(|(wish, cap)| wish.want_per_s.at(resource) * cap)
                .sum()
        };
        let room = room_per_s.at_mut(resource);
        // Levels far from 0 have few digits left behind the point.
        let over = used(&caps) / *room;
        if over > 1.0 {
            for (cap, wish) in caps.iter_mut().zip(wishes) {
                if *wish.want_per_s.at(resource) > 0.0 {
                    *cap /= over;
                }
            }
        }
        *room = (*room - used(&caps)).max(0.0);
    }
    caps
}

/// The level at which one resource is used up, if it ever is.
fn level_of_full(
    room_per_s: f64,
    resource: ResourceIndex,
    wishes: &[Wish],
    caps: &[f64],
) -> Option<f64> {
    let wants = || {
        wishes
            .iter()
            .zip(caps)
            .filter(|(wish, _)| *wish.want_per_s.at(resource) > 0.0)
    };
    let used_at = |level: f64| -> f64 {
        wants()
            .map(|(wish, cap)| wish.want_per_s.at(resource) * wish.part_at(level).min(*cap))
            .sum()
    };
    let most: f64 = wants()
        .map(|(wish, cap)| wish.want_per_s.at(resource) * cap)
        .sum();
    if most <= room_per_s {
        return None;
    }
    let mut turns: Vec<f64> = wants()
        .flat_map(|(wish, cap)| [wish.start, wish.start + wish.length * cap])
        .collect();
    turns.sort_unstable_by(f64::total_cmp);
    let above = turns.partition_point(|turn| used_at(*turn) <= room_per_s);
    let turn = |position: usize| turns.get(position).copied();
    let upper = turn(above)?;
    let Some(lower) = above.checked_sub(1).and_then(turn) else {
        return Some(upper);
    };
    // Between two turns, use is a straight line.
    let (used_below, used_above) = (used_at(lower), used_at(upper));
    let part = (room_per_s - used_below) / (used_above - used_below);
    Some(if part.is_finite() {
        (lower + (upper - lower) * part.clamp(0.0, 1.0)).min(upper)
    } else {
        lower
    })
}

fn resources() -> impl Iterator<Item = ResourceIndex> {
    ResourceIndex::first(forebay_core::limits::MAX_RESOURCES)
}

// === impl Wish ===

impl Wish {
    fn part_at(&self, level: f64) -> f64 {
        ((level - self.start) / self.length).clamp(0.0, 1.0)
    }
}
