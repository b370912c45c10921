//! One bucket in many places: what of a contract (or of a pool) lies centrally, and what gateways hold of it.
//!
//! A token is in exactly one place: in the central bucket, or in the share of a gateway. So is every part of the rate and of
//! the depth. With `b` and `r` for depth and rate of the whole,
//!
//! ```text
//! depth of the central bucket + reserved depths of all shares <= b
//! refill of the central bucket + reserved rates of all shares <= r
//! ```
//!
//! and therefore the fleet admits at most `b + r t` in any time `t`, whatever it does with its shares. The two lines are all that
//! [`grant`] keeps; how much should go where is somebody else's question (a law's), and a bad answer wastes tokens but never
//! creates any.
//!
//! *Reserved* is what a gateway may be working with, which is not always what it was offered last: an offer can be lost, half
//! applied, or on its way. So an offer that lowers a share frees nothing until the gateway has confirmed it; one that raises it
//! counts at once. Counting the offers themselves, as leases without confirmation do, was worse: two gateways work with one
//! part for as long as a message takes, and over-admit whenever demand moves.

mod central;
mod share;

pub use central::{Central, CentralRecord, Whole};
pub use share::{Presence, Reserved, Share, ShareRecord};

use crate::amount::Micro;
use crate::grant::GrantTerms;
use crate::time::TimeUs;

/// What one gateway's share should become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Rate, depth and fallback rate that the law wants the gateway to have.
    pub terms: GrantTerms,
    /// Tokens that may be moved to it at most; what its depth has no room for stays here in any case.
    pub tokens: Micro,
}

/// What a gateway reports of its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShareReport {
    /// The newest reply that it had applied in full when it read what follows.
    pub applied: u64,
    /// Tokens that it held, in its bucket and in the chunks of its workers; negative in debt ([`crate::outstanding::Outstanding::balance`]).
    pub balance: Micro,
    /// Tokens moved to it that had arrived, less those that it gave back. Wraps.
    pub seen_cum: u64,
}

/// Takes in a report. Tokens that the gateway gave back belong to the central bucket again.
pub fn report(
    central: &mut Central,
    whole: Whole,
    others: Reserved,
    share: &mut Share,
    report: &ShareReport,
    now: TimeUs,
) {
    central.advance(now);
    let returned = share.report(report);
    central.keep(whole, others.plus(share.reserved(Presence::Live)));
    central.put(returned);
}

/// Brings one gateway's share as near to `target` as the other shares (which reserve `others`) allow. Returns whether the share has
/// changed; then the gateway must be told, with the reply of this `sequence`. No two replies may have one number: a gateway says by the number
/// which reply it has applied.
pub fn grant(
    central: &mut Central,
    whole: Whole,
    others: Reserved,
    share: &mut Share,
    target: &Target,
    sequence: u64,
    now: TimeUs,
) -> bool {
    central.advance(now);
    let free = Reserved {
        rate: whole.rate.minus(others.rate),
        cap: whole.depth.minus(others.cap).at_least_zero(),
    };
    let terms = GrantTerms {
        rate: target.terms.rate.min(free.rate),
        cap: target.terms.cap.min(free.cap).at_least_zero(),
        fallback_rate: target
            .terms
            .fallback_rate
            .min(target.terms.rate)
            .min(free.rate),
    };
    let tokens = terms
        .cap
        .minus(share.content())
        .min(share.room_on_the_way(free.cap))
        .min(target.tokens)
        .min(central.level());
    let is_moved = tokens > Micro::ZERO;
    if is_moved {
        central.take(tokens);
        share.take_in(tokens, sequence);
    }
    let is_offered = share.offer(terms, sequence);
    central.keep(whole, others.plus(share.reserved(Presence::Live)));
    is_offered || is_moved
}
