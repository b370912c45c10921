//! A backend of several workers that can do so much per second and not more.
//!
//! Requests wait for the first worker that is free, and then take their time. One server with a short service, as the demo has it, would
//! make a
//! wait out of any two requests that come at once; most backends are several threads or processes behind one queue. When a request is
//! done is
//! computed when it comes, so what is served per second does not depend on how late the system's timers are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What one request takes of a worker.
const SERVICE: Duration = Duration::from_millis(20);

/// A running backend; dropping it closes its port.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    queue: Arc<Mutex<Queue>>,
    // Dropping the set aborts the accept loop and with it all connections.
    _server: JoinSet<()>,
}

/// What it had to do since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    pub(super) served: u64,
    /// The longest wait for a worker.
    pub(super) longest_wait: Duration,
}

/// When each worker will have done what it has.
#[derive(Debug)]
struct Queue {
    free_at: Vec<Instant>,
    work: Work,
}

// === impl Backend ===

impl Backend {
    pub(super) async fn start(per_s: u32) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("the backend cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let queue = Arc::new(Mutex::new(Queue::new(per_s, Instant::now())));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, Arc::clone(&queue)));
        Ok(Self {
            address,
            queue,
            _server: server,
        })
    }

    /// From now on it serves so many per second. What it has is forgotten: nothing should be under way.
    pub(super) fn resize(&self, per_s: u32) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) =
            Queue::new(per_s, Instant::now());
    }

    pub(super) fn take_work(&self) -> Work {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut queue.work)
    }
}

async fn accept(listener: TcpListener, queue: Arc<Mutex<Queue>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let queue = Arc::clone(&queue);
        // Answers are small and come one by one: without this each would wait for the acknowledgement of the one before.
        let _set = stream.set_nodelay(true);
        connections.spawn(async move {
            let service = service_fn(move |_request| answer(Arc::clone(&queue)));
            // A connection that breaks is seen by its client.
            let _ended = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(queue: Arc<Mutex<Queue>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let done_at = queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .enter(Instant::now());
    tokio::time::sleep_until(done_at.into()).await;
    Ok(Response::new(Full::new(Bytes::from_static(b"served\n"))))
}

// === impl Queue ===

impl Queue {
    fn new(per_s: u32, now: Instant) -> Self {
        let workers = (f64::from(per_s) * SERVICE.as_secs_f64()).round() as usize;
        Self {
            free_at: vec![now; workers],
            work: Work::default(),
        }
    }

    /// When a request that comes now is done.
    fn enter(&mut self, now: Instant) -> Instant {
        self.work.served += 1;
        let Some(first) = self.free_at.iter_mut().min() else {
            return now + SERVICE;
        };
        let begins = (*first).max(now);
        self.work.longest_wait = self.work.longest_wait.max(begins - now);
        *first = begins + SERVICE;
        *first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_the_first_worker_that_is_free() {
        let start = Instant::now();
        let mut queue = Queue::new(100, start);
        let done: Vec<u128> = (0..5)
            .map(|_| (queue.enter(start) - start).as_millis())
            .collect();
        assert_eq!(done, [20, 20, 40, 40, 60]);
        assert_eq!(queue.work.served, 5);
        assert_eq!(queue.work.longest_wait.as_millis(), 40);
        let later = start + Duration::from_millis(45);
        assert_eq!((queue.enter(later) - start).as_millis(), 65);
    }

    #[test]
    fn it_serves_its_capacity_and_no_more() {
        let start = Instant::now();
        let mut queue = Queue::new(400, start);
        let last = (0..4_000).map(|_| queue.enter(start)).max().unwrap();
        assert_eq!(last - start, Duration::from_secs(10));
    }
}
