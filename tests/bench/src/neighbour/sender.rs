//! Sends what was drawn before, each request at its moment, and never waits for an answer before it sends the next one.
//!
//! How long an answer took counts from the moment at which its request should have been sent. A client that waits slows down together with
//! what it measures, and the slow answers of those who could not even ask are missing (coordinated omission).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::scene::{Arrival, Customer, Route};
use crate::load::is_whole;

/// Connections that are there before the first request; more are made when all are in use.
const READY_CONNECTIONS: usize = 16;
/// Time in which the first request is prepared.
const LEAD: Duration = Duration::from_millis(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) arrival: Arrival,
    pub(super) status: u16,
    /// From when it should have been sent until it was.
    pub(super) late: Duration,
    /// From when it should have been sent until its answer was there.
    pub(super) took: Duration,
}

/// Connections to the listeners of all gateways. They outlive a window.
#[derive(Debug)]
pub(super) struct Sender {
    lanes: Vec<Arc<Lane>>,
    requests: Vec<Arc<[u8]>>,
}

/// Connections of one kind of customer to one listener: the neighbour has its own.
#[derive(Debug)]
struct Lane {
    route: Route,
    gateway: usize,
    is_neighbour: bool,
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

// === impl Sender ===

impl Sender {
    pub(super) async fn connect(
        listeners: &[(Route, usize, SocketAddr)],
        customers: &[Customer],
    ) -> Result<Self> {
        let mut lanes = Vec::new();
        for (route, gateway, address) in listeners {
            for is_neighbour in [false, true] {
                let mut idle = Vec::new();
                for _ in 0..READY_CONNECTIONS {
                    idle.push(connect(*address).await?);
                }
                lanes.push(Arc::new(Lane {
                    route: *route,
                    gateway: *gateway,
                    is_neighbour,
                    address: *address,
                    idle: Mutex::new(idle),
                }));
            }
        }
        let request = |customer: &Customer| {
            let key = &customer.key;
            format!("GET /api/orders HTTP/1.1\r\nhost: bench\r\nx-customer: {key}\r\n\r\n")
                .into_bytes()
                .into()
        };
        Ok(Self {
            lanes,
            requests: customers.iter().map(request).collect(),
        })
    }

    /// Sends them all and waits for the last answer.
    pub(super) async fn run(&self, arrivals: Vec<Arrival>) -> Result<Vec<Answer>> {
        let neighbour = self.requests.len() - 1;
        let mut jobs = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let lane = self.lanes.iter().find(|lane| {
                (lane.route, lane.gateway, lane.is_neighbour)
                    == (
                        arrival.route,
                        arrival.gateway,
                        arrival.customer == neighbour,
                    )
            });
            let lane = Arc::clone(lane.context("no such listener")?);
            jobs.push((arrival, lane, Arc::clone(&self.requests[arrival.customer])));
        }
        let sent = jobs.len();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let runtime = Handle::current();
        let start = Instant::now() + LEAD;
        // The runtime's own timers are a millisecond wide.
        let pacing = tokio::task::spawn_blocking(move || {
            for (arrival, lane, request) in jobs {
                let due = start + Duration::from_micros(arrival.at_us);
                if let Some(early) = due.checked_duration_since(Instant::now()) {
                    std::thread::sleep(early);
                }
                let answers = answers.clone();
                runtime.spawn(async move {
                    let asked = lane.ask(due, &request);
                    let answer = match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
                        Ok(answer) => answer,
                        Err(_) => Err(anyhow::anyhow!("no answer within {ANSWERED_WITHIN:?}")),
                    };
                    // Nobody listens any more when another request has failed.
                    let _heard = answers.send(answer.map(|(status, late, took)| Answer {
                        arrival,
                        status,
                        late,
                        took,
                    }));
                });
            }
        });
        let mut all = Vec::with_capacity(sent);
        while let Some(answer) = answered.recv().await {
            all.push(answer?);
        }
        pacing.await.context("the sender panicked")?;
        ensure!(all.len() == sent, "{} of {sent} were answered", all.len());
        Ok(all)
    }
}

// === impl Lane ===

impl Lane {
    async fn ask(&self, due: Instant, request: &[u8]) -> Result<(u16, Duration, Duration)> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let late = due.elapsed();
        let mut stream = match idle {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        stream.write_all(request).await?;
        let mut buffer = [0_u8; 2_048];
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                bail!(
                    "the connection broke off in: {}",
                    String::from_utf8_lossy(&buffer[..filled])
                );
            }
            filled += read;
        }
        let took = due.elapsed();
        let status = std::str::from_utf8(&buffer[9..12])?.parse()?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stream);
        Ok((status, late, took))
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::scene::customers;
    use super::*;

    const SERVICE: Duration = Duration::from_secs(2);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_request_waits_for_the_answer_to_another_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0_u8; 1_024];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        tokio::time::sleep(SERVICE).await;
                        let answer =
                            b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno";
                        let _written = stream.write_all(answer).await;
                    }
                });
            }
        });
        let customers = customers();
        let sender = Sender::connect(&[(Route::Open, 0, address)], &customers)
            .await
            .unwrap();
        let arrival = |number: u64| Arrival {
            at_us: 1_000 * number,
            customer: 0,
            gateway: 0,
            route: Route::Open,
        };
        // More than there are connections at first.
        let answers = sender.run((0..100).map(arrival).collect()).await.unwrap();
        assert_eq!(answers.len(), 100);
        for answer in answers {
            assert_eq!(answer.status, 429);
            assert!(answer.late < SERVICE, "{answer:?}");
            assert!(answer.took >= SERVICE, "{answer:?}");
        }
        server.abort();
    }
}
