//! One suite for every backend.

use super::journal::GAP;
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// All rows of a table.
pub(super) fn rows(store: &dyn Store, table: Table) -> Vec<Row> {
    let mut rows = Vec::new();
    store
        .visit(table, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    rows
}

fn with_each_store(test: impl Fn(Arc<dyn Store>)) {
    test(Arc::new(MemoryStore::default()));
    let directory = tempfile::tempdir().unwrap();
    test(Arc::new(EmbeddedStore::open(directory.path()).unwrap()));
    let node = forebay_redis_tests::Node::start().unwrap();
    test(Arc::new(super::redis::leading(&node.url()).store));
}

#[test]
fn reads_back_what_was_committed_and_nothing_else() {
    with_each_store(|store| {
        let mut batch = Batch::default();
        batch.put(Table::Accounts, [1], [10]);
        batch.put(Table::Accounts, [2], [20]);
        batch.put(Table::Accounts, [2], [21]);
        batch.put(Table::History, [2], [99]);
        batch.put(Table::History, [4, 4], [98]);
        batch.put(Table::History, [5], [97]);
        batch.delete(Table::History, [5]);
        batch.put(Table::Accounts, [3], [30]);
        batch.delete(Table::Accounts, [3]);
        store.commit(&batch).unwrap();
        assert_eq!(store.get(Table::Accounts, &[2]).unwrap(), Some(vec![21]));
        assert_eq!(store.get(Table::Accounts, &[3]).unwrap(), None);
        assert_eq!(
            store.range(Table::Accounts, &[0], &[1]).unwrap(),
            [(vec![1], vec![10])]
        );
        assert_eq!(store.range(Table::Accounts, &[9], &[1]).unwrap(), []);
        assert_eq!(
            store.range(Table::History, &[2], &[5, 255]).unwrap(),
            [(vec![2], vec![99]), (vec![4, 4], vec![98])]
        );
        assert_eq!(
            rows(&*store, Table::Accounts),
            [(vec![1], vec![10]), (vec![2], vec![21])]
        );
    });
}

#[test]
fn knows_a_new_a_clean_and_an_unclean_start() {
    with_each_store(|store| {
        assert_eq!(open_epoch(&*store).unwrap(), Start::New);
        assert_eq!(open_epoch(&*store).unwrap(), Start::Unclean { epoch: 2 });
        let mut batch = Batch::default();
        mark_clean(&mut batch);
        store.commit(&batch).unwrap();
        assert_eq!(open_epoch(&*store).unwrap(), Start::Clean { epoch: 2 });
        assert_eq!(open_epoch(&*store).unwrap(), Start::Unclean { epoch: 3 });
    });
}

#[test]
fn refuses_the_layout_of_another_version() {
    with_each_store(|store| {
        let mut batch = Batch::default();
        batch.put(Table::Meta, *b"layout", 77_u32.to_le_bytes());
        store.commit(&batch).unwrap();
        assert_eq!(open_epoch(&*store), Err(StoreError::Layout { found: 77 }));
    });
}

#[test]
fn a_store_that_is_open_elsewhere_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let _first = EmbeddedStore::open(directory.path()).unwrap();
    let error = EmbeddedStore::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn what_could_not_be_written_is_written_before_the_next_batch() {
    let store = Arc::new(MemoryStore::default());
    let journal = Journal::start(Arc::<MemoryStore>::clone(&store) as Arc<dyn Store>).unwrap();
    let batch = |value: u8| {
        let mut batch = Batch::default();
        batch.put(Table::Meta, [value], [value]);
        batch
    };
    store.set_full(true);
    assert!(matches!(
        journal.submit(batch(1)).durable().await,
        Err(StoreError::Write(_))
    ));
    store.set_full(false);
    journal.submit(batch(2)).durable().await.unwrap();
    assert_eq!(store.get(Table::Meta, &[1]).unwrap(), Some(vec![1]));
    assert_eq!(store.get(Table::Meta, &[2]).unwrap(), Some(vec![2]));
}

/// Keeps nothing, and remembers what it was asked to write.
#[derive(Debug, Default)]
struct Asked {
    is_broken: bool,
    takes: Duration,
    commits: AtomicUsize,
    /// Of the last commit.
    changes: AtomicUsize,
}

impl Store for Asked {
    fn make_room(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.changes.store(batch.len(), Ordering::SeqCst);
        std::thread::sleep(self.takes);
        if self.is_broken {
            return Err(StoreError::Write("no space left".to_owned()));
        }
        Ok(())
    }

    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn range(&self, _: Table, _: &[u8], _: &[u8]) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }

    fn visit(&self, _: Table, _: &mut Visitor<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_written_for_long_does_not_pile_up() {
    let store = Arc::new(Asked {
        is_broken: true,
        ..Asked::default()
    });
    let journal = Journal::start(Arc::<Asked>::clone(&store) as Arc<dyn Store>).unwrap();
    for value in 0..100_u8 {
        let mut batch = Batch::default();
        batch.put(Table::Meta, *b"session", [value]);
        batch.put(Table::Accounts, [value % 3], [value]);
        assert!(journal.submit(batch).durable().await.is_err());
    }
    let waiting = store.changes.load(Ordering::SeqCst);
    assert!(waiting <= 6, "{waiting} changes of four rows");
}

#[tokio::test]
async fn changes_that_come_close_together_share_commits() {
    let store = Arc::new(Asked {
        takes: GAP / 4,
        ..Asked::default()
    });
    let journal = Journal::start(Arc::<Asked>::clone(&store) as Arc<dyn Store>).unwrap();
    let began_at = Instant::now();
    let receipts: Vec<_> = (0..200_u8)
        .map(|value| {
            let mut batch = Batch::default();
            batch.put(Table::Accounts, [value], [value]);
            // The pace at which they come.
            std::thread::sleep(GAP / 20);
            journal.submit(batch)
        })
        .collect();
    for receipt in receipts {
        receipt.durable().await.unwrap();
    }
    let gaps = began_at.elapsed().as_micros().div_ceil(GAP.as_micros());
    let commits = store.commits.load(Ordering::SeqCst);
    assert!(commits as u128 <= gaps + 1, "{commits} in {gaps} gaps");
}

#[test]
fn a_damaged_file_is_an_error_and_never_a_panic_or_another_value() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("forebay.redb");
    let row = |number: u8| vec![number; 3_000];
    {
        let store = EmbeddedStore::open(directory.path()).unwrap();
        let mut batch = Batch::default();
        for number in 0..40 {
            batch.put(Table::Policies, [number], row(number));
        }
        store.commit(&batch).unwrap();
    }
    let good = std::fs::read(&file).unwrap();
    let lost = |page: &mut [u8]| page.fill(0);
    let one_bit = |page: &mut [u8]| page[2_000] ^= 1;
    for damage in [&lost as &dyn Fn(&mut [u8]), &one_bit] {
        let mut found = 0;
        for page in 0..good.len() / 4_096 {
            let mut damaged = good.clone();
            damage(&mut damaged[page * 4_096..][..4_096]);
            std::fs::write(&file, damaged).unwrap();
            let opened = EmbeddedStore::open(directory.path());
            let value =
                |store: &EmbeddedStore, number| store.get(Table::Policies, &[number]).unwrap();
            match opened {
                Ok(store) => {
                    assert!((0..40).all(|number| value(&store, number) == Some(row(number))));
                }
                Err(StoreError::Open { .. } | StoreError::Damaged { .. }) => found += 1,
                Err(error) => panic!("page {page}: {error}"),
            }
        }
        assert!(found > 20, "only {found} damaged pages were found");
    }
}

#[test]
fn a_store_that_lost_all_its_content_is_not_taken_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(directory.path()).unwrap());
    let file = directory.path().join("forebay.redb");
    std::fs::write(&file, []).unwrap();
    let error = EmbeddedStore::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Empty { .. }), "{error}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "left as it was");
}

#[test]
fn a_creation_that_was_interrupted_is_done_again() {
    for left in [&b""[..], &[0; 4_096]] {
        let directory = tempfile::tempdir().unwrap();
        let unfinished = directory.path().join("forebay.redb.new");
        std::fs::write(&unfinished, left).unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(open_epoch(&store).unwrap(), Start::New);
        assert!(!unfinished.exists());
    }
}
