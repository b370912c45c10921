//! What both benches share: a counting allocator, medians, and the report file.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counts allocations and the bytes that glibc's malloc takes for those alive.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes to the system allocator unchanged; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(malloc_bytes(layout.size()), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(malloc_bytes(layout.size()), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that malloc takes for a request: a header of eight, rounded up to sixteen, at least 32.
fn malloc_bytes(size: usize) -> i64 {
    ((size + 8).next_multiple_of(16).max(32)) as i64
}

pub fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

pub fn live_bytes() -> i64 {
    LIVE_BYTES.load(Relaxed)
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of this thread in nanoseconds: on a busy machine the wall clock counts the neighbours' work too.
pub fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// A measured value with its bar, if it has one.
pub struct Row {
    pub field: &'static str,
    pub value: f64,
    pub bar: Option<(&'static str, f64)>,
}

/// Prints the table, writes `target/report/NAME.json`, and returns whether every bar was reached.
pub fn publish(name: &str, rows: &[Row]) -> bool {
    let mut reached = true;
    println!("{name}");
    for Row { field, value, bar } in rows {
        let verdict = match bar {
            None => String::new(),
            Some((sign, limit)) => {
                let ok = if *sign == "<=" {
                    value <= limit
                } else {
                    value >= limit
                };
                reached &= ok;
                format!("  {sign} {limit}{}", if ok { "" } else { "  MISSED" })
            }
        };
        println!("  {field:<26} {value:>14.3}{verdict}");
    }
    let fields: Vec<String> = rows
        .iter()
        .map(|Row { field, value, .. }| format!("  \"{field}\": {value}"))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/report");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join(format!("{name}.json")),
        format!("{{\n{}\n}}\n", fields.join(",\n")),
    )
    .unwrap();
    reached
}
