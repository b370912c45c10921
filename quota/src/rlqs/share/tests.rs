#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

use super::*;
use proptest::prelude::*;

/// The customer's bucket in the ledger, and what was moved.
struct Ledger {
    rate: u64,
    depth: i64,
    level: i64,
    paid: i64,
    lacked: i64,
    refuses: bool,
}

/// Envoy's bucket, by its source: continuous, and filled to the same part, in whole tokens, when another takes its place.
#[derive(Default)]
struct Envoy {
    told: Option<Told>,
    ends_us: u64,
    level: f64,
    at_us: u64,
    allowed: u64,
    all_allowed: u64,
    denied: u64,
}

impl Ledger {
    fn new(rate: u64, burst: i64) -> Self {
        Self {
            rate,
            depth: burst * 1_000_000,
            level: burst * 1_000_000,
            paid: 0,
            lacked: 0,
            refuses: false,
        }
    }

    fn standing(&self) -> Standing {
        Standing::Limited {
            available: Micro::new(self.level.max(0)),
            rate: Rate::from_tokens_per_s(self.rate),
            depth: Micro::new(self.depth),
        }
    }

    fn refill(&mut self, us: u64) {
        self.level = (self.level + i64::try_from(self.rate * us).unwrap()).min(self.depth);
    }
}

impl Purse for Ledger {
    fn draw(&mut self, amount: Micro) -> bool {
        let can = !self.refuses && amount.get() <= self.level;
        if can {
            self.owe(amount);
        }
        can
    }

    fn owe(&mut self, amount: Micro) {
        self.level -= amount.get();
        self.paid += amount.get();
    }

    fn give_back(&mut self, amount: Micro) {
        self.level = (self.level + amount.get()).min(self.depth);
        self.paid -= amount.get();
    }

    fn lack(&mut self, amount: Micro) {
        self.lacked += amount.get();
    }

    fn count(&mut self, amount: Micro) {
        self.owe(amount.min(Micro::new(self.level.max(0))));
    }
}

impl Envoy {
    fn hear(&mut self, (told, holds_s): (Told, u64), now_us: u64) {
        self.flow(now_us);
        let was = self.told.filter(|_| now_us < self.ends_us);
        self.ends_us = now_us + holds_s * 1_000_000;
        match (was, told) {
            (Some(Told::Bucket(old)), Told::Bucket(new)) => {
                let compared = |terms: Terms| {
                    (
                        terms.max_tokens,
                        terms.tokens_per_fill,
                        terms.fill_interval_nanos,
                    )
                };
                if compared(old) == compared(new) {
                    return;
                }
                self.level *= f64::from(new.max_tokens) / f64::from(old.max_tokens);
                self.level = self.level.floor();
            }
            (_, Told::Bucket(new)) => self.level = f64::from(new.max_tokens),
            _ => {}
        }
        self.told = Some(told);
    }

    fn flow(&mut self, now_us: u64) {
        if let Some(Told::Bucket(terms)) = self.told {
            let seconds = (now_us - self.at_us) as f64 / 1e6;
            let rate = f64::from(terms.tokens_per_fill) / f64::from(terms.fill_interval_s);
            self.level = (self.level + rate * seconds).min(f64::from(terms.max_tokens));
        }
        self.at_us = now_us;
    }

    fn request(&mut self, now_us: u64) {
        self.flow(now_us);
        let admits = match self.told.filter(|_| now_us < self.ends_us) {
            Some(Told::Bucket(_)) if self.level >= 1.0 => {
                self.level -= 1.0;
                true
            }
            Some(Told::Allow) => true,
            _ => false,
        };
        if admits {
            self.allowed += 1;
            self.all_allowed += 1;
        } else {
            self.denied += 1;
        }
    }

    fn report(&mut self, elapsed_us: u64) -> Used {
        Used {
            allowed: std::mem::take(&mut self.allowed),
            denied: std::mem::take(&mut self.denied),
            elapsed_us,
        }
    }
}

