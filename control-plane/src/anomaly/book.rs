//! What was found in the newest step, for whoever asks.

use super::view::EvidenceView;
use crate::history::Series;
use forebay_anomaly::{Action, Kind};
use forebay_wire::key::CustomerHash;
use hashbrown::HashSet;

/// A series that is not as ever.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flag {
    pub(crate) series: Series,
    /// Name of the customer's contract.
    pub(crate) contract: String,
    pub(crate) is_stranger: bool,
    pub(crate) kind: Kind,
    pub(crate) since_unix_ms: u64,
    pub(crate) score: f64,
    /// None in a crowd.
    pub(crate) action: Option<Action>,
    /// What spoke for it last. Not kept over a restart.
    pub(crate) evidence: Vec<EvidenceView>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// The step that was judged last, and when it began.
    pub(crate) step: Option<(u64, u64)>,
    pub(crate) resources: Vec<String>,
    /// By customer and resource.
    pub(crate) flags: Vec<Flag>,
    pub(crate) counts: Counts,
}

/// Numbers for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Series that are watched, and those among them that too little is known of.
    pub(crate) watched: usize,
    pub(crate) learning: usize,
    /// Series that there was no room for in the step.
    pub(crate) left_out: usize,
    /// Flags that began since the start: unusual, crowd.
    pub(crate) begun: [u64; 2],
    /// How long the step took to judge.
    pub(crate) took_s: f64,
}

// === impl Book ===

impl Book {
    /// Customers that are allocated nothing beyond their contracts.
    pub(crate) fn capped(&self) -> HashSet<CustomerHash> {
        let capped = self.flags.iter();
        let capped = capped.filter(|flag| flag.action == Some(Action::CapAtContract));
        capped.map(|flag| flag.series.customer).collect()
    }

    /// One flag for each customer that is capped, and is not among others: of customers of the policy first, then by the highest score.
    pub(crate) fn capped_beside(&self, others: &HashSet<CustomerHash>) -> Vec<&Flag> {
        let flags = self.flags.iter();
        let mut capped: Vec<&Flag> = flags
            .filter(|flag| flag.action == Some(Action::CapAtContract))
            .filter(|flag| !others.contains(&flag.series.customer))
            .collect();
        capped.sort_by(|one, other| {
            let by_kind = one.is_stranger.cmp(&other.is_stranger);
            by_kind.then(other.score.total_cmp(&one.score))
        });
        let mut seen = HashSet::new();
        capped.retain(|flag| seen.insert(flag.series.customer));
        capped
    }

    /// Flags of customers that are unusual, the highest score first.
    pub(crate) fn worst(&self) -> Vec<&Flag> {
        let unusual = self.flags.iter();
        let mut unusual: Vec<&Flag> = unusual.filter(|flag| flag.kind == Kind::Unusual).collect();
        unusual.sort_by(|one, other| other.score.total_cmp(&one.score));
        unusual
    }

    pub(crate) fn name_of(&self, resource: u8) -> &str {
        let name = self.resources.get(usize::from(resource));
        name.map_or("", String::as_str)
    }
}
