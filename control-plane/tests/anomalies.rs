//! Customers that behave as they never did, as the server finds them in what gateways report, and what follows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod site;

use forebay_control_plane::anomaly::{AnomaliesQuery, AnomalyKind, AnomalyView, FlagAction};
use forebay_control_plane::document::Format;
use forebay_control_plane::plane::CustomerChange;
use forebay_control_plane::store::{Batch, Store, Table};
use kit::hash;
use serde_json::{Value, json};
use site::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

#[tokio::test]
async fn whoever_asks_for_far_more_at_night_is_flagged_with_its_evidence_and_capped_until_it_is_over()
 {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    let abuse = times(8, 60.0, NIGHT, 12);
    site.steps(NIGHT - 1, &abuse).await;
    assert_eq!(site.anomalies(), []);
    let mut most = 0.0_f64;
    while site.of("iris").is_none() {
        site.step(&abuse).await;
        most = most.max(site.allocated("iris"));
        assert!(site.step < NIGHT + 7, "not found within an hour");
    }
    assert!(most > RATE, "before it borrows: {most}");
    let found = site.of("iris").unwrap();
    assert_eq!(
        (
            found.kind,
            found.action,
            found.contract.as_str(),
            found.resource.as_str()
        ),
        (
            AnomalyKind::Unusual,
            Some(FlagAction::CapAtContract),
            "gold",
            "requests"
        )
    );
    assert!(signs(&found).contains("burst"), "{found:?}");
    assert!(found.score >= 1.0);
    let burst = found
        .evidence
        .iter()
        .find(|one| one.sign == "burst")
        .unwrap();
    assert!(
        burst.times > 20.0 && burst.says.contains("times the demand"),
        "{burst:?}"
    );
    assert!((unix_ms(NIGHT - 1)..unix_ms(site.step)).contains(&found.since_unix_ms));
    let mut told = BTreeSet::new();
    // Nobody else is, whatever it does to the pool.
    while site.of("iris").is_some() {
        assert_eq!(site.anomalies().len(), 1);
        let allocated = site.allocated("iris");
        assert!(allocated <= RATE + 1e-6, "{allocated}");
        // What it does not need of its guarantee is lent, as ever.
        assert!(
            allocated >= GUARANTEE || site.step >= NIGHT + 12,
            "{allocated}"
        );
        site.step(&abuse).await;
        told.extend(site.alerts());
        assert!(site.step < NIGHT + DAY, "not over within a day");
    }
    let object = format!("hash:{}", hash("iris"));
    let deed = |action: &str| (action.to_owned(), object.clone());
    assert_eq!(site.deeds(), [deed("anomaly.cap"), deed("anomaly.uncap")]);
    let alert = |state: &str| (object.clone(), state.to_owned());
    assert!(told.contains(&alert("firing")), "{told:?}");
    // Alerts are about the round that is over.
    site.step(&abuse).await;
    site.step(&abuse).await;
    assert!(!site.alerts().contains(&alert("firing")));
    let by_cap = site.causes.iter().filter(|cause| *cause == "anomaly");
    assert_eq!(by_cap.count(), 2, "one as it begins, one as it ends");
}

#[tokio::test]
async fn a_flag_alone_caps_nobody() {
    let mut site = Site::new("flag", json!([])).await;
    let abuse = times(8, 60.0, NIGHT, 12);
    site.steps(NIGHT + 10, &abuse).await;
    let found = site.of("iris").unwrap();
    assert_eq!(found.action, Some(FlagAction::Flag));
    assert!(site.allocated("iris") > RATE);
    assert_eq!(site.deeds(), []);
}

