//! Gateways against those that run the same model.
//!
//! All of them forecast the same usage, so the others say what is usual better than a gateway's own past does: they have the same hour and the
//! same demand. The median of the others, because no single one moves it where there are three; with the mean of all, one of two gateways could
//! never lose twice of what is usual.

use crate::round::{GatewayRound, RESOURCES_MOST};
use crate::stage::Reading;
use crate::sustained::Sustained;
use std::collections::BTreeMap;

/// What is watched of gateways, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(BTreeMap<String, Peer>);

#[derive(Clone, Debug)]
struct Peer {
    model: String,
    /// By resource.
    sustained: [Sustained; RESOURCES_MOST],
}

/// A gateway that can be compared.
struct Compared<'a> {
    gateway: &'a str,
    value: f64,
}

// === impl Peers ===

impl Peers {
    /// Takes a round. Those that are not in it, or run another model, are forgotten.
    pub(crate) fn observe(&mut self, gateways: &[GatewayRound]) {
        let models: BTreeMap<&str, &str> = gateways
            .iter()
            .filter_map(|gateway| Some((gateway.gateway.as_str(), gateway.model.as_deref()?)))
            .collect();
        self.0
            .retain(|gateway, peer| models.get(gateway.as_str()) == Some(&peer.model.as_str()));
        let mut by_resource: BTreeMap<(&str, usize), Vec<Compared<'_>>> = BTreeMap::new();
        for gateway in gateways {
            let sums = gateway.sums.as_ref().filter(|sums| sums.can_be());
            let (Some(model), Some(sums)) = (gateway.model.as_deref(), sums) else {
                continue;
            };
            for (resource, losses) in sums.losses.iter().enumerate() {
                if let Some(value) = losses.log_loss() {
                    let compared = Compared {
                        gateway: &gateway.gateway,
                        value,
                    };
                    let all = by_resource.entry((model, resource)).or_default();
                    all.push(compared);
                }
            }
        }
        for ((model, resource), mut all) in by_resource {
            all.sort_by(|one, other| one.value.total_cmp(&other.value));
            for (place, one) in all.iter().enumerate() {
                let Some(others) = median_without(&all, place) else {
                    continue;
                };
                let peer = self.0.entry(one.gateway.to_owned());
                let peer = peer.or_insert_with(|| Peer {
                    model: model.to_owned(),
                    sustained: [Sustained::default(); RESOURCES_MOST],
                });
                if let Some(sustained) = peer.sustained.get_mut(resource) {
                    sustained.observe(one.value - others, 0.0);
                }
            }
        }
    }

    /// Gateway, model, and whether it loses far more than the others.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (&str, &str, Reading)> {
        self.0.iter().map(|(gateway, peer)| {
            let known = peer
                .sustained
                .iter()
                .filter(|sustained| sustained.has_any());
            let reading = Reading::worst(known.map(Sustained::reading));
            (gateway.as_str(), peer.model.as_str(), reading)
        })
    }
}

/// The median of all but one, the lower one of two; `None` where there are no others.
fn median_without(sorted: &[Compared<'_>], place: usize) -> Option<f64> {
    let others = sorted.len().saturating_sub(1);
    let middle = others.checked_sub(1)? / 2;
    let at = if middle < place {
        middle
    } else {
        middle.saturating_add(1)
    };
    sorted.get(at).map(|compared| compared.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::{Losses, Sums};

    fn gateway(name: usize, loss: f64) -> GatewayRound {
        GatewayRound {
            gateway: format!("g{name}"),
            model: Some("m".to_owned()),
            sums: Some(Sums::of_one(10.0, 9.0, loss, 100.0)),
            ..GatewayRound::default()
        }
    }

    fn bad(losses: &[f64]) -> Vec<String> {
        let mut peers = Peers::default();
        let gateways = losses.iter().enumerate();
        let gateways: Vec<_> = gateways.map(|(name, loss)| gateway(name, *loss)).collect();
        (0..30).for_each(|_| peers.observe(&gateways));
        let readings = peers.readings();
        let bad = readings.filter(|(_, _, reading)| *reading == Reading::Bad);
        bad.map(|(gateway, _, _)| gateway.to_owned()).collect()
    }

    #[test]
    fn who_loses_twice_of_what_the_others_do_is_told_and_nobody_else() {
        for (losses, expected) in [
            (&[1.0][..], &[][..]),
            (&[1.0, 1.0], &[]),
            (&[1.0, 2.1], &["g1"]),
            (&[1.0, 1.9, 1.1], &[]),
            (&[9.0, 1.0, 1.1, 0.9], &["g0"]),
            // All are worse than they were: that is the model's doing.
            (&[9.0, 9.0, 9.0], &[]),
        ] {
            assert_eq!(bad(losses), expected, "{losses:?}");
        }
    }

    #[test]
    fn who_loses_twice_as_much_in_requests_is_told_however_many_bytes_there_are() {
        let with_bytes = |name: usize, loss: f64| {
            let mut sums = Sums::of_one(20.0, 18.0, loss, 100.0);
            sums.losses[1] = Losses {
                loss: 1e7,
                usage: 1e9,
            };
            GatewayRound {
                sums: Some(sums),
                ..gateway(name, loss)
            }
        };
        let mut peers = Peers::default();
        let gateways = [with_bytes(0, 1.0), with_bytes(1, 3.0), with_bytes(2, 1.0)];
        (0..30).for_each(|_| peers.observe(&gateways));
        let bad: Vec<_> = peers
            .readings()
            .filter(|(_, _, reading)| *reading == Reading::Bad)
            .collect();
        assert_eq!(bad, [("g1", "m", Reading::Bad)]);
    }

    #[test]
    fn a_gateway_that_leaves_or_swaps_its_model_begins_anew() {
        let mut peers = Peers::default();
        (0..30).for_each(|_| peers.observe(&[gateway(0, 1.0), gateway(1, 9.0)]));
        let other = GatewayRound {
            model: Some("n".to_owned()),
            ..gateway(1, 9.0)
        };
        peers.observe(&[gateway(0, 1.0), other]);
        assert_eq!(peers.readings().count(), 1);
        peers.observe(&[]);
        assert_eq!(peers.readings().count(), 0);
    }
}
