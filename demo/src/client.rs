//! The customers' side: sends each request at its moment and writes down what came back.
//!
//! Latency runs from the moment a request was due, not from when a connection was free: waiting for a connection is
//! part of what the customer feels, and leaving it out is the usual way to measure too little under overload.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::arrivals::Arrival;

/// Header in which the gateway passes the verdict on to the client, for the demo's eyes.
pub(crate) const VERDICT_HEADER: &str = "x-forebay-verdict";
/// Header that carries the customer's key.
pub(crate) const CUSTOMER_HEADER: &str = "x-customer";
/// An answer that takes longer counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Admitted within the forecast, and served.
    ServedShadow,
    /// Admitted by the standard bucket, and served.
    ServedStandard,
    /// Admitted otherwise (borrowed), and served.
    ServedOther,
    /// Admitted, but the upstream was overloaded.
    Overloaded,
    /// Denied because the contract was used up.
    DeniedByContract,
    /// Denied because the pool had nothing to spare.
    DeniedByPool,
    /// Denied for another reason.
    DeniedOther,
    /// No answer that counts: broken connection, timeout, or an error of the gateway.
    Failed,
}

/// What became of one request. Times are microseconds after the start of the replay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Index of the customer in the scenario.
    pub customer: usize,
    /// When it was due.
    pub due_us: u64,
    /// When it was sent.
    pub sent_us: u64,
    /// When the answer's head had arrived.
    pub answered_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// All answers so far, shared between the sending tasks and the view.
pub(crate) type Answers = Arc<Mutex<Vec<Answer>>>;

type Sender = SendRequest<Empty<Bytes>>;

/// What every request of a run shares.
#[derive(Debug)]
struct Shared {
    gateway: SocketAddr,
    start: Instant,
    names: Vec<&'static str>,
    /// Connections that wait for a request. Bounded by the most requests that were ever under way at once.
    idle: Mutex<Vec<Sender>>,
    answers: Answers,
}

/// Sends all arrivals and returns when each has its answer. `start` is the moment 0 of the schedule.
pub(crate) async fn send_all(
    gateway: SocketAddr,
    names: Vec<&'static str>,
    arrivals: Vec<Arrival>,
    start: Instant,
    answers: Answers,
) {
    let shared = Arc::new(Shared {
        gateway,
        start,
        names,
        idle: Mutex::default(),
        answers,
    });
    let mut tasks = JoinSet::new();
    for arrival in arrivals {
        let due = start + Duration::from_micros(arrival.at_us);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        tasks.spawn(send(Arc::clone(&shared), arrival));
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn send(shared: Arc<Shared>, arrival: Arrival) {
    let sent = Instant::now();
    let outcome = match tokio::time::timeout(TIMEOUT, exchange(&shared, arrival.customer)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => (Outcome::Failed, Instant::now()),
    };
    let (outcome, answered) = outcome;
    let since_start =
        |moment: Instant| u64::try_from((moment - shared.start).as_micros()).unwrap_or(u64::MAX);
    let answer = Answer {
        customer: arrival.customer,
        due_us: arrival.at_us,
        sent_us: since_start(sent),
        answered_us: since_start(answered),
        outcome,
    };
    shared
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(answer);
}

/// One request and its answer, and the moment at which the answer's head was there.
async fn exchange(shared: &Shared, customer: usize) -> Result<(Outcome, Instant)> {
    let mut sender = connection(shared).await?;
    let request = Request::get("/")
        .header("host", "demo.forebay")
        .header(CUSTOMER_HEADER, shared.names[customer])
        .body(Empty::new())
        .context("a request of the demo is not valid")?;
    let response = sender
        .send_request(request)
        .await
        .context("the gateway broke the connection")?;
    let answered = Instant::now();
    let outcome = outcome(response.status(), response.headers());
    response
        .into_body()
        .collect()
        .await
        .context("the gateway broke off the answer")?;
    if sender.ready().await.is_ok() {
        shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
    }
    Ok((outcome, answered))
}

async fn connection(shared: &Shared) -> Result<Sender> {
    loop {
        let idle = shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(sender) if sender.is_closed() => {}
            Some(sender) => return Ok(sender),
            None => break,
        }
    }
    let stream = TcpStream::connect(shared.gateway)
        .await
        .context("cannot connect to the gateway")?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .context("cannot speak HTTP to the gateway")?;
    tokio::spawn(connection);
    Ok(sender)
}

fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let verdict = headers
        .get(VERDICT_HEADER)
        .map_or(&b""[..], |value| value.as_bytes());
    match (status.as_u16(), verdict) {
        (200, b"shadow") => Outcome::ServedShadow,
        (200, b"standard") => Outcome::ServedStandard,
        (200, _) => Outcome::ServedOther,
        (429, b"denied:contract") => Outcome::DeniedByContract,
        (429, b"denied:pool") => Outcome::DeniedByPool,
        (429, _) => Outcome::DeniedOther,
        // 503 is the upstream's word for overload only if the gateway let the request through.
        (503, b"shadow" | b"standard" | b"borrowed") => Outcome::Overloaded,
        _ => Outcome::Failed,
    }
}

impl Outcome {
    /// True if the gateway let the request through.
    pub(crate) fn is_admitted(self) -> bool {
        matches!(
            self,
            Self::ServedShadow | Self::ServedStandard | Self::ServedOther | Self::Overloaded
        )
    }

    /// True if the customer got what it asked for.
    pub(crate) fn is_served(self) -> bool {
        matches!(
            self,
            Self::ServedShadow | Self::ServedStandard | Self::ServedOther
        )
    }

    /// True if the gateway denied it.
    pub(crate) fn is_denied(self) -> bool {
        matches!(
            self,
            Self::DeniedByContract | Self::DeniedByPool | Self::DeniedOther
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn a_verdict_is_read_as_the_gateway_writes_it() {
        for (status, verdict, expected) in [
            (200, "shadow", Outcome::ServedShadow),
            (200, "standard", Outcome::ServedStandard),
            (200, "borrowed", Outcome::ServedOther),
            (429, "denied:contract", Outcome::DeniedByContract),
            (429, "denied:pool", Outcome::DeniedByPool),
            (429, "denied:banned", Outcome::DeniedOther),
            (503, "standard", Outcome::Overloaded),
            (503, "", Outcome::Failed),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let mut headers = HeaderMap::new();
            headers.insert(VERDICT_HEADER, HeaderValue::from_static(verdict));
            assert_eq!(outcome(status, &headers), expected, "{status} {verdict}");
        }
    }
}