/// Runs so many cycles with requests at a steady pace, and a report every so many cycles.
fn run(
    share: &mut Share,
    ledger: &mut Ledger,
    envoy: &mut Envoy,
    now_us: &mut u64,
    cycles: u64,
    requests_per_s: u64,
    report_every: u64,
) {
    for cycle in 1..=cycles {
        let requests = (requests_per_s * cycle / 10) - (requests_per_s * (cycle - 1) / 10);
        for _ in 0..requests {
            *now_us += CYCLE_US / requests.max(1);
            envoy.request(*now_us);
        }
        *now_us += CYCLE_US - CYCLE_US / requests.max(1) * requests;
        ledger.refill(CYCLE_US);
        if cycle % report_every == 0 {
            let used = envoy.report(report_every * CYCLE_US);
            share.report(used, TimeUs(*now_us), ledger);
        }
        let told = share.cycle(ledger.standing(), PPM, TTL_US, TimeUs(*now_us), ledger);
        if let Some(told) = told {
            envoy.hear(told, *now_us);
        }
    }
}

#[test]
fn an_envoy_that_asks_for_more_than_the_contract_is_served_the_contract() {
    for report_every in [10, 50] {
        let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
        let (mut envoy, mut now_us) = (Envoy::default(), 0);
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            200,
            300,
            report_every,
        );
        let before = envoy.all_allowed;
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            100,
            300,
            report_every,
        );
        let served = envoy.all_allowed - before;
        assert!(
            (930..=1_005).contains(&served),
            "{served} in 10 s, reports every {report_every}"
        );
        assert!(ledger.lacked > 0, "the demand is known");
    }
}

#[test]
fn what_an_idle_envoy_cannot_use_goes_back() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        80,
        10,
    );
    run(&mut share, &mut ledger, &mut envoy, &mut now_us, 600, 0, 10);
    let paid_before = ledger.paid;
    run(&mut share, &mut ledger, &mut envoy, &mut now_us, 100, 0, 10);
    let moved = ledger.paid - paid_before;
    assert!(
        moved.abs() <= 10_000_000,
        "{moved} micro-tokens in 10 s of silence"
    );
    assert!(
        ledger.level >= ledger.depth / 2 - 10_000_000,
        "{} is left",
        ledger.level
    );
}

#[test]
fn an_envoy_is_told_nothing_new_while_nothing_changes_but_that_it_still_holds() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        300,
        60,
        10,
    );
    let mut heard = 0;
    for _ in 0..80 {
        now_us += CYCLE_US;
        ledger.refill(CYCLE_US);
        let told = share.cycle(
            ledger.standing(),
            1_000,
            TTL_US,
            TimeUs(now_us),
            &mut ledger,
        );
        heard += u32::from(told.is_some());
    }
    assert!((1..=3).contains(&heard), "{heard} assignments in 8 s");
}

#[test]
fn who_is_barred_is_denied_and_who_is_free_is_admitted() {
    let mut ledger = Ledger::new(100, 50);
    let mut share = Share::new(Micro::ZERO, TimeUs(0));
    let mut cycle = |standing, us| share.cycle(standing, PPM, TTL_US, TimeUs(us), &mut ledger);
    assert_eq!(cycle(Standing::Barred, 1), Some((Told::Deny, 8)));
    assert_eq!(cycle(Standing::Barred, 2), None);
    assert_eq!(cycle(Standing::Free, 3), Some((Told::Allow, 8)));
    assert!(ledger.paid == 0);
}

#[test]
fn a_bucket_of_one_token_is_assigned_too() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(1, 1));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        600,
        10,
        10,
    );
    assert!(
        (45..=61).contains(&envoy.all_allowed),
        "{} in a minute",
        envoy.all_allowed
    );
}

#[test]
fn an_envoy_that_is_gone_is_charged_for_what_it_was_told() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        300,
        10,
    );
    share.end(TimeUs(now_us), &mut ledger);
    let ends_us = envoy.ends_us;
    while now_us < ends_us + 1_000_000 {
        now_us += 5_000;
        envoy.request(now_us);
    }
    assert!(envoy.all_allowed as i64 * 1_000_000 <= ledger.paid);
}

