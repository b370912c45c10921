//! Where the worker leaves what it has found for those who ask: cycles, the API and metrics.

use super::headroom::Headroom;
use super::scores::Scores;
use super::study::Study;
use std::sync::{Arc, Mutex, PoisonError};

/// All that is known of spillover at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(super) study: Option<Arc<Study>>,
    pub(super) scores: Arc<Scores>,
    /// Why nothing is studied or scored.
    pub(super) lack: Option<String>,
}

/// Where it is left. Neither syncs nor changes come here.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    board: Mutex<Arc<Board>>,
}

/// For metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) study_s: f64,
    pub(crate) series: usize,
    pub(crate) score_s: f64,
    pub(crate) pools: Vec<PoolCounts>,
}

/// Of a resource.
#[derive(Clone, Debug)]
pub(crate) struct PoolCounts {
    pub(crate) resource: String,
    pub(crate) links: usize,
    pub(crate) pairs: usize,
    pub(crate) score_max: f64,
    pub(crate) headroom_per_s: f64,
}

// === impl Board ===

impl Board {
    /// For metrics, at a time and under a policy.
    pub(crate) fn counts(&self, policy: u64, now_unix_ms: u64) -> Counts {
        let Some(study) = self.study.as_deref() else {
            return Counts::default();
        };
        let pools = study.pools.iter().map(|pool| {
            let mut scored = self.scores.pools.iter();
            let scored = scored.find(|scored| scored.resource == pool.resource);
            let pairs = scored.map_or(&[][..], |scored| &scored.pairs);
            let extras = self.scores.headroom.in_force(policy, now_unix_ms);
            let extras = extras.filter(|extra| extra.resource == pool.resource);
            let name = study.resources.get(pool.resource.position());
            PoolCounts {
                resource: name.cloned().unwrap_or_default(),
                links: pool.links.len(),
                pairs: pairs.len(),
                score_max: pairs.first().map_or(0.0, |pair| pair.score),
                // A sum of nothing would be -0.
                headroom_per_s: extras.fold(0.0, |sum, extra| sum + extra.per_s),
            }
        });
        Counts {
            study_s: study.took_us as f64 / 1e6,
            series: study.series(),
            score_s: self.scores.took_us as f64 / 1e6,
            pools: pools.collect(),
        }
    }

    /// Whether the history was looked at, whatever came of it.
    pub(crate) fn is_studied(&self) -> bool {
        self.study.is_some() || self.lack.is_some()
    }

    /// What cycles give.
    pub(crate) fn headroom(&self) -> Arc<Headroom> {
        Arc::clone(&self.scores.headroom)
    }
}

// === impl Desk ===

impl Desk {
    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, board: Board) {
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(board);
    }
}
