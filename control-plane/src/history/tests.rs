//! The ring of usage chunks over restarts, damage and gaps: apart from the code, because a test of it needs a store.

use super::*;
use crate::store::{Batch, MemoryStore, Progress, Store, Table};

const SERIES: Series = Series {
    customer: CustomerHash([7; 16]),
    resource: 1,
};

fn write(ring: &mut Ring, store: &MemoryStore, step: u64, usage: f32) {
    let mut batch = Batch::default();
    ring.set(store, &mut batch, SERIES, step, usage).unwrap();
    store.commit(&batch).unwrap();
}

#[test]
fn reads_back_what_was_written_across_chunks_and_restarts() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(256);
    for step in (1_000..1_100).filter(|step| step % 3 != 0) {
        write(&mut ring, &store, step, step as f32);
    }
    // Another ring on the same store: as after a restart.
    write(&mut Ring::new(256), &store, 1_100, 5.5);
    let usage = Ring::read(&store, SERIES, 995, 1_105).unwrap();
    assert_eq!(usage.values.len(), 111);
    for (step, value) in (995..=1_105).zip(usage.values) {
        let expected = match step {
            1_100 => Some(5.5),
            1_000..1_100 if step % 3 != 0 => Some(step as f32),
            _ => None,
        };
        assert_eq!(value, expected, "step {step}");
    }
}

#[test]
fn never_keeps_more_chunks_than_the_retention_needs() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(128);
    for step in 0..2_000 {
        write(&mut ring, &store, step, 1.0);
    }
    let rows = store.range(Table::History, &[], &[255; 25]).unwrap();
    assert!(
        rows.len() <= 4,
        "{} chunks for a retention of two",
        rows.len()
    );
    let usage = Ring::read(&store, SERIES, 2_000 - 128, 1_999).unwrap();
    assert!(usage.values.iter().all(Option::is_some));
}

#[test]
fn values_that_are_on_their_way_to_the_store_are_not_lost_by_going_back_to_their_chunk() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(256);
    let mut batch = Batch::default();
    ring.close_idle(200);
    // Two chunks in turn, and nothing is committed in between. Then a step ends.
    for step in [10, 70, 11, 71, 12] {
        ring.set(&store, &mut batch, SERIES, step, 1.0).unwrap();
    }
    ring.close_idle(201);
    ring.set(&store, &mut batch, SERIES, 13, 1.0).unwrap();
    store.commit(&batch).unwrap();
    let kept = Ring::read(&store, SERIES, 0, 127).unwrap();
    let kept: Vec<u64> = (0..)
        .zip(kept.values)
        .filter(|(_, value)| value.is_some())
        .map(|(step, _)| step)
        .collect();
    assert_eq!(kept, [10, 11, 12, 13, 70, 71]);
}

#[test]
fn steps_that_share_a_chunk_are_one_write_and_as_if_they_were_set_one_by_one() {
    let steps = [10, 11, 63, 64, 65, 300, 12, 66].map(|step| (step, step as f32));
    let (together, one_by_one) = (MemoryStore::default(), MemoryStore::default());
    let mut batch = Batch::default();
    let mut ring = Ring::new(512);
    ring.set_all(&together, &mut batch, SERIES, steps).unwrap();
    assert_eq!(batch.len(), 5, "the runs of chunks 0, 1, 4, 0, 1");
    together.commit(&batch).unwrap();
    let mut ring = Ring::new(512);
    for (step, usage) in steps {
        write(&mut ring, &one_by_one, step, usage);
    }
    let read = |store| Ring::read(store, SERIES, 0, 400).unwrap();
    assert_eq!(read(&together), read(&one_by_one));
}

