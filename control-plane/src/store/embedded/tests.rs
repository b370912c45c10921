//! What only a store of files can do wrong.

use super::super::tests::rows;
use super::super::{MemoryStore, Start, open_epoch};
use super::*;
use proptest::prelude::*;
use std::fs::{read, read_dir, write};

/// A copy of a store's directory as a killed process would leave it.
fn as_if_killed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in read_dir(directory).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn put(table: Table, key: u8, value: u8) -> Batch {
    let mut batch = Batch::default();
    batch.put(table, [key], [value]);
    batch
}

/// The path of the only segment in a directory.
fn log_of(directory: &Path) -> PathBuf {
    let numbers = segments(directory).unwrap();
    assert_eq!(numbers.len(), 1, "{numbers:?}");
    directory.join(format!("forebay.log.{}", numbers[0]))
}

/// A store with three committed batches that are in its log only, and its directory.
fn three_in_the_log() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    for value in 1..=3 {
        store.commit(&put(Table::Meta, value, value)).unwrap();
    }
    as_if_killed(directory.path())
}

fn values(directory: &Path) -> Result<Vec<u8>, StoreError> {
    let store = EmbeddedStore::open(directory)?;
    Ok(rows(&store, Table::Meta)
        .into_iter()
        .map(|(key, value)| {
            assert_eq!(key, value);
            key[0]
        })
        .collect())
}

#[test]
fn a_killed_store_has_all_that_was_acknowledged() {
    let killed = three_in_the_log();
    assert_eq!(values(killed.path()).unwrap(), [1, 2, 3]);
    // It was replayed into the image, and the log begins anew.
    assert_eq!(values(killed.path()).unwrap(), [1, 2, 3]);
}

