//! Which model runs, and how the next one replaces it.

mod refresh;
mod release;

pub use refresh::{ModelRefresh, Running, Step};
pub use release::{Refusal, Role, SignedRelease, TrustedKeys};