#[test]
fn a_damaged_chunk_is_an_error() {
    let mut chunk = Chunk::default();
    chunk.set(3, 1.0);
    let bytes = chunk.encode();
    assert_eq!(Chunk::decode(&bytes), Ok(chunk));
    for cut in 0..bytes.len() {
        assert!(Chunk::decode(&bytes[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_damaged_chunk_is_a_gap_and_no_zeros_whoever_reported_in_it() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(256);
    for step in [0, 64, 65, 128] {
        write(&mut ring, &store, step, 1.0);
    }
    let mut batch = Batch::default();
    batch.put(Table::History, chunk_key(SERIES, 1), b"damaged");
    store.commit(&batch).unwrap();
    let usage = Ring::read(&store, SERIES, 0, 130).unwrap();
    let (_, mask) = usage.with_gaps(|_| true);
    let gaps = (0..=130_u64).filter(|step| {
        let bit = usize::try_from(*step).unwrap();
        mask[bit / 8] & (1 << (bit % 8)) == 0
    });
    assert_eq!(gaps.collect::<Vec<_>>(), Vec::from_iter(64..128));
}

#[test]
fn what_the_store_has_of_the_past_is_forgotten_and_what_is_current_is_not() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(512);
    ring.close_idle(5 * CHUNK_STEPS);
    let chunks = [0, 3, 4, 5].map(|number| (SERIES, number));
    for (_, number) in chunks {
        write(&mut ring, &store, number * CHUNK_STEPS, 1.0);
    }
    ring.forget(&chunks);
    let kept = chunks.map(|id| ring.in_memory(id).is_some());
    assert_eq!(kept, [false, false, true, true]);
    // It goes on with what the store has.
    write(&mut ring, &store, 1, 2.0);
    let first = Ring::read(&store, SERIES, 0, 1).unwrap();
    assert_eq!(first.values, [Some(1.0), Some(2.0)]);
}

#[test]
fn steps_without_a_report_are_gaps_even_when_the_ring_has_come_round() {
    let mut coverage = Coverage::new(16);
    for step in 0..16 {
        assert!(coverage.observe(step));
    }
    assert!(!coverage.observe(15), "no news");
    assert!(coverage.observe(20));
    let seen: Vec<u64> = (0..30).filter(|step| coverage.observed(*step)).collect();
    assert_eq!(seen, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20]);
    assert_eq!(
        Coverage::decode(&coverage.encode(), 16),
        Ok(coverage.clone())
    );
    assert!(coverage.observe(1_000_000));
    assert_eq!((0..30).filter(|step| coverage.observed(*step)).count(), 0);
}

#[test]
fn after_a_clock_was_set_back_steps_count_as_observed_only_when_they_come_again() {
    for (ahead, back) in [(25, 20), (1_000_000, 20)] {
        let mut coverage = Coverage::new(16);
        for step in 10..=20 {
            coverage.observe(step);
        }
        coverage.observe(ahead);
        coverage.rewind(back);
        assert!((back..back + 40).all(|step| !coverage.observed(step)));
        assert!(coverage.observe(back), "{ahead}");
        assert!(coverage.observe(back + 1));
        assert!(coverage.observed(back) && coverage.observed(back + 1));
        assert!(!coverage.observed(back + 2));
    }
}

#[test]
fn a_chunk_that_is_over_takes_less_room_and_can_be_written_again() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(1_000);
    let at = |ring: &mut Ring, step: u64| {
        let mut batch = Batch::default();
        ring.close_idle(step);
        ring.seal_some(&mut batch, Progress::default());
        ring.set(&store, &mut batch, SERIES, step, (step % 50) as f32)
            .unwrap();
        store.commit(&batch).unwrap();
    };
    for step in 0..256 {
        at(&mut ring, step);
    }
    let bytes = |number| {
        let key = chunk_key(SERIES, number);
        store.get(Table::History, &key).unwrap().unwrap().len()
    };
    assert!(2 * bytes(0) < bytes(3), "{} of {}", bytes(0), bytes(3));
    // An import goes back to it.
    let mut batch = Batch::default();
    ring.set(&store, &mut batch, SERIES, 7, 1_234.5).unwrap();
    store.commit(&batch).unwrap();
    let at = |ring: &mut Ring, step: u64| {
        let mut batch = Batch::default();
        ring.close_idle(step);
        ring.seal_some(&mut batch, Progress::default());
        store.commit(&batch).unwrap();
    };
    for step in 256..270 {
        at(&mut ring, step);
    }
    assert!(2 * bytes(0) < 264, "{} bytes", bytes(0));
    let usage = Ring::read(&store, SERIES, 0, 255).unwrap();
    for (step, value) in (0_u64..).zip(usage.values) {
        let expected = if step == 7 {
            1_234.5
        } else {
            (step % 50) as f32
        };
        assert_eq!(value, Some(expected), "step {step}");
    }
}

/// How far the journal is.
fn progress(queued: u64, durable: u64) -> Progress {
    Progress { queued, durable }
}

#[test]
fn a_chunk_that_the_store_does_not_have_yet_is_not_forgotten() {
    let store = MemoryStore::default();
    let mut ring = Ring::new(1_000);
    let mut unwritten = Batch::default();
    for step in 0..64 {
        ring.close_idle(step);
        ring.set(&store, &mut unwritten, SERIES, step, 1.0).unwrap();
    }
    // Two chunks later; of 64 batches the store has taken none, and then all but the last.
    for (step, durable) in [(200, 0), (201, 0), (202, 63)] {
        ring.close_idle(step);
        ring.seal_some(&mut unwritten, progress(64, durable));
        ring.seal_some(&mut unwritten, progress(70, durable));
        assert!(ring.in_memory((SERIES, 0)).is_some(), "{step}");
    }
    // An import goes back to it, and the store takes everything at last.
    ring.set(&store, &mut unwritten, SERIES, 7, 9.0).unwrap();
    store.commit(&unwritten).unwrap();
    let usage = Ring::read(&store, SERIES, 0, 63).unwrap();
    let expected = (0..64).map(|step| Some(if step == 7 { 9.0 } else { 1.0 }));
    assert_eq!(usage.values, expected.collect::<Vec<_>>());
    // What the store has is sealed and forgotten, although more waits for it by now.
    for step in 204..206 {
        let mut batch = Batch::default();
        ring.close_idle(step);
        ring.seal_some(&mut batch, progress(71, 70));
        ring.seal_some(&mut batch, progress(90, 71));
        store.commit(&batch).unwrap();
    }
    assert!(ring.in_memory((SERIES, 0)).is_none());
    assert_eq!(Ring::read(&store, SERIES, 0, 63).unwrap(), usage);
}

#[test]
fn while_the_store_takes_nothing_what_is_over_fills_no_memory() {
    const MOST: usize = 1 << 17;
    let store = MemoryStore::default();
    let mut ring = Ring::new(1_000);
    let mut unwritten = Batch::default();
    let series = |number: usize| {
        let mut customer = [0; 16];
        customer[..8].copy_from_slice(&number.to_be_bytes());
        Series::new(CustomerHash(customer), 0)
    };
    for number in 0..MOST + 10 {
        ring.set(&store, &mut unwritten, series(number), 1, 1.0)
            .unwrap();
    }
    ring.close_idle(200);
    ring.seal_some(&mut unwritten, progress(1, 0));
    let kept = (0..MOST + 10).filter(|number| ring.in_memory((series(*number), 0)).is_some());
    assert_eq!(kept.count(), MOST);
}
