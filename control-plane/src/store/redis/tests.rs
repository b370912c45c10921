//! What only a store in Redis can do wrong, on real servers.

use super::super::Changes;
use super::super::tests::rows;
use super::super::{MemoryStore, Start, open_epoch};
use super::keeper::{ENTRY_BYTES_MOST, Inner};
use super::scripts::{FENCE, HEAD, STAGED, Script};
use super::*;
use forebay_redis_tests::{Cluster, Node};
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A failover takes three seconds, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A process that leads, and its store.
pub(in super::super) struct Leading {
    candidate: Candidate,
    lease: Lease,
    pub(in super::super) store: RedisStore,
}

fn nodes(urls: &str) -> Vec<RedisUrl> {
    urls.split(',').map(|url| url.parse().unwrap()).collect()
}

/// Takes the lead in the store at some nodes.
pub(in super::super) fn leading(urls: &str) -> Leading {
    let candidate = Candidate::new(nodes(urls), "127.0.0.1:1".to_owned());
    let Standing::Leads(lease) = candidate.stand().unwrap() else {
        panic!("another process leads");
    };
    let store = RedisStore::open(nodes(urls), &lease).unwrap();
    Leading {
        candidate,
        lease,
        store,
    }
}

fn put(key: u8, value: u8) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Meta, [key], [value]);
    batch
}

/// Has the rows take in what is in the log.
fn empty(store: &RedisStore) {
    store.keeper.empty().unwrap();
}

/// A batch that is too large for one script.
fn large(rows: u16) -> Batch {
    let mut batch = Batch::default();
    for number in 0..rows {
        batch.put(Table::Accounts, number.to_be_bytes(), number.to_le_bytes());
    }
    batch
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn a_change_that_redis_has_no_room_for_is_known_before_it_is_made() {
    let node =
        Node::start_with(&["--maxmemory", "50mb", "--maxmemory-policy", "noeviction"]).unwrap();
    let leading = leading(&node.url());
    leading.store.make_room(20 << 20).unwrap();
    let refused = leading.store.make_room(60 << 20).unwrap_err();
    assert!(
        matches!(refused, StoreError::NoRoom { bytes, .. } if bytes == 60 << 20),
        "{refused}"
    );
    node.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    leading.store.make_room(60 << 20).unwrap();
}

#[test]
fn one_leads_and_the_next_one_shuts_it_out() {
    let node = Node::start().unwrap();
    shuts_out(&node.url(), &|key| {
        node.ask(&["DEL", key]).unwrap();
    });
    let cluster = Cluster::start().unwrap();
    let master = cluster.master_of(HEAD).unwrap();
    shuts_out(&cluster.urls(), &|key| {
        cluster.nodes()[master].ask(&["DEL", key]).unwrap();
    });
}

fn shuts_out(urls: &str, forget: &dyn Fn(&str)) {
    let first = leading(urls);
    let second = Candidate::new(nodes(urls), "127.0.0.1:2".to_owned());
    let standing = second.stand().unwrap();
    assert!(
        matches!(&standing, Standing::Follows { leader } if leader == "127.0.0.1:1"),
        "{standing:?}"
    );
    first.candidate.renew(&first.lease).unwrap();
    first.store.commit(&put(1, 1)).unwrap();
    // It has fallen silent: its lease is over, and it does not know.
    forget(scripts::LEASE);
    let Standing::Leads(lease) = second.stand().unwrap() else {
        panic!("nobody leads");
    };
    assert_eq!(first.store.commit(&put(1, 2)), Err(StoreError::Fenced));
    assert_eq!(first.candidate.renew(&first.lease), Err(StoreError::Fenced));
    assert_eq!(
        first.candidate.resign(&first.lease),
        Err(StoreError::Fenced)
    );
    assert_eq!(first.store.commit(&large(5_000)), Err(StoreError::Fenced));
    let store = RedisStore::open(nodes(urls), &lease).unwrap();
    assert_eq!(store.get(Table::Meta, &[1]).unwrap(), Some(vec![1]));
    assert_eq!(rows(&store, Table::Accounts), []);
    second.resign(&lease).unwrap();
    assert_eq!(store.commit(&put(1, 3)), Err(StoreError::Fenced));
    let third = leading(urls);
    third.store.commit(&put(1, 4)).unwrap();
    forget(HEAD);
    assert!(matches!(
        third.store.commit(&put(1, 5)),
        Err(StoreError::WentBack { .. })
    ));
    assert!(third.store.is_behind());
}

#[test]
fn a_leader_that_says_nothing_knows_that_it_does_not_lead_before_another_one_does() {
    let node = Node::start().unwrap();
    let silent = leading(&node.url());
    assert!(silent.lease.is_held());
    let other = Candidate::new(nodes(&node.url()), "127.0.0.1:2".to_owned());
    until("another one leads", || {
        let was_held = silent.lease.is_held();
        let leads = matches!(other.stand().unwrap(), Standing::Leads(_));
        assert!(!(leads && was_held), "two led at one time");
        leads.then_some(())
    });
}

#[test]
fn changes_that_were_acknowledged_and_are_gone_are_found_out() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    for value in 1..=3 {
        leading.store.commit(&put(value, value)).unwrap();
    }
    node.ask(&["SET", scripts::HEAD, "2"]).unwrap();
    let lost = StoreError::WentBack {
        acknowledged: leading.store.keeper.inner().acknowledged,
        found: 2,
    };
    assert!(!leading.store.is_behind());
    assert_eq!(leading.store.commit(&put(4, 4)), Err(lost.clone()));
    assert!(leading.store.is_behind());
    assert_eq!(leading.store.commit(&large(5_000)), Err(lost));
    leading.candidate.renew(&leading.lease).unwrap();
    node.ask(&["FLUSHALL"]).unwrap();
    assert_eq!(leading.store.commit(&put(4, 4)), Err(StoreError::Fenced));
    // Nor is what is left taken for a new store, by those who have seen it before.
    leading.candidate.renew(&leading.lease).unwrap_err();
    assert_eq!(leading.candidate.stand().unwrap_err(), StoreError::Emptied);
}