#[test]
fn a_log_that_is_cut_anywhere_leaves_the_batches_before_the_cut() {
    let killed = three_in_the_log();
    let log = log_of(killed.path());
    let whole = read(&log).unwrap();
    let record = (whole.len() - 16) / 3;
    for length in 0..=whole.len() {
        let cut = as_if_killed(killed.path());
        write(log_of(cut.path()), &whole[..length]).unwrap();
        let left = values(cut.path());
        // A segment that the image names had been made to its end.
        if length < 16 {
            assert!(
                matches!(left, Err(StoreError::Damaged { what: "log", .. })),
                "{length} bytes: {left:?}"
            );
            continue;
        }
        let whole_records = (length - 16) / record;
        let left_of_them: Vec<u8> = (1..=whole_records as u8).collect();
        assert_eq!(left.unwrap(), left_of_them, "{length} bytes");
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_damage_or_an_append_that_was_never_acknowledged() {
    let killed = three_in_the_log();
    let whole = read(log_of(killed.path())).unwrap();
    let last_record = whole.len() - (whole.len() - 16) / 3;
    for at in 0..whole.len() {
        let damaged = as_if_killed(killed.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        write(log_of(damaged.path()), bytes).unwrap();
        match values(damaged.path()) {
            Err(StoreError::Damaged { what: "log", .. }) if at < last_record => {}
            Ok(left) if at >= last_record => assert_eq!(left, [1, 2]),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_lost_log_and_a_lost_image_are_found_out() {
    let killed = three_in_the_log();
    let without_log = as_if_killed(killed.path());
    std::fs::remove_file(log_of(without_log.path())).unwrap();
    let error = EmbeddedStore::open(without_log.path()).unwrap_err();
    assert!(
        error.to_string().contains("segment 1 is missing"),
        "{error}"
    );
    std::fs::remove_file(killed.path().join("forebay.redb")).unwrap();
    let error = EmbeddedStore::open(killed.path()).unwrap_err();
    assert!(
        error.to_string().contains("but the log beside it is there"),
        "{error}"
    );
}

#[test]
fn the_loss_of_the_newest_of_two_segments_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.commit(&put(Table::Meta, 1, 1)).unwrap();
    store.inner.rotate().unwrap();
    for last in [None, Some(2)] {
        if let Some(value) = last {
            store.commit(&put(Table::Meta, value, value)).unwrap();
        }
        let killed = as_if_killed(directory.path());
        let whole = as_if_killed(killed.path());
        assert_eq!(
            values(whole.path()).unwrap().last(),
            last.as_ref().or(Some(&1))
        );
        std::fs::remove_file(killed.path().join("forebay.log.2")).unwrap();
        let error = EmbeddedStore::open(killed.path()).unwrap_err();
        assert!(
            error.to_string().contains("segment 2 is missing"),
            "{error}"
        );
    }
}

#[test]
fn the_loss_of_the_end_of_the_older_of_two_segments_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    for value in 1..=3 {
        store.commit(&put(Table::Meta, value, value)).unwrap();
    }
    store.inner.rotate().unwrap();
    store.commit(&put(Table::Meta, 4, 4)).unwrap();
    let older = directory.path().join("forebay.log.1");
    let length = std::fs::metadata(older).unwrap().len();
    for left in 16..length {
        let killed = as_if_killed(directory.path());
        let older = std::fs::File::options()
            .write(true)
            .open(killed.path().join("forebay.log.1"))
            .unwrap();
        older.set_len(left).unwrap();
        let error = EmbeddedStore::open(killed.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the end of segment 1 is missing"),
            "{left} bytes: {error}"
        );
    }
    // And of the newer one its beginning.
    let killed = as_if_killed(directory.path());
    write(killed.path().join("forebay.log.2"), "").unwrap();
    let error = EmbeddedStore::open(killed.path()).unwrap_err();
    assert!(
        error.to_string().contains("does not begin like a segment"),
        "{error}"
    );
}

#[test]
fn a_segment_that_was_made_and_never_begun_is_no_loss() {
    let killed = three_in_the_log();
    Segment::create(killed.path(), 2).unwrap();
    assert_eq!(values(killed.path()).unwrap(), [1, 2, 3]);
}

#[test]
fn a_stop_leaves_what_is_done_at_leisure_and_does_it_in_haste() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.commit(&put(Table::Accounts, 1, 1)).unwrap();
    let inner = &store.inner;
    inner.is_over.store(true, Ordering::Relaxed);
    let left = inner.checkpoint(inner.leisurely());
    assert_eq!(left, Err(StoreError::Stopped));
    assert_eq!(inner.image.log_begins_with().unwrap(), 1);
    assert_eq!(inner.image.get(Table::Accounts, &[1]).unwrap(), None);
    assert_eq!(store.get(Table::Accounts, &[1]).unwrap(), Some(vec![1]));
    drop(store);
    let image = Image::open(directory.path()).unwrap();
    assert_eq!(image.log_begins_with().unwrap(), 2);
    assert_eq!(image.get(Table::Accounts, &[1]).unwrap(), Some(vec![1]));
}

#[test]
fn segments_whose_batches_are_in_the_image_are_not_replayed_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.commit(&put(Table::Meta, 1, 1)).unwrap();
    let old = read(log_of(directory.path())).unwrap();
    store.commit(&put(Table::Meta, 1, 2)).unwrap();
    store.inner.checkpoint(store.inner.leisurely()).unwrap();
    let killed = as_if_killed(directory.path());
    // As if the process had been killed before it removed the segment.
    write(killed.path().join("forebay.log.1"), old).unwrap();
    let store = EmbeddedStore::open(killed.path()).unwrap();
    assert_eq!(store.get(Table::Meta, &[1]).unwrap(), Some(vec![2]));
    assert!(!killed.path().join("forebay.log.1").exists());
}

#[test]
fn a_log_grows_no_further_than_to_the_next_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::with_log_of(1 << 20, directory.path()).unwrap();
    for number in 0..30 {
        let mut batch = Batch::default();
        batch.put(Table::History, [number], vec![7; 1 << 18]);
        store.commit(&batch).unwrap();
    }
    let at_once = std::time::Instant::now();
    while segments(directory.path()).unwrap() == [1] {
        assert!(at_once.elapsed() < CHECKPOINT_EVERY / 2, "no checkpoint");
        std::thread::yield_now();
    }
    drop(store);
    let length = |number: &u64| {
        let path = directory.path().join(format!("forebay.log.{number}"));
        std::fs::metadata(path).unwrap().len()
    };
    let logs = segments(directory.path()).unwrap();
    assert_eq!(logs.iter().map(length).sum::<u64>(), 16, "{logs:?}");
}

#[test]
fn a_checkpoint_of_more_rows_than_one_transaction_takes_has_all_of_them() {
    const ROWS: u16 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let mut batch = Batch::default();
    for number in 0..ROWS {
        batch.put(Table::Accounts, number.to_be_bytes(), number.to_le_bytes());
    }
    store.commit(&batch).unwrap();
    store.inner.checkpoint(store.inner.leisurely()).unwrap();
    let mut batch = Batch::default();
    for number in (0..ROWS).filter(|number| number % 2 == 0) {
        batch.delete(Table::Accounts, number.to_be_bytes());
    }
    store.commit(&batch).unwrap();
    store.inner.checkpoint(store.inner.leisurely()).unwrap();
    let odd: Vec<Row> = (0..ROWS)
        .filter(|number| number % 2 == 1)
        .map(|number| (number.to_be_bytes().to_vec(), number.to_le_bytes().to_vec()))
        .collect();
    assert_eq!(rows(&store, Table::Accounts), odd);
    let killed = EmbeddedStore::open(as_if_killed(directory.path()).path()).unwrap();
    assert_eq!(rows(&killed, Table::Accounts), odd);
}

#[test]
fn a_segment_is_written_over_one_that_is_not_needed_and_nothing_of_that_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    for value in 1..=30 {
        store.commit(&put(Table::Meta, value, value)).unwrap();
    }
    store.inner.checkpoint(store.inner.leisurely()).unwrap();
    // The first one is the spare now, and the one after the next is written over it.
    let spare = directory.path().join("forebay.log.spare");
    let length = std::fs::metadata(spare).unwrap().len();
    let mut batch = Batch::default();
    for value in 1..=30 {
        batch.delete(Table::Meta, [value]);
    }
    store.commit(&batch).unwrap();
    store.inner.checkpoint(store.inner.leisurely()).unwrap();
    let log = log_of(directory.path());
    assert_eq!(std::fs::metadata(&log).unwrap().len(), length);
    for value in 41..=43 {
        store.commit(&put(Table::Meta, value, value)).unwrap();
    }
    let killed = as_if_killed(directory.path());
    assert_eq!(
        std::fs::metadata(log_of(killed.path())).unwrap().len(),
        length
    );
    assert_eq!(values(killed.path()).unwrap(), [41, 42, 43]);
    drop(store);
    let left: u64 = read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| {
            file.file_name()
                .to_string_lossy()
                .starts_with("forebay.log")
        })
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert_eq!(left, 16, "a server that was stopped leaves no room taken");
}

