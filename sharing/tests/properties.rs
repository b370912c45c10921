//! What must hold for every capacity and every set of claims.

use forebay_core::{Micro, Rate};
use forebay_sharing::{
    Claim, EvenSplit, FairShare, Forecast, Law, ProportionalShare, Reactive, Round, to_amounts,
    to_per_s, to_rates,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const ALL: [&dyn Law; 5] = [
    &EvenSplit,
    &ProportionalShare,
    &FairShare,
    &Reactive,
    &Forecast,
];

/// Those that know floors.
const WITH_FLOORS: [&dyn Law; 2] = [&Reactive, &Forecast];

/// Those by which a larger capacity is good for everybody.
const MONOTONE: [&dyn Law; 4] = [&EvenSplit, &FairShare, &Reactive, &Forecast];

/// Those that fill water up to the demand.
const WATER: [&dyn Law; 3] = [&FairShare, &Reactive, &Forecast];

fn divide(law: &dyn Law, capacity_per_s: f64, claims: &[Claim]) -> Vec<f64> {
    let mut shares = Vec::new();
    law.divide(capacity_per_s, claims, &mut shares);
    assert_eq!(shares.len(), claims.len());
    shares
}

/// Less than this counts as nothing.
const SMALLEST_PER_S: f64 = 1e-9;

/// What rounding may do to one share, and what a law may leave lying rather than move it.
fn slack(of_per_s: f64) -> f64 {
    1e-6 + 2e-9 * of_per_s
}

fn holding(claims: &[Claim], held_per_s: &[f64]) -> Vec<Claim> {
    let mut claims = claims.to_vec();
    for (claim, held_per_s) in claims.iter_mut().zip(held_per_s) {
        claim.held_per_s = *held_per_s;
    }
    claims
}

fn with_nothing(claims: &[Claim]) -> Vec<Claim> {
    holding(claims, &vec![0.0; claims.len()])
}

/// Rates of all magnitudes, whole numbers (which make ties), and nothing.
fn rate() -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => Just(0.0),
        3 => (0_u32..200).prop_map(f64::from),
        3 => (-3.0..11.0).prop_map(|power: f64| 10_f64.powf(power)),
    ]
}

fn claim() -> impl Strategy<Value = Claim> {
    let weight = prop_oneof![
        Just(1.0),
        (1_u32..9).prop_map(f64::from),
        0.01..100.0,
        Just(0.0)
    ];
    (
        rate(),
        prop::option::of(rate()),
        rate(),
        prop_oneof![Just(0.0), 0.0..20.0],
        weight,
    )
        .prop_map(
            |(demand_per_s, forecast_per_s, held_per_s, floor_per_s, weight)| Claim {
                demand_per_s,
                forecast_per_s,
                held_per_s,
                floor_per_s,
                weight,
            },
        )
}

/// Claims, and a capacity of this many times what `total` makes of them.
fn division_by(
    total: fn(&Claim) -> f64,
    times: impl Strategy<Value = f64>,
) -> impl Strategy<Value = (f64, Vec<Claim>)> {
    (prop::collection::vec(claim(), 1..9), times)
        .prop_map(move |(claims, times)| (claims.iter().map(total).sum::<f64>() * times, claims))
}

/// Scarce, just enough, ample or none.
fn division() -> impl Strategy<Value = (f64, Vec<Claim>)> {
    let needed = || division_by(Claim::need_per_s, prop_oneof![0.0..2.0, Just(1.0)]);
    let some = (rate(), prop::collection::vec(claim(), 1..9));
    prop_oneof![4 => needed(), 1 => some]
}

/// There is demand for all of it.
fn scarce() -> impl Strategy<Value = (f64, Vec<Claim>)> {
    division_by(|claim| claim.demand_per_s, prop_oneof![0.0..1.0, Just(1.0)])
}

/// Any numbers at all.
fn hostile() -> impl Strategy<Value = (f64, Vec<Claim>)> {
    let any = || prop_oneof![prop::num::f64::ANY, rate()];
    let claim = (any(), prop::option::of(any()), any(), any(), any()).prop_map(
        |(demand_per_s, forecast_per_s, held_per_s, floor_per_s, weight)| Claim {
            demand_per_s,
            forecast_per_s,
            held_per_s,
            floor_per_s,
            weight,
        },
    );
    (any(), prop::collection::vec(claim, 0..9))
}

#[test]
fn a_forecast_beyond_all_bounds_counts_as_the_largest_rate() {
    let claims = [f64::MAX, f64::MAX, 1e12].map(|forecast_per_s| Claim {
        forecast_per_s: Some(forecast_per_s),
        ..Claim::default()
    });
    for share in divide(&Forecast, 300.0, &claims) {
        assert!((share - 100.0).abs() < 1e-6, "{share}");
    }
}

