//! Every bound of the core, with its unit.
//!
//! They stand in one place so that a reader can see how large anything can get, and so that no arithmetic below
//! needs more than 64 bits for a stored value (128 bits for one intermediate product).

/// Micro-tokens in a token. Rates such as 0.1 tokens per second stay integers.
pub const MICRO_PER_TOKEN: i64 = 1_000_000;

/// Microseconds in a second.
pub const US_PER_S: u64 = 1_000_000;

/// Largest burst, depth, cost or rate, in tokens (or tokens per second): one million million.
/// In micro-tokens that is 10^18, which leaves an i64 level nine times that room.
pub const MAX_TOKENS: u64 = 1_000_000_000_000;

/// The same bound in micro-tokens.
pub const MAX_MICRO: i64 = 1_000_000_000_000_000_000;

/// Resources in a deployment. A ledger entry holds all of a customer's resources, so the bound keeps it small.
pub const MAX_RESOURCES: usize = 4;

/// Rows in the contract table: an entry names its contract in 16 bits.
pub const MAX_CONTRACTS: usize = 65_536;

/// Bytes in the name of a resource or a contract.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest time, in microseconds, that one refill can cover: one day. A clock that jumps further gives no more.
pub const MAX_REFILL_US: u64 = 86_400_000_000;

/// Largest k of the shadow depth (k x q x s / W).
pub const MAX_SHADOW_DEPTH_FACTOR: u32 = 100;

/// Longest span s of the guarantee credit and the shadow bucket, in microseconds.
pub const MAX_SHADOW_SPAN_US: u32 = 60_000_000;

/// Windows that the contention flag can look back on: the ring is one byte.
pub const MAX_DEVIATION_WINDOWS: u8 = 8;

/// Log2 of the largest number of pages in a region of the ledger.
pub const MAX_PAGES_LOG2: u8 = 21;

/// Most entries per page that the number of pages is chosen for; the number is a power of two, so a page holds half of it
/// to all of it. Every draw copies a page out of shared data and back: larger pages cost time, smaller ones memory.
pub const TARGET_ENTRIES_PER_PAGE: u64 = 4;

/// Entries that a page of other customers can hold before it evicts.
pub const MAX_OTHER_PAGE_ENTRIES: u16 = 16;

/// Entries that a page of policy customers can hold. Only a ledger configured far too small comes near.
pub const MAX_POLICY_PAGE_ENTRIES: u16 = 4_096;

/// Workers that can register in one gateway.
pub const MAX_WORKERS: usize = 256;

/// A worker that was not seen for this long, in microseconds, no longer counts.
pub const WORKER_GONE_US: u64 = 5_000_000;

/// A VM that leads does so for this long, in microseconds, if it is not heard of again. Longer than anything holds up a thread in good
/// health, and short beside what a gateway has from its control plane: until then nobody renews it.
pub const LEADER_LEASE_US: u64 = 3_000_000;

/// A leader renews its lease after this long, in microseconds: at least every other of its slowest ticks.
pub const LEADER_RENEWAL_US: u64 = 750_000;

/// A chunk aims at this much of a worker's recent demand, in microseconds.
pub const CHUNK_HORIZON_US: u64 = 1_000_000;

/// The same for a resource with a pool: pool tokens are the scarcest currency, so less of them may lie in chunks.
pub const POOLED_CHUNK_HORIZON_US: u64 = 250_000;

/// A chunk goes back to the ledger at the latest after this time, in microseconds: the length of a generation of
/// [`crate::outstanding::Outstanding`]. A worker that ticks less often than this may not keep chunks.
pub const CHUNK_LIFE_US: u64 = 2_000_000;

/// Ticks without a spend after which a chunk counts as idle.
pub const CHUNK_IDLE_TICKS: u8 = 5;

/// Ticks in a row with a request in each, after which silence means that the customer's traffic has ended, or has moved to another gateway.
pub const CHUNK_BUSY_TICKS: u8 = 5;

/// Ticks without a request after which the chunk of such a customer counts as idle. What lies in it, denials that are not reported above
/// all, would else look like new demand half a second after the last request.
pub const CHUNK_BUSY_IDLE_TICKS: u8 = 2;

/// Longest time, in microseconds, that a worker remembers a denial without asking the ledger again.
pub const DENIAL_MEMORY_US: u64 = 100_000;

/// Late renewals that a lease remembers ([`crate::lease::Lease`]). A customer that was idle over more of them loses what flowed to
/// it before the oldest one that is known.
pub const LEASE_GAPS: usize = 4;

/// Compare-and-swap attempts before an exchange with the ledger is given up.
pub const MAX_CAS_ATTEMPTS: u32 = 16;
