//! A load client that can keep one Envoy worker busy from one other core.
//!
//! A general HTTP client spends more CPU on a request than Envoy does, and would then be what is measured. This
//! one sends requests rendered in advance and looks for the end of each answer, nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections that have a request under way at any time.
pub(crate) const CONNECTIONS: usize = 32;

/// Customers that the requests are spread over.
pub(crate) const CUSTOMERS: usize = 1000;

/// What came back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answered {
    /// Answers with status 200.
    pub(crate) ok: u64,
    /// All other answers.
    pub(crate) other: u64,
}

/// Open connections to one listener. They outlive a turn, so that a short one is requests and nothing else.
#[derive(Debug)]
pub(crate) struct Load {
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    requests: Arc<[Vec<u8>]>,
    next: usize,
}

// === impl Load ===

impl Load {
    /// Connects; each connection will walk the customers from a start of its own.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let request = |number| {
            let key = customer(number);
            format!("GET /api/orders HTTP/1.1\r\nhost: bench\r\nx-customer: {key}\r\nx-echo-cost: 2\r\n\r\n").into_bytes()
        };
        let requests: Arc<[Vec<u8>]> = (0..CUSTOMERS).map(request).collect();
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            let stream = TcpStream::connect(address)
                .await
                .context("cannot connect")?;
            stream.set_nodelay(true)?;
            connections.push(Connection {
                stream,
                requests: requests.clone(),
                next: number * CUSTOMERS / CONNECTIONS,
            });
        }
        Ok(Self { connections })
    }

    /// Sends requests over all connections until the deadline, and waits for the last answers.
    pub(crate) async fn run(&mut self, until: Instant) -> Result<Answered> {
        let mut running = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            running.spawn(async move {
                let answered = connection.run(until).await?;
                Ok::<_, anyhow::Error>((connection, answered))
            });
        }
        let mut total = Answered::default();
        while let Some(ended) = running.join_next().await {
            let (connection, answered) = ended??;
            self.connections.push(connection);
            total.ok += answered.ok;
            total.other += answered.other;
        }
        Ok(total)
    }
}

// === impl Connection ===

impl Connection {
    async fn run(&mut self, until: Instant) -> Result<Answered> {
        let mut answered = Answered::default();
        let mut buffer = vec![0_u8; 8192];
        while Instant::now() < until {
            let request = &self.requests[self.next % self.requests.len()];
            self.next += 1;
            self.stream.write_all(request).await?;
            let mut filled = 0;
            while !is_whole(&buffer[..filled]) {
                let read = self.stream.read(&mut buffer[filled..]).await?;
                if read == 0 {
                    bail!(
                        "the connection broke off in: {}",
                        String::from_utf8_lossy(&buffer[..filled])
                    );
                }
                filled += read;
            }
            if buffer.starts_with(b"HTTP/1.1 200") {
                answered.ok += 1;
            } else {
                answered.other += 1;
            }
        }
        Ok(answered)
    }
}

/// The name of a customer, as it stands in `x-customer`.
pub(crate) fn customer(number: usize) -> String {
    format!("customer-{number:04}")
}

/// Whether an answer has arrived to its last byte.
pub(crate) fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = &answer[..end];
    let name = b"content-length: ";
    let length = head
        .windows(name.len())
        .position(|window| window == name)
        .map(|at| &head[at + name.len()..])
        .map_or(0, |digits| {
            digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
        });
    answer.len() >= end + 4 + length
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: envoy\r\n\r\nok";
        assert!(is_whole(answer));
        for cut in 0..answer.len() {
            assert!(!is_whole(&answer[..cut]), "cut at {cut}");
        }
    }
}
