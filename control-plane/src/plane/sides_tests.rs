use super::super::score::{Open, Scores};
use super::*;
use forebay_wire::sync::{ForecastScore, ModelStatus, ResourceScore};

/// As a gateway of an older version says it: one sum over all resources.
fn old(is_canary: bool, loss: f64, usage: f64) -> Report {
    let said = ForecastScore {
        matured: 10,
        covered: 9,
        loss,
        usage,
        resources: Vec::new(),
    };
    Report {
        is_canary,
        score: Score::read(&said).unwrap(),
    }
}

/// Loss and usage of each resource.
fn report_of(is_canary: bool, parts: &[(f64, f64)]) -> Report {
    let resources = (0..).zip(parts);
    let resources = resources.map(|(resource, (loss, usage))| ResourceScore {
        resource,
        loss: *loss,
        usage: *usage,
    });
    let said = ForecastScore {
        matured: 10,
        covered: 9,
        loss: parts.iter().map(|(loss, _)| loss).sum(),
        usage: parts.iter().map(|(_, usage)| usage).sum(),
        resources: resources.collect(),
    };
    Report {
        is_canary,
        score: Score::read(&said).unwrap(),
    }
}

fn report(is_canary: bool, loss: f64, usage: f64) -> Report {
    report_of(is_canary, &[(loss, usage)])
}

/// How the losses of canaries and others compare.
fn ratio(reports: &[Report]) -> f64 {
    let (canaries, others) = compare(reports).0.unwrap().losses();
    others / canaries
}

fn gain(reports: &[Report]) -> f64 {
    compare(reports).0.unwrap().gain()
}

#[test]
fn a_resource_in_bytes_does_not_drown_one_in_requests() {
    // Requests are forecast far worse by the canary, bytes alike.
    let reports = [
        report_of(true, &[(80.0, 1e3), (5e7, 1e9)]),
        report_of(false, &[(50.0, 1e3), (5e7, 1e9)]),
    ];
    let expected = ((50.0 - 80.0) / 130.0) / 2.0;
    assert!((gain(&reports) - expected).abs() < 1e-9);
    // Whatever unit a resource has.
    let in_megabytes = [
        report_of(true, &[(80.0, 1e3), (50.0, 1e3)]),
        report_of(false, &[(50.0, 1e3), (50.0, 1e3)]),
    ];
    assert!((gain(&in_megabytes) - expected).abs() < 1e-9);
    let beside = [(reports[0].score, reports[1].score)];
    let (pair, _) = compare_beside(&beside);
    assert!((pair.unwrap().gain() - expected).abs() < 1e-9);
}

#[test]
fn a_resource_that_nobody_uses_waits_and_the_others_are_compared() {
    let reports = [
        report_of(true, &[(40.0, 1e3), (500.0, 0.0)]),
        report_of(false, &[(50.0, 1e3), (0.0, 0.0)]),
    ];
    let (pair, anew) = compare(&reports);
    assert!((pair.unwrap().gain() - 10.0 / 90.0).abs() < 1e-9);
    assert_eq!(
        (anew.counts, anew.parts[1], anew.parts[2]),
        (true, true, false)
    );
    let silent = [report(true, 1.0, 0.0), report(false, 1.0, 0.0)];
    let (pair, anew) = compare(&silent);
    assert_eq!(pair, Err(Lack::Usage));
    assert_eq!((anew.counts, anew.parts[1]), (false, false));
}

#[test]
fn nobody_brings_in_a_resource_of_its_own() {
    let honest = || (0..5).map(|_| report_of(false, &[(5e4, 1e6)]));
    let usual: Vec<Report> = honest().chain([report(true, 5e4, 1e6)]).collect();
    let made_up = report_of(false, &[(5e4, 1e6), (1e16, 1e17)]);
    let lied: Vec<Report> = usual.iter().copied().chain([made_up]).collect();
    assert_eq!(gain(&lied), gain(&usual));
    let same = |report: Report| (report.score, report.score);
    let (worse, better) = (
        report_of(true, &[(5e4, 1e6), (1e16, 1e17)]).score,
        report_of(true, &[(5e4, 1e6), (0.0, 1e17)]).score,
    );
    let mut beside: Vec<_> = honest().map(same).collect();
    beside.push((worse, better));
    assert_eq!(compare_beside(&beside).0.unwrap().gain(), 0.0);
}

