//! The host's monotonic clock.
//!
//! proxy-wasm only offers the wall clock, which jumps; the standard library's `Instant` hides its origin, and ledger entries are
//! stamped in VMs of several workers, which must agree on one. So the WASI call is made directly: in Envoy it reads the steady clock
//! of the process.
#![allow(
    unsafe_code,
    reason = "a WASI import has no safe form; the one pointer it takes is to a local"
)]

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision_ns: u64, time_ns: *mut u64) -> u16;
}

const MONOTONIC: u32 = 1;

/// Microseconds of the host's monotonic clock; 0 should the host refuse, which freezes every interval instead of inventing one.
pub(crate) fn monotonic_us() -> u64 {
    let mut time_ns = 0_u64;
    // SAFETY: the pointer is to a live local that the host fills during the call.
    let status = unsafe { clock_time_get(MONOTONIC, 1_000, &raw mut time_ns) };
    if status == 0 { time_ns / 1_000 } else { 0 }
}
