//! Host calls about the current stream: headers, properties, buffers, local replies.

use wasmtime::Result;
use wasmtime::{Caller, Linker};

use super::guarded;
use super::memory::{decode_pairs, encode_pairs, hand_over, read, read_text};
use crate::exchange::{Headers, LocalReply};
use crate::gate::Status;
use crate::state::State;

const MODULE: &str = "env";

type Context<'a> = Caller<'a, State>;

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    read_headers(linker)?;
    change_headers(linker)?;
    properties(linker)?;
    linker.func_wrap(MODULE, "proxy_send_local_response", send_local_response)?;
    linker.func_wrap(
        MODULE,
        "proxy_continue_stream",
        |mut caller: Context<'_>, _kind: u32| {
            guarded(&mut caller, "proxy_continue_stream", |_| Ok(Status::Ok))
        },
    )?;
    Ok(())
}

fn read_headers(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_get_header_map_value",
        |mut caller: Context<'_>,
         map: u32,
         name: u32,
         name_length: u32,
         at: u32,
         length_at: u32| {
            guarded(&mut caller, "proxy_get_header_map_value", |caller| {
                let name = read_text(caller, name, name_length)?;
                let value = caller
                    .data_mut()
                    .headers(map)
                    .and_then(|headers| headers.get(&name).map(<[u8]>::to_vec));
                let Some(value) = value else {
                    return Ok(Status::NotFound);
                };
                hand_over(caller, &value, at, length_at)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_get_header_map_pairs",
        |mut caller: Context<'_>, map: u32, at: u32, length_at: u32| {
            guarded(&mut caller, "proxy_get_header_map_pairs", |caller| {
                let pairs = caller
                    .data_mut()
                    .headers(map)
                    .map(|headers| headers.0.clone())
                    .unwrap_or_default();
                hand_over(caller, &encode_pairs(&pairs), at, length_at)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_get_buffer_bytes",
        |mut caller: Context<'_>, buffer: u32, start: u32, max: u32, at: u32, length_at: u32| {
            guarded(&mut caller, "proxy_get_buffer_bytes", |caller| {
                let Some(bytes) = caller.data().buffer(buffer) else {
                    return Ok(Status::NotFound);
                };
                let start = bytes.len().min(start as usize);
                let end = bytes.len().min(start.saturating_add(max as usize));
                let part = bytes[start..end].to_vec();
                hand_over(caller, &part, at, length_at)?;
                Ok(Status::Ok)
            })
        },
    )?;
    Ok(())
}

fn change_headers(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_replace_header_map_value",
        |mut caller: Context<'_>,
         map: u32,
         name: u32,
         name_length: u32,
         value: u32,
         value_length: u32| {
            guarded(&mut caller, "proxy_replace_header_map_value", |caller| {
                let name = read_text(caller, name, name_length)?;
                let value = read(caller, value, value_length)?;
                Ok(change(caller, map, |headers| {
                    headers.replace(&name, &value)
                }))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_add_header_map_value",
        |mut caller: Context<'_>,
         map: u32,
         name: u32,
         name_length: u32,
         value: u32,
         value_length: u32| {
            guarded(&mut caller, "proxy_add_header_map_value", |caller| {
                let name = read_text(caller, name, name_length)?;
                let value = read(caller, value, value_length)?;
                Ok(change(caller, map, |headers| headers.0.push((name, value))))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_remove_header_map_value",
        |mut caller: Context<'_>, map: u32, name: u32, name_length: u32| {
            guarded(&mut caller, "proxy_remove_header_map_value", |caller| {
                let name = read_text(caller, name, name_length)?;
                Ok(change(caller, map, |headers| headers.remove(&name)))
            })
        },
    )?;
    Ok(())
}

fn change(caller: &mut Context<'_>, map: u32, change: impl FnOnce(&mut Headers)) -> Status {
    match caller.data_mut().headers(map) {
        Some(headers) => {
            change(headers);
            Status::Ok
        }
        None => Status::BadArgument,
    }
}

fn properties(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_get_property",
        |mut caller: Context<'_>, path: u32, path_length: u32, at: u32, length_at: u32| {
            guarded(&mut caller, "proxy_get_property", |caller| {
                let path = dotted(&read(caller, path, path_length)?);
                let state = caller.data();
                let value = state
                    .streams
                    .get(&state.current)
                    .and_then(|stream| stream.property(&path));
                let Some(value) = value else {
                    return Ok(Status::NotFound);
                };
                hand_over(caller, &value, at, length_at)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_set_property",
        |mut caller: Context<'_>, path: u32, path_length: u32, value: u32, value_length: u32| {
            guarded(&mut caller, "proxy_set_property", |caller| {
                let path = dotted(&read(caller, path, path_length)?);
                let value = read(caller, value, value_length)?;
                let state = caller.data_mut();
                let current = state.current;
                let Some(stream) = state.streams.get_mut(&current) else {
                    return Ok(Status::BadArgument);
                };
                stream.set_properties.insert(path, value);
                Ok(Status::Ok)
            })
        },
    )?;
    Ok(())
}

/// proxy-wasm joins the parts of a path with zero bytes.
fn dotted(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .trim_end_matches('\0')
        .replace('\0', ".")
}

// The ABI fixes the number of arguments.
#[allow(clippy::too_many_arguments)]
fn send_local_response(
    mut caller: Context<'_>,
    status: u32,
    details: u32,
    details_length: u32,
    body: u32,
    body_length: u32,
    headers: u32,
    headers_length: u32,
    grpc_status: i32,
) -> wasmtime::Result<i32> {
    guarded(&mut caller, "proxy_send_local_response", |caller| {
        let reply = LocalReply {
            status,
            grpc_status: u32::try_from(grpc_status).ok(),
            headers: Headers(decode_pairs(&read(caller, headers, headers_length)?)?),
            body: read(caller, body, body_length)?,
            details: read_text(caller, details, details_length)?,
        };
        let state = caller.data_mut();
        let current = state.current;
        let Some(stream) = state.streams.get_mut(&current) else {
            return Ok(Status::BadArgument);
        };
        stream.local_reply = Some(reply);
        Ok(Status::Ok)
    })
}
