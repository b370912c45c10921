//! Host calls that do not concern one stream: log, time, shared data, metrics, HTTP calls.

use wasmtime::Result;
use wasmtime::{Caller, Linker};

use super::guarded;
use super::memory::{decode_pairs, hand_over, read, read_text, write_u32, write_u64};
use crate::exchange::{Headers, HttpCall};
use crate::gate::Status;
use crate::state::State;

const MODULE: &str = "env";

type Context<'a> = Caller<'a, State>;

pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    logging_and_time(linker)?;
    shared_data(linker)?;
    metrics(linker)?;
    calls(linker)
}

fn logging_and_time(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_log",
        |mut caller: Context<'_>, level: u32, at: u32, length: u32| {
            guarded(&mut caller, "proxy_log", |caller| {
                let text = read_text(caller, at, length)?;
                caller.data_mut().logs.push((level, text));
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_get_log_level",
        |mut caller: Context<'_>, at: u32| {
            guarded(&mut caller, "proxy_get_log_level", |caller| {
                write_u32(caller, at, 2)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_get_current_time_nanoseconds",
        |mut caller: Context<'_>, at: u32| {
            guarded(
                &mut caller,
                "proxy_get_current_time_nanoseconds",
                |caller| {
                    let now = caller.data().clock.wall_ns();
                    write_u64(caller, at, now)?;
                    Ok(Status::Ok)
                },
            )
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_set_tick_period_milliseconds",
        |mut caller: Context<'_>, period: u32| {
            guarded(
                &mut caller,
                "proxy_set_tick_period_milliseconds",
                |caller| {
                    caller.data_mut().tick_period_ms = period;
                    Ok(Status::Ok)
                },
            )
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_set_effective_context",
        |mut caller: Context<'_>, context: u32| {
            guarded(&mut caller, "proxy_set_effective_context", |caller| {
                caller.data_mut().current = context;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(MODULE, "proxy_done", |mut caller: Context<'_>| {
        guarded(&mut caller, "proxy_done", |_| Ok(Status::Ok))
    })?;
    Ok(())
}

fn shared_data(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_get_shared_data",
        |mut caller: Context<'_>,
         key: u32,
         key_length: u32,
         at: u32,
         length_at: u32,
         cas_at: u32| {
            guarded(&mut caller, "proxy_get_shared_data", |caller| {
                let key = read(caller, key, key_length)?;
                let Some((value, cas)) = caller.data().shared.get(&key) else {
                    return Ok(Status::NotFound);
                };
                hand_over(caller, &value, at, length_at)?;
                write_u32(caller, cas_at, cas)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_set_shared_data",
        |mut caller: Context<'_>,
         key: u32,
         key_length: u32,
         value: u32,
         value_length: u32,
         cas: u32| {
            guarded(&mut caller, "proxy_set_shared_data", |caller| {
                let key = read(caller, key, key_length)?;
                let value = read(caller, value, value_length)?;
                Ok(caller.data().shared.set(&key, &value, cas))
            })
        },
    )?;
    Ok(())
}

fn metrics(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "proxy_define_metric",
        |mut caller: Context<'_>, _kind: u32, name: u32, name_length: u32, id_at: u32| {
            guarded(&mut caller, "proxy_define_metric", |caller| {
                let name = read_text(caller, name, name_length)?;
                let id = caller.data().metrics.define(name);
                write_u32(caller, id_at, id)?;
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_increment_metric",
        |mut caller: Context<'_>, id: u32, offset: i64| {
            guarded(&mut caller, "proxy_increment_metric", |caller| {
                caller.data().metrics.add(id, offset);
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_record_metric",
        |mut caller: Context<'_>, id: u32, value: i64| {
            guarded(&mut caller, "proxy_record_metric", |caller| {
                caller.data().metrics.record(id, value);
                Ok(Status::Ok)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "proxy_get_metric",
        |mut caller: Context<'_>, id: u32, at: u32| {
            guarded(&mut caller, "proxy_get_metric", |caller| {
                let value = caller.data().metrics.get(id);
                write_u64(caller, at, value.cast_unsigned())?;
                Ok(Status::Ok)
            })
        },
    )?;
    Ok(())
}

fn calls(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(MODULE, "proxy_http_call", http_call)?;
    linker.func_wrap(
        MODULE,
        "proxy_call_foreign_function",
        |mut caller: Context<'_>,
         name: u32,
         name_length: u32,
         _: u32,
         _: u32,
         at: u32,
         length_at: u32| {
            guarded(&mut caller, "proxy_call_foreign_function", |caller| {
                let name = read_text(caller, name, name_length)?;
                let Some(answer) = caller.data().foreign.get(&name).cloned() else {
                    return Ok(Status::NotFound);
                };
                hand_over(caller, &answer, at, length_at)?;
                Ok(Status::Ok)
            })
        },
    )?;
    Ok(())
}

// The ABI fixes the number of arguments.
#[allow(clippy::too_many_arguments)]
fn http_call(
    mut caller: Context<'_>,
    upstream: u32,
    upstream_length: u32,
    headers: u32,
    headers_length: u32,
    body: u32,
    body_length: u32,
    _trailers: u32,
    _trailers_length: u32,
    timeout_ms: u32,
    token_at: u32,
) -> wasmtime::Result<i32> {
    guarded(&mut caller, "proxy_http_call", |caller| {
        let upstream = read_text(caller, upstream, upstream_length)?;
        let headers = Headers(decode_pairs(&read(caller, headers, headers_length)?)?);
        let body = read(caller, body, body_length)?;
        let state = caller.data_mut();
        state.last_token += 1;
        let token = state.last_token;
        state.http_calls.push(HttpCall {
            token,
            upstream,
            headers,
            body,
            timeout_ms,
        });
        write_u32(caller, token_at, token)?;
        Ok(Status::Ok)
    })
}
