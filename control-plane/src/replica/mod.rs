//! Several `forebay serve` on one store: one leads and answers, the others pass requests on to it and stand by.
//!
//! So any replica can be asked for anything, and a gateway needs no more than a list of them. All state of the fleet is in the
//! memory of one process, which makes a division of tokens a computation and not a conversation. Sharing customers out among the
//! replicas was the worse alternative: the pools belong to all of them, and each reply would be stitched together from several.

mod forward;
mod lead;
mod role;

pub(crate) use lead::{Assemble, Campaign, lead_or_follow};
pub(crate) use role::{Role, router};
