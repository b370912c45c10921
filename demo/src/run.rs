//! One run: start everything, replay the demand, sum up, stop everything.
//!
//! A run starts from nothing each time, a fresh store included: what the first run left behind must not help the
//! second.

use std::fs;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::arrivals::Arrival;
use crate::client::{Answers, send_all};
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
/// Time that Envoy, the first sync and the model have to get ready before the replay starts.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What both runs share.
#[derive(Debug)]
pub struct Stage<'a> {
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
pub async fn run(stage: &Stage<'_>, shadow_on: bool, folder: &Path) -> Result<RunOutcome> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut cast = Cast::start(stage, shadow_on, folder).await?;
    let before = cast.gateway.refills().await?;
    let answers = replay(stage, shadow_on, &mut cast).await?;
    let after = cast.gateway.refills().await?;
    let refills = Refills {
        network: after.network - before.network,
        fallback: after.fallback - before.fallback,
    };
    Ok(RunOutcome::new(stage.scenario, &answers, refills))
}

impl Cast {
    async fn start(stage: &Stage<'_>, shadow_on: bool, folder: &Path) -> Result<Self> {
        let Stage {
            places, scenario, ..
        } = stage;
        let upstream = Upstream::start(scenario.capacity_per_s).await?;
        say("starting the control plane, with its history and the model");
        let control_plane = ControlPlane::start(places, folder, scenario, shadow_on).await?;
        let replay_wall_ms = unix_ms()?;
        control_plane
            .import_history(scenario, replay_wall_ms)
            .await?;
        say("starting Envoy with both plugins");
        let gateway = Gateway::start(&GatewaySpec {
            places,
            folder,
            upstream: upstream.address,
            control_plane: control_plane.address(),
            secrets: control_plane.secrets(),
            model_key: control_plane.model_key(),
            speed_up: scenario.speed_up(),
            replay_wall_ms,
            replay_trace_ms: u64::try_from(scenario.replay_start_s).unwrap_or(0) * 1_000,
        })
        .await?;
        let mut cast = Self {
            gateway,
            control_plane,
            upstream,
        };
        cast.wait_ready().await?;
        Ok(cast)
    }

    /// Waits until the gateway has its policy and runs the model.
    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check()?;
            if self.gateway.stat("forebay.policy_epoch").await? > 0
                && self.gateway.stat("forebay.model_epoch").await? > 0
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the gateway has no policy or no model after {READY_WITHIN:?}; end of Envoy's log:\n{}",
                self.gateway.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    fn check(&mut self) -> Result<()> {
        self.gateway.check()?;
        self.control_plane.check()
    }
}

async fn replay(
    stage: &Stage<'_>,
    shadow_on: bool,
    cast: &mut Cast,
) -> Result<Vec<crate::client::Answer>> {
    let scenario = stage.scenario;
    let names = scenario.customers.iter().map(|c| c.name).collect();
    let answers = Answers::default();
    let start = Instant::now();
    let gateway: SocketAddr = cast.gateway.address;
    let mut sending = tokio::spawn(send_all(
        gateway,
        names,
        stage.arrivals.to_vec(),
        start,
        answers.clone(),
    ));
    let total_s = scenario.step_ms as f64
        * scenario.customers.first().map_or(0, |c| c.demand.len()) as f64
        / 1_000.0;
    let mut frames = 0;
    let mut tick = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            sent = &mut sending => {
                sent.context("the client stopped")?;
                break;
            }
            _ = tick.tick() => {
                cast.check()?;
                let insights = cast.control_plane.insights(scenario).await?;
                let now_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                let tallies =
                    last_second(&answers.lock().unwrap_or_else(PoisonError::into_inner), scenario.customers.len(), now_us);
                show(frames, &Frame {
                    scenario,
                    shadow_on,
                    seconds: (now_us as f64 / 1e6, total_s),
                    tallies: &tallies,
                    insights: &insights,
                    upstream: cast.upstream.served_and_refused(),
                });
                frames += 1;
            }
        }
    }
    let answers = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(answers)
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
