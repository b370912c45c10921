use super::{Notice, Notifier, Pace};
use crate::prometheus::Endpoint;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use forebay_alerts::{Key, Kind};
use serde_json::Value;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;

const PATIENCE: Duration = Duration::from_secs(30);
const QUICK: Pace = Pace {
    resend_after: Duration::from_millis(40),
    first_retry: Duration::from_millis(5),
    most_retry: Duration::from_millis(20),
};
/// Nothing is sent again while a test runs.
const ONCE: Pace = Pace {
    resend_after: Duration::from_secs(3_600),
    ..QUICK
};

/// One that takes what it is sent, or answers with a status.
#[derive(Clone, Default)]
struct Alertmanager {
    status: Arc<AtomicU16>,
    requests: Arc<Mutex<Vec<Vec<Value>>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

// === impl Alertmanager ===

impl Alertmanager {
    async fn start() -> (Self, String) {
        let this = Self::default();
        this.answer(200);
        let app = Router::new()
            .route("/am/api/v2/alerts", post(take))
            .with_state(this.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/am/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (this, url)
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// All alerts that it was sent, in their order.
    fn alerts(&self) -> Vec<Value> {
        self.requests.lock().unwrap().concat()
    }

    async fn until(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let alerts = self.alerts();
            if holds(&alerts) {
                return alerts;
            }
            assert!(Instant::now() < deadline, "{alerts:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn take(
    State(this): State<Alertmanager>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let alerts: Vec<Value> = serde_json::from_slice(&body).unwrap();
    this.requests.lock().unwrap().push(alerts);
    if let Some(token) = headers.get("authorization") {
        let token = token.to_str().unwrap().to_owned();
        this.tokens.lock().unwrap().push(token);
    }
    let status = this.status.load(Ordering::SeqCst);
    (StatusCode::from_u16(status).unwrap(), "as the test says")
}

fn notice(gateway: &str) -> Notice {
    Notice {
        key: Key {
            kind: Kind::ModelRefused,
            gateway: Some(gateway.to_owned()),
            model: None,
            customer: None,
        },
        since_unix_ms: 1_000,
        summary: "summary".to_owned(),
        description: "description".to_owned(),
    }
}

fn start(urls: &[&str], pace: Pace) -> Notifier {
    let endpoints = urls.iter().map(|url| url.parse().unwrap()).collect();
    Notifier::start(endpoints, pace, &Handle::current())
}

/// Whether it says that the alert is over: it was set at 1 s, and ends at 2 s.
fn is_end(alert: &Value) -> bool {
    alert["endsAt"] == "1970-01-01T00:00:02.000Z"
}

#[tokio::test]
async fn each_is_told_again_and_again_of_one_alert_and_once_of_its_end() {
    let (first, first_url) = Alertmanager::start().await;
    let (second, second_url) = Alertmanager::start().await;
    let notifier = start(&[&first_url, &second_url], QUICK);
    notifier.set(vec![notice("a")], 1_000);
    for one in [&first, &second] {
        let told = one.until(|alerts| alerts.len() >= 4).await;
        for alert in &told {
            assert_eq!(alert["labels"], told[0]["labels"]);
            assert_eq!(alert["startsAt"], "1970-01-01T00:00:01.000Z");
            assert!(!is_end(alert));
        }
    }
    notifier.set(Vec::new(), 2_000);
    first.until(|alerts| alerts.iter().any(is_end)).await;
    // Whatever is sent next comes behind what would be sent again.
    notifier.set(vec![notice("b")], 2_000);
    let is_b = |alert: &Value| alert["labels"]["gateway"] == "b";
    let told = first
        .until(|alerts| alerts.iter().filter(|alert| is_b(alert)).count() >= 3)
        .await;
    assert_eq!(told.iter().filter(|alert| is_end(alert)).count(), 1);
}

#[tokio::test]
async fn nothing_is_lost_while_one_is_away_and_the_others_do_not_wait() {
    let (away, away_url) = Alertmanager::start().await;
    let (well, well_url) = Alertmanager::start().await;
    away.answer(503);
    let notifier = start(&[&away_url, &well_url], ONCE);
    notifier.set(vec![notice("a")], 1_000);
    well.until(|alerts| alerts.len() == 1).await;
    away.until(|alerts| alerts.len() >= 3).await;
    notifier.set(vec![notice("b")], 2_000);
    well.until(|alerts| alerts.len() == 3).await;
    away.answer(200);
    let told = away
        .until(|alerts| {
            let last = alerts.iter().rev().take(2);
            last.filter(|alert| is_end(alert)).count() == 1
        })
        .await;
    let last: Vec<&Value> = told.iter().rev().take(2).collect();
    assert!(last.iter().any(|alert| alert["labels"]["gateway"] == "b"));
    let counts = notifier.notified();
    assert!(counts[0].failed >= 3 && counts[1].failed == 0, "{counts:?}");
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again_at_once_and_holds_nothing_up() {
    let (one, url) = Alertmanager::start().await;
    one.answer(400);
    let notifier = start(&[&url], ONCE);
    notifier.set(vec![notice("a")], 1_000);
    one.until(|alerts| !alerts.is_empty()).await;
    one.answer(200);
    notifier.set(vec![notice("a"), notice("b")], 1_000);
    let told = one.until(|alerts| alerts.len() >= 2).await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["labels"]["gateway"], "b");
}

#[tokio::test]
async fn a_thousand_alerts_go_in_requests_of_a_bounded_size() {
    let (one, url) = Alertmanager::start().await;
    let notifier = start(&[&url], ONCE);
    let all: Vec<Notice> = (0..1_000)
        .map(|number| notice(&number.to_string()))
        .collect();
    notifier.set(all, 1_000);
    one.until(|alerts| alerts.len() == 1_000).await;
    let requests = one.requests.lock().unwrap();
    assert!(requests.iter().all(|alerts| alerts.len() <= 64));
}

#[tokio::test]
async fn one_that_never_answers_holds_nobody_up() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let deaf = socket.listen(1).unwrap();
    let url = format!("http://{}", deaf.local_addr().unwrap());
    let notifier = start(&[&url], QUICK);
    let began = Instant::now();
    for number in 0..1_000 {
        notifier.set(vec![notice(&number.to_string())], 1_000 + number);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    notifier.finish().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    drop(deaf);
}

#[tokio::test]
async fn what_was_not_told_yet_is_told_at_the_end_with_the_token() {
    let (one, url) = Alertmanager::start().await;
    let endpoint: Endpoint = url.parse().unwrap();
    let endpoint = endpoint.with_token(Some("secret")).unwrap();
    let notifier = Notifier::start(vec![endpoint], ONCE, &Handle::current());
    notifier.set(vec![notice("a")], 1_000);
    let began = Instant::now();
    notifier.finish().await;
    assert!(began.elapsed() < Duration::from_secs(2), "it has not ended");
    let told = one.alerts();
    assert_eq!(told.len(), 1);
    assert!(!is_end(&told[0]), "the next run finds it firing");
    assert_eq!(*one.tokens.lock().unwrap(), ["Bearer secret"]);
}
