//! VMs that trap under load come back without a refill.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_envoy_tests::{
    Admission, Bootstrap, Envoy, Listener, Protocol, minimal_config, until, wrapped,
};

const BURST: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_that_trap_again_and_again_never_refill_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("trapping.wasm");
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trap_every_fifth_request.wat");
    wrapped("admission", "on_request_headers", &wrapper, &module).unwrap();
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
