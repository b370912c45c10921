//! One customer: what is usual, how long it is flagged, and what may be said of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod fleets;

use fleets::{Chance, DAY, MINUTE_MS};
use forebay_anomaly::{Around, Customer, Kind, Sign, Step, Verdict, Watch};
use proptest::prelude::*;

fn step(minute: u64, asked: f64) -> Step {
    Step {
        unix_ms: minute * MINUTE_MS,
        asked,
        ..Step::default()
    }
}

fn next(watch: &Watch, customer: &mut Customer, step: &Step) -> Option<Verdict> {
    let signs = watch.observe(customer, step)?;
    Some(watch.judge(customer, &signs, Around::default()))
}

/// Watched for ten days, with nights.
fn watched(watch: &Watch, chance: &mut Chance) -> Customer {
    let mut customer = Customer::default();
    for minute in 0..10 * DAY {
        let step = Step {
            keys: Some(10.0),
            ..step(minute, usual(minute, chance))
        };
        next(watch, &mut customer, &step);
    }
    customer
}

fn usual(minute: u64, chance: &mut Chance) -> f64 {
    let wave = (std::f64::consts::TAU * minute as f64 / DAY as f64).sin();
    (100.0 * wave.exp() * chance.gamma(20.0) / 20.0).round()
}

#[test]
fn a_customer_is_flagged_until_it_was_quiet_for_an_hour() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(5));
    let mut customer = watched(&watch, &mut chance);
    let (mut flagged_at, mut ended_at) = (None, None);
    for minute in 10 * DAY..11 * DAY {
        let since = minute - 10 * DAY;
        // With pauses of half an hour in between that are no end.
        let is_attack = since < 150 && since % 60 < 30;
        let keys = if is_attack { 100.0 } else { 10.0 };
        let step = Step {
            keys: Some(keys),
            ..step(minute, usual(minute, &mut chance))
        };
        let verdict = next(&watch, &mut customer, &step).unwrap();
        match (verdict.kind, flagged_at) {
            (Kind::Unusual, None) => flagged_at = Some(since),
            (Kind::Unusual, Some(flagged_at)) => {
                assert_eq!(ended_at, None, "flagged once more");
                let since_unix_ms = (10 * DAY + flagged_at) * MINUTE_MS;
                assert_eq!(verdict.since_unix_ms, Some(since_unix_ms));
            }
            (_, Some(_)) if ended_at.is_none() => ended_at = Some(since),
            _ => {}
        }
    }
    println!("flagged from {flagged_at:?} to {ended_at:?}");
    assert!(flagged_at.is_some_and(|at| at <= 5), "{flagged_at:?}");
    assert!(
        ended_at.is_some_and(|at| (210..250).contains(&at)),
        "{ended_at:?}"
    );
}

#[test]
fn what_is_denied_by_the_pool_says_nothing_of_the_customer() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(6));
    let mut customer = watched(&watch, &mut chance);
    for minute in 10 * DAY..10 * DAY + 120 {
        let asked = usual(minute, &mut chance);
        let step = Step {
            asked: 20.0 * asked,
            denied_pool: 19.0 * asked,
            ..step(minute, 0.0)
        };
        assert_eq!(
            next(&watch, &mut customer, &step).unwrap().kind,
            Kind::Normal
        );
    }
}

#[test]
fn a_new_level_is_unusual_for_days_and_then_usual() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(7));
    let mut customer = watched(&watch, &mut chance);
    let mut last_flagged = 0;
    for minute in 10 * DAY..70 * DAY {
        let verdict = next(
            &watch,
            &mut customer,
            &step(minute, 3.0 * usual(minute, &mut chance)),
        )
        .unwrap();
        if verdict.kind == Kind::Unusual {
            last_flagged = minute / DAY - 10;
        }
    }
    println!("flagged until day {last_flagged}");
    assert!((1..15).contains(&last_flagged), "{last_flagged}");
}

#[test]
fn whoever_is_confirmed_is_flagged_as_easily_the_next_time() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(8));
    let mut customer = watched(&watch, &mut chance);
    let attack = |customer: &mut Customer, chance: &mut Chance| {
        let mut score: f64 = 0.0;
        for minute in 0..10 {
            let at = 10 * DAY + minute;
            score = score.max(
                next(&watch, customer, &step(at, 5.0 * usual(at, chance)))
                    .unwrap()
                    .score,
            );
        }
        score
    };
    attack(&mut customer, &mut chance);
    let mut confirmed = customer.clone();
    confirmed.confirm();
    let at = step(10 * DAY + 10, 400.0);
    let score = |customer: &mut Customer| next(&watch, customer, &at).unwrap().score;
    let (with, without) = (score(&mut confirmed), score(&mut customer));
    assert!(with > 1.2 * without, "{with} {without}");
    // Nobody is made more suspicious by saying so of a customer that is not flagged.
    let mut normal = watched(&watch, &mut chance);
    let before = normal.clone();
    normal.confirm();
    assert_eq!(normal, before);
}

