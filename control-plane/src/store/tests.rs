//! One suite for every backend.

use super::*;
use std::sync::Arc;

fn with_each_store(test: impl Fn(Arc<dyn Store>)) {
    test(Arc::new(MemoryStore::default()));
    let directory = tempfile::tempdir().unwrap();
    test(Arc::new(RedbStore::open(directory.path()).unwrap()));
}

#[test]
fn reads_back_what_was_committed_and_nothing_else() {
    with_each_store(|store| {
        let mut batch = Batch::default();
        batch.put(Table::Accounts, [1], [10]);
        batch.put(Table::Accounts, [2], [20]);
        batch.put(Table::Accounts, [2], [21]);
        batch.put(Table::History, [2], [99]);
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
        let mut seen = Vec::new();
        store
            .visit(Table::Accounts, &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(vec![1], vec![10]), (vec![2], vec![21])]);
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
    let _first = RedbStore::open(directory.path()).unwrap();
    let error = RedbStore::open(directory.path()).unwrap_err();
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
