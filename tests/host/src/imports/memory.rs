//! Moving bytes in and out of a module's memory.

use wasmtime::Result;
use wasmtime::error::Context as _;
use wasmtime::{Caller, Extern, Memory};

use crate::state::State;

fn memory(caller: &mut Caller<'_, State>) -> Result<Memory> {
    caller
        .get_export("memory")
        .and_then(Extern::into_memory)
        .context("the module exports no memory")
}

/// Reads bytes.
pub(super) fn read(caller: &mut Caller<'_, State>, at: u32, length: u32) -> Result<Vec<u8>> {
    let memory = memory(caller)?;
    let end = at.checked_add(length).context("past the end of memory")?;
    let bytes = memory
        .data(&caller)
        .get(at as usize..end as usize)
        .context("past the end of memory")?;
    Ok(bytes.to_vec())
}

/// Reads text, as far as it is text.
pub(super) fn read_text(caller: &mut Caller<'_, State>, at: u32, length: u32) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(caller, at, length)?).into_owned())
}

/// Overwrites bytes.
pub(super) fn write(caller: &mut Caller<'_, State>, at: u32, bytes: &[u8]) -> Result<()> {
    memory(caller)?
        .write(caller, at as usize, bytes)
        .context("past the end of memory")
}

/// Overwrites a number.
pub(super) fn write_u32(caller: &mut Caller<'_, State>, at: u32, value: u32) -> Result<()> {
    write(caller, at, &value.to_le_bytes())
}

/// Overwrites a number.
pub(super) fn write_u64(caller: &mut Caller<'_, State>, at: u32, value: u64) -> Result<()> {
    write(caller, at, &value.to_le_bytes())
}

/// Hands bytes over: the module allocates, and where they are is written to `at` and `length_at`.
pub(super) fn hand_over(
    caller: &mut Caller<'_, State>,
    bytes: &[u8],
    at: u32,
    length_at: u32,
) -> Result<()> {
    let length = u32::try_from(bytes.len())?;
    let mut address = 0;
    if length > 0 {
        let allocate = caller
            .get_export("proxy_on_memory_allocate")
            .or_else(|| caller.get_export("malloc"))
            .and_then(Extern::into_func)
            .context("the module exports no allocator")?;
        address = allocate
            .typed::<u32, u32>(&caller)?
            .call(&mut *caller, length)?;
        write(caller, address, bytes)?;
    }
    write_u32(caller, at, address)?;
    write_u32(caller, length_at, length)
}

/// proxy-wasm's header pairs: a count, all lengths, then all bytes with a zero after each.
pub(super) fn encode_pairs(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut bytes = number(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value);
        bytes.push(0);
    }
    bytes
}

/// The reverse of [`encode_pairs`].
pub(super) fn decode_pairs(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let number = |at: usize| -> Result<usize> {
        let raw = bytes.get(at..at + 4).context("header pairs end early")?;
        Ok(u32::from_le_bytes(raw.try_into()?) as usize)
    };
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let count = number(0)?;
    let mut at = 4 + count * 8;
    let mut pairs = Vec::with_capacity(count);
    for index in 0..count {
        let (name_length, value_length) = (number(4 + index * 8)?, number(8 + index * 8)?);
        let name = bytes
            .get(at..at + name_length)
            .context("header pairs end early")?;
        at += name_length + 1;
        let value = bytes
            .get(at..at + value_length)
            .context("header pairs end early")?;
        at += value_length + 1;
        pairs.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(pairs)
}
