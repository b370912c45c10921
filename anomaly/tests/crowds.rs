//! Flash crowds are no abuse, and nobody can make one up or hide one who is in the minority.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod fleets;

use fleets::{CUSTOMERS, DAY, Done, Fleet, MINUTE_MS, NOTHING, Watched};
use forebay_anomaly::{Kind, Sign};

const SEEDS: [u64; 3] = [11, 12, 13];
const DAYS: u64 = 15;

fn calm(seed: u64) -> (Fleet, Watched) {
    let (mut fleet, mut watched) = (Fleet::new(seed), Watched::new(60_000, CUSTOMERS));
    for _ in 0..DAYS * DAY + 600 {
        watched.observe(&fleet.next(|_| NOTHING));
    }
    (fleet, watched)
}

/// Lets so many minutes pass; by customer whether it was in a crowd, and whether it was flagged.
fn watch(
    (fleet, watched): &mut (Fleet, Watched),
    minutes: u64,
    done: impl Fn(u64, usize) -> Done,
) -> Vec<(bool, bool)> {
    let mut seen = vec![(false, false); CUSTOMERS];
    for minute in 0..minutes {
        watched.observe(&fleet.next(|number| done(minute, number)));
        for number in watched.new_flags(fleet.minute * MINUTE_MS) {
            seen[number].1 = true;
        }
        for (verdict, seen) in watched.verdicts.iter().zip(&mut seen) {
            seen.0 |= verdict.kind == Kind::Crowd;
        }
    }
    seen
}

/// What an event brings: not to the minute, and more to some than to others.
fn risen(minute: u64, number: usize, times: f64) -> Done {
    let begins = number as u64 % 4;
    match (begins..90).contains(&minute) {
        true => Done {
            more: (times - 1.0) * (0.7 + 0.1 * (number % 7) as f64),
            denied: 0.3,
            keys_times: times.sqrt(),
            event: None,
        },
        false => NOTHING,
    }
}

#[test]
fn nobody_is_flagged_for_an_event_that_is_known_and_everybody_is_seen_in_it() {
    for seed in SEEDS {
        let mut calm = calm(seed);
        // A third of the customers: too few to be a crowd by themselves.
        let seen = watch(&mut calm, 180, |minute, number| match number % 3 {
            0 => Done {
                event: (minute < 90).then_some(5.0),
                ..risen(minute, number, 4.0)
            },
            _ => NOTHING,
        });
        let third = seen.iter().step_by(3);
        let (crowd, flagged) = third.fold((0, 0), |(crowd, flagged), seen| {
            (crowd + usize::from(seen.0), flagged + usize::from(seen.1))
        });
        println!("seed {seed}: of 20 with an event {crowd} in a crowd, {flagged} flagged");
        assert_eq!(flagged, 0);
        assert!(crowd >= 15, "{crowd}");
    }
}

#[test]
fn more_than_an_event_explains_is_flagged() {
    for seed in SEEDS {
        let mut calm = calm(seed);
        let seen = watch(&mut calm, 90, |_, number| match number {
            6 => Done {
                more: 59.0,
                event: Some(3.0),
                ..NOTHING
            },
            _ => NOTHING,
        });
        assert!(seen[6].1, "seed {seed}");
    }
}

#[test]
fn a_crowd_that_nobody_has_announced_is_told_from_abuse_by_the_peers() {
    let (mut crowd, mut flagged) = (0, 0);
    for seed in SEEDS {
        let mut calm = calm(seed);
        let seen = watch(&mut calm, 180, |minute, number| match number % 5 {
            // One in the midst of it is abused.
            0 if number == 30 && minute < 90 => Done {
                more: 150.0,
                ..NOTHING
            },
            0 => NOTHING,
            _ => risen(minute, number, 5.0),
        });
        let of_crowd: Vec<_> = (0..CUSTOMERS)
            .filter(|number| number % 5 != 0)
            .map(|number| seen[number])
            .collect();
        let count = |of: fn(&(bool, bool)) -> bool| of_crowd.iter().filter(|seen| of(seen)).count();
        println!(
            "seed {seed}: of {} in a crowd {} seen in it, {} flagged",
            of_crowd.len(),
            count(|seen| seen.0),
            count(|seen| seen.1)
        );
        crowd += count(|seen| seen.0);
        flagged += count(|seen| seen.1);
        assert!(seen[30].1, "seed {seed}: abuse in a crowd");
    }
    assert!(crowd >= 120, "{crowd} of 144");
    // Some are flagged in three hours that are like any other.
    assert!(flagged <= 3, "{flagged} of 144");
}

