//! `POST /api/v1/write`: covariates, by Prometheus' remote write 1.0.
//!
//! What a sender may send again is answered with 5xx, and everything else with 4xx, which it drops: 429 and 408 would be the better words for some, but
//! senders drop what is answered with them unless they are told otherwise.

use super::Shared;
use super::body::read;
use crate::error::ApiError;
use crate::plane::Plane;
use crate::prometheus::COMPRESSED_BYTES_MOST;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

const PROTOBUF: &str = "application/x-protobuf";
/// What a message of version 1.0 is, where the content type says which one it is.
const MESSAGE: &str = "prometheus.WriteRequest";
const SNAPPY: &str = "snappy";
/// How long a body may take to arrive: 4 MiB over 2.5 Mbit/s. Senders wait for an answer for half a minute.
const BODY_WITHIN: Duration = Duration::from_secs(15);
const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");

pub(super) async fn write(
    State(server): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<&'static str, ApiError> {
    let written = take(&server, &headers, body).await;
    if written.is_err() {
        server.plane.refuse_measurements();
    }
    written.map(|()| "ok\n")
}

async fn take(
    server: &Arc<super::Server>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), ApiError> {
    server.plane.check_measuring()?;
    check_media(headers)?;
    // Before it is its turn: what has come of slow bodies is no more than they have sent, and they hold nobody up.
    let Ok(body) = timeout(BODY_WITHIN, read(body, COMPRESSED_BYTES_MOST)).await else {
        let message = format!("the body did not arrive within {} s", BODY_WITHIN.as_secs());
        let hint = "send it again, with fewer samples or over a faster network";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(ApiError::new(status, "body_too_slow", message, hint));
    };
    let body = body?;
    let taker = Arc::clone(server);
    in_turn(&server.plane, move || taker.plane.take_measurements(&body)).await?
}

/// Does work that takes as much memory as a body when it is decompressed, and waits for the store: in its turn, which is over with the work.
async fn in_turn<T: Send + 'static>(
    plane: &Plane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = plane.turn_to_measure().await?;
    let done = spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|error| {
        let message = format!("the server has failed at this body: {error}");
        let hint = "whether anything of it is kept is not known: look at the log of the server, and report what it says";
        ApiError::malformed(message, hint)
    })
}

/// Refuses what is not remote write 1.0. A sender of 2.0 takes that for the word to speak 1.0. Headers may be missing, as those of the first senders are.
fn check_media(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &HeaderName| match headers.get(name) {
        Some(value) => value.to_str().map(str::trim).unwrap_or("?"),
        None => "",
    };
    let mut parts = text(&CONTENT_TYPE).split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let is_message = |part: &str| match part.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("proto") => {
            value.trim_matches('"') == MESSAGE
        }
        _ => true,
    };
    let encoding = text(&CONTENT_ENCODING);
    let is_known = (media.is_empty() || media.eq_ignore_ascii_case(PROTOBUF))
        && parts.all(is_message)
        && (encoding.is_empty() || encoding.eq_ignore_ascii_case(SNAPPY))
        && !text(&VERSION).starts_with("2.");
    match is_known {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_remote_write_1",
            format!("only {MESSAGE} of remote write 1.0 is read here, compressed with {SNAPPY}"),
            "let the sender speak version 1.0: `protobuf_message: prometheus.WriteRequest` of Prometheus",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::covariates::CovariateOptions;
    use crate::keys::Keys;
    use crate::plane::{Clock, Settings};
    use crate::store::MemoryStore;
    use axum::http::HeaderValue;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    /// How many have a turn at once.
    const TURNS: usize = 4;

    fn plane() -> Plane {
        let settings = Settings {
            lease_ttl_ms: 10_000,
            fallback_ttl_ms: 60_000,
            sync_interval_ms: 250,
            step_ms: 1_000,
            history_steps: 128,
            max_other_customers: 100,
            audit_keep: 100,
        };
        let options = CovariateOptions {
            covariates: vec!["a=up".parse().unwrap()],
            covariate_customer_label: "customer".to_owned(),
            covariate_replica_label: "__replica__".to_owned(),
        };
        let keys = Keys::new(None, None).unwrap();
        let store = Arc::new(MemoryStore::default());
        let plane = Plane::start(store, keys, settings, Clock::system()).unwrap();
        plane.measuring(options.choose().unwrap().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn work_goes_on_in_its_turn_when_the_sender_has_hung_up() {
        let plane = plane();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..TURNS {
            let (begin, begun) = oneshot::channel();
            let ended = Arc::clone(&ended);
            let work = in_turn(&plane, move || {
                begin.send(()).unwrap();
                ended.lock().unwrap().recv()
            });
            tokio::select! {
                _ = work => panic!("it has not ended"),
                begun = begun => begun.unwrap(),
            }
        }
        let mut next = pin!(plane.turn_to_measure());
        tokio::select! {
            biased;
            _ = &mut next => panic!("so much is done at once already"),
            () = std::future::ready(()) => {}
        }
        for _ in 0..TURNS {
            end.send(()).unwrap();
        }
        drop(next.await.unwrap());
    }

    #[test]
    fn only_version_1_is_spoken_and_others_are_told_so() {
        let status =
            |media: &[&'static str], encoding: &[&'static str], version: &[&'static str]| {
                let mut headers = HeaderMap::new();
                for (name, values) in [
                    (CONTENT_TYPE, media),
                    (CONTENT_ENCODING, encoding),
                    (VERSION, version),
                ] {
                    for value in values {
                        headers.insert(&name, HeaderValue::from_static(value));
                    }
                }
                check_media(&headers).map_err(|error| error.status)
            };
        let (protobuf, snappy, first) = ([PROTOBUF], [SNAPPY], ["0.1.0"]);
        assert_eq!(status(&protobuf, &snappy, &first), Ok(()));
        assert_eq!(status(&[], &[], &[]), Ok(()));
        let named = ["application/x-protobuf;proto=prometheus.WriteRequest"];
        assert_eq!(status(&named, &snappy, &first), Ok(()));
        let second = ["application/x-protobuf;proto=io.prometheus.write.v2.Request"];
        assert_eq!(status(&second, &snappy, &["2.0.0"]), Err(415));
        assert_eq!(status(&second, &snappy, &[]), Err(415));
        assert_eq!(status(&protobuf, &snappy, &["2.0.0"]), Err(415));
        assert_eq!(status(&["application/json"], &snappy, &first), Err(415));
        assert_eq!(status(&protobuf, &["zstd"], &first), Err(415));
        assert_eq!(status(&protobuf, &["gzip"], &first), Err(415));
    }
}
