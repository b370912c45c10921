//! The little of WASI that Rust's runtime asks for, answered by an empty machine.
//!
//! Most imports can do nothing and say "ok". These cannot: they return their answer through memory, and a module that reads
//! what nobody wrote sees an environment of random size, or writes a panic message for ever. A whole WASI implementation was the
//! worse alternative: files, clocks and sockets that a hostile model could reach for.

use wasmtime::{Caller, Extern, Linker, StoreLimits};

const WASI: &str = "wasi_snapshot_preview1";
/// WASI's "success".
const OK: i32 = 0;
/// WASI's "bad address".
const FAULT: i32 = 21;
/// Pieces of one write that are looked at.
const MAX_PIECES: u32 = 1_024;

type Host<'a> = Caller<'a, StoreLimits>;

/// Adds the stubs to a linker.
pub(super) fn add(linker: &mut Linker<StoreLimits>) -> wasmtime::Result<()> {
    linker.func_wrap(
        WASI,
        "environ_sizes_get",
        |mut host: Host<'_>, count: u32, bytes: u32| {
            write(&mut host, count, &[0; 4]).max(write(&mut host, bytes, &[0; 4]))
        },
    )?;
    linker.func_wrap(WASI, "environ_get", |_: Host<'_>, _: u32, _: u32| OK)?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |mut host: Host<'_>, _: u32, _: u64, time: u32| write(&mut host, time, &[0; 8]),
    )?;
    linker.func_wrap(
        WASI,
        "fd_write",
        |mut host: Host<'_>, _: u32, pieces: u32, count: u32, written: u32| {
            let total = length_of(&mut host, pieces, count);
            write(&mut host, written, &total.to_le_bytes())
        },
    )?;
    linker.func_wrap(WASI, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!(
            "the forecaster exits with code {code}"
        )))
    })?;
    Ok(())
}

fn write(host: &mut Host<'_>, at: u32, bytes: &[u8]) -> i32 {
    let Some(Extern::Memory(memory)) = host.get_export("memory") else {
        return FAULT;
    };
    memory
        .write(host, at as usize, bytes)
        .map_or(FAULT, |()| OK)
}

/// Sum of the lengths of the pieces of a write. Each is a pointer and a length.
fn length_of(host: &mut Host<'_>, pieces: u32, count: u32) -> u32 {
    let Some(Extern::Memory(memory)) = host.get_export("memory") else {
        return 0;
    };
    let lengths = (0..count.min(MAX_PIECES)).map(|piece| {
        let mut length = [0; 4];
        let at = pieces
            .saturating_add(piece.saturating_mul(8))
            .saturating_add(4);
        match memory.read(&*host, at as usize, &mut length) {
            Ok(()) => u32::from_le_bytes(length),
            Err(_) => 0,
        }
    });
    lengths.fold(0, u32::saturating_add)
}
