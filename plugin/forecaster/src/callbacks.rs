//! The callbacks of the ABI that the SDK's dispatcher must not see for streams.
//!
//! As an ordinary HTTP filter the plugin is told of the beginning and the end of each stream, and of nothing in between, because nothing in
//! between is exported. A stream context in the SDK would be a box in a hash map for each request, which does nothing; and a root context
//! without one makes the SDK panic. So these three have names of their own, which `cargo xtask wasm` turns into those of the ABI, and pass
//! on what concerns a root context.
#![allow(
    unsafe_code,
    reason = "the SDK's callbacks can be reached by their symbols only; they take numbers and give numbers"
)]

use std::cell::RefCell;

unsafe extern "C" {
    safe fn proxy_on_context_create(context: u32, root: u32);
    safe fn proxy_on_done(context: u32) -> bool;
    safe fn proxy_on_delete(context: u32);
}

/// What Envoy asks for where it names a root context and means that there is none.
const NO_ROOT: u32 = 0;

thread_local! {
    /// One, or two for a while after a configuration update.
    static ROOTS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_context_create(context: u32, root: u32) {
    if root == NO_ROOT {
        with_roots(|roots| roots.push(context));
        proxy_on_context_create(context, root);
    }
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_done(context: u32) -> bool {
    !is_root(context) || proxy_on_done(context)
}

#[unsafe(no_mangle)]
extern "C" fn forebay_on_delete(context: u32) {
    if is_root(context) {
        with_roots(|roots| roots.retain(|root| *root != context));
        proxy_on_delete(context);
    }
}

fn is_root(context: u32) -> bool {
    let mut is_root = false;
    with_roots(|roots| is_root = roots.contains(&context));
    is_root
}

/// Nothing within calls the host, so nobody can call into it.
fn with_roots(act: impl FnOnce(&mut Vec<u32>)) {
    ROOTS.with(|roots| {
        if let Ok(mut roots) = roots.try_borrow_mut() {
            act(&mut roots);
        }
    });
}
