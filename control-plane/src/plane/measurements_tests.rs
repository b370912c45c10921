use super::*;
use crate::covariates::CovariateOptions;
use crate::history::{CHUNK_STEPS, chunk_key};
use crate::keys::Keys;
use crate::plane::{Clock, Settings};
use crate::prometheus::{Label, TimedValue, WriteRequest};
use crate::store::{MemoryStore, Row, Store, Table, Visitor};
use forebay_wire::key::CustomerHash;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

const STEP_MS: u64 = 1_000;
/// The running step.
const NOW: u64 = 1_790_000_000;
const CUSTOMER: CustomerHash = CustomerHash([7; 16]);
const SERIES: Series = Series {
    customer: CUSTOMER,
    resource: 192,
};

/// A store that sees who reads it, and can be read only if it is told so.
#[derive(Debug, Default)]
struct Watched {
    rows: MemoryStore,
    is_unreadable: AtomicBool,
    plane: Mutex<Weak<Plane>>,
    /// How often each chunk was read, and reads while somebody had the lock.
    reads: Mutex<BTreeMap<Vec<u8>, usize>>,
    reads_under_lock: AtomicU64,
}

impl Store for Watched {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.rows.commit(batch)
    }

    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.rows.make_room(bytes)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.is_unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Read("away".to_owned()));
        }
        if table == Table::History {
            *self.reads.lock().unwrap().entry(key.to_vec()).or_default() += 1;
        }
        let plane = self.plane.lock().unwrap().upgrade();
        if plane.is_some_and(|plane| plane.state.try_lock().is_err()) {
            self.reads_under_lock.fetch_add(1, Ordering::SeqCst);
        }
        self.rows.get(table, key)
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.rows.range(table, from, to)
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.rows.visit(table, visitor)
    }
}

/// A server that keeps `up` as one covariate and as another.
fn plane() -> (Arc<Plane>, Arc<Watched>) {
    let store = Arc::new(Watched::default());
    let settings = Settings {
        lease_ttl_ms: 10_000,
        fallback_ttl_ms: 60_000,
        sync_interval_ms: 250,
        step_ms: 1_000,
        history_steps: 1_024,
        max_other_customers: 100,
        audit_keep: 100,
    };
    let options = CovariateOptions {
        covariates: vec!["a=up".parse().unwrap(), "b=up{b=\"\"}".parse().unwrap()],
        covariate_customer_label: "customer".to_owned(),
        covariate_replica_label: "__replica__".to_owned(),
    };
    let clock = Clock::Manual(Arc::new(AtomicU64::new(0)));
    assert_eq!(clock.now().unix_ms, NOW * STEP_MS);
    let of_plane = Arc::clone(&store) as Arc<dyn Store>;
    let plane = Plane::start(of_plane, Keys::new(None, None).unwrap(), settings, clock).unwrap();
    let plane = plane.measuring(options.choose().unwrap().unwrap()).unwrap();
    let plane = Arc::new(plane);
    *store.plane.lock().unwrap() = Arc::downgrade(&plane);
    (plane, store)
}

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Samples of the customer, as a pod of its brings them, of the first covariate.
fn series(pod: &str, samples: &[(u64, f64)]) -> TimeSeries {
    let sample = |(step, value): &(u64, f64)| TimedValue {
        value: *value,
        timestamp: i64::try_from(step * STEP_MS).unwrap(),
    };
    TimeSeries {
        labels: vec![
            label("__name__", "up"),
            label("b", "other"),
            label("customer", &format!("hash:{CUSTOMER}")),
            label("pod", pod),
        ],
        samples: samples.iter().map(sample).collect(),
    }
}

fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let message = WriteRequest { timeseries }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

/// The customer is known, as one whom a gateway has reported.
fn take(plane: &Plane, timeseries: Vec<TimeSeries>) -> Result<(), ApiError> {
    {
        let mut state = plane.lock();
        let now = plane.clock.now().mono;
        state.account(CUSTOMER, &[], now, 100);
    }
    plane.take_measurements(&body(timeseries))
}

fn stored(store: &Watched, step: u64) -> Option<f32> {
    let chunk = Ring::stored(&store.rows, (SERIES, Chunk::number_of(step)));
    chunk.unwrap()?.get(step)
}

#[test]
fn chunks_are_read_once_each_and_never_under_the_lock() {
    let (plane, store) = plane();
    // Two per chunk, of two pods; the second time with all chunks in the store and none in memory.
    let steps = (NOW - 1_000..NOW).step_by(32);
    let of = |value| Vec::from_iter(steps.clone().map(|step| (step, value)));
    for pods in [["a", "b"], ["c", "d"]] {
        store.reads.lock().unwrap().clear();
        take(&plane, Vec::from(pods.map(|pod| series(pod, &of(3.0))))).unwrap();
        let reads = store.reads.lock().unwrap();
        assert!(reads.len() >= 14, "{}", reads.len());
        assert!(reads.values().all(|count| *count == 1), "{reads:?}");
    }
    assert_eq!(store.reads_under_lock.load(Ordering::SeqCst), 0);
    for step in steps {
        assert_eq!(stored(&store, step), Some(3.0), "{step}");
    }
}