/// What each of three gateways says of two models in a round, when one of them is left that was there since the second resource was used last.
fn after_a_rolling_restart() -> Vec<(Score, Score)> {
    let said = |matured: u64, parts: [(f64, f64); 2]| ModelStatus {
        digest: vec![1; 32],
        score: Some(ForecastScore {
            matured,
            covered: matured,
            loss: parts[0].0 + parts[1].0,
            usage: parts[0].1 + parts[1].1,
            resources: (0..)
                .zip(parts)
                .map(|(resource, (loss, usage))| ResourceScore {
                    resource,
                    loss,
                    usage,
                })
                .collect(),
        }),
        ..ModelStatus::default()
    };
    let (begun, running) = (Open::at(1), Open::at(1).next(&waiting(), 2));
    let mut reports = Vec::new();
    for is_old in [true, false, false] {
        // Of each model, whose losses differ where nobody else has used anything.
        let of = |loss: f64| {
            let mut scores = Scores::default();
            if is_old {
                scores.hear(&said(1, [(0.0, 0.0), (0.0, 0.0)]));
                scores.next_round(&Open::default(), &begun);
            }
            scores.hear(&said(10, [(5e4, 1e6), (0.0, 0.0)]));
            scores.next_round(&begun, &running);
            let made_up = if is_old { (loss, 1e12) } else { (0.0, 0.0) };
            scores.hear(&said(20, [(1e5, 2e6), made_up]));
            scores.in_round(&running).unwrap().1
        };
        reports.push((of(0.0), of(1e12)));
    }
    reports
}

/// Only the second resource goes on.
fn waiting() -> Anew {
    let mut anew = Anew::ALL;
    anew.parts[2] = false;
    anew
}

#[test]
fn a_resource_counts_where_most_have_been_there_since_it_began_and_begins_anew_otherwise() {
    let reports = after_a_rolling_restart();
    let has_second = |score: &Score| score.parts()[2].is_some();
    let old: Vec<bool> = reports.iter().map(|report| has_second(&report.0)).collect();
    assert_eq!(old, [true, false, false]);
    let (pair, anew) = compare_beside(&reports);
    assert_eq!(pair.unwrap().gain(), 0.0);
    assert!(anew.parts[2], "there is nobody to wait for");
    // Where two of three were there, it is compared.
    let (old, new) = (reports[0], reports[1]);
    let (pair, _) = compare_beside(&[old, old, new]);
    assert!(pair.unwrap().gain() > 0.1);
}

#[test]
fn what_gateways_of_older_versions_say_is_compared_where_one_side_says_nothing_else() {
    let mixed = [old(true, 6e4, 1e6), report(false, 4e4, 1e6)];
    assert!((gain(&mixed) + 0.2).abs() < 1e-9);
    // And left out where most of each side tell resources apart.
    let mostly_new = [
        report(true, 4e4, 1e6),
        report(false, 4e4, 1e6),
        report(false, 4e4, 1e6),
        old(false, 9e4, 1e6),
    ];
    assert_eq!(gain(&mostly_new), 0.0);
}

#[test]
fn a_gateway_with_next_to_no_usage_does_not_decide() {
    let reports = [
        report(true, 5e4, 1e6),
        report(false, 5e4, 1e6),
        report(false, 50.0, 1.0),
    ];
    assert!((ratio(&reports) - 1.0).abs() < 0.01, "{}", ratio(&reports));
}

