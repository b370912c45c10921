//! The sender against a small server in this process that answers what a test says: apart from the code, because it needs one.

use super::endpoint::Endpoint;
use super::message::WriteRequest;
use super::outbox::{DropReason, Outbox, Sample, StepSamples};
use super::sender::{Pace, RemoteWrite};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use forebay_wire::key::CustomerHash;
use prost::Message;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;

/// Nothing here takes a second, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts follow each other at once.
const QUICK: Pace = Pace {
    first: Duration::from_millis(1),
    most: Duration::from_millis(5),
    most_asked: Duration::from_secs(600),
};

/// So long that no second attempt comes within a test.
const PATIENT: Pace = Pace {
    first: Duration::from_secs(3_600),
    most: Duration::from_secs(3_600),
    most_asked: Duration::from_secs(3_600),
};

/// Answers with the statuses that it is given, in turn, then with 204.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    answers: VecDeque<Response>,
    requests: Vec<(HeaderMap, WriteRequest)>,
}

// === impl Receiver ===

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = Response>) -> Self {
        let receiver = Self::default();
        receiver.0.lock().unwrap().answers.extend(answers);
        receiver
    }

    fn listen(&self, socket: TcpSocket) {
        let listener = socket.listen(64).unwrap();
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }

    fn start(&self, pace: Pace) -> RemoteWrite {
        let (socket, address) = deaf();
        self.listen(socket);
        remote_write(address, pace)
    }

    /// End of the step and number of samples of each request that came.
    fn requests(&self) -> Vec<(i64, usize)> {
        let received = self.0.lock().unwrap();
        let requests = received.requests.iter();
        let of_step = |request: &WriteRequest| request.timeseries[0].samples[0].timestamp;
        requests
            .map(|(_, request)| (of_step(request), request.timeseries.len()))
            .collect()
    }
}

async fn answer(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let bytes = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let request = WriteRequest::decode(bytes.as_slice()).unwrap();
    let mut received = receiver.0.lock().unwrap();
    received.requests.push((headers, request));
    let next = received.answers.pop_front();
    next.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
}

/// An address that is taken, and at which nobody listens yet.
fn deaf() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn remote_write(address: SocketAddr, pace: Pace) -> RemoteWrite {
    let endpoint: Endpoint = format!("http://{address}/api/v1/write").parse().unwrap();
    RemoteWrite::start_with(endpoint, Outbox::default(), pace, &Handle::current())
}