#[tokio::test]
async fn a_flood_that_the_contract_denies_is_flagged_for_that() {
    let flood = |customer: usize, step: u64| {
        let mut does = as_ever(customer, step);
        if customer == 3 && (NIGHT..NIGHT + 9).contains(&step) {
            // Five times what it may borrow: its tokens go to those who had them before; all else is denied.
            does.denied = 9_900.0;
            does.asks += does.denied + RATE;
        }
        does
    };
    let [mut told, mut capped] = [
        Site::new("flag", json!([])).await,
        Site::new("cap_at_contract", json!([])).await,
    ];
    for site in [&mut told, &mut capped] {
        site.steps(NIGHT + 8, &flood).await;
        assert_eq!(site.anomalies().len(), 1);
        assert_eq!(site.of("dune").unwrap().kind, AnomalyKind::Unusual);
    }
    // While it is capped, its denials are not counted.
    let found = told.of("dune").unwrap();
    let denied = found.evidence.iter().find(|one| one.sign == "denied");
    let share = denied.unwrap_or_else(|| panic!("{found:?}")).times;
    assert!((0.7..1.0).contains(&share), "{share}");
    assert!((GUARANTEE..=RATE + 1e-6).contains(&capped.allocated("dune")));
}

#[tokio::test]
async fn a_crowd_that_nobody_has_announced_flags_nobody_as_unusual() {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    let crowd = |customer: usize, step: u64| {
        let mut does = as_ever(customer, step);
        if customer != 0 && (NIGHT..NIGHT + 9).contains(&step) {
            does.asks *= 8.0;
        }
        does
    };
    let flagged = site.flagged_until(NIGHT + DAY / 2, &crowd).await;
    let kinds: BTreeSet<&str> = flagged.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, BTreeSet::from(["crowd"]), "{flagged:?}");
    assert!(flagged.len() >= 9, "{flagged:?}");
    assert_eq!(site.deeds(), []);
}

#[tokio::test]
async fn an_announced_event_explains_whoever_it_moves_and_nobody_else() {
    let second = |step: u64| unix_ms(step) / 1_000;
    let event = json!([{
        "name": "launch", "from_unix_s": second(NIGHT), "until_unix_s": second(NIGHT + 9), "factor": 10
    }]);
    let moved = times(8, 9.0, NIGHT, 9);
    let mut site = Site::new("cap_at_contract", event).await;
    let flagged = site.flagged_until(NIGHT + DAY / 2, &moved).await;
    assert_eq!(flagged, BTreeSet::from([("iris", "crowd")]));
    let mut other = Site::new("cap_at_contract", json!([])).await;
    let flagged = other.flagged_until(NIGHT + 9, &moved).await;
    assert_eq!(flagged, BTreeSet::from([("iris", "unusual")]));
}

#[tokio::test]
async fn in_weeks_that_are_as_ever_nobody_is_flagged() {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    let flagged = site.flagged_until(28 * DAY, &as_ever).await;
    assert_eq!(flagged, BTreeSet::new());
    let view = site.plane.anomalies(&AnomaliesQuery::default()).unwrap();
    assert_eq!((view.watched, view.learning, view.left_out), (12, 0, 0));
    let newest = unix_ms(site.step - 1) / u64::from(STEP_MS);
    assert_eq!(view.step_unix_ms, Some(newest * u64::from(STEP_MS)));
}

/// Without what is not kept: what spoke before the restart.
fn without_evidence(mut anomalies: Vec<AnomalyView>) -> Vec<AnomalyView> {
    for anomaly in &mut anomalies {
        anomaly.evidence.clear();
    }
    anomalies
}

#[tokio::test]
async fn a_restart_in_the_middle_changes_nothing() {
    let abuse = times(8, 60.0, NIGHT, 12);
    let mut all = [
        Site::new("cap_at_contract", json!([])).await,
        Site::new("cap_at_contract", json!([])).await,
        Site::new("cap_at_contract", json!([])).await,
    ];
    let restarts = [4 * DAY + 7, NIGHT + 2, NIGHT + 9, NIGHT + 14];
    let mut were_flagged = 0;
    while all[0].step < NIGHT + 40 {
        for (place, site) in all.iter_mut().enumerate() {
            site.step(&abuse).await;
            if place > 0 && restarts.contains(&site.step) {
                let before = without_evidence(site.anomalies());
                site.restart(place == 1).await;
                let after: Vec<AnomalyView> = without_evidence(site.anomalies());
                // Names are known again with the first step.
                let named = |anomaly: AnomalyView| AnomalyView {
                    contract: "gold".to_owned(),
                    resource: "requests".to_owned(),
                    ..anomaly
                };
                let after: Vec<AnomalyView> = after.into_iter().map(named).collect();
                assert_eq!(before, after, "{place} {}", site.step);
            }
        }
        let [first, clean, killed] = &all;
        let expected = without_evidence(first.anomalies());
        were_flagged += expected.len();
        if !restarts.contains(&first.step) {
            let found = without_evidence(clean.anomalies());
            assert_eq!(found, expected, "{}", first.step);
        }
        // Whoever is killed has lost what no report said twice: the step that ran.
        let since = |anomalies: &[AnomalyView]| anomalies.len();
        if !restarts.contains(&first.step) && first.step > NIGHT + 20 {
            assert_eq!(since(&killed.anomalies()), since(&expected));
        }
    }
    assert!(were_flagged > 5, "{were_flagged}");
    assert_eq!(all[1].deeds(), all[0].deeds());
}