#[test]
fn an_attempt_whose_answer_was_lost_may_have_been_made_or_not() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&put(1, 1)).unwrap();
    for was_made in [true, false] {
        let number = leading.store.keeper.inner().attempt();
        if was_made {
            node.ask(&["SET", scripts::HEAD, &number.to_string()])
                .unwrap();
        }
        leading.store.commit(&put(1, 2)).unwrap();
        assert_eq!(leading.store.get(Table::Meta, &[1]).unwrap(), Some(vec![2]));
    }
}

#[test]
fn an_attempt_that_arrives_after_a_later_one_changes_nothing() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&put(1, 1)).unwrap();
    let mut link = Link::to_master(&nodes(&node.url())).unwrap();
    let mut late = Inner {
        acknowledged: 0,
        tried: 0,
        ..Inner::default()
    };
    let trouble = leading
        .store
        .keeper
        .change(&mut late, &mut link, put(1, 9).changes(), false);
    assert!(
        matches!(&trouble, Err(Trouble::Lost(reason)) if reason.contains("OVERTAKEN")),
        "{trouble:?}"
    );
    assert_eq!(leading.store.get(Table::Meta, &[1]).unwrap(), Some(vec![1]));
}

#[test]
fn a_large_change_is_there_as_a_whole_or_not_at_all_wherever_it_is_cut() {
    const ROWS: u16 = 20_000;
    let node = Node::start().unwrap();
    let url = node.url();
    let expected = rows_of_batch(&large(ROWS));
    // Parts are put aside, and then nothing more happens.
    {
        let cut = leading(&url);
        let mut link = Link::to_master(&nodes(&url)).unwrap();
        let mut inner = cut.store.keeper.inner();
        for (place, part) in large(ROWS).changes().chunks(4_000, usize::MAX).enumerate() {
            cut.store
                .keeper
                .step(&mut inner, &mut link, Script::Stage, |call| {
                    let mut bytes = Vec::new();
                    super::super::encoding::encode_changes(part, &mut bytes);
                    call.with(bytes).number(u64::from(place == 0));
                })
                .unwrap();
        }
        drop(inner);
        cut.candidate.resign(&cut.lease).unwrap();
        let next = leading(&url);
        assert_eq!(rows(&next.store, Table::Accounts), []);
        assert_eq!(node.ask(&["EXISTS", STAGED]).unwrap(), "0");
        next.candidate.resign(&next.lease).unwrap();
    }
    // It counts, and nothing or one part of it is applied.
    for applied in [0, 1] {
        let cut = leading(&url);
        let mut batch = Batch::default();
        for (key, _) in &expected {
            batch.delete(Table::Accounts, key.clone());
        }
        cut.store.commit(&batch).unwrap();
        empty(&cut.store);
        assert_eq!(rows(&cut.store, Table::Accounts), []);
        let mut link = Link::to_master(&nodes(&url)).unwrap();
        {
            let mut inner = cut.store.keeper.inner();
            cut.store
                .keeper
                .stage_large(&mut inner, &mut link, large(ROWS).changes())
                .unwrap();
            let all = large(ROWS);
            let first = all
                .changes()
                .chunks(MAX_ROWS_AT_ONCE, usize::MAX)
                .next()
                .unwrap();
            for _ in 0..applied {
                cut.store
                    .keeper
                    .change(&mut inner, &mut link, first, true)
                    .unwrap();
            }
        }
        cut.candidate.resign(&cut.lease).unwrap();
        let next = leading(&url);
        assert_eq!(rows(&next.store, Table::Accounts), expected);
        next.store.commit(&put(1, 1)).unwrap();
        next.candidate.resign(&next.lease).unwrap();
    }
    // The same leader goes on with it when its connection was lost meanwhile.
    let leading = leading(&url);
    let mut link = Link::to_master(&nodes(&url)).unwrap();
    let mut changed = Batch::default();
    for (key, _) in &expected {
        changed.put(Table::Accounts, key.clone(), [7]);
    }
    leading
        .store
        .keeper
        .stage_large(
            &mut leading.store.keeper.inner(),
            &mut link,
            changed.changes(),
        )
        .unwrap();
    leading.store.commit(&put(1, 2)).unwrap();
    assert_eq!(
        rows(&leading.store, Table::Accounts),
        rows_of_batch(&changed)
    );
}