#[test]
fn one_flag_is_paid_back_once_however_often_it_is_confirmed() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(10));
    let mut customer = watched(&watch, &mut chance);
    let mut flags = 0;
    for minute in 10 * DAY..12 * DAY + 10 {
        let is_attack = minute % DAY < 10 && minute >= 11 * DAY;
        let asked = usual(minute, &mut chance) * if is_attack { 40.0 } else { 1.0 };
        let verdict = next(&watch, &mut customer, &step(minute, asked)).unwrap();
        flags += u32::from(verdict.since_unix_ms == Some(minute * MINUTE_MS));
    }
    assert_eq!(flags, 2);
    let before = customer.clone();
    customer.confirm();
    assert_ne!(customer, before);
    let once = customer.clone();
    customer.confirm();
    assert_eq!(customer, once);
}

#[test]
fn a_sign_that_comes_later_than_its_customer_is_learned_for_as_long() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(11));
    let mut customer = Customer::default();
    let mut next_with = |minute: u64, keys: Option<f64>| {
        let asked = usual(minute, &mut chance);
        let is_new = keys.map(|keys| keys < 10.0);
        let keys = keys.map(|keys| (keys * chance.gamma(20.0) / 20.0).round());
        let step = Step {
            keys,
            forecast_high: is_new.map(|is_new| asked * if is_new { 10.0 } else { 0.5 }),
            ..step(minute, asked)
        };
        next(&watch, &mut customer, &step).unwrap()
    };
    for minute in 0..21 * DAY {
        next_with(minute, None);
    }
    for minute in 21 * DAY..35 * DAY {
        // At first of a few gateways only, and with forecasts that know nothing.
        let keys = if minute < 22 * DAY { 4.0 } else { 40.0 };
        let verdict = next_with(minute, Some(keys));
        let mut evidence = verdict.evidence();
        let is_of_both = |sign| matches!(sign, Sign::Keys | Sign::Forecast);
        assert!(
            !evidence.any(|evidence| is_of_both(evidence.sign)),
            "day {}: {verdict}",
            minute / DAY
        );
    }
    let is_found = (35 * DAY..35 * DAY + 15)
        .any(|minute| next_with(minute, Some(400.0)).kind == Kind::Unusual);
    assert!(is_found, "ten times as many keys are not found");
}

#[test]
fn a_clock_that_ran_ahead_for_a_step_leaves_nobody_unjudged() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(12));
    let mut customer = watched(&watch, &mut chance);
    let ahead = step(2_000 * DAY, usual(0, &mut chance));
    assert!(next(&watch, &mut customer, &ahead).is_some());
    let mut found = None;
    for minute in 10 * DAY..10 * DAY + 120 {
        let times = if minute < 10 * DAY + 60 { 1.0 } else { 10.0 };
        let said = step(minute, times * usual(minute, &mut chance));
        let verdict = next(&watch, &mut customer, &said).unwrap();
        match verdict.kind {
            Kind::Unusual => found = found.or(Some(minute - 10 * DAY)),
            _ => assert_eq!(verdict.kind, Kind::Normal),
        }
        assert!(verdict.since_unix_ms <= Some(minute * MINUTE_MS));
    }
    println!("found after {found:?}");
    assert!(
        found.is_some_and(|minute| (60..70).contains(&minute)),
        "{found:?}"
    );
}