#[tokio::test]
async fn a_gateway_that_lies_changes_the_verdict_on_its_customers_alone() {
    let mut honest = Site::new("cap_at_contract", json!([])).await;
    let mut lied_to = Site::new("cap_at_contract", json!([])).await;
    let abuse = times(8, 60.0, NIGHT, 12);
    lied_to.is_lied_to = true;
    let mut of_the_liar = 0;
    while honest.step < NIGHT + 30 {
        honest.step(&abuse).await;
        lied_to.step(&abuse).await;
        let (of_bolt, of_others): (Vec<_>, Vec<_>) = lied_to
            .anomalies()
            .into_iter()
            .partition(|anomaly| key_of(&anomaly.customer) == "bolt");
        of_the_liar += of_bolt.len();
        assert_eq!(of_others, honest.anomalies(), "{}", honest.step);
    }
    assert!(of_the_liar > 0);
}

#[tokio::test]
async fn whoever_is_frozen_is_not_judged_and_a_policy_that_watches_nobody_lets_go_of_all() {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    let abuse = times(8, 60.0, NIGHT, 30);
    site.steps(NIGHT + 10, &abuse).await;
    assert!(site.of("iris").is_some());
    let by = admin();
    for (change, is_judged) in [
        (CustomerChange::Freeze, false),
        (CustomerChange::Thaw, true),
    ] {
        let changed = site.plane.change_customer(&by, hash("iris"), change);
        changed.await.unwrap();
        site.step(&abuse).await;
        site.step(&abuse).await;
        assert_eq!(site.of("iris").is_some(), is_judged);
    }
    let off = policy_off().to_string();
    site.plane
        .apply_policy(&by, &off, Format::Json)
        .await
        .unwrap();
    site.step(&abuse).await;
    assert_eq!(site.anomalies(), []);
    site.step(&abuse).await;
    assert!(site.allocated("iris") > RATE);
    let actions: Vec<String> = site.deeds().into_iter().map(|(action, _)| action).collect();
    let each_time = ["anomaly.cap", "anomaly.uncap"];
    assert_eq!(actions, [each_time, each_time].concat());
}

#[tokio::test]
async fn what_is_damaged_in_the_store_is_learned_again_and_stops_nothing() {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    site.steps(20, &as_ever).await;
    site.plane.stop().await.unwrap();
    let mut rows = Vec::new();
    let keep = &mut |key: &[u8], row: &[u8]| {
        rows.push((key.to_vec(), row.to_vec()));
        Ok(())
    };
    site.store.visit(Table::Ways, keep).unwrap();
    assert!(rows.iter().all(|(_, row)| row.len() <= 512));
    let of_customers: Vec<_> = rows.iter().filter(|(key, _)| key.len() == 17).collect();
    assert_eq!(of_customers.len(), KEYS.len());
    let mut batch = Batch::default();
    let (cut, other) = (&of_customers[0].1, &of_customers[1].1);
    batch.put(Table::Ways, of_customers[0].0.clone(), &cut[..20]);
    let version = [&[9][..], &other[1..]].concat();
    batch.put(Table::Ways, of_customers[1].0.clone(), version);
    batch.put(Table::Ways, b"no customer", b"no row");
    batch.put(Table::Ways, vec![0], b"no peers");
    site.store.commit(&batch).unwrap();
    site.plane = start(&site.store, &site.clock);
    site.steps(23, &as_ever).await;
    let view = site.plane.anomalies(&AnomaliesQuery::default()).unwrap();
    assert_eq!(view.watched, KEYS.len());
}