#[test]
fn what_a_leader_left_in_the_log_is_taken_in_by_the_next_one() {
    let node = Node::start().unwrap();
    let first = leading(&node.url());
    for value in 1..=3 {
        first.store.commit(&put(7, value)).unwrap();
        first.store.commit(&put(value, value)).unwrap();
    }
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "6");
    let hash = hash_of(Table::Meta, 7);
    assert_eq!(
        node.ask(&["HLEN", &hash]).unwrap(),
        "0",
        "it is in the log alone"
    );
    node.ask(&["DEL", scripts::LEASE]).unwrap();
    let second = leading(&node.url());
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "0");
    assert_eq!(node.ask(&["HLEN", &hash]).unwrap(), "1");
    assert_eq!(second.store.get(Table::Meta, &[7]).unwrap(), Some(vec![3]));
    // The first one had begun to empty it and goes on late.
    second.store.commit(&put(8, 8)).unwrap();
    assert_eq!(first.store.keeper.empty(), Err(StoreError::Fenced));
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "1");
}

#[test]
fn what_arrives_after_its_round_changes_neither_rows_nor_log() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    let keeper = &leading.store.keeper;
    leading.store.commit(&put(1, 1)).unwrap();
    let round = keeper
        .with(|inner, link| keeper.begin_round(inner, link))
        .unwrap();
    assert_eq!(round.entries, 1);
    // Its answer was lost, and the next one begins with all that is left.
    leading.store.commit(&put(1, 2)).unwrap();
    empty(&leading.store);
    leading.store.commit(&put(2, 2)).unwrap();
    let mut link = Link::to_master(&nodes(&node.url())).unwrap();
    let late = [
        keeper.take_in(&mut link, &round, Table::Meta, &[(&[1], Some(&[1]))]),
        keeper.shorten(&mut link, &round),
    ];
    for trouble in late {
        assert!(
            matches!(&trouble, Err(Trouble::Lost(reason)) if reason.contains("OVERTAKEN")),
            "{trouble:?}"
        );
    }
    let stored = node
        .ask(&["HGET", &hash_of(Table::Meta, 1), "\x01"])
        .unwrap();
    assert_eq!(stored, "\x02");
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "1");
}

#[test]
fn a_round_that_broke_off_is_made_again_with_all_of_its_rows() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&large(3_000)).unwrap();
    let keeper = &leading.store.keeper;
    keeper
        .with(|inner, link| keeper.begin_round(inner, link))
        .unwrap();
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "1");
    let expected = rows_of_batch(&large(3_000));
    assert_eq!(rows(&leading.store, Table::Accounts), expected);
    empty(&leading.store);
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "0");
    assert_eq!(rows(&leading.store, Table::Accounts), expected);
}

