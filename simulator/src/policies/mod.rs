//! The policies that are compared.

mod central;
mod even_split;
mod grants;
mod leases;
mod oracle;
mod reject_rate;
mod rpc;

pub use grants::Coordinator;

use crate::error::SimulationError;
use crate::run::{Record, run};
use crate::scenario::Scenario;
use even_split::EvenSplit;
use forebay_sharing::{Forecast, Law, Reactive};
use grants::Grants;
use leases::Leases;
use oracle::Oracle;
use reject_rate::RejectRate;
use rpc::Rpc;
use std::fmt;
use std::str::FromStr;

/// Makes the control plane of a run, with the contracts in force, and the law that they are divided by.
pub type MakeCoordinator<'a> =
    dyn Fn(&Scenario, &'static dyn Law) -> Result<Box<dyn Coordinator>, SimulationError> + 'a;

/// A way to decide about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyName {
    /// Ours: grants of the production control plane to production ledgers.
    Forebay,
    /// One ideal bucket per customer, which all gateways see at once.
    Oracle,
    /// Each gateway has its even part of each contract.
    EvenSplit,
    /// A message to a central bucket for each request.
    Rpc,
    /// Reports every 5 s, and assignments by what was asked for since the one before.
    Rlqs5s,
    /// The same every second.
    Rlqs1s,
    /// Our grants, divided by what is asked for and by nothing else.
    Reactive,
    /// Reports every 100 ms, and a part of the requests to reject.
    Report100ms,
}

// === impl PolicyName ===

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Forebay,
        Self::Oracle,
        Self::EvenSplit,
        Self::Rpc,
        Self::Rlqs5s,
        Self::Rlqs1s,
        Self::Reactive,
        Self::Report100ms,
    ];

    /// Its name in options and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forebay => "forebay",
            Self::Oracle => "oracle",
            Self::EvenSplit => "even_split",
            Self::Rpc => "rpc",
            Self::Rlqs5s => "rlqs_5s",
            Self::Rlqs1s => "rlqs_1s",
            Self::Reactive => "reactive",
            Self::Report100ms => "report_100ms",
        }
    }

    /// Sends the requests of a scenario through a fleet under this policy.
    ///
    /// # Errors
    /// When the control plane fails.
    pub fn run(
        self,
        scenario: &Scenario,
        coordinator: &MakeCoordinator<'_>,
    ) -> Result<Record, SimulationError> {
        match self {
            Self::Forebay => {
                let grants = Grants::new(scenario, coordinator(scenario, &Forecast)?);
                run(grants, scenario)
            }
            Self::Reactive => {
                let grants = Grants::new(scenario, coordinator(scenario, &Reactive)?);
                run(grants, scenario)
            }

            Self::Oracle => run(Oracle::new(scenario), scenario),
            Self::EvenSplit => {
                let parts = scenario.settings.gateways as u64;
                run(EvenSplit::new(scenario, parts), scenario)
            }
            Self::Rpc => run(Rpc::new(scenario), scenario),
            Self::Rlqs5s => run(Leases::new(scenario, 5_000_000), scenario),
            Self::Rlqs1s => run(Leases::new(scenario, 1_000_000), scenario),
            Self::Report100ms => run(RejectRate::new(scenario), scenario),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for PolicyName {
    type Err = SimulationError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == given);
        found.ok_or_else(|| SimulationError::UnknownPolicy {
            given: given.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests;
