//! Links: what is found where nothing is, where something is, and with gaps.

mod fleet;

use fleet::{Chance, DAY, Fleet, REACH, STEP_S, TWO_WEEKS};
use forebay_sharing::risk::{
    Event, History, Link, Residuals, correlate, links, partial_correlations, residuals,
};

fn learn(usage: &[Vec<f32>], events: &[Event]) -> Residuals {
    residuals(&History {
        step_s: STEP_S,
        first_s: 0,
        usage,
        events,
    })
}

fn found(usage: &[Vec<f32>], events: &[Event], seed: u64) -> Vec<Link> {
    links(&learn(usage, events), REACH, seed)
}

#[test]
fn among_accounts_that_have_nothing_in_common_hardly_any_family_has_a_link() {
    const FAMILIES: u64 = 200;
    let mut independent = 0;
    let mut shuffled = 0;
    for seed in 0..FAMILIES {
        let usage = Fleet::independent(8, seed).demand(TWO_WEEKS, true, seed + 1000);
        independent += u64::from(!found(&usage, &[], seed).is_empty());
        // Coupled accounts, each moved by another number of days: all that they are by themselves is left.
        let mut usage = Fleet::planted(12, seed).demand(TWO_WEEKS, true, seed + 2000);
        for (customer, usage) in usage.iter_mut().enumerate() {
            usage.rotate_left(customer * DAY);
        }
        shuffled += u64::from(!found(&usage, &[], seed).is_empty());
    }
    println!(
        "of {FAMILIES} families {independent} independent ones and {shuffled} shuffled ones have a link"
    );
    assert!(independent * 20 <= FAMILIES);
    assert!(shuffled * 20 <= FAMILIES);
}

#[test]
fn among_accounts_that_joined_lately_hardly_any_family_has_a_link() {
    const FAMILIES: u64 = 20;
    for part in [10, 4] {
        let mut with_links = 0;
        for seed in 0..FAMILIES {
            let mut usage = Fleet::independent(50, seed).demand(TWO_WEEKS, true, seed + 3000);
            for usage in &mut usage {
                usage[..TWO_WEEKS - TWO_WEEKS / part].fill(f32::NAN);
            }
            with_links += u64::from(!found(&usage, &[], seed).is_empty());
        }
        println!("{with_links} of {FAMILIES} families that are known in the last 1/{part}");
        assert!(with_links * 20 <= FAMILIES);
    }
}

#[test]
fn who_follows_whom_and_after_how_many_steps_is_found() {
    let (mut drives, mut linked, mut exact, mut wrong, mut all) = (0, 0, 0, 0, 0);
    for seed in 1..=6 {
        let fleet = Fleet::planted(48, seed);
        let links = found(&fleet.demand(TWO_WEEKS, true, seed + 100), &[], seed);
        let planted = fleet.planted_pairs();
        all += links.len();
        wrong += links
            .iter()
            .filter(|link| !planted.contains(&(link.from, link.to)))
            .count();
        for (from, to, lag, _) in &fleet.drives {
            drives += 1;
            let link = links
                .iter()
                .find(|link| (link.from, link.to) == (*from, *to));
            if let Some(link) = link {
                linked += 1;
                exact += usize::from(link.tail.lag_steps.abs_diff(*lag) <= 1);
                assert!(link.tail.interval.high >= link.tail.dependence);
            }
        }
    }
    println!(
        "{linked} of {drives} couplings linked, {exact} at their lag or one beside it, {wrong} of {all} links wrong"
    );
    assert!(linked * 10 >= drives * 8);
    assert!(exact * 10 >= linked * 9);
    assert!(wrong * 10 <= all);
}

#[test]
fn an_outage_that_all_share_links_nobody() {
    let mut with_links = 0;
    for seed in 0..10 {
        let mut usage = Fleet::independent(8, seed).demand(TWO_WEEKS, true, seed + 500);
        let mut chance = Chance(seed);
        for _ in 0..12 {
            let from = chance.below(TWO_WEEKS - 40);
            for usage in &mut usage {
                usage[from..from + 36].fill(f32::NAN);
            }
        }
        let masked = found(&usage, &[], seed).len();
        for usage in usage.iter_mut().flatten() {
            if usage.is_nan() {
                *usage = 0.0;
            }
        }
        let as_zeros = found(&usage, &[], seed).len();
        println!("seed {seed}: {masked} links with masks, {as_zeros} if outages were silence");
        assert!(as_zeros > 20);
        with_links += usize::from(masked > 0);
    }
    assert!(with_links <= 1);
}

#[test]
fn an_event_links_those_whom_it_moves_only_where_nobody_knew_of_it() {
    for seed in 0..6 {
        let mut fleet = Fleet::independent(12, seed);
        fleet.campaign = vec![1, 4, 7];
        let usage = fleet.demand(TWO_WEEKS, true, seed + 700);
        let event = Event {
            customers: fleet.campaign.clone(),
            is_on: (0..TWO_WEEKS).map(Fleet::campaign_at).collect(),
        };
        let (unknown, known) = (found(&usage, &[], seed), found(&usage, &[event], seed));
        println!(
            "seed {seed}: {} links, {} where it was known",
            unknown.len(),
            known.len()
        );
        let is_among =
            |link: &&Link| fleet.campaign.contains(&link.from) && fleet.campaign.contains(&link.to);
        assert_eq!(unknown.iter().filter(is_among).count(), 6);
        assert_eq!(known.iter().filter(is_among).count(), 0);
    }
}

#[test]
fn matrices_show_what_was_planted() {
    let fleet = Fleet::planted(24, 1);
    let residuals = learn(&fleet.demand(TWO_WEEKS, true, 101), &[]);
    let pairs: Vec<(usize, usize)> = (0..24)
        .flat_map(|from| (0..24).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    let correlations = correlate(&residuals, &pairs, REACH);
    let (from, to, lag, _) = fleet.drives[2];
    let there = correlations.matrix(lag).at(from, to);
    let back = correlations.matrix(lag).at(to, from);
    println!("{there:.3} {lag} steps later, {back:.3} the other way round");
    assert!(there > 0.1 && there > 4.0 * back);
    let members = &fleet.shocks[0];
    let partial = partial_correlations(&residuals);
    let direct = partial.at(members[0], members[1]);
    let others: f64 = (17..24)
        .map(|other| partial.at(16, other).abs())
        .fold(0.0, f64::max);
    println!("{direct:.3} between two that share a cause, {others:.3} at most among seven others");
    assert!(direct > others);
    assert_eq!(correlations.matrix(0).size(), 24);
    assert_eq!(correlations.matrix(0).rows().count(), 24);
}