#[test]
fn a_round_makes_way_for_a_large_change_and_leaves_its_rows_to_it() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&large(3_000)).unwrap();
    let keeper = &leading.store.keeper;
    keeper.is_awaited.store(true, Ordering::Relaxed);
    empty(&leading.store);
    assert_eq!(
        node.ask(&["LLEN", scripts::LOG]).unwrap(),
        "1",
        "it has made way"
    );
    let mut huge = Batch::default();
    huge.put(Table::ModelFiles, [1], vec![7; ENTRY_BYTES_MOST + 1]);
    leading.store.commit(&huge).unwrap();
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "0");
    let mut expected = rows_of_batch(&large(3_000));
    assert_eq!(rows(&leading.store, Table::Accounts), expected);
    assert_eq!(
        rows(&leading.store, Table::ModelFiles),
        rows_of_batch(&huge)
    );
    // And rounds are made again.
    leading.store.commit(&large(3_001)).unwrap();
    empty(&leading.store);
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "0");
    expected = rows_of_batch(&large(3_001));
    assert_eq!(rows(&leading.store, Table::Accounts), expected);
}

#[test]
fn the_layout_is_stamped_where_a_build_without_a_log_looks_and_after_what_is_in_the_log() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&put(1, 1)).unwrap();
    open_epoch(&leading.store).unwrap();
    let hash = hash_of(Table::Meta, b'l');
    assert_eq!(node.ask(&["HEXISTS", &hash, "layout"]).unwrap(), "1");
    assert_eq!(node.ask(&["LLEN", scripts::LOG]).unwrap(), "0");
    assert_eq!(leading.store.get(Table::Meta, &[1]).unwrap(), Some(vec![1]));
}

#[test]
fn a_log_that_has_grown_is_emptied_without_waiting() {
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    for number in 0..40 {
        let mut batch = Batch::default();
        batch.put(Table::History, [number], vec![7; 1 << 20]);
        leading.store.commit(&batch).unwrap();
    }
    until("the log is emptied", || {
        (node
            .ask(&["LLEN", scripts::LOG])
            .unwrap()
            .parse::<u32>()
            .unwrap()
            < 40)
            .then_some(())
    });
}

#[test]
fn an_entry_that_nobody_wrote_is_damage() {
    let node = Node::start().unwrap();
    let first = leading(&node.url());
    node.ask(&["RPUSH", scripts::LOG, "no entry"]).unwrap();
    first.candidate.resign(&first.lease).unwrap();
    let Standing::Leads(lease) = first.candidate.stand().unwrap() else {
        panic!("nobody leads");
    };
    let error = RedisStore::open(nodes(&node.url()), &lease).unwrap_err();
    assert!(
        matches!(error, StoreError::Damaged { what: "log", .. }),
        "{error}"
    );
}

#[test]
fn late_attempts_of_a_large_change_change_nothing() {
    const ROWS: u16 = 10_000;
    let node = Node::start().unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&put(1, 1)).unwrap();
    let mut link = Link::to_master(&nodes(&node.url())).unwrap();
    let batch = large(ROWS);
    let as_of = |inner: &Inner| Inner {
        acknowledged: inner.acknowledged,
        tried: inner.tried,
        ..Inner::default()
    };
    let mut inner = leading.store.keeper.inner();
    let mut late = as_of(&inner);
    leading
        .store
        .keeper
        .stage_large(&mut inner, &mut link, batch.changes())
        .unwrap();
    let mut late_part = as_of(&inner);
    // What comes next makes sure that nothing of before is still on its way.
    leading
        .store
        .keeper
        .change(&mut inner, &mut link, Changes::default(), false)
        .unwrap();
    let parts = node.ask(&["LLEN", STAGED]).unwrap();
    for script in [Script::Stage, Script::Clear, Script::Seal] {
        let trouble = leading
            .store
            .keeper
            .step(&mut late, &mut link, script, |call| {
                call.with("").number(1);
            });
        assert!(
            matches!(&trouble, Err(Trouble::Lost(reason)) if reason.contains("OVERTAKEN")),
            "{script:?}: {trouble:?}"
        );
    }
    let first = batch
        .changes()
        .chunks(MAX_ROWS_AT_ONCE, usize::MAX)
        .next()
        .unwrap();
    let trouble = leading
        .store
        .keeper
        .change(&mut late_part, &mut link, first, true);
    assert!(trouble.is_err(), "{trouble:?}");
    assert_eq!(node.ask(&["LLEN", STAGED]).unwrap(), parts);
    drop(inner);
    leading.store.commit(&put(1, 2)).unwrap();
    assert_eq!(rows(&leading.store, Table::Accounts), rows_of_batch(&batch));
}

