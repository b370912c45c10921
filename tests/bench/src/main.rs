//! Benches that need a real Envoy: each prints its table and writes target/report/NAME.json.

fn main() {}