/// The first 24 of 60 are liars.
const LIARS: usize = CUSTOMERS * 2 / 5;

/// A third of the customers, liars or not, have jobs that begin at each full hour.
fn job(minute: u64, number: usize) -> Done {
    let more = match number % 6 {
        1 | 4 if minute.is_multiple_of(60) => 25.0,
        _ => return NOTHING,
    };
    Done { more, ..NOTHING }
}

/// When liars shout, all at once, after they have been watched for ten days: in so many minutes of each so many.
const SHOUTS: [(u64, u64); 3] = [(20, 480), (8, 60), (240, 1_440)];

#[test]
fn two_fifths_of_liars_change_nothing_of_anybody_else() {
    for (seed, (minutes, of)) in SEEDS.into_iter().zip(SHOUTS) {
        let (mut fleet, mut honest) = (Fleet::new(seed), Watched::new(60_000, CUSTOMERS));
        let mut lied = honest.clone();
        for minute in 1..DAYS * DAY {
            let steps = fleet.next(|number| job(minute, number));
            let mut lies = steps.clone();
            let shouts = minute >= 10 * DAY && minute % of < minutes;
            for step in lies.iter_mut().take(LIARS).filter(|_| shouts) {
                (step.asked, step.denied_contract) = (1e14, f64::NAN);
                step.keys = Some(f64::INFINITY);
            }
            honest.observe(&steps);
            lied.observe(&lies);
            let of_honest = |watched: &Watched| watched.verdicts[LIARS..].to_vec();
            assert_eq!(
                of_honest(&honest),
                of_honest(&lied),
                "seed {seed}, minute {minute}"
            );
        }
        assert_eq!(
            honest.customers[LIARS..],
            lied.customers[LIARS..],
            "seed {seed}"
        );
        assert_ne!(
            honest.customers[..LIARS],
            lied.customers[..LIARS],
            "nobody has lied"
        );
    }
}

/// Whenever two fifths of liars shout, they need one in six of the others for a crowd.
#[test]
fn in_no_minute_has_one_in_six_risen_by_chance_or_by_the_clock() {
    for seed in SEEDS {
        let mut fleet = Fleet::new(seed);
        let mut watched = Watched::new(60_000, CUSTOMERS - LIARS);
        let (mut worst, mut at) = (0.0, 0);
        for minute in 1..22 * DAY {
            watched.observe(&fleet.next(|number| job(minute, number))[LIARS..]);
            let others = watched.risen_share;
            if others > worst {
                (worst, at) = (others, minute);
            }
        }
        println!("seed {seed}: {worst:.3} have risen in minute {at}");
        assert!(worst < 1.0 / 6.0, "seed {seed}: {worst} in minute {at}");
    }
}

#[test]
fn two_fifths_of_liars_neither_excuse_abuse_nor_hide_a_crowd() {
    for seed in SEEDS {
        let mut shouted = calm(seed);
        let seen = watch(&mut shouted, 60, |_, number| match number {
            ..LIARS => Done {
                more: 1e6,
                ..NOTHING
            },
            36 => Done {
                more: 15.0,
                ..NOTHING
            },
            _ => NOTHING,
        });
        assert!(seen[36].1, "seed {seed}: excused by liars");
        let mut silent = calm(seed);
        let seen = watch(&mut silent, 90, |minute, number| match number {
            ..LIARS => NOTHING,
            _ => risen(minute, number, 8.0),
        });
        let flagged = seen[LIARS..].iter().filter(|seen| seen.1).count();
        let crowd = seen[LIARS..].iter().filter(|seen| seen.0).count();
        println!("seed {seed}: 24 are silent, of 36 {crowd} in a crowd and {flagged} flagged");
        assert!(
            crowd >= 30 && flagged <= 3,
            "seed {seed}: {crowd} {flagged}"
        );
    }
}

#[test]
fn evidence_is_in_words_and_numbers() {
    let mut calm = calm(SEEDS[0]);
    let seen = watch(&mut calm, 8, |_, number| match number {
        0 => Done {
            more: 9.0,
            ..NOTHING
        },
        _ => NOTHING,
    });
    assert!(seen[0].1);
    let verdict = &calm.1.verdicts[0];
    println!("{verdict}");
    let burst = verdict
        .evidence()
        .find(|evidence| evidence.sign == Sign::Burst);
    assert!(burst.is_some_and(|burst| burst.times > 3.0 && burst.z > 5.0 && burst.p < 0.1));
    assert!(
        verdict
            .to_string()
            .contains("times the demand that is usual at this hour, over 5 minutes")
    );
    assert!(verdict.score > 1.0);
}
