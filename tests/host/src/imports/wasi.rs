//! The part of WASI that rustc's standard library calls. Time is virtual, randomness is the same in every run.

use wasmtime::Result;
use wasmtime::{Caller, Linker};

use super::memory;
use crate::state::State;

const MODULE: &str = "wasi_snapshot_preview1";
const BAD_FILE: i32 = 8;
const INVALID: i32 = 28;

/// WASI has no gate: Envoy's own implementations of these cannot fail.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut caller: Caller<'_, State>, clock: u32, _precision: u64, at: u32| {
            let now = match clock {
                0 => caller.data().clock.wall_ns(),
                1 => caller.data().clock.monotonic_ns(),
                _ => return INVALID,
            };
            done(memory::write_u64(&mut caller, at, now))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "random_get",
        |mut caller: Caller<'_, State>, at: u32, length: u32| {
            let bytes: Vec<u8> = (0..length)
                .map(|_| caller.data_mut().random_byte())
                .collect();
            done(memory::write(&mut caller, at, &bytes))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "environ_sizes_get",
        |mut caller: Caller<'_, State>, count_at: u32, bytes_at: u32| {
            let variables = variables(&caller);
            let bytes: usize = variables.iter().map(Vec::len).sum();
            let written = memory::write_u32(&mut caller, count_at, variables.len() as u32)
                .and_then(|()| memory::write_u32(&mut caller, bytes_at, bytes as u32));
            done(written)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "environ_get",
        |mut caller: Caller<'_, State>, pointers_at: u32, bytes_at: u32| {
            let mut at = bytes_at;
            for (index, variable) in variables(&caller).into_iter().enumerate() {
                let written = memory::write_u32(&mut caller, pointers_at + 4 * index as u32, at)
                    .and_then(|()| memory::write(&mut caller, at, &variable));
                if written.is_err() {
                    return INVALID;
                }
                at += variable.len() as u32;
            }
            0
        },
    )?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!(
            "the module exited with {code}"
        )))
    })?;
    Ok(())
}

fn variables(caller: &Caller<'_, State>) -> Vec<Vec<u8>> {
    let pairs = &caller.data().environment;
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}

/// Standard output and error become log lines, as in Envoy.
fn fd_write(
    mut caller: Caller<'_, State>,
    file: u32,
    vectors: u32,
    count: u32,
    written_at: u32,
) -> i32 {
    if !(1..=2).contains(&file) {
        return BAD_FILE;
    }
    let mut text = Vec::new();
    for index in 0..count {
        let Ok(vector) = memory::read(&mut caller, vectors + 8 * index, 8) else {
            return INVALID;
        };
        let at = u32::from_le_bytes([vector[0], vector[1], vector[2], vector[3]]);
        let length = u32::from_le_bytes([vector[4], vector[5], vector[6], vector[7]]);
        let Ok(bytes) = memory::read(&mut caller, at, length) else {
            return INVALID;
        };
        text.extend(bytes);
    }
    let length = text.len() as u32;
    caller.data_mut().logs.push((
        if file == 1 { 2 } else { 4 },
        String::from_utf8_lossy(&text).into_owned(),
    ));
    done(memory::write_u32(&mut caller, written_at, length))
}

fn done(outcome: Result<()>) -> i32 {
    if outcome.is_ok() { 0 } else { INVALID }
}
