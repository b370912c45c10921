//! Connections: taken in, kept only while they are used, their answers are read and their certificates are good, and ended when the
//! server stops.
//!
//! `axum::serve` was the worse alternative: it gives hyper no timer, so a client that opens connections and says nothing holds
//! them for ever, until the process has no file descriptor left for the gateway.

use crate::outflow::{Answers, Outflow};
use crate::tls::{Certified, Tls};
use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

/// How long a connection may take until it has sent the head of its next request, idle time included. Gateways that sync come
/// back after 10 s at most, whatever interval is chosen, so theirs stay open.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long a request that is under way may take when the certificate of its connection is no longer good.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Wait after a connection could not be taken in, for want of file descriptors as a rule: others must end first.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What each connection needs.
#[derive(Clone)]
struct Service {
    app: Router,
    tls: Option<Arc<Tls>>,
    /// Gone when the server stops.
    open: watch::Receiver<()>,
}

/// Answers connections until `stopped`; then ends idle ones at once and waits for requests that are under way.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    tls: Option<Arc<Tls>>,
    stopped: impl Future<Output = ()>,
) {
    let (connections, open) = watch::channel(());
    let service = Service { app, tls, open };
    let mut stopped = pin!(stopped);
    loop {
        let stream = tokio::select! {
            () = &mut stopped => break,
            stream = next(&listener) => stream,
        };
        tokio::spawn(service.clone().take_in(stream));
    }
    drop((listener, service));
    connections.send_replace(());
    connections.closed().await;
}

// === impl Service ===

impl Service {
    async fn take_in(mut self, stream: TcpStream) {
        let Some(tls) = self.tls.clone() else {
            return self.converse(stream, None, std::future::pending()).await;
        };
        // Here and not where connections are accepted: a client that is slow with its handshake keeps nobody else waiting.
        let accepted = tokio::select! {
            _ = self.open.changed() => return,
            accepted = tls.accept(stream) => accepted,
        };
        let Some(mut accepted) = accepted else {
            return;
        };
        let welcome = accepted.welcome.is_over();
        self.converse(accepted.stream, accepted.certified, welcome)
            .await;
    }

    /// Answers the requests of a connection, as long as the other end is welcome.
    async fn converse(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        certified: Option<Certified>,
        unwelcome: impl Future<Output = ()>,
    ) {
        let app = self.app;
        let answers = Answers::default();
        let stream = Outflow::new(stream, answers.clone());
        let answer = service_fn(move |request| {
            let mut request: Request<hyper::body::Incoming> = request;
            if let Some(certified) = &certified {
                request.extensions_mut().insert(certified.clone());
            }
            let (answer, answers) = (app.clone().oneshot(request), answers.clone());
            async move {
                let answer = answer.await;
                answers.begin();
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = self.open.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = unwelcome => {
                connection.as_mut().graceful_shutdown();
                // A client that takes its answer byte by byte would go on for ever.
                timeout(END_WITHIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}

async fn next(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client is gone already; the next one may be there.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionRefused
                        | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::error!(%error, "cannot take a connection in; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};
    use tokio::task::JoinHandle;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    async fn start(app: Router) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(
            listener,
            app,
            None,
            async move { drop(stopped.await) },
        ));
        (address, stop, serving)
    }

    /// Sends a beginning, and waits until the server has closed the connection. The clock of these tests jumps ahead whenever
    /// all wait.
    async fn closes_after(beginning: &[u8]) -> Duration {
        let (address, _stop, _serving) = start(Router::new().route("/", get(async || "ok"))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let started = tokio::time::Instant::now();
        stream.write_all(beginning).await.unwrap();
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(3_600), closed)
            .await
            .expect("the server closes the connection")
            .unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_head_or_falls_silent_is_let_go() {
        for beginning in [b"".as_slice(), b"GET / HTTP/1.1\r\nhost:", REQUEST] {
            let after = closes_after(beginning).await;
            assert!(
                after <= HEAD_WITHIN + Duration::from_secs(1),
                "{after:?} after {:?}",
                beginning.escape_ascii()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answer_is_let_go() {
        // More than the system keeps for a connection.
        const LARGE: usize = 64 << 20;
        let app = Router::new().route("/", get(async || vec![b'x'; LARGE]));
        let (address, _stop, _serving) = start(app).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        // The clock must not jump before there is an answer.
        stream.readable().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(3_600), stream.read_to_end(&mut answer));
        // It ends as usual, or with a reset.
        let _ended = read.await.expect("the server closes the connection");
        assert!(
            !answer.is_empty() && answer.len() < LARGE,
            "{}",
            answer.len()
        );
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_and_waits_for_the_request_under_way() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (says_begun, waits) = (Arc::clone(&begun), Arc::clone(&go_on));
        let slow = async move || {
            says_begun.notify_one();
            waits.notified().await;
            "done"
        };
        let (address, stop, serving) = start(
            Router::new()
                .route("/", get(async || "ok"))
                .route("/slow", get(slow)),
        )
        .await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        let mut first = [0; 1];
        idle.read_exact(&mut first).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: here\r\n\r\n")
            .await
            .unwrap();
        begun.notified().await;
        stop.send(()).unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(!serving.is_finished(), "a request is under way");
        go_on.notify_one();
        let mut answer = Vec::new();
        busy.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"done"), "{}", answer.escape_ascii());
        serving.await.unwrap();
    }
}