/// A store of the version before there was a log.
fn without_a_log(layout: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let image = Image::open(directory.path()).unwrap();
    let mut batch = put(Table::Accounts, 1, 1);
    batch.put(Table::Meta, *b"layout", layout.to_le_bytes());
    batch.put(Table::Meta, *b"store_epoch", 5_u64.to_le_bytes());
    batch.put(Table::Meta, *b"clean", [1]);
    let mut changes = Overlay::default();
    changes.add(&batch);
    changes.leave();
    image.take_in(&changes.leaving(), 0, Haste::Urgent).unwrap();
    directory
}

#[test]
fn a_store_from_before_the_log_is_taken_over_and_kept_from_builds_that_know_no_log() {
    let directory = without_a_log(3);
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let killed = as_if_killed(directory.path());
    let image = Image::open(killed.path()).unwrap();
    let layout = image.get(Table::Meta, b"layout").unwrap();
    assert_eq!(
        layout,
        Some(super::super::LAYOUT_VERSION.to_le_bytes().to_vec())
    );
    assert_eq!(open_epoch(&store).unwrap(), Start::Clean { epoch: 5 });
    assert_eq!(store.get(Table::Accounts, &[1]).unwrap(), Some(vec![1]));
}

#[test]
fn a_first_start_that_was_killed_before_the_image_knew_of_the_log_is_done_again() {
    let mut head = b"fblog\0\0\x02".to_vec();
    head.extend(1_u64.to_le_bytes());
    for length in [0, 8, 16] {
        let directory = without_a_log(3);
        write(directory.path().join("forebay.log.1"), &head[..length]).unwrap();
        let store = EmbeddedStore::open(directory.path()).unwrap();
        assert_eq!(store.get(Table::Accounts, &[1]).unwrap(), Some(vec![1]));
    }
}

