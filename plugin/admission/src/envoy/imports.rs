//! The host calls of the request path, as the ABI (proxy-wasm 0.2.1 and WASI) defines them.
//!
//! `proxy_wasm::hostcalls` panics on every status that it does not expect, and a panic costs the worker its VM: a failing host call would
//! become an outage. It also cannot answer with an HTTP and a gRPC status at once, or give response code details. So the few calls of the
//! request path are made here, and a status is a number that is compared, never an enum that an unknown value would make undefined.
#![allow(unsafe_code)] // host calls are foreign functions; this module is the only one that makes them

use std::cell::Cell;
use std::ptr::null_mut;

/// Status of a call that did what it was asked to do.
pub(super) const OK: u32 = 0;
/// Status of a compare-and-swap that lost.
pub(super) const CAS_MISMATCH: u32 = 8;
/// Status of a look-up that found nothing.
pub(super) const NOT_FOUND: u32 = 1;

/// The map of request headers.
pub(super) const REQUEST_HEADERS: u32 = 0;
/// The map of response headers.
pub(super) const RESPONSE_HEADERS: u32 = 2;

/// WASI clock: wall-clock time.
pub(super) const REALTIME: u32 = 0;
/// WASI clock: monotonic, one for all VMs of the process.
pub(super) const MONOTONIC: u32 = 1;

thread_local! {
    /// What each clock said last: the wall clock, the monotonic one.
    static LAST_NS: [Cell<u64>; 2] = const { [Cell::new(0), Cell::new(0)] };
}

