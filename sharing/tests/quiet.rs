//! What the forecast law does over several rounds, and why it is not plain water-filling: rests that lie still.

use forebay_core::Rate;
use forebay_sharing::{Claim, Forecast, Law, Reactive, to_per_s, to_rates};

/// A customer's gateways over time: what one round gives is held in the next.
struct Fleet {
    capacity_per_s: f64,
    claims: Vec<Claim>,
}

impl Fleet {
    fn new(capacity_per_s: f64, demand_per_s: &[f64]) -> Self {
        let mut fleet = Self {
            capacity_per_s,
            claims: vec![Claim::default(); demand_per_s.len()],
        };
        fleet.ask(demand_per_s);
        fleet
    }

    fn ask(&mut self, demand_per_s: &[f64]) {
        for (claim, demand_per_s) in self.claims.iter_mut().zip(demand_per_s) {
            claim.demand_per_s = *demand_per_s;
        }
    }

    fn round(&mut self, law: &dyn Law) -> Vec<f64> {
        let mut shares = Vec::new();
        law.divide(self.capacity_per_s, &self.claims, &mut shares);
        for (claim, share) in self.claims.iter_mut().zip(&shares) {
            claim.held_per_s = *share;
        }
        shares
    }

    fn denied_per_s(&self) -> f64 {
        let lacking = |claim: &Claim| (claim.demand_per_s - claim.held_per_s).max(0.0);
        self.claims.iter().map(lacking).sum()
    }
}

fn assert_near(shares: &[f64], expected: &[f64]) {
    assert_eq!(shares.len(), expected.len());
    for (share, expected) in shares.iter().zip(expected) {
        assert!(
            (share - expected).abs() < 1e-6,
            "{shares:?}, not {expected}"
        );
    }
}

#[test]
fn what_is_left_lies_where_it_can_be_used() {
    let mut fleet = Fleet::new(100.0, &[30.0, 10.0, 0.0]);
    fleet.claims[2].floor_per_s = 5.0;
    // 55 are left over floors and needs, 3 : 1.
    assert_near(&fleet.round(&Forecast), &[71.25, 23.75, 5.0]);
}

#[test]
fn a_forecast_places_tokens_before_they_are_asked_for() {
    let mut fleet = Fleet::new(100.0, &[40.0, 0.0]);
    fleet.claims[1].forecast_per_s = Some(40.0);
    assert_near(&fleet.round(&Forecast), &[50.0, 50.0]);
    assert_near(&fleet.round(&Reactive), &[100.0, 0.0]);
}

#[test]
fn forecasts_share_what_measured_demand_leaves_by_the_same_part() {
    let mut fleet = Fleet::new(1000.0, &[700.0, 50.0, 200.0]);
    for (claim, forecast_per_s) in fleet.claims.iter_mut().zip([900.0, 60.0, 240.0]) {
        claim.forecast_per_s = Some(forecast_per_s);
    }
    // 50 are left, and 200 + 10 + 40 are hoped for: a fifth of each.
    assert_near(&fleet.round(&Forecast), &[740.0, 52.0, 208.0]);
}

/// Demand about `per_s` that changes by up to 2 % from window to window, at each gateway differently.
fn about(per_s: [f64; 3], window: usize) -> [f64; 3] {
    let noise = |gateway: usize| 1.0 + 0.005 * ((window * 7 + gateway * 3) % 5) as f64;
    let [first, second, third] = per_s;
    [first * noise(0), second * noise(1), third * noise(2)]
}

#[test]
fn small_changes_move_nothing_whether_there_is_plenty_or_too_little() {
    for capacity_per_s in [1000.0, 310.0, 200.0] {
        let mut fleet = Fleet::new(capacity_per_s, &about([98.0; 3], 0));
        let first = fleet.round(&Forecast);
        for window in 1..30 {
            fleet.ask(&about([98.0; 3], window));
            assert_eq!(
                fleet.round(&Forecast),
                first,
                "window {window}, {capacity_per_s}"
            );
        }
    }
}

#[test]
fn measured_demand_that_fits_is_not_denied_for_the_sake_of_quiet() {
    let mut fleet = Fleet::new(100.0, &[50.0, 49.0]);
    fleet.round(&Forecast);
    fleet.ask(&[51.0, 48.5]);
    fleet.round(&Forecast);
    assert!(fleet.denied_per_s() < 1e-6);
}

#[test]
fn a_change_that_is_not_small_moves_what_is_scarce() {
    let mut fleet = Fleet::new(200.0, &[150.0, 90.0]);
    assert_near(&fleet.round(&Forecast), &[110.0, 90.0]);
    fleet.ask(&[150.0, 94.0]);
    assert_near(&fleet.round(&Forecast), &[106.0, 94.0]);
}

#[test]
fn growth_is_followed_at_once_and_shrinking_by_half() {
    let mut fleet = Fleet::new(200.0, &[100.0, 20.0]);
    fleet.round(&Forecast);
    fleet.ask(&[20.0, 100.0]);
    // 80 are left and all of them lie at the first, where 13.3 of them should be.
    assert_near(
        &fleet.round(&Forecast),
        &[20.0 + 140.0 / 3.0, 100.0 + 100.0 / 3.0],
    );
    assert_near(&fleet.round(&Forecast), &[50.0, 150.0]);
    assert_near(&fleet.round(&Forecast), &[50.0, 150.0]);
}

#[test]
fn demand_that_alternates_is_denied_less_than_by_following_the_last_window() {
    let denied_per_s = |law: &dyn Law| -> f64 {
        let mut fleet = Fleet::new(200.0, &[100.0, 20.0]);
        let mut denied_per_s = 0.0;
        for window in 0..20 {
            fleet.round(law);
            let demand = [[20.0, 100.0], [100.0, 20.0]][window % 2];
            fleet.ask(&demand);
            denied_per_s += fleet.denied_per_s();
        }
        denied_per_s
    };
    let (ours, reactive) = (denied_per_s(&Forecast), denied_per_s(&Reactive));
    assert!(ours < 0.6 * reactive, "{ours} against {reactive}");
}

#[test]
fn a_gateway_that_needs_nothing_keeps_its_floor_only() {
    let mut fleet = Fleet::new(100.0, &[50.0, 50.0]);
    fleet.claims[0].floor_per_s = 8.0;
    fleet.round(&Forecast);
    fleet.ask(&[0.0, 50.0]);
    assert_near(&fleet.round(&Forecast), &[8.0, 92.0]);
    fleet.ask(&[0.0, 0.0]);
    assert_near(&fleet.round(&Forecast), &[8.0, 0.0]);
}

#[test]
fn grants_in_whole_micro_tokens_lie_as_still_as_the_shares() {
    for demand_per_s in [[0.000_2; 3], [0.000_2, 0.000_3, 0.000_9]] {
        let capacity = Rate::new(1_001);
        let mut fleet = Fleet::new(to_per_s(capacity), &about(demand_per_s, 0));
        let granted = to_rates(&fleet.round(&Forecast), capacity);
        for window in 1..30 {
            for (claim, rate) in fleet.claims.iter_mut().zip(&granted) {
                claim.held_per_s = to_per_s(*rate);
            }
            fleet.ask(&about(demand_per_s, window));
            assert_eq!(to_rates(&fleet.round(&Forecast), capacity), granted);
        }
    }
}
