//! VMs that trap under load come back without a refill.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_envoy_tests::{
    Admission, Bootstrap, Envoy, Listener, Protocol, artefact, minimal_config, tool, until,
};

const BURST: u64 = 40;

/// What wasm-merge must be told of the modules.
const FEATURES: [&str; 10] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-multivalue",
    "--enable-call-indirect-overlong",
    "--enable-extended-const",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_that_trap_again_and_again_never_refill_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("trapping.wasm");
    put_around_the_shipped_module("trap_every_fifth_request.wat", &module);
    let config = minimal_config(0, BURST, &["acme"]);
    let mut filter = Admission::new("trap", config).filter().unwrap();
    filter.module = module.display().to_string();
    let envoy = Envoy::start(
        &Bootstrap::with(vec![Listener::direct("front", Some(filter))]),
        2,
    )
    .await
    .unwrap();
    let (admitted, trapped) = (AtomicU64::new(0), AtomicU64::new(0));
    // Until several VMs have come back, and the bucket had every chance to be filled again.
    let reloads = until(
        "four VMs were reloaded",
        Duration::from_secs(90),
        || async {
            for _ in 0..20 {
                let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
                let status = client
                    .get("/", &[("x-customer", "acme")])
                    .await
                    .map_or(503, |reply| reply.status);
                let counter = match status {
                    200 => &admitted,
                    429 => continue,
                    503 => &trapped,
                    other => panic!("status {other}"),
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            let reloads = envoy.stat("wasm.front.vm_reload_success").await.ok()?;
            (reloads >= 4).then_some(reloads)
        },
    )
    .await;
    let (admitted, trapped) = (admitted.into_inner(), trapped.into_inner());
    println!(
        "{reloads} reloads, {trapped} requests met a trapped VM, {admitted} of {BURST} admitted"
    );
    assert!(
        admitted <= BURST,
        "{admitted} of {BURST} admitted over {reloads} reloads"
    );
    assert!(
        admitted > 0 && trapped > 0,
        "{admitted} admitted, {trapped} trapped"
    );
}

/// The shipped code itself runs; only its callback has something around it. A build of its own with a switch for
/// tests would be other code.
fn put_around_the_shipped_module(wrapper: &str, out: &Path) {
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(wrapper);
    let renamed = out.with_extension("renamed.wasm");
    let shipped = std::fs::read(artefact("admission").unwrap()).unwrap();
    std::fs::write(&renamed, with_its_callback_renamed(shipped)).unwrap();
    let merged = Command::new(tool("wasm-merge").unwrap())
        .arg(wrapper)
        .arg("wrapper")
        .arg(renamed)
        .arg("admission")
        .args(FEATURES)
        .arg("-o")
        .arg(out)
        .output()
        .unwrap();
    assert!(
        merged.status.success(),
        "{}",
        String::from_utf8_lossy(&merged.stderr)
    );
}

/// Two modules that are merged cannot export the same name. The new one is as long as the old, so no length in the
/// module changes.
fn with_its_callback_renamed(mut module: Vec<u8>) -> Vec<u8> {
    let (old, new) = (b"proxy_on_request_headers", b"inner_on_request_headers");
    let at = module
        .windows(old.len())
        .position(|window| window == old)
        .expect("the callback is exported");
    module[at..at + old.len()].copy_from_slice(new);
    module
}