mod raw {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_get_header_map_value(
            map: u32,
            key: *const u8,
            key_len: usize,
            value: *mut *mut u8,
            len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(
            map: u32,
            pairs: *mut *mut u8,
            len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            key: *const u8,
            key_len: usize,
            value: *const u8,
            len: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(
            map: u32,
            key: *const u8,
            key_len: usize,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_len: usize,
            value: *mut *mut u8,
            len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_property(
            path: *const u8,
            path_len: usize,
            value: *const u8,
            len: usize,
        ) -> u32;
        pub(super) fn proxy_get_shared_data(
            key: *const u8,
            key_len: usize,
            value: *mut *mut u8,
            len: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            key: *const u8,
            key_len: usize,
            value: *const u8,
            len: usize,
            cas: u32,
        ) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_len: usize,
            body: *const u8,
            body_len: usize,
            headers: *const u8,
            headers_len: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_increment_metric(metric: u32, by: i64) -> u32;
        pub(super) fn proxy_record_metric(metric: u32, value: u64) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn clock_time_get(clock: u32, precision_ns: u64, time_ns: *mut u64) -> u32;
    }
}

/// A value that the host allocated in our memory for us to own.
struct Received {
    at: *mut u8,
    len: usize,
}

// === impl Received ===

impl Received {
    const NOTHING: Self = Self {
        at: null_mut(),
        len: 0,
    };

    /// Puts the value into `into`, whose old buffer is freed.
    fn into_buffer(self, into: &mut Vec<u8>) {
        if self.at.is_null() {
            into.clear();
            return;
        }
        // SAFETY: the host obtained `at` from `proxy_on_memory_allocate`, which leaks a boxed slice of exactly `len` bytes from the
        // global allocator, wrote all of them, and does not keep the pointer.
        *into = unsafe { Vec::from_raw_parts(self.at, self.len, self.len) };
    }
}

/// The first value of a header.
pub(super) fn header(map: u32, name: &str, into: &mut Vec<u8>) -> u32 {
    let mut value = Received::NOTHING;
    // SAFETY: the pointers are valid for the lengths given, during the call.
    let status = unsafe {
        raw::proxy_get_header_map_value(
            map,
            name.as_ptr(),
            name.len(),
            &mut value.at,
            &mut value.len,
        )
    };
    receive(status, value, into)
}

/// All headers of a map.
pub(super) fn headers(map: u32, into: &mut Vec<u8>) -> u32 {
    let mut pairs = Received::NOTHING;
    // SAFETY: the pointers are valid during the call.
    let status = unsafe { raw::proxy_get_header_map_pairs(map, &mut pairs.at, &mut pairs.len) };
    receive(status, pairs, into)
}

/// Sets a header.
pub(super) fn replace_header(map: u32, name: &str, value: &[u8]) -> u32 {
    // SAFETY: the pointers are valid for the lengths given, during the call.
    unsafe {
        raw::proxy_replace_header_map_value(
            map,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

/// Removes a header.
pub(super) fn remove_header(map: u32, name: &str) -> u32 {
    // SAFETY: the pointer is valid for the length given, during the call.
    unsafe { raw::proxy_remove_header_map_value(map, name.as_ptr(), name.len()) }
}

/// A property; its path has NUL between its parts.
pub(super) fn property(path: &[u8], into: &mut Vec<u8>) -> u32 {
    let mut value = Received::NOTHING;
    // SAFETY: the pointers are valid for the lengths given, during the call.
    let status = unsafe {
        raw::proxy_get_property(path.as_ptr(), path.len(), &mut value.at, &mut value.len)
    };
    receive(status, value, into)
}

/// Sets a property, which Envoy keeps as filter state.
pub(super) fn set_property(path: &[u8], value: &[u8]) -> u32 {
    // SAFETY: the pointers are valid for the lengths given, during the call.
    unsafe { raw::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

/// A value of shared data with its compare-and-swap number.
pub(super) fn shared_data(key: &str, into: &mut Vec<u8>) -> Result<u32, u32> {
    let mut value = Received::NOTHING;
    let mut cas = 0;
    // SAFETY: the pointers are valid for the lengths given, during the call.
    let status = unsafe {
        raw::proxy_get_shared_data(
            key.as_ptr(),
            key.len(),
            &mut value.at,
            &mut value.len,
            &mut cas,
        )
    };
    match receive(status, value, into) {
        OK => Ok(cas),
        status => Err(status),
    }
}

/// Sets a value of shared data. A `cas` of 0 overwrites.
pub(super) fn set_shared_data(key: &str, value: &[u8], cas: u32) -> u32 {
    // SAFETY: the pointers are valid for the lengths given, during the call.
    unsafe { raw::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) }
}

/// Answers the request.
pub(super) fn reply(
    status: u32,
    grpc_status: i32,
    details: &str,
    headers: &[u8],
    body: &[u8],
) -> u32 {
    // SAFETY: the pointers are valid for the lengths given, during the call.
    unsafe {
        raw::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    }
}

/// Adds to a counter.
pub(super) fn add_metric(metric: u32, by: i64) -> u32 {
    // SAFETY: the call takes no pointers.
    unsafe { raw::proxy_increment_metric(metric, by) }
}

/// Records a value.
pub(super) fn record_metric(metric: u32, value: u64) -> u32 {
    // SAFETY: the call takes no pointers.
    unsafe { raw::proxy_record_metric(metric, value) }
}

/// Nanoseconds of a clock; 0 if the host has no such clock.
pub(super) fn clock_ns(clock: u32) -> u64 {
    let mut time_ns = 0;
    // SAFETY: the pointer is valid during the call.
    let status = unsafe { raw::clock_time_get(clock, 0, &mut time_ns) };
    LAST_NS.with(|last| {
        let Some(last) = last.get(usize::from(clock == MONOTONIC)) else {
            return 0;
        };
        // A clock that fails stands still. Time 0 would put chunks into an age that is long over, and their tokens
        // would be given out again.
        if status == OK {
            last.set(time_ns);
        }
        last.get()
    })
}

fn receive(status: u32, value: Received, into: &mut Vec<u8>) -> u32 {
    if status == OK {
        value.into_buffer(into);
    }
    status
}
