//! The export with which the control plane's sandbox asks: would a gateway load this model?
//!
//! It lives in the plugin, and not in the control plane, so that the answer comes from the very code that would load
//! the model, and so that whatever a hostile file does to that code, it does it under the sandbox's limits.
// Two numbers come in and two go out; there is no other way over this border.
#![allow(unsafe_code)]

use forebay_forecast::{Limits, verdict};

/// Rows of the batch that the model is tried with: the gateway's default.
const BATCH_ROWS: usize = 64;

/// Judges the model file of `length` bytes at `pointer`, which the caller got from `proxy_on_memory_allocate` and has
/// filled. Returns where the JSON verdict is (upper 32 bits) and how long (lower 32 bits); it stays there, as the
/// caller throws the instance away.
#[unsafe(no_mangle)]
extern "C" fn forebay_check_model(pointer: *const u8, length: usize) -> u64 {
    let file = if pointer.is_null() {
        &[]
    } else {
        // SAFETY: the caller's contract above. The bytes are read before this function returns and nothing else
        // runs meanwhile.
        unsafe { std::slice::from_raw_parts(pointer, length) }
    };
    let verdict = verdict(file, &Limits::default(), BATCH_ROWS)
        .into_bytes()
        .leak();
    let (start, length) = (verdict.as_ptr() as usize as u64, verdict.len() as u64);
    (start << 32) | (length & u64::from(u32::MAX))
}