#[test]
fn an_image_that_had_to_be_closed_is_opened_again_by_the_next_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.commit(&put(Table::Meta, 1, 1)).unwrap();
    store.inner.image.close();
    assert!(store.range(Table::Meta, &[0], &[9]).is_err());
    store.commit(&put(Table::Meta, 2, 2)).unwrap();
    store.inner.checkpoint(Haste::Urgent).unwrap();
    assert_eq!(store.range(Table::Meta, &[0], &[9]).unwrap().len(), 2);
    assert_eq!(segments(directory.path()).unwrap(), [2]);
}

#[test]
fn nobody_else_can_open_a_store_whose_image_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    store.inner.image.close();
    let error = EmbeddedStore::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_store_of_a_version_that_this_build_does_not_read_stays_as_it_is() {
    let directory = without_a_log(2);
    for _ in 0..2 {
        let error = EmbeddedStore::open(directory.path()).unwrap_err();
        assert_eq!(error, StoreError::Layout { found: 2 });
    }
    assert!(segments(directory.path()).unwrap().is_empty());
}

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(bool, u8, Option<u8>)>),
    Checkpoint,
    /// A checkpoint that ends before the image has it.
    Rotate,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (any::<bool>(), 0..12_u8, proptest::option::of(any::<u8>()));
    prop_oneof![
        6 => proptest::collection::vec(change, 1..6).prop_map(Step::Commit),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Rotate),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reads_like_a_store_in_memory_whatever_has_happened(
        steps in proptest::collection::vec(step(), 1..40),
        from in 0..12_u8,
        to in 0..12_u8,
    ) {
        let mut directory = tempfile::tempdir().unwrap();
        let mut store = EmbeddedStore::open(directory.path()).unwrap();
        let model = MemoryStore::default();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let mut batch = Batch::default();
                    for (is_history, key, value) in changes {
                        let table = if is_history { Table::History } else { Table::Parts };
                        match value {
                            Some(value) => batch.put(table, [key], [value]),
                            None => batch.delete(table, [key]),
                        }
                    }
                    store.commit(&batch).unwrap();
                    model.commit(&batch).unwrap();
                }
                Step::Checkpoint => store.inner.checkpoint(store.inner.leisurely()).unwrap(),
                Step::Rotate => {
                    store.inner.rotate().unwrap();
                }
                Step::Kill => {
                    let copy = as_if_killed(directory.path());
                    drop(store);
                    directory = copy;
                    store = EmbeddedStore::open(directory.path()).unwrap();
                }
            }
            for table in [Table::History, Table::Parts] {
                prop_assert_eq!(rows(&store, table), rows(&model, table));
                prop_assert_eq!(
                    store.range(table, &[from], &[to]).unwrap(),
                    model.range(table, &[from], &[to]).unwrap()
                );
                prop_assert_eq!(
                    store.get(table, &[from]).unwrap(),
                    model.get(table, &[from]).unwrap()
                );
            }
        }
    }
}