#[test]
fn whatever_could_not_be_paid_an_envoy_is_served_again_soon_after() {
    for cycles in [10, 100, 1_000, 10_000] {
        let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
        let (mut envoy, mut now_us) = (Envoy::default(), 0);
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            200,
            300,
            50,
        );
        ledger.refuses = true;
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            cycles,
            300,
            50,
        );
        ledger.refuses = false;
        ledger.level = ledger.depth;
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            100,
            300,
            50,
        );
        let before = envoy.all_allowed;
        run(
            &mut share,
            &mut ledger,
            &mut envoy,
            &mut now_us,
            100,
            300,
            50,
        );
        let served = envoy.all_allowed - before;
        assert!(
            served >= 900,
            "{served} in 10 s, 10 s after {cycles} cycles"
        );
    }
}

#[test]
fn an_envoy_that_comes_back_is_not_charged_twice_for_what_it_used() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        240,
        300,
        50,
    );
    let estate = share.end(TimeUs(now_us), &mut ledger);
    let paid = ledger.paid;
    let mut share = Share::new(estate.credit, TimeUs(now_us));
    share.report(envoy.report(4_000_000), TimeUs(now_us), &mut ledger);
    assert_eq!(ledger.paid, paid, "all of it was paid before");
}

#[test]
fn a_dry_run_makes_no_debt() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    share.cycle(Standing::Free, PPM, TTL_US, TimeUs(1), &mut ledger);
    for report in 1..100 {
        let used = Used {
            allowed: 10_000,
            denied: 0,
            elapsed_us: 5_000_000,
        };
        share.report(used, TimeUs(report * 5_000_000), &mut ledger);
    }
    assert!(ledger.level >= 0, "{}", ledger.level);
}

#[test]
fn what_a_bucket_that_is_forgotten_held_goes_back() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        200,
        20,
        50,
    );
    run(&mut share, &mut ledger, &mut envoy, &mut now_us, 200, 0, 50);
    share.forget(&mut ledger);
    let used = i64::try_from(envoy.all_allowed).unwrap() * 1_000_000;
    assert!(
        (ledger.paid - used).abs() < 1_000,
        "{} paid, {used} used",
        ledger.paid
    );
}

#[test]
fn an_envoy_that_reports_nothing_and_not_since_when_is_idle() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        80,
        50,
    );
    let nothing = Used {
        allowed: 0,
        denied: 0,
        elapsed_us: 0,
    };
    share.report(nothing, TimeUs(now_us + 5_000_000), &mut ledger);
    assert_eq!(share.demand(), Some(Rate::ZERO));
}

#[test]
fn a_bucket_that_was_small_grows_with_its_part_while_it_is_used() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 1));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        300,
        50,
    );
    ledger.depth = 50_000_000;
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        300,
        50,
    );
    let Some(Told::Bucket(terms)) = envoy.told else {
        panic!("{:?}", envoy.told);
    };
    assert_eq!(terms.max_tokens, 50);
}

#[test]
fn an_envoy_that_was_idle_is_served_again_with_its_first_report() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        80,
        50,
    );
    run(&mut share, &mut ledger, &mut envoy, &mut now_us, 600, 0, 50);
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        60,
        300,
        50,
    );
    let before = envoy.all_allowed;
    run(
        &mut share,
        &mut ledger,
        &mut envoy,
        &mut now_us,
        100,
        300,
        50,
    );
    let served = envoy.all_allowed - before;
    assert!(served >= 900, "{served} in 10 s");
}

#[test]
fn a_burst_comes_back_while_nobody_asks() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(1, 50));
    let (mut envoy, mut now_us) = (Envoy::default(), 0);
    for minute in 0..10 {
        let before = envoy.all_allowed;
        run(&mut share, &mut ledger, &mut envoy, &mut now_us, 10, 50, 50);
        run(&mut share, &mut ledger, &mut envoy, &mut now_us, 590, 0, 50);
        let served = envoy.all_allowed - before;
        // The bucket begins with half of what is there, and grows.
        assert!(minute < 2 || served >= 45, "{served} in minute {minute}");
    }
}

