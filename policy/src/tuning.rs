//! Within which ranges values of the division are tried, and what that may cost.
//!
//! Only knobs that the policy itself has can be named: what is found to be better is written there by whoever owns it.

use crate::check;
use crate::error::{Mistakes, Problem};
use forebay_wire::policy::{Sharing, Tuning as Written};

/// In thousandths: the ends of a range of the reserve, and of a quantile.
const RESERVE: (u16, u16) = (0, 500);
const QUANTILE: (u16, u16) = (500, 990);

/// Which values are tried in a few cycles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Lowest and highest part of a capacity that is nobody's.
    pub reserve_share: [f64; 2],
    /// The same for the quantiles of tiers 1, 2 and 3; none where they stay.
    pub quantiles: Option<[[f64; 2]; 3]>,
    /// The part of the rewards that may be lost.
    pub loss_most: f64,
}

/// What is written, and what is wrong with it.
pub(crate) fn tuning_of(mistakes: &mut Mistakes, sharing: &Sharing, written: &Written) -> Tuning {
    let path = "sharing.tuning";
    let reserve = format!("{path}.reserve_share");
    let own = sharing.reserve_share;
    range(mistakes, &reserve, written.reserve_share, RESERVE, own);
    let quantiles = written.quantiles.iter().flatten().zip(sharing.quantiles);
    for (position, (ends, own)) in quantiles.enumerate() {
        let path = format!("{path}.quantiles[{position}]");
        range(mistakes, &path, *ends, QUANTILE, own);
    }
    let loss = format!("{path}.loss_most");
    check::permille(mistakes, &loss, written.loss_most, 1, 500);
    Tuning {
        reserve_share: written.reserve_share,
        quantiles: written.quantiles,
        loss_most: written.loss_most,
    }
}

/// A range is within the bounds, and holds the value that the policy has.
fn range(
    mistakes: &mut Mistakes,
    path: &str,
    [low, high]: [f64; 2],
    (least, most): (u16, u16),
    own: f64,
) {
    // Exact, since what tunes takes no value outside of them, by however little.
    let (lowest, highest) = (f64::from(least) / 1e3, f64::from(most) / 1e3);
    if !(lowest <= low && low <= own && own <= high && high <= highest) {
        mistakes.add(
            path,
            Problem::Range {
                found: format!("{low} to {high}"),
                allowed: format!(
                    "a range within {lowest} to {highest} that holds the policy's own value, {own}"
                ),
            },
        );
    }
}