#[test]
fn what_could_not_be_read_is_not_noted_and_counts_when_it_comes_again() {
    let (plane, store) = plane();
    let samples = [(NOW - 400, 2.0), (NOW - 1, 4.0)];
    store.is_unreadable.store(true, Ordering::SeqCst);
    let refused = take(&plane, vec![series("a", &samples)]).unwrap_err();
    assert_eq!(refused.status, 503);
    store.is_unreadable.store(false, Ordering::SeqCst);
    take(&plane, vec![series("a", &samples)]).unwrap();
    for (step, value) in samples {
        assert_eq!(stored(&store, step).map(f64::from), Some(value));
    }
}

#[test]
fn a_piece_has_a_bounded_number_of_samples_whatever_series_they_are_of() {
    let of = |samples: usize| Measured {
        series: SERIES,
        source: 1,
        samples: (0..).map(|at| (at, 1.0)).take(samples).collect(),
    };
    let measured: Vec<_> = [0, 1, SAMPLES_AT_ONCE * 3, 7, SAMPLES_AT_ONCE - 8]
        .map(of)
        .into();
    let pieces = pieces_of(&measured);
    let samples = |piece: &Vec<Part<'_>>| piece.iter().map(|part| part.samples.len()).sum();
    let lengths: Vec<usize> = pieces.iter().map(samples).collect();
    assert_eq!(lengths, [SAMPLES_AT_ONCE; 4]);
    let longest = pieces[1..3].iter().flatten();
    assert!(
        longest
            .flat_map(|part| part.samples)
            .map(|(at, _)| *at)
            .is_sorted()
    );
}

#[test]
fn samples_of_the_past_leave_the_memory_when_the_store_has_them() {
    let (plane, store) = plane();
    let newest = NOW / CHUNK_STEPS;
    let ids: Vec<ChunkId> = (newest - 20..=newest)
        .map(|number| (SERIES, number))
        .collect();
    let in_memory = || {
        let state = plane.lock();
        let of = ids.iter().filter(|id| state.ring.in_memory(**id).is_some());
        of.map(|(_, number)| *number).collect::<Vec<_>>()
    };
    let late = || plane.covariates().unwrap().writing().late.len();
    let steps = (NOW - 992..=NOW).step_by(32).map(|step| (step, 1.0));
    let steps = Vec::from_iter(steps);
    store.rows.set_full(true);
    take(&plane, vec![series("a", &steps)]).unwrap_err();
    assert!(in_memory().len() > 14 && late() > 12, "they must stay");
    store.rows.set_full(false);
    // Sent again there is no news in it, and it says that all is durable.
    take(&plane, vec![series("a", &steps)]).unwrap();
    assert_eq!(in_memory(), [newest - 1, newest]);
    assert_eq!(late(), 0);
    for (step, _) in steps {
        assert_eq!(stored(&store, step), Some(1.0));
    }
    // Too many of them at once are refused for a while, and what is current is not.
    let crowd = (0..LATE_MOST as u64).map(|number| ((Series::new(CUSTOMER, 255), number), 9_000));
    plane.covariates().unwrap().writing().late.extend(crowd);
    let refused = take(&plane, vec![series("b", &[(NOW - 1_000, 1.0)])]).unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (503, "busy"));
    take(&plane, vec![series("c", &[(NOW, 1.0)])]).unwrap();
}

#[test]
fn series_without_samples_and_samples_of_many_covariates_do_not_pile_up() {
    let (plane, _) = plane();
    let covariates = plane.covariates().unwrap();
    let of_both = |samples: usize| {
        let mut both = series("a", &vec![(NOW, 1.0); samples]);
        both.labels.remove(1);
        both
    };
    let read = |timeseries| plane.read_measurements(covariates, &body(timeseries));
    let empty = read(vec![of_both(0); 1_000]).unwrap();
    assert_eq!(empty.measured.len(), 0);
    let fits = read(vec![of_both(50); SAMPLES_MOST / 100]).unwrap();
    assert_eq!(
        (fits.samples, fits.measured.len()),
        (SAMPLES_MOST, SAMPLES_MOST / 50)
    );
    let refused = read(vec![of_both(50); SAMPLES_MOST / 100 + 1]).unwrap_err();
    assert_eq!(refused.status, 400);
}

#[test]
fn a_damaged_chunk_of_a_covariate_begins_anew() {
    let (plane, store) = plane();
    let mut batch = Batch::default();
    let damaged = Chunk::number_of(NOW - 400);
    batch.put(Table::History, chunk_key(SERIES, damaged), b"damaged");
    store.rows.commit(&batch).unwrap();
    take(&plane, vec![series("a", &[(NOW - 400, 2.0)])]).unwrap();
    assert_eq!(stored(&store, NOW - 400), Some(2.0));
}