fn step(ended_unix_ms: i64, customers: u16) -> StepSamples {
    let sample = |customer: u16| Sample {
        customer: CustomerHash([customer.to_be_bytes(); 8].concat().try_into().unwrap()),
        resource: 0,
        tokens: f64::from(customer),
    };
    StepSamples {
        ended_unix_ms,
        step_ms: 1_000,
        resources: Arc::from(["requests".to_owned()]),
        samples: (0..customers).map(sample).collect(),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_nothing_waits(remote_write: &RemoteWrite) {
    until("nothing waits", || remote_write.counts().waiting == 0).await;
}

fn dropped(remote_write: &RemoteWrite, reason: DropReason) -> u64 {
    remote_write.counts().dropped[reason as usize]
}

#[tokio::test]
async fn a_step_is_sent_in_bounded_requests_that_say_what_they_are() {
    let receiver = Receiver::default();
    let remote_write = receiver.start(QUICK);
    remote_write.offer(step(1_000, 4_500));
    remote_write.offer(step(2_000, 1));
    until_nothing_waits(&remote_write).await;
    let sent = receiver.requests();
    assert_eq!(
        sent,
        [(1_000, 2_000), (1_000, 2_000), (1_000, 500), (2_000, 1)]
    );
    assert_eq!(remote_write.counts().sent, 4_501);
    let received = receiver.0.lock().unwrap();
    let (headers, _) = &received.requests[0];
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ] {
        assert_eq!(headers[name], value);
    }
    let all = received.requests[..3].iter();
    let mut values: Vec<f64> = all
        .flat_map(|(_, request)| &request.timeseries)
        .map(|series| series.samples[0].value)
        .collect();
    values.sort_by(f64::total_cmp);
    let expected: Vec<f64> = (0..4_500).map(f64::from).collect();
    assert_eq!(values, expected, "each customer once");
}

#[tokio::test]
async fn what_is_answered_by_later_is_sent_again_and_in_order() {
    let busy = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    let slow_down = StatusCode::TOO_MANY_REQUESTS.into_response();
    let receiver = Receiver::answering([slow_down, busy(), busy()]);
    let remote_write = receiver.start(QUICK);
    remote_write.offer(step(1_000, 2));
    remote_write.offer(step(2_000, 3));
    until_nothing_waits(&remote_write).await;
    let first = (1_000, 2);
    assert_eq!(
        receiver.requests(),
        [first, first, first, first, (2_000, 3)]
    );
    let counts = remote_write.counts();
    assert_eq!((counts.sent, counts.failed_requests), (5, 3));
    assert_eq!(counts.dropped, [0; 4]);
}

#[tokio::test]
async fn a_server_that_says_when_is_left_alone_until_then() {
    let later = (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]);
    let receiver = Receiver::answering([later.into_response()]);
    let remote_write = receiver.start(QUICK);
    let begun = Instant::now();
    remote_write.offer(step(1_000, 1));
    until_nothing_waits(&remote_write).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn what_is_refused_is_dropped_and_holds_nothing_up() {
    let refusals = [400, 401, 404, 302].map(|status| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, "out of order sample").into_response()
    });
    let receiver = Receiver::answering(refusals);
    let remote_write = receiver.start(PATIENT);
    for ended in 1..=5 {
        remote_write.offer(step(ended, 2));
    }
    until_nothing_waits(&remote_write).await;
    assert_eq!(receiver.requests().len(), 5);
    let counts = remote_write.counts();
    assert_eq!((counts.sent, counts.failed_requests), (2, 0));
    assert_eq!(dropped(&remote_write, DropReason::Refused), 8);
}

#[tokio::test]
async fn what_waits_while_the_server_is_down_arrives_when_it_is_up() {
    let receiver = Receiver::default();
    let (socket, address) = deaf();
    let remote_write = remote_write(address, QUICK);
    remote_write.offer(step(1_000, 1));
    remote_write.offer(step(2_000, 1));
    until("two attempts have failed", || {
        remote_write.counts().failed_requests >= 2
    })
    .await;
    assert_eq!(remote_write.counts().waiting, 2);
    receiver.listen(socket);
    until_nothing_waits(&remote_write).await;
    assert_eq!(receiver.requests(), [(1_000, 1), (2_000, 1)]);
}

#[tokio::test]
async fn a_stop_cuts_a_wait_short_and_sends_what_is_left() {
    let busy = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let receiver = Receiver::answering([busy]);
    let remote_write = receiver.start(PATIENT);
    remote_write.offer(step(1_000, 1));
    remote_write.offer(step(2_000, 3_000));
    until("an attempt has failed", || {
        remote_write.counts().failed_requests == 1
    })
    .await;
    tokio::time::timeout(PATIENCE, remote_write.finish())
        .await
        .unwrap();
    let first = (1_000, 1);
    assert_eq!(
        receiver.requests(),
        [first, first, (2_000, 2_000), (2_000, 1_000)]
    );
    assert_eq!(dropped(&remote_write, DropReason::Stopped), 0);
    remote_write.offer(step(3_000, 1));
    assert_eq!(dropped(&remote_write, DropReason::Stopped), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_server_that_is_down_or_says_nothing() {
    // It accepts connections, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = remote_write(address, QUICK);
    silent.offer(step(1_000, 7));
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, silent.finish())
        .await
        .unwrap();
    assert_eq!(dropped(&silent, DropReason::Stopped), 7);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (_socket, address) = deaf();
    let down = remote_write(address, PATIENT);
    down.offer(step(1_000, 7));
    down.offer(step(2_000, 1));
    tokio::time::timeout(PATIENCE, down.finish()).await.unwrap();
    assert_eq!(dropped(&down, DropReason::Stopped), 8);
    assert_eq!(down.counts().waiting, 0);
}
