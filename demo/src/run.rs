//! One run: start everything, replay the demand, sum up, stop everything.
//!
//! A run starts from nothing each time, a fresh store included: what the first run left behind must not help the
//! second.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::arrivals::Arrival;
use crate::client::{Answer, Answers, send_all};
use crate::control_plane::ControlPlane;
use crate::gateway::{Gateway, GatewaySpec};
use crate::outcome::{Refills, RunOutcome};
use crate::places::Places;
use crate::scenario::Scenario;
use crate::tally::last_second;
use crate::upstream::Upstream;
use crate::view::{self, Frame};

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// Frames between two printed lines without a terminal.
const FRAMES_PER_LINE: u64 = 20;
/// Time that Envoy, the first sync and the model each have to get ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// From starting Envoy to the replay, as a guess: the calendar need not be exact to the step, only to the hour.
const START_UP_MS: u64 = 8_000;

/// What both runs share.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// The programs.
    pub places: &'a Places,
    /// Contracts and demand.
    pub scenario: &'a Scenario,
    /// When each request is sent.
    pub arrivals: &'a [Arrival],
}

/// The processes of a run. Fields are dropped in this order: the gateway first, then what it calls.
#[derive(Debug)]
struct Cast {
    gateway: Gateway,
    control_plane: ControlPlane,
    upstream: Upstream,
}

/// Replays the scenario once, with shadow buckets on or off, keeping logs and store in `folder`.
pub(crate) async fn run(stage: &Stage<'_>, shadow_on: bool, folder: &Path) -> Result<RunOutcome> {
    // A fresh store each time: what an earlier run has learned must not help this one.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut cast = Cast::start(stage, shadow_on, folder).await?;
    let start_ms = cast.make_ready(stage.scenario).await?;
    let (answers, refills) = replay(stage, shadow_on, start_ms, &mut cast).await?;
    Ok(RunOutcome::new(stage.scenario, &answers, refills))
}

impl Cast {
    async fn start(stage: &Stage<'_>, shadow_on: bool, folder: &Path) -> Result<Self> {
        let Stage {
            places, scenario, ..
        } = stage;
        let upstream = Upstream::start(scenario.upstream_per_s).await?;
        say("starting the control plane; it checks the model in its sandbox");
        let control_plane = ControlPlane::start(places, folder, scenario, shadow_on).await?;
        say("starting Envoy with both plugins");
        let replay_start_ms = u64::try_from(scenario.replay_start_s)? * 1_000;
        let gateway = Gateway::start(&GatewaySpec {
            places,
            folder,
            upstream: upstream.address,
            control_plane: control_plane.address(),
            secrets: control_plane.secrets(),
            model_key: control_plane.model_key(),
            trace_step_s: scenario.trace_step_s,
            speed_up: scenario.speed_up(),
            // Both on a step's edge, so that the steps of the replay are those of the trace.
            wall_ms: last_edge(unix_ms()?, scenario.step_ms),
            calendar_ms: replay_start_ms
                - START_UP_MS / scenario.step_ms * u64::from(scenario.trace_step_s) * 1_000,
        })
        .await?;
        Ok(Self {
            gateway,
            control_plane,
            upstream,
        })
    }

    /// Waits until the gateway has its policy, and then for the edge of a step, which it returns in Unix time.
    async fn make_ready(&mut self, scenario: &Scenario) -> Result<u64> {
        self.wait_for("policy", "forebay.policy_epoch").await?;
        let now_ms = unix_ms()?;
        let start_ms = last_edge(now_ms, scenario.step_ms) + scenario.step_ms;
        tokio::time::sleep(Duration::from_millis(start_ms - now_ms)).await;
        Ok(start_ms)
    }

    async fn wait_for(&mut self, what: &str, gauge: &str) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while self.gateway.stat(gauge).await? == 0 {
            self.check()?;
            ensure!(
                Instant::now() < deadline,
                "the gateway has no {what} after {READY_WITHIN:?}; end of Envoy's log:\n{}",
                self.gateway.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.gateway.check()?;
        self.control_plane.check()
    }
}

/// Sends all requests while the view is drawn. Returns the answers, and the shadow refills after the warm-up.
///
/// The history is imported when the replay has begun, so that it ends where the replay starts and no idle steps lie in
/// between. The model is activated after that: a gateway asks for usage windows when it takes over a model. Both happens
/// during the warm-up.
async fn replay(
    stage: &Stage<'_>,
    shadow_on: bool,
    start_ms: u64,
    cast: &mut Cast,
) -> Result<(Vec<Answer>, Refills)> {
    let scenario = stage.scenario;
    let names = scenario.customers.iter().map(|c| c.name).collect();
    let answers = Answers::default();
    let start = Instant::now();
    let arrivals = stage.arrivals.to_vec();
    let mut sending = tokio::spawn(send_all(
        cast.gateway.address,
        names,
        arrivals,
        start,
        answers.clone(),
    ));
    cast.control_plane
        .import_history(scenario, start_ms)
        .await?;
    cast.control_plane.activate_model().await?;
    let mut tick = tokio::time::interval(FRAME);
    let mut frames = 0;
    let mut warm = None;
    loop {
        tokio::select! {
            sent = &mut sending => {
                sent.context("the client stopped")?;
                break;
            }
            _ = tick.tick() => {
                cast.check()?;
                let now_us = u64::try_from(start.elapsed().as_micros())?;
                if warm.is_none() && now_us >= scenario.warm_up_us() {
                    warm = Some(cast.gateway.refills().await?);
                }
                let insights = cast.control_plane.insights(scenario).await?;
                let tallies = {
                    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    last_second(&answers, scenario.customers.len(), now_us)
                };
                show(frames, &Frame {
                    scenario,
                    shadow_on,
                    seconds: (now_us as f64 / 1e6, scenario.replay_us() as f64 / 1e6),
                    tallies: &tallies,
                    insights: &insights,
                    upstream: cast.upstream.served_and_refused(),
                });
                frames += 1;
            }
        }
    }
    let refills = cast
        .gateway
        .refills()
        .await?
        .since(warm.unwrap_or_default());
    let answers = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((answers, refills))
}

/// Draws the screen, or prints a line now and then where there is none.
fn show(frames: u64, frame: &Frame<'_>) {
    let mut out = std::io::stdout();
    let text = if out.is_terminal() {
        view::screen(frame)
    } else if frames % FRAMES_PER_LINE == FRAMES_PER_LINE - 1 {
        view::line(frame) + "\n"
    } else {
        return;
    };
    // A closed pipe is no reason to leave the run unfinished: the report still says what happened.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// One line of progress.
fn say(what: &str) {
    eprintln!("demo: {what}");
}

fn unix_ms() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    u64::try_from(since.as_millis()).context("the clock is too far ahead")
}

/// The last edge of a step at or before a moment.
fn last_edge(unix_ms: u64, step_ms: u64) -> u64 {
    unix_ms - unix_ms % step_ms
}
