//! The callbacks of the ABI.
//!
//! They cannot have the names of the ABI: the SDK defines those too, for its dispatcher, and a name can be exported once. So they are
//! called `forebay_*`, and `exports.txt` says what each is renamed to when the linked module is finished. The dispatcher, which nothing
//! exports then, falls out.
#![allow(unsafe_code)] // exporting a function under a fixed name

use std::cell::RefCell;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, LogLevel};

use super::proxy::Envoy;
use super::roots::Roots;
use crate::filter::Action;
use crate::tick::TICK_MS;
use forebay_wire::key::SECRET_ENV;

const CONTINUE: u32 = 0;
const STOP_ITERATION: u32 = 1;

thread_local! {
    static ROOTS: RefCell<Roots> = RefCell::default();
}

// A panic reaches the log of Envoy without the SDK's logger: the standard hook writes to standard error, which Envoy logs.
proxy_wasm::main! {{}}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_context_create(context: u32, root: u32) {
    if root != 0 {
        with_roots((), |roots| roots.note_stream(context, root));
    }
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_vm_start(_root: u32, _configuration_len: usize) -> u32 {
    1
}

/// A configuration that is refused leaves the one before in force: Envoy drops the new context and keeps the old.
#[unsafe(no_mangle)]
extern "C" fn forebay_on_configure(root: u32, _configuration_len: usize) -> u32 {
    let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX)
        .ok()
        .flatten()
        .unwrap_or_default();
    let secret = std::env::var(SECRET_ENV).ok();
    match crate::configure(&mut Envoy, &json, secret.as_deref()) {
        Ok(filter) => {
            let _ = hostcalls::set_tick_period(Duration::from_millis(u64::from(TICK_MS)));
            with_roots((), |roots| roots.add(root, filter));
            1
        }
        Err(error) => {
            let _ = hostcalls::log(
                LogLevel::Error,
                &format!("forebay: configuration refused: {error}"),
            );
            0
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_tick(root: u32) {
    with_roots((), |roots| {
        let (ticking, gone) = roots.tick(root);
        if let Some(filter) = ticking {
            filter.on_tick(&mut Envoy);
        }
        for mut filter in gone {
            filter.retire(&mut Envoy);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_request_headers(stream: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    with_roots(CONTINUE, |roots| match roots.of_stream(stream) {
        Some(filter) => match filter.on_request_headers(&mut Envoy, stream) {
            Action::Continue => CONTINUE,
            Action::Stop => STOP_ITERATION,
        },
        None => CONTINUE,
    })
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_response_headers(
    stream: u32,
    _headers: usize,
    _end_of_stream: u32,
) -> u32 {
    with_roots((), |roots| {
        if let Some(filter) = roots.of_stream(stream) {
            filter.on_response_headers(&mut Envoy, stream);
        }
    });
    CONTINUE
}

/// Envoy does not call into a VM that waits for a host call of ours to return, except to allocate memory. Should it ever, the inner call
/// does nothing, rather than trap.
fn with_roots<T>(otherwise: T, act: impl FnOnce(&mut Roots) -> T) -> T {
    ROOTS.with(|roots| match roots.try_borrow_mut() {
        Ok(mut roots) => act(&mut roots),
        Err(_) => otherwise,
    })
}
