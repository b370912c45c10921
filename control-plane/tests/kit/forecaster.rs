//! A forecaster made for tests: a model's first byte tells it what to do.

use forebay_control_plane::models::SandboxLimits;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Small bounds, so that a loop is a matter of milliseconds.
pub(crate) const LIMITS: SandboxLimits = SandboxLimits {
    memory_bytes: 4 << 20,
    fuel: 10_000_000,
    time: Duration::from_secs(20),
};

/// A forecaster that does what the first byte of the model says: `t`raps, `l`oops, takes all `m`emory, `r`efuses, answers with
/// `g`arbage, `e`xits, `p`oints out of its memory; else it accepts.
const FAKE: &str = r#"(module
  (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "{\"ok\":true,\"step_s\":60}")
  (data (i32.const 64) "{\"ok\":false,\"message\":\"output `quantiles` is missing\"}")
  (data (i32.const 128) "no json")
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
  (func $answer (param $at i64) (param $length i64) (result i64)
    (i64.or (i64.shl (local.get $at) (i64.const 32)) (local.get $length)))
  (func (export "forebay_check_model") (param $at i32) (param $length i32) (result i64)
    (local $kind i32)
    (local.set $kind (i32.load8_u (local.get $at)))
    (if (i32.eq (local.get $kind) (i32.const 116)) (then (unreachable)))
    (if (i32.eq (local.get $kind) (i32.const 108)) (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $kind) (i32.const 109))
      (then (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)))
    (if (i32.eq (local.get $kind) (i32.const 101)) (then (call $exit (i32.const 1))))
    (i32.store (i32.const 512) (i32.const -1))
    (drop (call $environ (i32.const 512) (i32.const 516)))
    (if (i32.load (i32.const 512)) (then (unreachable)))
    (i32.store (i32.const 524) (i32.const 9))
    (drop (call $write (i32.const 2) (i32.const 520) (i32.const 1) (i32.const 516)))
    (if (i32.ne (i32.load (i32.const 516)) (i32.const 9)) (then (unreachable)))
    (if (i32.eq (local.get $kind) (i32.const 114)) (then (return (call $answer (i64.const 64) (i64.const 54)))))
    (if (i32.eq (local.get $kind) (i32.const 103)) (then (return (call $answer (i64.const 128) (i64.const 7)))))
    (if (i32.eq (local.get $kind) (i32.const 112)) (then (return (call $answer (i64.const 0xfffffff0) (i64.const 64)))))
    (call $answer (i64.const 16) (i64.const 23))))"#;

pub(crate) fn fake_forecaster(directory: &Path) -> PathBuf {
    let path = directory.join("forecaster.wasm");
    std::fs::write(&path, wat::parse_str(FAKE).unwrap()).unwrap();
    path
}
