use super::*;
use forebay_wire::sync::{ModelStatus, ResourceScore};

fn said(matured: u64, covered: u64, loss: f64, usage: f64) -> ForecastScore {
    ForecastScore {
        matured,
        covered,
        loss,
        usage,
        resources: Vec::new(),
    }
}

/// Loss and usage of some resources.
fn by_resource(matured: u64, parts: &[(u32, f64, f64)]) -> ForecastScore {
    let resources = parts.iter().map(|(resource, loss, usage)| ResourceScore {
        resource: *resource,
        loss: *loss,
        usage: *usage,
    });
    ForecastScore {
        resources: resources.collect(),
        ..said(
            matured,
            matured,
            parts.iter().map(|part| part.1).sum(),
            parts.iter().map(|part| part.2).sum(),
        )
    }
}

fn part(loss: f64, usage: f64) -> Option<Part> {
    Some(Part { loss, usage })
}

/// Takes what a gateway says of a model.
fn hear(scores: &mut Scores, model: u8, score: ForecastScore) {
    scores.hear(&ModelStatus {
        digest: vec![model; 32],
        score: Some(score),
        ..ModelStatus::default()
    });
}

#[test]
fn what_cannot_be_is_not_believed() {
    assert!(Score::read(&said(10, 9, 1.0, 20.0)).is_some());
    assert!(Score::read(&by_resource(10, &[(0, 1.0, 2.0), (3, 1.0, 2.0)])).is_some());
    for wrong in [
        said(0, 0, 0.0, 0.0),
        said(10, 11, 1.0, 20.0),
        said(u64::MAX, 0, 1.0, 20.0),
        said(10, 9, f64::NAN, 20.0),
        said(10, 9, -1.0, 20.0),
        said(10, 9, f64::INFINITY, 20.0),
        said(10, 9, 1.0, f64::NAN),
        said(10, 9, 1.0, -0.5),
        said(10, 9, 1.0, f64::MAX),
        by_resource(10, &[(4, 1.0, 2.0)]),
        by_resource(10, &[(u32::MAX, 1.0, 2.0)]),
        by_resource(10, &[(1, 1.0, 2.0), (1, 1.0, 2.0)]),
        ForecastScore {
            resources: vec![ResourceScore {
                resource: 0,
                loss: f64::NAN,
                usage: 1.0,
            }],
            ..said(10, 9, 1.0, 20.0)
        },
    ] {
        assert_eq!(Score::read(&wrong), None, "{wrong:?}");
    }
}

#[test]
fn a_difference_is_what_happened_in_between_and_never_negative() {
    let score =
        |matured, covered, loss, usage| Score::read(&said(matured, covered, loss, usage)).unwrap();
    let (before, after) = (score(10, 9, 1.0, 20.0), score(14, 12, 3.0, 30.0));
    let between = after.since(&before).unwrap();
    assert_eq!(between.parts()[0], part(2.0, 10.0));
    assert_eq!(between.coverage(), 0.75);
    assert_eq!(before.since(&after), None, "it has begun anew");
    assert_eq!(before.since(&before), None, "nothing has matured");
    let jumped = score(11, 12 - 1, 0.5, 30.0);
    assert_eq!(jumped.since(&before), None, "losses do not shrink");
    let read =
        |parts: &[(u32, f64, f64)], matured| Score::read(&by_resource(matured, parts)).unwrap();
    let between = read(&[(0, 3.0, 30.0), (2, 1.0, 4.0)], 20).since(&read(&[(0, 1.0, 20.0)], 10));
    let parts = *between.unwrap().parts();
    assert_eq!(
        parts[1..4],
        [part(2.0, 10.0), part(0.0, 0.0), part(1.0, 4.0)]
    );
}

#[test]
fn loss_over_usage_is_that_of_the_typical_resource_and_not_of_the_one_with_the_largest_numbers() {
    let score = Score::read(&by_resource(
        10,
        &[(0, 50.0, 100.0), (1, 1e8, 1e9), (2, 0.0, 0.0)],
    ));
    assert!((score.unwrap().loss_per_usage().unwrap() - 0.3).abs() < 1e-9);
    let of_old = Score::read(&said(10, 9, 5.0, 100.0)).unwrap();
    assert_eq!(of_old.loss_per_usage(), Some(0.05));
}

#[test]
fn a_gateway_warms_up_anew_when_its_sums_or_its_model_begin_anew() {
    let mut scores = Scores::default();
    let mut round = 0;
    let mut live = |scores: &mut Scores, model: u8, score: ForecastScore| {
        hear(scores, model, score);
        scores.next_round(&Open::at(round), &Open::at(round + 1));
        round += 1;
    };
    let grown = |matured: u64| said(matured, matured, 1.0, matured as f64);
    for matured in 1..=WARM_UP_ROUNDS + 1 {
        assert!(scores.warm_up_left() > 0, "{matured}");
        live(&mut scores, 1, grown(matured));
    }
    assert_eq!(scores.warm_up_left(), 0);
    live(&mut scores, 1, grown(5));
    assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS, "its sums fell");
    live(&mut scores, 1, grown(6));
    assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS - 1);
    live(&mut scores, 2, grown(7));
    assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS, "another model");
    live(&mut scores, 2, grown(8));
    live(&mut scores, 2, by_resource(9, &[(0, 5.0, 50.0)]));
    assert_eq!(scores.warm_up_left(), WARM_UP_ROUNDS, "it was updated");
}

/// The second resource is silent for two rounds, while the first is compared in each.
#[test]
fn a_resource_that_nobody_uses_is_compared_over_all_rounds_since_it_was_used() {
    let (mut there, mut late) = (Scores::default(), Scores::default());
    let score = |round: f64| {
        by_resource(
            10 + round as u64,
            &[(0, round, 10.0 * round), (1, 3.0 * round, 7.0)],
        )
    };
    hear(&mut there, 1, score(1.0));
    let mut open = Open::at(1);
    there.next_round(&Open::at(0), &open);
    let first_only = Anew {
        counts: true,
        parts: [true, true, false, false, false],
    };
    for round in [2, 3] {
        hear(&mut there, 1, score(round as f64));
        let (_, since) = there.in_round(&open).unwrap();
        assert_eq!(since.parts()[1], part(1.0, 10.0));
        assert_eq!(since.parts()[2], part(3.0 * (round - 1) as f64, 0.0));
        let next = open.next(&first_only, round);
        // This one comes when the silence has begun: it knows a part of it only.
        hear(&mut late, 1, score(round as f64));
        late.next_round(&open, &next);
        there.next_round(&open, &next);
        open = next;
    }
    hear(&mut late, 1, score(4.0));
    let (_, since) = late.in_round(&open).unwrap();
    assert_eq!(since.parts()[1..3], [part(1.0, 10.0), None]);
    assert_eq!(late.warm_up_left(), WARM_UP_ROUNDS - 1);
}