/// The last one asks for twice its contract's rate, day and night, and the fourth one asks for what nobody has: the pool denies from that on.
fn beside_a_flood(customer: usize, step: u64) -> Does {
    let mut does = as_ever(customer, step);
    let is_short = step >= NIGHT;
    if customer == KEYS.len() - 1 {
        let asks = 2.0 * RATE * (0.95 + 0.1 * noise(7, step));
        // What is denied it asks for once more.
        let again = if is_short { 1.5 * asks } else { 0.0 };
        does = Does {
            asks: asks + again,
            denied: again / 0.75,
        };
    } else if customer == 3 && is_short {
        does.asks += 9_000.0;
        does.denied = 8_000.0;
    }
    does
}

#[tokio::test]
async fn whoever_borrows_as_ever_is_not_flagged_for_a_neighbour_that_floods_the_pool() {
    let mut site = Site::new("cap_at_contract", json!([])).await;
    let flagged = site.flagged_until(NIGHT + DAY, &beside_a_flood).await;
    assert_eq!(flagged, BTreeSet::from([("dune", "unusual")]));
}

#[tokio::test]
async fn a_cap_that_denies_what_was_borrowed_does_not_keep_itself_up() {
    // What is asked for once more is beyond the ceiling.
    let mut policy = policy("cap_at_contract", &json!([]));
    policy["contracts"]["gold"]["limits"]["requests"]["ceiling_per_s"] = json!(2.5 * RATE);
    let mut site = Site::by(policy).await;
    let (abuse, lava) = (NIGHT..NIGHT + 6, KEYS.len() - 1);
    let is_capped = Cell::new(false);
    let does = |customer: usize, step: u64| {
        if customer != lava {
            return as_ever(customer, step);
        }
        let as_ever = 2.0 * RATE * (0.95 + 0.1 * noise(7, step));
        let (asks, denied) = match (abuse.contains(&step), is_capped.get()) {
            (true, _) => (6_000.0, 5_000.0),
            // It gets its contract's rate, and asks for the rest three times more.
            (false, true) => (2.5 * as_ever, 2.0 * as_ever),
            (false, false) => (as_ever, 0.0),
        };
        Does { asks, denied }
    };
    site.steps(NIGHT + 6, &does).await;
    let found = site.of("lava").unwrap();
    assert_eq!(found.action, Some(FlagAction::CapAtContract));
    is_capped.set(true);
    while site.of("lava").is_some() {
        site.step(&does).await;
        assert!(site.step < NIGHT + DAY / 2, "{:?}", site.of("lava"));
    }
    is_capped.set(false);
    let flagged = site.flagged_until(NIGHT + DAY, &does).await;
    assert_eq!(flagged, BTreeSet::new());
}

impl Site {
    /// As after a restart with rows of so many more, who are as somebody who asks now and are no customers of the policy.
    async fn with_strangers(&mut self, strangers: usize) {
        self.plane.stop().await.unwrap();
        let mut batch = Batch::default();
        let row = self.rows().remove(&row_key("acme")).unwrap();
        for number in 0..strangers as u64 {
            let key = [&number.to_be_bytes()[..], &[7; 8], &[0]].concat();
            batch.put(Table::Ways, key, &row);
        }
        self.store.commit(&batch).unwrap();
        self.plane = start(&self.store, &self.clock);
    }

    /// What the store knows of series.
    fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        let keep = &mut |key: &[u8], row: &[u8]| {
            rows.insert(key.to_vec(), row.to_vec());
            Ok(())
        };
        self.store.visit(Table::Ways, keep).unwrap();
        rows.retain(|key, _| key.len() == 17);
        rows
    }
}

fn row_key(key: &str) -> Vec<u8> {
    [&hash(key).0[..], &[0]].concat()
}

