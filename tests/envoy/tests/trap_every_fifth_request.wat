;; Put around the shipped module by wasm-merge: after each fifth decision the VM traps, at the worst moment, when
;; tokens have left the ledger and the request has not gone on.
(module
  (import "admission" "inner_on_request_headers" (func $decide (param i32 i32 i32) (result i32)))
  (global $decided (mut i32) (i32.const 0))
  (func (export "proxy_on_request_headers") (param $stream i32) (param $headers i32) (param $end i32) (result i32)
    (local $action i32)
    (local.set $action (call $decide (local.get $stream) (local.get $headers) (local.get $end)))
    (global.set $decided (i32.add (global.get $decided) (i32.const 1)))
    (if (i32.eq (global.get $decided) (i32.const 5)) (then (unreachable)))
    (local.get $action)))