#[test]
fn a_store_that_went_back_to_a_clean_stop_of_long_ago_did_not_stop_cleanly() {
    let node = Node::start().unwrap();
    let first = leading(&node.url());
    let stop = |store: &dyn Store| {
        let mut batch = Batch::default();
        crate::store::mark_clean(&mut batch);
        store.commit(&batch).unwrap();
    };
    assert_eq!(open_epoch(&first.store).unwrap(), Start::New);
    stop(&first.store);
    first.candidate.resign(&first.lease).unwrap();
    let head = node.ask(&["GET", scripts::HEAD]).unwrap();
    // Somebody else works with it, and this process sees how far that goes.
    node.ask(&["SET", scripts::HEAD, "1000"]).unwrap();
    node.ask(&["SET", scripts::LEASE, "elsewhere"]).unwrap();
    assert!(matches!(
        first.candidate.stand().unwrap(),
        Standing::Follows { .. }
    ));
    // Then Redis is what it was.
    node.ask(&["SET", scripts::HEAD, &head]).unwrap();
    node.ask(&["DEL", scripts::LEASE]).unwrap();
    let Standing::Leads(lease) = first.candidate.stand().unwrap() else {
        panic!("nobody leads");
    };
    let store = RedisStore::open(nodes(&node.url()), &lease).unwrap();
    assert_eq!(open_epoch(&store).unwrap(), Start::Unclean { epoch: 2 });
    // That is said once: a clean stop after it is one.
    stop(&store);
    first.candidate.resign(&lease).unwrap();
    let Standing::Leads(lease) = first.candidate.stand().unwrap() else {
        panic!("nobody leads");
    };
    let store = RedisStore::open(nodes(&node.url()), &lease).unwrap();
    assert_eq!(open_epoch(&store).unwrap(), Start::Clean { epoch: 2 });
}

fn rows_of_batch(batch: &Batch) -> Vec<Row> {
    let rows = batch.changes().iter();
    rows.map(|(_, key, value)| (key.to_vec(), value.unwrap().to_vec()))
        .collect()
}

#[test]
fn connections_that_break_and_scripts_that_are_forgotten_do_no_harm() {
    let mut node = Node::start_with(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ])
    .unwrap();
    let leading = leading(&node.url());
    leading.store.commit(&put(1, 1)).unwrap();
    node.ask(&["SCRIPT", "FLUSH"]).unwrap();
    leading.store.commit(&put(2, 2)).unwrap();
    node.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        .unwrap();
    leading.store.commit(&put(3, 3)).unwrap();
    node.kill().unwrap();
    let error = leading.store.commit(&put(4, 4)).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    node.restart().unwrap();
    leading.store.commit(&put(4, 4)).unwrap();
    let kept = rows(&leading.store, Table::Meta);
    assert_eq!(
        kept,
        (1..=4)
            .map(|value| (vec![value], vec![value]))
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_could_lose_rows_or_is_not_ours_is_refused_with_its_reason() {
    let forgetful =
        Node::start_with(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]).unwrap();
    let locked = Node::start_with(&["--requirepass", "secret"]).unwrap();
    let wrong = locked.url().replace("redis://", "redis://:wrong@");
    let cases = [
        (forgetful.url(), "set it to noeviction"),
        (locked.url(), "NOAUTH"),
        (wrong, "are user and password right?"),
        ("redis://127.0.0.1:1".to_owned(), "does Redis run"),
    ];
    for (url, reason) in cases {
        let candidate = Candidate::new(nodes(&url), "127.0.0.1:1".to_owned());
        let error = candidate.stand().unwrap_err().to_string();
        assert!(error.contains(reason), "{url}: {error}");
        assert!(!error.contains("wrong@"), "{error}");
    }
    let right = locked.url().replace("redis://", "redis://:secret@");
    leading(&right).store.commit(&put(1, 1)).unwrap();
}