#[test]
fn a_gateway_that_lies_moves_its_side_by_two_typical_ones_at_most() {
    for (loss, usage) in [
        (1e18, 1e-300),
        (1e18, 1.0),
        (1e9, 1e6),
        (0.0, 1e18),
        (1e18, 1e18),
        (0.0, 0.0),
    ] {
        for lie in [report(false, loss, usage), old(false, loss, usage)] {
            let mut reports: Vec<Report> = (0..9).map(|_| report(false, 5e4, 1e6)).collect();
            reports.push(report(true, 5e4, 1e6));
            reports.push(lie);
            let moved = ratio(&reports);
            assert!(
                (0.75..=1.25).contains(&moved),
                "{loss} over {usage}: {moved}"
            );
        }
    }
}

#[test]
fn the_typical_gateway_is_not_who_speaks_loudest() {
    let honest: Vec<Score> = vec![report(false, 5e4, 1e6).score; 9];
    let alone = typical(&honest).unwrap();
    let ratio = |sums: &TypicalSums| sums.losses[0].loss / sums.losses[0].usage;
    assert!((ratio(&alone) - 0.05).abs() < 1e-12);
    assert!(
        (alone.matured - 10.0).abs() < 1e-9,
        "of one gateway, not of all"
    );
    for (loss, usage) in [(1e18, 1.0), (1e9, 1e6), (0.0, 1e18)] {
        let with_liar = [&honest[..], &[report(false, loss, usage).score]].concat();
        let moved = ratio(&typical(&with_liar).unwrap()) / 0.05;
        assert!(
            (0.75..=1.25).contains(&moved),
            "{loss} over {usage}: {moved}"
        );
    }
    assert_eq!(typical(&[]), None);
}

#[test]
fn loss_on_customers_that_stay_silent_counts() {
    let quiet = [
        report(true, 5e4, 1e6),
        report(false, 5e4, 1e6),
        report(false, 5e4, 0.0),
    ];
    assert!(ratio(&quiet) > 1.9, "{}", ratio(&quiet));
}

#[test]
fn a_gateway_weighs_as_much_for_a_challenger_as_for_the_model_in_force() {
    let both = |challenger, champion, usage| {
        let of = |loss| report(true, loss, usage).score;
        (of(challenger), of(champion))
    };
    let ratio = |reports: &[(Score, Score)]| {
        let (challenger, champion) = compare_beside(reports).0.unwrap().losses();
        champion / challenger
    };
    let honest = vec![both(4e4, 5e4, 1e6); 5];
    assert!((ratio(&honest) - 1.25).abs() < 1e-9);
    // A challenger that is far worse at one gateway counts there for as much as its champion does.
    let mut mixed = honest.clone();
    mixed.push(both(4e7, 5e4, 1e6));
    assert!((0.6..1.0).contains(&ratio(&mixed)), "{}", ratio(&mixed));
    for (challenger, champion, usage) in [(0.0, 1e18, 1e6), (1e18, 0.0, 1e6), (0.0, 1e6, 1e18)] {
        let mut lied = honest.clone();
        lied.push(both(challenger, champion, usage));
        assert!((0.8..=1.8).contains(&ratio(&lied)), "{}", ratio(&lied));
    }
    assert_eq!(compare_beside(&[]).0, Err(Missing::Gateways));
    let silent = [both(1.0, 1.0, 0.0)];
    assert_eq!(compare_beside(&silent).0, Err(Missing::Usage));
}

#[test]
fn a_canary_that_is_much_worse_looks_so_and_what_is_lacking_is_said() {
    let worse = [
        report(true, 5e7, 1e6),
        report(false, 5e4, 1e6),
        report(false, 5e4, 1e6),
    ];
    assert!(ratio(&worse) < 0.01, "{}", ratio(&worse));
    for (reports, lack) in [
        (vec![report(false, 1.0, 1.0)], Lack::Canaries),
        (vec![report(true, 1.0, 1.0)], Lack::Others),
        (
            vec![report(true, 1.0, 0.0), report(false, 1.0, 0.0)],
            Lack::Usage,
        ),
    ] {
        assert_eq!(compare(&reports).0, Err(lack));
    }
}
