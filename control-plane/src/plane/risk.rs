//! What studies and scores of spillover are made from, as the state has it at a moment, and who asks for them.

use super::Plane;
use crate::allocation::{Book, Occasion};
use crate::error::ApiError;
use crate::risk::{
    Board, Counts, Desk, Headroom, LinksQuery, LinksView, SpilloverQuery, SpilloverView, Wanted,
};
use forebay_core::resource::ResourceIndex;
use forebay_policy::Spillover;
use std::sync::Arc;

/// What a policy asks for.
#[derive(Clone, Debug)]
pub(crate) struct SpilloverAsked {
    pub(crate) rule: Spillover,
    pub(crate) policy: u64,
    /// Resources with a capacity.
    pub(crate) pools: Vec<ResourceIndex>,
    /// Events that were announced.
    pub(crate) occasions: Vec<Occasion>,
    /// The allocation in force.
    pub(crate) book: Arc<Book>,
}

impl Plane {
    /// What the policy in force asks for; none where it asks for nothing.
    pub(crate) fn spillover_asked(&self) -> Option<SpilloverAsked> {
        let state = self.lock();
        let sharing = state.policies.sharing()?;
        let policy = state.policies.compiled()?;
        let pools = policy.resource_indexes().zip(&policy.resources);
        let pools = pools.filter(|(_, resource)| resource.pool.is_some());
        Some(SpilloverAsked {
            rule: sharing.spillover?,
            policy: state.policies.active_epoch(),
            pools: pools.map(|(index, _)| index).collect(),
            occasions: sharing.occasions.clone(),
            book: Arc::clone(&state.allocations.book),
        })
    }

    pub(crate) fn spillover_desk(&self) -> &Desk {
        &self.spillover
    }

    /// Headroom that cycles go by, as far as it is still in force.
    pub(super) fn headroom(&self) -> Arc<Headroom> {
        self.spillover.board().headroom()
    }

    /// Whose spike would leave whom short.
    ///
    /// # Errors
    /// When the query cannot be understood, or the pair that it names has no score.
    pub fn spillover(&self, query: &SpilloverQuery) -> Result<SpilloverView, ApiError> {
        let wanted = Wanted::of(
            query,
            |key| self.hash_of(key),
            |name| self.resource_named(name),
        )?;
        let policy = self.lock().policies.active_epoch();
        let board = self.spillover.board();
        let mut view = board.view(&wanted, policy, self.clock.now().unix_ms)?;
        view.unavailable = view.unavailable.or(self.why_no_spillover(&board));
        Ok(view)
    }

    /// Who rises with whom.
    ///
    /// # Errors
    /// When the query cannot be understood.
    pub fn spillover_links(&self, query: &LinksQuery) -> Result<LinksView, ApiError> {
        let resource = query.resource.as_deref();
        let resource = resource.map(|name| self.resource_named(name)).transpose()?;
        let board = self.spillover.board();
        let mut view = board.links(resource, query.limit);
        view.unavailable = view.unavailable.or(self.why_no_spillover(&board));
        Ok(view)
    }

    /// For metrics.
    pub(crate) fn spillover_counts(&self) -> Counts {
        let policy = self.lock().policies.active_epoch();
        let board = self.spillover.board();
        board.counts(policy, self.clock.now().unix_ms)
    }

    fn why_no_spillover(&self, board: &Board) -> Option<String> {
        if self.spillover_asked().is_none() {
            return Some("the policy in force has no `sharing.spillover`".to_owned());
        }
        (!board.is_studied()).then(|| "the usage history is being studied".to_owned())
    }

    fn resource_named(&self, name: &str) -> Result<ResourceIndex, ApiError> {
        let index = super::customers::resource_index(&self.lock(), Some(name))?;
        Ok(ResourceIndex::new(index).unwrap_or(ResourceIndex::FIRST))
    }
}
