//! Usage from a running Prometheus, or from what speaks its API: a range query, asked in pieces.
//!
//! Prometheus answers 11 000 points of a series at most, and some tens of millions of samples together; what is longer is asked for piece by piece, and a
//! piece that is too much for the server, or for the memory here, in halves. Times are absolute: a query that ends "now" would be another data set each
//! time, and nobody could make it again. Without TLS: a second client of certificates beside `curl`'s own was not worth it, and a tunnel does it.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay_traces::Samples;

use super::STEPS_MAX;
use super::answer::{Answer, AnswerReader, TakenSum};
use super::source::{JSON_BYTES_MAX, Said, Taking};
use crate::error::TrainError;
use crate::stamp::rfc3339;

/// Points of a series that are asked for at once: Prometheus refuses more than 11 000.
const POINTS_MAX: u64 = 10_000;
/// Prometheus gives up a query after two minutes by itself.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(150);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// All pieces of a source.
const SOURCE_TIME_MAX: Duration = Duration::from_secs(3_600);
/// How often a piece is asked for when the server is away or busy, and how much longer is waited each time.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Of what a server says that is no JSON.
const SAID_CHARS_MAX: usize = 300;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct RangeQuery {
    /// Of the server, with the prefix of its path if it has one.
    pub(super) url: String,
    /// In PromQL; `$__interval` becomes the step.
    pub(super) query: String,
    /// Start of the first step, and end of the last one.
    pub(super) from_s: i64,
    pub(super) until_s: i64,
    pub(super) step_s: u32,
    /// Environment variable with a bearer token.
    pub(super) token_env: Option<String>,
}

/// A conversation with the server.
struct Asking<'a> {
    query: &'a RangeQuery,
    place: &'a Path,
    agent: ureq::Agent,
    token: Option<String>,
    deadline: Instant,
}

/// What became of a request.
enum Asked {
    Answer(Box<Answer>),
    /// A shorter piece may go.
    TooMuch(String),
    /// Another time, perhaps.
    NotNow(String),
}

// === impl RangeQuery ===

impl RangeQuery {
    /// What is wrong with it, without asking.
    pub(super) fn check(&self) -> Result<(), String> {
        let step_s = i64::from(self.step_s);
        if self.step_s == 0 {
            return Err("`step_s` is 0; it must be at least 1".into());
        }
        let authority = match self.url.split_once("://") {
            Some(("http", rest)) => rest.split('/').next().unwrap_or_default(),
            Some(("https", _)) => {
                return Err(
                    "`url` is of https, which is not spoken here: give an address behind what ends TLS, such as that of `ssh -L` or of a side-car".into(),
                );
            }
            _ => {
                return Err(format!(
                    "`url` is {:?}; it must be like http://prometheus:9090",
                    self.url
                ));
            }
        };
        if authority.is_empty() || authority.contains('@') {
            return Err("`url` must name a host, and no user or password: a token is given by the environment variable that `token_env` names".into());
        }
        if self.from_s.rem_euclid(step_s) != 0 || self.until_s.rem_euclid(step_s) != 0 {
            return Err(format!(
                "`from` and `until` must be at whole steps of {step_s} s since 1970, as {} is",
                rfc3339(self.from_s - self.from_s.rem_euclid(step_s))
            ));
        }
        if self.until_s <= self.from_s {
            return Err("`until` must be later than `from`".into());
        }
        match self.steps() {
            steps if steps > STEPS_MAX => Err(format!(
                "{steps} steps from `from` to `until`, and a data set has {STEPS_MAX} at most"
            )),
            _ => Ok(()),
        }
    }

    fn steps(&self) -> u64 {
        self.until_s.abs_diff(self.from_s) / u64::from(self.step_s)
    }

    /// Asks for all of it, and gives the sum of what was taken.
    pub(super) fn take(
        &self,
        place: &Path,
        taking: &Taking,
        samples: &mut Samples,
    ) -> Result<String, TrainError> {
        let asking = Asking::new(self, place)?;
        let mut sum = TakenSum::default();
        let (steps, mut done, mut most) = (self.steps(), 0, POINTS_MAX);
        samples.begin(place);
        while done < steps {
            let count = most.min(steps - done);
            match asking.ask_patiently(done, count)? {
                Asked::Answer(answer) => {
                    let mut reader = AnswerReader {
                        place,
                        taking,
                        samples,
                        asked_step_s: Some(self.step_s),
                    };
                    reader.push(*answer, &mut sum)?;
                    done += count;
                }
                Asked::TooMuch(_) if count > 1 => most = count / 2,
                Asked::TooMuch(why) | Asked::NotNow(why) => {
                    return Err(asking.error(format!(
                        "{why}, for the step at {} (after {done} of {steps} steps): ask for fewer customers, with several sources if need be",
                        rfc3339(self.stamp_s(done))
                    )));
                }
            }
        }
        if sum.is_empty() {
            return Err(asking.error(format!(
                "the query finds nothing from {} to {}: try it in Prometheus' own page, and look at names, labels and the time",
                rfc3339(self.from_s),
                rfc3339(self.until_s)
            )));
        }
        Ok(sum.finish())
    }