proptest! {
    // A failing case is written beside this file with its seed, to be run first from then on.
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_comes_in_no_share_is_negative_and_their_sum_is_within_the_capacity(
        (capacity_per_s, claims) in prop_oneof![division(), hostile()],
    ) {
        let round = Round::new(capacity_per_s, &claims);
        let usable = round.capacity_per_s();
        prop_assert!(round.sum(|claim| claim.floor_per_s) <= usable * (1.0 + 1e-12));
        for law in ALL {
            let shares = divide(law, capacity_per_s, &claims);
            prop_assert!(shares.iter().all(|share| *share >= 0.0), "{}: {shares:?}", law.name());
            prop_assert!(shares.iter().sum::<f64>() <= usable, "{}: {shares:?}", law.name());
        }
    }

    #[test]
    fn nonsense_counts_as_nothing((capacity_per_s, claims) in hostile()) {
        let usable = |number: f64| if number.is_finite() { number.max(0.0) } else { 0.0 };
        let tidied: Vec<Claim> = claims
            .iter()
            .map(|claim| Claim {
                demand_per_s: usable(claim.demand_per_s),
                forecast_per_s: claim.forecast_per_s.map(usable),
                held_per_s: usable(claim.held_per_s),
                floor_per_s: usable(claim.floor_per_s),
                weight: usable(claim.weight),
            })
            .collect();
        for law in ALL {
            let shares = divide(law, capacity_per_s, &claims);
            prop_assert_eq!(shares, divide(law, usable(capacity_per_s), &tidied));
        }
    }

    #[test]
    fn integers_are_within_the_capacity_to_the_last_micro_token(
        (_, claims) in division(),
        capacity in prop_oneof![0_u64..100, 0_u64..10_000_000_000, 0_u64..=Rate::MAX.get()],
    ) {
        let capacity = Rate::new(capacity);
        for law in ALL {
            let shares = divide(law, to_per_s(capacity), &claims);
            let rates: Vec<u64> = to_rates(&shares, capacity).into_iter().map(Rate::get).collect();
            prop_assert!(rates.iter().sum::<u64>() <= capacity.get(), "{}: {rates:?}", law.name());
            for (rate, share) in rates.iter().zip(&shares) {
                prop_assert!(*rate as f64 <= share * 1e6 * (1.0 + 1e-15));
            }
            let amount = Micro::new(capacity.get().cast_signed());
            let amounts = to_amounts(&shares, amount);
            prop_assert!(amounts.into_iter().fold(Micro::ZERO, Micro::plus) <= amount);
        }
    }

    #[test]
    fn a_rate_that_was_granted_comes_back_as_it_was(rates in prop::collection::vec(0_u64..1 << 50, 1..8)) {
        let capacity = Rate::new(rates.iter().sum());
        let shares: Vec<f64> = rates.iter().map(|rate| to_per_s(Rate::new(*rate))).collect();
        let back: Vec<u64> = to_rates(&shares, capacity).into_iter().map(Rate::get).collect();
        prop_assert_eq!(back, rates);
    }

    #[test]
    fn nobody_falls_below_its_floor_or_its_scaled_floor((capacity_per_s, claims) in division()) {
        let round = Round::new(capacity_per_s, &claims);
        let floors: f64 = claims.iter().map(|claim| claim.floor_per_s).sum();
        let scale = if floors > capacity_per_s { round.capacity_per_s() / floors } else { 1.0 };
        for law in WITH_FLOORS {
            let shares = divide(law, capacity_per_s, &claims);
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert!(
                    *share >= claim.floor_per_s * scale - slack(claim.floor_per_s),
                    "{}: {shares:?}", law.name(),
                );
            }
        }
    }

    #[test]
    fn when_there_is_demand_for_all_of_it_all_of_it_is_given_out((capacity_per_s, claims) in scarce()) {
        for law in ALL {
            let shares = divide(law, capacity_per_s, &claims);
            let given_out: f64 = shares.iter().sum();
            let lying = capacity_per_s - given_out;
            prop_assert!(
                lying <= slack(capacity_per_s) * claims.len() as f64,
                "{}: {lying} of {capacity_per_s} lie idle: {shares:?}", law.name(),
            );
        }
    }

    #[test]
    fn more_capacity_lowers_nobodys_share((capacity_per_s, claims) in division(), more in 1.0..3.0) {
        let claims = with_nothing(&claims);
        for law in MONOTONE {
            let fewer = divide(law, capacity_per_s, &claims);
            let most = divide(law, capacity_per_s * more, &claims);
            for (before, after) in fewer.iter().zip(&most) {
                prop_assert!(
                    *after >= before - slack(capacity_per_s),
                    "{}: {fewer:?} became {most:?}", law.name(),
                );
            }
        }
    }

    #[test]
    fn the_order_of_the_gateways_does_not_matter(
        (capacity_per_s, claims, order) in division().prop_flat_map(|(capacity_per_s, claims)| {
            let order: Vec<usize> = (0..claims.len()).collect();
            (Just(capacity_per_s), Just(claims), Just(order).prop_shuffle())
        }),
    ) {
        let shuffled: Vec<Claim> = order.iter().map(|at| claims[*at]).collect();
        for law in ALL {
            let shares = divide(law, capacity_per_s, &claims);
            let others = divide(law, capacity_per_s, &shuffled);
            for (at, other) in order.iter().zip(&others) {
                prop_assert!(
                    (shares[*at] - other).abs() <= slack(capacity_per_s),
                    "{}: {shares:?} became {others:?}", law.name(),
                );
            }
        }
    }

    #[test]
    fn fixed_claims_give_a_fixed_division_after_two_rounds((capacity_per_s, claims) in division()) {
        for law in ALL {
            let first = divide(law, capacity_per_s, &claims);
            let second = divide(law, capacity_per_s, &holding(&claims, &first));
            let third = divide(law, capacity_per_s, &holding(&claims, &second));
            prop_assert_eq!(&third, &second, "{}: after {:?}", law.name(), first);
        }
    }

    #[test]
    fn a_first_division_stays((capacity_per_s, claims) in division()) {
        let claims = with_nothing(&claims);
        for law in ALL {
            let first = divide(law, capacity_per_s, &claims);
            let second = divide(law, capacity_per_s, &holding(&claims, &first));
            prop_assert_eq!(&second, &first, "{}", law.name());
        }
    }

    #[test]
    fn under_water_filling_nobody_lacks_demand_while_another_has_more_for_its_weight(
        (capacity_per_s, claims) in scarce(),
    ) {
        let claims = Round::new(capacity_per_s, &with_nothing(&claims)).claims().to_vec();
        for law in WATER {
            let has_floors = law.name() != FairShare.name();
            let shares = divide(law, capacity_per_s, &claims);
            for (poor, poor_claim) in shares.iter().zip(&claims) {
                if *poor >= poor_claim.demand_per_s - slack(capacity_per_s) {
                    continue;
                }
                for (rich, rich_claim) in shares.iter().zip(&claims) {
                    let floor = if has_floors { rich_claim.floor_per_s } else { 0.0 };
                    // Beyond its floor, it has no more for its weight than the one that lacks.
                    let level = (poor + SMALLEST_PER_S) / poor_claim.weight;
                    prop_assert!(
                        *rich <= floor.max(level * rich_claim.weight * (1.0 + 1e-9)) + slack(capacity_per_s),
                        "{}: {shares:?}", law.name(),
                    );
                }
            }
        }
    }

    #[test]
    fn demand_that_fits_is_served_whatever_is_forecast_and_held(
        (capacity_per_s, claims) in division_by(|claim| claim.floor_per_s.max(claim.demand_per_s), 1.0..3.0),
    ) {
        for law in WITH_FLOORS {
            let shares = divide(law, capacity_per_s, &claims);
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert!(
                    *share >= claim.demand_per_s - slack(claim.demand_per_s),
                    "{}: {shares:?}", law.name(),
                );
            }
        }
    }

    #[test]
    fn forecasts_are_met_within_a_few_percent_when_all_needs_fit(
        (capacity_per_s, claims) in division_by(|claim| claim.floor_per_s.max(claim.need_per_s()), 1.0..3.0),
    ) {
        let shares = divide(&Forecast, capacity_per_s, &claims);
        for (share, claim) in shares.iter().zip(&claims) {
            prop_assert!(*share >= 0.97 * claim.need_per_s() - slack(claim.need_per_s()), "{shares:?}");
        }
    }

    #[test]
    fn a_gateway_that_all_demand_moves_to_has_all_but_the_others_floors_in_two_rounds(
        (capacity_per_s, claims) in division(),
        part in 0.1..3.0,
    ) {
        let capacity_per_s = capacity_per_s + 0.01;
        for law in WITH_FLOORS {
            let before = divide(law, capacity_per_s, &claims);
            let mut claims = holding(&claims, &before);
            for claim in &mut claims {
                claim.demand_per_s = 0.0;
            }
            claims[0].demand_per_s = capacity_per_s * part;
            // The forecasts of the others notice a round later.
            let first = divide(law, capacity_per_s, &claims);
            let mut claims = holding(&claims, &first);
            for claim in &mut claims[1..] {
                claim.forecast_per_s = Some(0.0);
            }
            let second = divide(law, capacity_per_s, &claims);
            let round = Round::new(capacity_per_s, &claims);
            let all = capacity_per_s - (round.sum(|claim| claim.floor_per_s) - round.claims()[0].floor_per_s);
            prop_assert!(
                second[0] >= all - slack(capacity_per_s) * claims.len() as f64,
                "{}: {second:?}, not {all}", law.name(),
            );
        }
    }
}