#[tokio::test]
async fn a_flag_that_begins_or_ends_outlives_a_kill_however_many_others_are_to_be_written() {
    let mut site = Site::by(open_policy()).await;
    let abuse = times(8, 60.0, NIGHT, 12);
    site.steps(NIGHT - 2, &abuse).await;
    site.with_strangers(5_000).await;
    site.step(&abuse).await;
    let view = site.plane.anomalies(&AnomaliesQuery::default()).unwrap();
    assert_eq!(view.watched, 5_000 + KEYS.len());
    let mut changes = 0;
    let mut before: Option<AnomalyView> = None;
    while changes < 2 {
        site.step(&abuse).await;
        assert!(site.step < NIGHT + DAY, "{before:?}");
        let now = site.of("iris");
        let follows = |found: &Option<AnomalyView>| {
            let found = found.as_ref();
            found.map(|found| (found.since_unix_ms, found.action))
        };
        if follows(&now) != follows(&before) {
            changes += 1;
            site.restart(false).await;
            assert_eq!(follows(&site.of("iris")), follows(&now), "{}", site.step);
        }
        before = now;
    }
    assert_eq!(before, None);
}

#[tokio::test]
async fn strangers_give_way_to_customers_of_the_policy() {
    let most = 1 << 16;
    let mut site = Site::by(open_policy()).await;
    let lava = KEYS.len() - 1;
    let silent_until = |from: u64| {
        move |customer: usize, step: u64| {
            let mut does = as_ever(customer, step);
            if customer == lava && step < from {
                does.asks = 0.0;
            }
            does
        }
    };
    site.steps(10, &silent_until(20)).await;
    site.with_strangers(most - lava).await;
    site.steps(12, &silent_until(20)).await;
    let seen = |site: &Site| {
        let view = site.plane.anomalies(&AnomaliesQuery::default()).unwrap();
        (view.watched, view.left_out)
    };
    assert_eq!(seen(&site), (most, 0));
    site.steps(14, &silent_until(13)).await;
    assert_eq!(seen(&site), (most, 0));
    site.plane.stop().await.unwrap();
    let rows = site.rows();
    assert_eq!(rows.len(), most);
    assert!(KEYS.iter().all(|key| rows.contains_key(&row_key(key))));
}

#[tokio::test]
async fn many_strangers_that_are_capped_at_once_push_nobody_out_of_the_audit_log() {
    let mut site = Site::by(open_policy()).await;
    site.keys
        .extend((0..30).map(|number| format!("stranger-{number}")));
    let abusers = KEYS.len() - 1..KEYS.len() + 15;
    let does = |customer: usize, step: u64| {
        let mut does = as_ever(customer, step);
        if abusers.contains(&customer) && step >= NIGHT {
            does.asks = 3_000.0;
        }
        does
    };
    site.steps(NIGHT + 8, &does).await;
    let capped = site.anomalies().len();
    assert_eq!(capped, abusers.len());
    let named = |site: &Site, action: &str| -> Vec<String> {
        let deeds = site.deeds().into_iter().filter(|deed| deed.0 == action);
        deeds.map(|(_, object)| object).collect()
    };
    let caps = named(&site, "anomaly.cap");
    println!("{caps:?}");
    assert!(
        caps.len() < capped && caps.contains(&"customers".to_owned()),
        "{caps:?}"
    );
    assert_eq!(
        caps[0],
        format!("hash:{}", hash("lava")),
        "customers of the policy first"
    );
    let off = policy_off().to_string();
    site.plane
        .apply_policy(&admin(), &off, Format::Json)
        .await
        .unwrap();
    site.step(&does).await;
    site.step(&does).await;
    let uncaps = named(&site, "anomaly.uncap");
    assert_eq!(uncaps.len(), 9, "eight and all others: {uncaps:?}");
    assert_eq!(uncaps[8], "customers");
    let page = site.plane.audit(0, 1_000).unwrap();
    let last = page.records.last().unwrap();
    assert_eq!(last.parameters["more"], (capped - 8).to_string());
}

/// Nobody is watched.
fn policy_off() -> Value {
    let mut off = policy("flag", &json!([]));
    for field in ["anomaly", "events"] {
        off.as_object_mut().unwrap().remove(field);
    }
    off
}
