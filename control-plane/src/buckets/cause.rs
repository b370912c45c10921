//! Why tokens were admitted beyond a contract, or lie where nobody can spend them.

/// A cause, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A gateway is silent, or was: its lease has ended, or the session that it held tokens under.
    Partition,
    /// Gateways hold more together than the contract has, because it was made smaller, until they have given it back.
    GrantOverlap,
    /// The server has just been started, or was not stopped cleanly.
    ColdStart,
    /// A gateway has dropped its entry of the customer, or made it anew.
    Eviction,
    /// None of these.
    Other,
}

// === impl Cause ===

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Partition,
        Self::GrantOverlap,
        Self::ColdStart,
        Self::Eviction,
        Self::Other,
    ];

    /// The value of a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::GrantOverlap => "grant_overlap",
            Self::ColdStart => "cold_start",
            Self::Eviction => "eviction",
            Self::Other => "other",
        }
    }
}