    /// Start of a step.
    fn stamp_s(&self, step: u64) -> i64 {
        let steps = i64::try_from(step).unwrap_or(i64::MAX);
        let after_s = steps.saturating_mul(i64::from(self.step_s));
        self.from_s.saturating_add(after_s)
    }
}

// === impl Asking ===

impl<'a> Asking<'a> {
    fn new(query: &'a RangeQuery, place: &'a Path) -> Result<Self, TrainError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIME_MAX))
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .http_status_as_error(false)
            // A token goes nowhere but where it was sent to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        let mut asking = Self {
            query,
            place,
            agent: config.into(),
            token: None,
            deadline: Instant::now() + SOURCE_TIME_MAX,
        };
        if let Some(name) = &query.token_env {
            let token = std::env::var(name).unwrap_or_default();
            let is_token = |byte: u8| byte.is_ascii_graphic();
            if token.is_empty() || !token.bytes().all(is_token) {
                return Err(asking.error(format!(
                    "the environment variable {name} that `token_env` names has no token: it must be letters, digits and signs without spaces"
                )));
            }
            asking.token = Some(token);
        }
        Ok(asking)
    }

    fn error(&self, reason: String) -> TrainError {
        TrainError::Data {
            path: self.place.to_owned(),
            reason: format!("{}: {reason}", self.query.url),
        }
    }

    /// So many steps after the first `done`; again when the server is away or busy.
    fn ask_patiently(&self, done: u64, count: u64) -> Result<Asked, TrainError> {
        for attempt in 1.. {
            if Instant::now() >= self.deadline {
                return Err(self.error(format!(
                    "{} of {} steps have taken {} minutes: ask for a shorter time or a longer step, in several data sets if need be",
                    done,
                    self.query.steps(),
                    SOURCE_TIME_MAX.as_secs() / 60
                )));
            }
            match self.ask(done, count)? {
                Asked::NotNow(why) if attempt == ATTEMPTS => {
                    return Err(self.error(format!(
                        "{why}, {ATTEMPTS} times (after {done} of {} steps): is the address right, and the server up?",
                        self.query.steps()
                    )));
                }
                Asked::NotNow(_) => std::thread::sleep(PAUSE * attempt),
                found => return Ok(found),
            }
        }
        Ok(Asked::NotNow("no answer".into()))
    }

    fn ask(&self, done: u64, count: u64) -> Result<Asked, TrainError> {
        let query = self.query;
        // The value at a time is that of the step that ends there.
        let start_s = query.stamp_s(done + 1).to_string();
        let end_s = query.stamp_s(done + count).to_string();
        let step = format!("{}s", query.step_s);
        let promql = query.query.replace("$__interval", &step);
        let url = format!("{}/api/v1/query_range", query.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let form = [
            ("query", promql.as_str()),
            ("start", &start_s),
            ("end", &end_s),
            ("step", &step),
            // Thanos leaves out what does not answer, unless it is told not to; others do not know the word.
            ("partial_response", "false"),
        ];
        let mut response = match request.send_form(form) {
            Ok(response) => response,
            Err(error) => return Ok(failed(&error)),
        };
        let status = response.status().as_u16();
        let location = response.headers().get("location");
        let location = location.and_then(|value| value.to_str().ok());
        let location = location.unwrap_or("another address").to_owned();
        let body = response.body_mut().with_config().limit(JSON_BYTES_MAX);
        let body = match body.read_to_vec() {
            Ok(body) => body,
            Err(error) => return Ok(failed(&error)),
        };
        let answer = Said::answer(&body);
        if status == 200 {
            return match answer {
                Some(answer) => Ok(Asked::Answer(Box::new(answer))),
                None => Err(self.error(format!(
                    "what came is no answer of Prometheus ({}): is the address that of its API, with the prefix of its path?",
                    beginning(&body)
                ))),
            };
        }
        let said = answer.map_or_else(|| beginning(&body), |answer| answer.error);
        match status {
            401 | 403 => Err(self.error(format!(
                "it refuses who asks ({status}): {}",
                match &query.token_env {
                    Some(name) => format!("is the token in {name} a valid one?"),
                    None => "name the environment variable that holds a bearer token as `token_env`".into(),
                }
            ))),
            300..=399 => Err(self.error(format!(
                "it sends on to {location} ({status}): give that as `url`, if it is where the token may go"
            ))),
            _ if is_too_much(&said) => Ok(Asked::TooMuch(said)),
            429 | 500..=599 => Ok(Asked::NotNow(format!("it answers {status} ({said})"))),
            _ => Err(self.error(format!("it refuses the query ({status}): {said}"))),
        }
    }
}

/// Of samples, points or time: in Prometheus' words.
fn is_too_much(said: &str) -> bool {
    ["too many samples", "maximum resolution", "timed out"]
        .iter()
        .any(|words| said.contains(words))
}

fn failed(error: &ureq::Error) -> Asked {
    match error {
        ureq::Error::BodyExceedsLimit(limit) => {
            Asked::TooMuch(format!("the answer has more than {limit} bytes"))
        }
        ureq::Error::Timeout(ureq::Timeout::Global) => {
            Asked::TooMuch(format!("no answer within {} s", REQUEST_TIME_MAX.as_secs()))
        }
        error => Asked::NotNow(format!("no answer ({error})")),
    }
}

/// Of what is no JSON, for people.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(SAID_CHARS_MAX).collect()
}
