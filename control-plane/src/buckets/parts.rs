//! The parts of an account, found by session or because they are unsaved.
//!
//! A customer that is busy everywhere has a part at each of hundreds of gateways, each of hundreds of bytes. Every report looks for one,
//! and every grant for those that must be saved: among the parts themselves each step of such a search was a cache miss, together a
//! tenth of the server's time. So what is searched lies beside them, densely. A map per account was the worse alternative:
//! divisions go through all parts in order, and most accounts have a few.

use super::part::{Part, SessionNumber, Unsaved};
use std::ops::{Deref, DerefMut};

/// Parts in the order of their sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Of each part its session.
    sessions: Vec<SessionNumber>,
    /// Of each part what the store does not know of it yet.
    unsaved: Vec<Unsaved>,
    parts: Vec<Part>,
}

// === impl Parts ===

impl Parts {
    /// Where the part of a session is, or would have to be.
    pub(super) fn index_of(&self, session: SessionNumber) -> Result<usize, usize> {
        match self.sessions.last() {
            // Parts are restored in order, and the newest session has the last part.
            Some(last) if *last < session => Err(self.sessions.len()),
            _ => self.sessions.binary_search(&session),
        }
    }

    /// The part of a session.
    #[must_use]
    pub fn of(&self, session: SessionNumber) -> Option<&Part> {
        self.parts.get(self.index_of(session).ok()?)
    }

    /// The part of a session.
    pub fn of_mut(&mut self, session: SessionNumber) -> Option<&mut Part> {
        let index = self.index_of(session).ok()?;
        self.parts.get_mut(index)
    }

    /// Takes a part in, in the place of one of the same session. Returns where it is.
    pub(super) fn insert(&mut self, part: Part, unsaved: Unsaved) -> usize {
        let index = match self.index_of(part.session()) {
            Ok(index) => {
                if let Some(place) = self.parts.get_mut(index) {
                    *place = part;
                }
                index
            }
            Err(index) => {
                self.sessions.insert(index, part.session());
                self.unsaved.insert(index, Unsaved::Nothing);
                self.parts.insert(index, part);
                index
            }
        };
        self.mark(index, unsaved);
        index
    }

    /// Notes that the store does not know so much of a part.
    pub(super) fn mark(&mut self, index: usize, unsaved: Unsaved) {
        if let Some(before) = self.unsaved.get_mut(index) {
            *before = (*before).max(unsaved);
        }
    }

    /// What the store does not know of a part yet.
    #[must_use]
    pub(super) fn unsaved(&self, index: usize) -> Unsaved {
        self.unsaved.get(index).copied().unwrap_or_default()
    }

    /// Whether the store does not know everything.
    #[must_use]
    pub(super) fn are_unsaved(&self) -> bool {
        self.unsaved
            .iter()
            .any(|unsaved| *unsaved > Unsaved::Nothing)
    }

    /// Parts of which `least` or more is unsaved. From now on they count as saved.
    pub(super) fn take_unsaved(&mut self, least: Unsaved) -> impl Iterator<Item = &Part> {
        let marked = self.unsaved.iter_mut().zip(&self.parts);
        marked.filter_map(move |(unsaved, part)| {
            let is_taken = *unsaved >= least;
            if is_taken {
                *unsaved = Unsaved::Nothing;
            }
            is_taken.then_some(part)
        })
    }

    /// Leaves those parts only of whose sessions this is true.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(SessionNumber) -> bool) {
        let mut at = 0;
        while let Some(session) = self.sessions.get(at).copied() {
            if stays(session) {
                at = at.saturating_add(1);
            } else {
                self.sessions.remove(at);
                self.unsaved.remove(at);
                self.parts.remove(at);
            }
        }
    }
}

impl Deref for Parts {
    type Target = [Part];

    fn deref(&self) -> &[Part] {
        &self.parts
    }
}

/// Nobody can change whose part it is.
impl DerefMut for Parts {
    fn deref_mut(&mut self) -> &mut [Part] {
        &mut self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_part_is_found_by_its_session_whatever_came_and_went(
            steps in prop::collection::vec((0_u64..24, 0_usize..3, any::<bool>()), 0..200),
        ) {
            let mut parts = Parts::default();
            let mut model: BTreeMap<SessionNumber, usize> = BTreeMap::new();
            for (session, resources, stays) in steps {
                if stays {
                    let index = parts.insert(Part::new(session, resources, false), Unsaved::Reports);
                    model.insert(session, resources);
                    prop_assert_eq!(parts[index].session(), session);
                } else {
                    parts.retain(|other| other != session);
                    model.remove(&session);
                }
                let found: Vec<_> = parts.iter().map(|part| (part.session(), part.holdings.len())).collect();
                prop_assert_eq!(found, model.iter().map(|(one, other)| (*one, *other)).collect::<Vec<_>>());
                for session in 0..24 {
                    let found = parts.of(session).map(|part| part.holdings.len());
                    prop_assert_eq!(found, model.get(&session).copied());
                    let changed = parts.of_mut(session).map(|part| part.session());
                    prop_assert_eq!(changed, model.contains_key(&session).then_some(session));
                }
            }
        }
    }
}