#[test]
fn a_clock_that_was_set_back_leaves_nobody_unjudged_and_nobody_flagged() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(13));
    let mut customer = watched(&watch, &mut chance);
    let attack = 10 * DAY..10 * DAY + 10;
    let mut kind = Kind::Normal;
    for minute in attack {
        let said = step(minute, 10.0 * usual(minute, &mut chance));
        kind = next(&watch, &mut customer, &said).unwrap().kind;
    }
    assert_eq!(kind, Kind::Unusual);
    // By two hours.
    let set_back = 10 * DAY - 110;
    let (mut ended, mut found) = (None, None);
    for minute in set_back..set_back + 480 {
        let times = if minute < set_back + 420 { 1.0 } else { 10.0 };
        let said = step(minute, times * usual(minute, &mut chance));
        let verdict = next(&watch, &mut customer, &said);
        let verdict =
            verdict.unwrap_or_else(|| panic!("minute {} is not judged", minute - set_back));
        assert!(verdict.since_unix_ms <= Some(minute * MINUTE_MS));
        match (verdict.kind, ended) {
            (Kind::Unusual, Some(_)) => found = found.or(Some(minute - set_back)),
            (Kind::Normal, None) => ended = Some(minute - set_back),
            _ => {}
        }
    }
    println!("flagged until {ended:?}, found again at {found:?}");
    assert!(ended.is_some_and(|minute| minute < 300), "{ended:?}");
    assert!(
        found.is_some_and(|minute| (420..430).contains(&minute)),
        "{found:?}"
    );
}

#[test]
fn a_step_that_is_late_by_less_than_three_changes_nothing() {
    for step_ms in [60_000_u32, 600_000] {
        let (watch, mut chance) = (Watch::new(step_ms), Chance(14));
        let at = |number: u64| Step {
            unix_ms: number * u64::from(step_ms),
            asked: 100.0,
            ..Step::default()
        };
        let mut customer = watched(&watch, &mut chance);
        assert!(next(&watch, &mut customer, &at(100_000)).is_some());
        let before = customer.clone();
        for late in 0..3 {
            assert_eq!(next(&watch, &mut customer, &at(100_000 - late)), None);
            assert_eq!(before, customer);
        }
        assert!(next(&watch, &mut customer, &at(100_000 - 3)).is_some());
    }
}

#[test]
fn nobody_is_judged_in_the_first_week() {
    let (watch, mut customer) = (Watch::new(60_000), Customer::default());
    for minute in 0..7 * DAY {
        assert!(customer.is_learning(&watch));
        let asked = if minute % 997 < 30 { 1e6 } else { 10.0 };
        assert_eq!(
            next(&watch, &mut customer, &step(minute, asked))
                .unwrap()
                .kind,
            Kind::Normal
        );
    }
}

#[test]
fn what_was_written_down_goes_on_as_it_was() {
    let (watch, mut chance) = (Watch::new(60_000), Chance(9));
    let mut customer = watched(&watch, &mut chance);
    let json = serde_json::to_string(&customer).unwrap();
    let mut read: Customer = serde_json::from_str(&json).unwrap();
    assert_eq!(customer, read);
    for minute in 10 * DAY..11 * DAY {
        let step = step(minute, usual(minute, &mut chance));
        assert_eq!(
            next(&watch, &mut customer, &step),
            next(&watch, &mut read, &step)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever gateways say, of whatever time.
    #[test]
    fn nothing_that_is_said_leaves_a_customer_that_cannot_be_judged(
        said in prop::collection::vec((
            prop::sample::select(vec![0_u64, 1, 60_000, 86_400_000, 604_800_000, u64::MAX / 4]),
            prop::sample::select(vec![0.0, -1.0, 1.0, 1e9, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
            prop::option::of(prop::sample::select(vec![0.0, -1.0, 5.0, f64::MAX, f64::NAN, f64::INFINITY])),
        ), 1..60),
        step_ms in prop::sample::select(vec![0_u32, 1, 60_000, 3_600_000, u32::MAX]),
    ) {
        let (watch, mut customer, mut unix_ms) = (Watch::new(step_ms), Customer::default(), 0_u64);
        let mut last_unix_ms = None;
        for (later, value, maybe) in said {
            unix_ms = unix_ms.saturating_add(later);
            let said = Step {
                unix_ms,
                asked: value,
                denied_contract: value,
                denied_pool: maybe.unwrap_or(0.0),
                keys: maybe,
                forecast_high: maybe,
                event_factor: maybe,
            };
            let before = customer.clone();
            let verdict = next(&watch, &mut customer, &said);
            prop_assert_eq!(verdict.is_none(), last_unix_ms.is_some_and(|last| unix_ms <= last));
            last_unix_ms = Some(unix_ms);
            match verdict {
                None => prop_assert_eq!(&before, &customer),
                Some(verdict) => prop_assert!(verdict.score.is_finite()),
            }
            let json = serde_json::to_string(&customer).unwrap();
            // What is no number is written as null, and so is a day without a sign.
            prop_assert!(!json.replace("\"today\":null", "").contains("null"), "{}", json);
        }
    }
}

#[test]
fn a_customer_weighs_at_most_512_bytes() {
    println!("{} bytes", size_of::<Customer>());
    assert!(size_of::<Customer>() <= 512);
}
