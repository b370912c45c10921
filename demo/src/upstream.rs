//! A backend that can do so much per second and not more.
//!
//! It is a queue with one server: a request waits for those before it and then takes `1 / capacity` seconds. Overload
//! is therefore seen as it is in life, first as latency and then, when the queue is too long to be worth waiting in, as
//! 503. A backend that merely counted and refused would hide the wait.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Work that may wait, in seconds of the capacity. The pool is one second deep, so what it admits always fits.
const QUEUE_S: f64 = 1.5;

/// A running upstream; dropping it closes its port.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    // Dropping the set aborts the accept loop and with it all connections.
    _server: JoinSet<()>,
}

/// What the upstream has done.
#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    refused: AtomicU64,
}

/// When the work accepted so far will be done.
#[derive(Debug)]
struct Queue {
    service: Duration,
    limit: Duration,
    done_at: Mutex<Instant>,
}

impl Upstream {
    /// Starts an upstream that can do `capacity_per_s` requests per second.
    pub(crate) async fn start(capacity_per_s: f64) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("the upstream cannot listen on 127.0.0.1")?;
        let address = listener
            .local_addr()
            .context("the upstream's own address")?;
        let counts = Arc::new(Counts::default());
        let queue = Arc::new(Queue::new(capacity_per_s, Instant::now()));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, queue, Arc::clone(&counts)));
        Ok(Self {
            address,
            counts,
            _server: server,
        })
    }

    /// Requests answered with 200 and with 503 so far.
    pub(crate) fn served_and_refused(&self) -> (u64, u64) {
        (
            self.counts.served.load(Ordering::Relaxed),
            self.counts.refused.load(Ordering::Relaxed),
        )
    }
}

async fn accept(listener: TcpListener, queue: Arc<Queue>, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (queue, counts) = (Arc::clone(&queue), Arc::clone(&counts));
        connections.spawn(async move {
            let service =
                service_fn(move |_request| answer(Arc::clone(&queue), Arc::clone(&counts)));
            // A connection that breaks is the client's business; it counts its own failures.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    queue: Arc<Queue>,
    counts: Arc<Counts>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match queue.enter(Instant::now()) {
        Some(wait) => {
            tokio::time::sleep(wait).await;
            counts.served.fetch_add(1, Ordering::Relaxed);
            (StatusCode::OK, "served\n")
        }
        None => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded\n")
        }
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}

impl Queue {
    fn new(capacity_per_s: f64, now: Instant) -> Self {
        Self {
            service: Duration::from_secs_f64(1.0 / capacity_per_s),
            limit: Duration::from_secs_f64(QUEUE_S),
            done_at: Mutex::new(now),
        }
    }

    /// How long a request that enters now takes; `None` if it is turned away.
    fn enter(&self, now: Instant) -> Option<Duration> {
        let mut done_at = self.done_at.lock().unwrap_or_else(PoisonError::into_inner);
        let done = (*done_at).max(now) + self.service;
        if done - now > self.limit {
            return None;
        }
        *done_at = done;
        Some(done - now)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use std::time::{Duration, Instant};

    #[test]
    fn requests_wait_for_those_before_them() {
        let start = Instant::now();
        let queue = Queue::new(100.0, start);
        assert_eq!(queue.enter(start), Some(Duration::from_millis(10)));
        assert_eq!(queue.enter(start), Some(Duration::from_millis(20)));
        let later = start + Duration::from_secs(1);
        assert_eq!(queue.enter(later), Some(Duration::from_millis(10)));
    }

    #[test]
    fn a_queue_that_is_too_long_turns_requests_away() {
        let start = Instant::now();
        let queue = Queue::new(100.0, start);
        let entered = (0..1_000).filter(|_| queue.enter(start).is_some()).count();
        assert_eq!(entered, 150);
    }
}
