//! Whatever comes in: no number makes a score that is none, and no shape stops the run.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::risk::{
    Dependence, Event, History, NoisyOr, Question, Rules, add_headroom, between_labels, headroom,
    largest_pairs, links, partial_correlations, residuals,
};
use forebay_sharing::{Customer, Lend, Outlook, Settings, Terms};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::ANY,
        Just(0.0),
        (-3.0..12.0).prop_map(|power: f64| 10_f64.powf(power)),
        0.0..300.0,
    ]
}

fn customer() -> impl Strategy<Value = Customer> {
    let tier = prop_oneof![Just(Tier::One), Just(Tier::Two), Just(Tier::Three)];
    (
        tier,
        0_u8..3,
        number(),
        [number(), number(), number()],
        [number(), number(), number()],
    )
        .prop_map(
            |(
                tier,
                priority,
                weight,
                [guarantee_per_s, rate_per_s, ceiling_per_s],
                quantiles_per_s,
            )| {
                Customer {
                    tier,
                    priority,
                    weight,
                    group: Some(7),
                    terms: PerResource::only_first(Terms {
                        guarantee_per_s,
                        rate_per_s,
                        ceiling_per_s,
                        lend: Lend::Auto,
                    }),
                    outlook: PerResource::only_first(Outlook { quantiles_per_s }),
                    headroom_per_s: PerResource::all(f64::NAN),
                    held: PerResource::default(),
                    credits: f64::NAN,
                }
            },
        )
}

/// Series of different lengths, with gaps, spikes and nonsense in them.
fn series() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        6 => 0.0_f32..100.0,
        1 => Just(f32::NAN),
        1 => Just(0.0_f32),
        1 => prop::num::f32::ANY,
    ];
    prop::collection::vec(value, 0..700)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_comes_in_scores_are_numbers(
        usage in prop::collection::vec(series(), 0..6),
        customers in prop::collection::vec(customer(), 0..7),
        capacity in number(),
        (step_s, first_s) in (prop_oneof![Just(0), Just(300), Just(u32::MAX), 1_u32..100_000], prop::num::i64::ANY),
        reach in 0_usize..900,
        labels in prop::collection::vec(prop::option::of(0_usize..9), 0..9),
    ) {
        let events = [Event { customers: vec![0, 99], is_on: vec![true; 40] }];
        let history = History { step_s, first_s, usage: &usage, events: &events };
        let residuals = residuals(&history);
        let links = links(&residuals, reach, 1);
        prop_assert!(links.iter().all(|link| link.correlation.is_finite() && link.tail.dependence.is_finite()));
        prop_assert!(partial_correlations(&residuals).rows().flatten().all(|value| value.is_finite()));
        let dependence = Dependence::of(&residuals, &links, reach);
        let question = Question {
            resource: ResourceIndex::FIRST,
            capacity_per_s: &PerResource::only_first(capacity),
            customers: &customers,
            groups: &[],
            settings: &Settings::default(),
            dependence: &dependence,
        };
        let mut pairs = largest_pairs(&question, 10, 1);
        prop_assert!(pairs.len() <= 10);
        let extras = headroom(&pairs, &Rules::default(), 50.0, 0.0);
        prop_assert!(extras.iter().map(|extra| extra.per_s).sum::<f64>() <= 50.0 + 1e-6);
        add_headroom(&extras, ResourceIndex::FIRST, 1.0, &mut customers.clone());
        pairs.extend(between_labels(&question, &labels, 1));
        for pair in pairs {
            prop_assert!(pair.score > 0.0 && pair.score.is_finite(), "{:?}", pair);
            prop_assert!((-1.0..=1.0).contains(&pair.likelihood));
            prop_assert!(pair.magnitude_per_s >= 0.0 && pair.magnitude_per_s.is_finite());
            prop_assert!(pair.score_interval.low <= pair.score && pair.score <= pair.score_interval.high);
            let shares = pair.shares.spike + pair.shares.own + pair.shares.others;
            prop_assert!(shares == 0.0 || (shares - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_network_learns_probabilities_from_anything(
        short in prop::collection::vec(prop::option::of(any::<bool>()), 0..100),
        causes in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..120), 0..70),
    ) {
        let causes: Vec<&[bool]> = causes.iter().map(Vec::as_slice).collect();
        let network = NoisyOr::learn(&short, &causes);
        prop_assert!(network.links.iter().chain([&network.usual]).all(|link| (0.0..=1.0).contains(link)));
        prop_assert!((0.0..=1.0).contains(&network.probability(&[true; 70])));
        prop_assert!(network.explain(&[true; 70]).iter().all(|share| share.share.is_finite()));
    }
}
