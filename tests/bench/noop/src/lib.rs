//! A filter that does nothing, as the SDK's examples are written and built: the yardstick of bench-filter.
//!
//! "Requests per second with our filter" says more about the machine than about the filter. What the same SDK
//! costs when it does nothing is the fair unit: it is what any Rust filter pays before its first line.

// `proxy_wasm::main!` exports `_initialize`.
#![allow(unsafe_code, missing_docs)]

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Nothing) });
}}

struct Nothing;

impl Context for Nothing {}

impl HttpContext for Nothing {}
