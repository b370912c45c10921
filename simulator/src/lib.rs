//! Models of what stands around the control plane, on a clock that the caller moves, and fleets of them under the demand of a trace.
//!
//! A model is made of production code wherever there is any: a [`Gateway`] keeps the ledger entries of `forebay-core` and speaks the
//! sync protocol of `forebay-wire`. What it leaves out is what Envoy adds: threads, host calls, a forecast. So thousands of
//! gateways fit into one process, for benches of the control plane and for simulations of fleets.
//!
//! A [`pool`] is the other half: what many customers' contracts make of one capacity, whoever divides it.
//!
//! A [`Comparison`] sends the requests of a [`Trace`] through a fleet under several policies, on a virtual clock. The same seed gives the
//! same figures to the last bit. Nothing here reads a file or a clock or starts a thread, so that a browser can do the same.
#![forbid(unsafe_code)]

mod bucket;
mod comparison;
mod contract;
mod error;
mod fault;
mod figures;
mod gateway;
mod network;
mod policies;
pub mod pool;
mod random;
mod run;
mod scenario;
mod trace;

pub use comparison::{Comparison, Mean, Run};
pub use contract::Contract;
pub use error::SimulationError;
pub use fault::Fault;
pub use figures::Figures;
pub use gateway::{Counters, Gateway};
pub use policies::{Coordinator, MakeCoordinator, PolicyName};
pub use run::Record;
pub use scenario::{Arrival, Scenario, Settings};
pub use trace::{Demand, Request, Trace};
