//! Forecasts by whom they are about.

use super::forecast::Made;
use super::groups::Group;
use super::horizon::HORIZONS;
use forebay_wire::key::CustomerHash;
use std::collections::BTreeMap;
use std::fmt;

/// Whom a forecast is about. Groups come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    Group(Group),
    Customer(CustomerHash),
}

/// A forecast of the steps behind one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// The newest step that it knows.
    pub(super) made_at: u64,
    pub(super) made: Made,
}

/// By subject and resource: the newest forecast of each horizon.
pub(super) type Cells = BTreeMap<(Subject, u8), [Option<Cell>; HORIZONS.len()]>;

// === impl Subject ===

impl Subject {
    pub(super) fn is_group(&self) -> bool {
        matches!(self, Self::Group(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => group.fmt(formatter),
            Self::Customer(hash) => write!(formatter, "hash:{hash}"),
        }
    }
}
