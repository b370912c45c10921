//! A pair in a sentence, for whoever does not want to know what a likelihood beyond the usual is.

use super::view::AccountPair;

/// What a spike of the one does to the other.
pub(super) fn sentence(pair: &AccountPair, reach_ms: u64) -> String {
    let percent = |part: f64| (part * 100.0).round();
    let minutes = reach_ms / 60_000;
    let (spiker, hit) = (&pair.spiker, &pair.hit);
    let (usual, given) = (percent(pair.usual), percent(pair.usual + pair.likelihood));
    let shares = &pair.shares;
    let (spike, own, others) = (
        percent(shares.spike),
        percent(shares.own),
        percent(shares.others),
    );
    let lacks = pair.magnitude_per_s;
    format!(
        "when {spiker} spikes, {hit} is short within {minutes} min with a probability of {given} % ({usual} % at any time), and then lacks {lacks:.3} tokens/s of {}; of the demand beyond what was forecast {spike} % is the spike, {own} % is {hit} itself and {others} % are others",
        pair.resource
    )
}