#[test]
fn the_slot_is_that_of_all_keys() {
    let cluster = Cluster::start().unwrap();
    let first = &cluster.nodes()[0];
    for key in [
        FENCE,
        HEAD,
        STAGED,
        scripts::SEALED,
        scripts::LOG,
        scripts::ROUND,
        scripts::LEASE,
        scripts::TERM,
        &hash_of(Table::Parts, 7),
    ] {
        let slot = first.ask(&["CLUSTER", "KEYSLOT", key]).unwrap();
        assert_eq!(slot, scripts::SLOT.to_string(), "{key}");
    }
}

#[test]
fn a_master_that_dies_takes_nothing_with_it_that_was_acknowledged() {
    let mut cluster = Cluster::start().unwrap();
    let leading = leading(&cluster.urls());
    let master = cluster.master_of(HEAD).unwrap();
    let mut acknowledged = 0;
    for value in 1..=100 {
        leading.store.commit(&put(value, value)).unwrap();
        acknowledged = value;
    }
    cluster.node_mut(master).kill().unwrap();
    until("changes are taken again", || {
        leading.store.commit(&put(101, 101)).ok()
    });
    let kept = rows(&leading.store, Table::Meta);
    assert_eq!(kept.len(), usize::from(acknowledged) + 1);
    leading.candidate.renew(&leading.lease).unwrap();
    assert_eq!(
        open_epoch(&leading.store).unwrap(),
        Start::New,
        "no row of a start was there"
    );
    // Its node comes back as the replica of its successor.
    cluster.node_mut(master).restart().unwrap();
    until("the cluster is whole", || cluster.is_ready().then_some(()));
    until("its replica acknowledges", || {
        leading.store.commit(&put(102, 102)).ok()
    });
}

#[test]
fn a_replica_that_hangs_holds_changes_up_until_the_cluster_gives_it_up() {
    let cluster = Cluster::start().unwrap();
    let leading = leading(&cluster.urls());
    leading.store.commit(&put(1, 1)).unwrap();
    let master = cluster.master_of(HEAD).unwrap();
    let replica = cluster.replica_of(master).unwrap();
    cluster.nodes()[replica].pause().unwrap();
    until("changes are taken without a replica", || {
        match leading.store.commit(&put(2, 2)) {
            Ok(()) => Some(()),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.contains("0 of 1 replicas have acknowledged"),
                    "{error}"
                );
                None
            }
        }
    });
    let table = cluster.nodes()[master].ask(&["CLUSTER", "NODES"]).unwrap();
    let port = cluster.nodes()[replica].port();
    let of_replica = table
        .lines()
        .find(|line| line.contains(&format!(":{port}@")));
    assert!(
        of_replica.is_some_and(|line| line.contains("slave,fail ")),
        "a change was taken before the replica was given up: {table}"
    );
    cluster.nodes()[replica].resume().unwrap();
    until("the replica follows", || cluster.is_ready().then_some(()));
    until("it acknowledges again", || {
        leading.store.commit(&put(3, 3)).ok()
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn reads_like_a_store_in_memory(
        batches in proptest::collection::vec(
            (proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..3), any::<Option<u8>>()), 0..12), 0..4_u8),
            1..12,
        ),
        from in proptest::collection::vec(any::<u8>(), 0..3),
        to in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        let node = Node::start().unwrap();
        let mut led = leading(&node.url());
        let model = MemoryStore::default();
        for (changes, then) in batches {
            let mut batch = Batch::default();
            for (is_history, key, value) in changes {
                let table = if is_history { Table::History } else { Table::Parts };
                match value {
                    Some(value) => batch.put(table, key, [value]),
                    None => batch.delete(table, key),
                }
            }
            led.store.commit(&batch).unwrap();
            model.commit(&batch).unwrap();
            match then {
                0 => empty(&led.store),
                1 => {
                    // As after a crash: the log is what is left.
                    led.candidate.resign(&led.lease).unwrap();
                    led = leading(&node.url());
                }
                _ => {}
            }
            let store = &led.store;
            for table in [Table::History, Table::Parts] {
                prop_assert_eq!(rows(store, table), rows(&model, table));
                prop_assert_eq!(store.range(table, &from, &to).unwrap(), model.range(table, &from, &to).unwrap());
                prop_assert_eq!(store.get(table, &from).unwrap(), model.get(table, &from).unwrap());
            }
        }
    }
}