#[test]
fn what_was_allowed_before_a_policy_began_to_bind_makes_no_debt() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    share.cycle(Standing::Free, PPM, TTL_US, TimeUs(1), &mut ledger);
    share.cycle(
        ledger.standing(),
        PPM,
        TTL_US,
        TimeUs(4_000_000),
        &mut ledger,
    );
    let used = Used {
        allowed: 5_000,
        denied: 0,
        elapsed_us: 5_000_000,
    };
    share.report(used, TimeUs(5_000_000), &mut ledger);
    assert!(ledger.level >= 0, "{}", ledger.level);
}

#[test]
fn what_cannot_be_told_for_long_enough_is_not_paid() {
    let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
    for cycle in 1..100 {
        let now = TimeUs(cycle * CYCLE_US);
        assert_eq!(
            share.cycle(ledger.standing(), PPM, 1_900_000, now, &mut ledger),
            None
        );
    }
    assert_eq!(ledger.paid, 0);
}

#[test]
fn buckets_that_envoy_would_take_for_the_same_differ_in_what_it_compares() {
    let slow = terms(10, Rate::from_tokens_per_s(1));
    let fast = terms(10, Rate::from_tokens_per_s(100));
    assert_eq!(slow.tokens_per_fill, fast.tokens_per_fill);
    assert_ne!(slow.fill_interval_nanos, fast.fill_interval_nanos);
}

#[derive(Clone, Debug)]
enum Event {
    Requests { count: u8 },
    Wait { ms: u16 },
    Report,
    Rate { per_s: u8 },
    Depth { tokens: u8 },
    Part { permille: u16 },
    Bar { barred: bool },
    Refuse { refuses: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u8..60).prop_map(|count| Event::Requests { count }),
        4 => (1_u16..2_500).prop_map(|ms| Event::Wait { ms }),
        3 => Just(Event::Report),
        1 => (0_u8..200).prop_map(|per_s| Event::Rate { per_s }),
        1 => (0_u8..200).prop_map(|tokens| Event::Depth { tokens }),
        1 => (1_u16..=1_000).prop_map(|permille| Event::Part { permille }),
        1 => any::<bool>().prop_map(|barred| Event::Bar { barred }),
        1 => any::<bool>().prop_map(|refuses| Event::Refuse { refuses }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// Whatever happens, an Envoy that hears at once has never admitted more than was paid.
    #[test]
    fn no_schedule_lets_an_envoy_admit_what_was_not_paid(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let (mut share, mut ledger) = (Share::new(Micro::ZERO, TimeUs(0)), Ledger::new(100, 50));
        let (mut envoy, mut now_us, mut reported_us) = (Envoy::default(), 0_u64, 0_u64);
        let (mut part, mut is_barred) = (PPM, false);
        for event in events {
            match event {
                Event::Requests { count } => {
                    for _ in 0..count {
                        now_us += 1_000;
                        ledger.refill(1_000);
                        envoy.request(now_us);
                    }
                }
                Event::Wait { ms } => {
                    now_us += u64::from(ms) * 1_000;
                    ledger.refill(u64::from(ms) * 1_000);
                }
                Event::Report => {
                    let used = envoy.report(now_us - reported_us);
                    reported_us = now_us;
                    share.report(used, TimeUs(now_us), &mut ledger);
                }
                Event::Rate { per_s } => ledger.rate = per_s.into(),
                Event::Depth { tokens } => {
                    ledger.depth = i64::from(tokens) * 1_000_000;
                    ledger.level = ledger.level.min(ledger.depth);
                }
                Event::Part { permille } => part = u64::from(permille) * 1_000,
                Event::Bar { barred } => is_barred = barred,
                Event::Refuse { refuses } => ledger.refuses = refuses,
            }
            let standing = if is_barred { Standing::Barred } else { ledger.standing() };
            if let Some(told) = share.cycle(standing, part, TTL_US, TimeUs(now_us), &mut ledger) {
                envoy.hear(told, now_us);
            }
            envoy.flow(now_us);
            let could = match envoy.told.filter(|_| now_us < envoy.ends_us) {
                Some(Told::Bucket(_)) => envoy.level,
                _ => 0.0,
            };
            let out = envoy.all_allowed as f64 + could;
            // Envoy counts in floating point, and we round to a micro-token with each event.
            prop_assert!(
                out * 1e6 <= ledger.paid as f64 + 100.0,
                "{out} tokens out, {} paid", ledger.paid
            );
        }
    }
}
