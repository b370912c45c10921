//! Clients of one Envoy that ask for a customer at a steady pace while they are switched on, and count what is admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::client::Protocol;
use crate::envoy::Envoy;
use crate::wait::until;

/// One pace per client: with one for all, the clients of one Envoy could come just after those of another one for ever, and find
/// every token taken.
const PACES_MS: [u64; 6] = [17, 18, 19, 21, 22, 23];

/// The clients. They end with it.
#[derive(Debug)]
pub struct Traffic {
    is_on: Arc<AtomicBool>,
    admitted: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

// === impl Traffic ===

impl Traffic {
    /// About 300 requests a second through the listener `front`, for the customer that the trusted header `x-customer` names; switched
    /// off at first.
    pub async fn start(envoy: &Envoy, customer: &'static str) -> Result<Self> {
        let is_on = Arc::new(AtomicBool::new(false));
        let admitted = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for pace_ms in PACES_MS {
            let mut client = envoy.connect("front", Protocol::Http1).await?;
            let (is_on, admitted) = (Arc::clone(&is_on), Arc::clone(&admitted));
            clients.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(pace_ms));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if !is_on.load(Ordering::Relaxed) {
                        continue;
                    }
                    let reply = client.get("/", &[("x-customer", customer)]).await.unwrap();
                    assert!(matches!(reply.status, 200 | 429), "{reply:?}");
                    admitted.fetch_add(u64::from(reply.status == 200), Ordering::Relaxed);
                }
            }));
        }
        Ok(Self {
            is_on,
            admitted,
            clients,
        })
    }

    /// Switches them on or off.
    pub fn switch(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// Requests that were admitted since the start.
    pub fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Switches them on until so many requests were admitted within a span of time, and off again.
    pub async fn until_served(
        &self,
        what: &str,
        requests: u64,
        span: Duration,
        patience: Duration,
    ) {
        self.switch(true);
        until(format!("a gateway is served {what}"), patience, || async {
            assert!(
                self.clients.iter().all(|client| !client.is_finished()),
                "a client failed"
            );
            let before = self.admitted();
            tokio::time::sleep(span).await;
            (self.admitted() - before >= requests).then_some(())
        })
        .await;
        self.switch(false);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}
