//! The ledger: the gateway's state in shared data, common to its workers.
//!
//! Shared data offers get, and set with compare-and-swap, of whole values; nothing else. So the ledger is a fixed set of
//! small pages, each holding a few customers with all their resources, and one blob with all pools. A value per
//! customer would cost a key and a map node for each (and could never be deleted); one big value would be copied
//! whole at each draw.

mod claims;
mod election;
mod entry;
mod exchange;
mod failure;
mod install;
mod layout;
mod page;
mod scan;
mod seat;
mod shared_data;
mod state;
mod workers;

pub use election::{Election, Proposal};
pub use entry::{CustomerHash, Entry, EntryFlags, Holding};
pub use exchange::Ledger;
pub use install::{Install, Installed, PolicyCustomer};
pub use layout::{
    Key, LEADER_KEY, Layout, LedgerSize, POLICY_KEY, POOL_KEY, Region, STATE_KEY, WORKERS_KEY,
};
pub use page::{Page, PageView};
pub use scan::ProtectedScan;
pub use seat::{Candidate, CandidateId, Seat};
pub use shared_data::{MemoryData, SetError, SharedData};
pub use state::{Mode, State};
pub use workers::{WorkerId, Workers};
