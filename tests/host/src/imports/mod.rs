//! The functions that a module imports: proxy-wasm 0.2.1 and the few of WASI that rustc's standard library needs.
//!
//! Only what the plugins use is real; anything else traps with its name, so that a new dependency on the host is
//! noticed.

mod memory;
mod proxy;
mod streams;
mod wasi;

use wasmtime::Result;
use wasmtime::{Caller, Linker};

use crate::gate::{Fate, HostCall, Status};
use crate::state::State;

/// Everything a module can import.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    wasi::link(linker)?;
    proxy::link(linker)?;
    streams::link(linker)
}

/// Passes the gate, then does `call`; what went wrong is the status.
fn guarded(
    caller: &mut Caller<'_, State>,
    name: &'static str,
    call: impl FnOnce(&mut Caller<'_, State>) -> Result<Status>,
) -> Result<i32> {
    let gate = caller.data().gate.clone();
    let worker = caller.data().worker;
    match gate.decide(HostCall { worker, name }) {
        Fate::Proceed => {
            let status =
                call(caller).map_err(|error| wasmtime::Error::msg(format!("{name}: {error:?}")))?;
            Ok(status as i32)
        }
        Fate::Fail(status) => Ok(status as i32),
        Fate::Trap => Err(wasmtime::Error::msg(format!("{name}: trapped by the test"))),
    }
}
