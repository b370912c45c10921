//! One run of the trainer: a process with limits on time, memory and processor, and whoever it has started, none of whom outlives who has started it.
//!
//! All of them are one process group, which a keeper ends. Whoever leaves the group, as a daemon does, is not found again.

use super::keeper::{self, GRACE};
use super::lines::{Lines, Told, printable};
use super::program::Program;
use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};
use std::ffi::OsStr;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

/// Most of what the trainer says on standard error that is kept: its last words.
const LAST_WORDS_BYTES: usize = 2_000;
/// Lets the trainer end when its standard input does.
const END_WITH_STDIN: &str = "--end-with-stdin";
/// How long the keeper may take: twice as long as those have whom it ends.
const ENDS_WITHIN: Duration = GRACE.saturating_mul(2);
/// How long the last words are read after the end: whoever has left the group may hold the pipes for ever.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// Where memory is short the system ends the trainer first, and not the server.
const OOM_SCORE: &str = "1000";
/// Whoever serves requests goes before it.
const NICE: i32 = 19;

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct JobLimits {
    /// From its start to its end.
    pub time: Duration,
    /// Of the processors, all of them together.
    pub cpu: Duration,
    /// Memory that is its own.
    pub memory_bytes: u64,
}

/// A run that has begun. Dropping it lets the keeper end it, for which nobody waits then.
#[derive(Debug)]
pub struct Job {
    trainer: Child,
    keeper: Child,
    /// They end with these.
    lifelines: Vec<ChildStdin>,
    limits: JobLimits,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It cannot be started.
    #[error(
        "cannot start the trainer {program}: {reason}; build forebay-train and name it with --trainer"
    )]
    Start {
        /// Which program.
        program: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The system does not let it be watched.
    #[error("the trainer cannot be limited or watched: {0}")]
    Watch(std::io::Error),
    /// It took too long.
    #[error("the trainer took longer than {} s and was ended", .0.as_secs())]
    TooLong(Duration),
    /// It failed.
    #[error("the trainer failed ({status}): {last_words}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        last_words: String,
    },
}

// === impl JobLimits ===

impl Default for JobLimits {
    /// Some four times what the busiest data set that is handed out takes on two processors.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(2 * 3_600),
            cpu: Duration::from_secs(4 * 3_600),
            memory_bytes: 4 << 30,
        }
    }
}

// === impl Job ===

impl Job {
    /// Begins one in a folder.
    ///
    /// # Errors
    /// When the trainer or its keeper cannot be started or limited.
    pub fn start(
        program: &Program,
        keeper: &Path,
        arguments: &[&OsStr],
        folder: &Path,
        limits: JobLimits,
    ) -> Result<Self, JobError> {
        let mut keeper = Command::new(keeper)
            .arg(keeper::COMMAND)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(JobError::Watch)?;
        let group = keeper.id().map_or(0, u32::cast_signed);
        let mut trainer = Command::new(&program.0)
            .args(arguments)
            .arg(END_WITH_STDIN)
            .current_dir(folder)
            // The server's environment holds its tokens.
            .env_clear()
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(group)
            .spawn()
            .map_err(|reason| JobError::Start {
                program: program.0.clone(),
                reason,
            })?;
        let lifelines = [trainer.stdin.take(), keeper.stdin.take()];
        limit(&trainer, limits).map_err(JobError::Watch)?;
        Ok(Self {
            trainer,
            keeper,
            lifelines: lifelines.into_iter().flatten().collect(),
            limits,
        })
    }

    /// Waits for its end: that of the trainer, whoever still holds its pipes. Nobody whom it has started is left then. Dropping the future ends nothing.
    ///
    /// # Errors
    /// When it takes too much, or fails.
    pub async fn wait(&mut self, heard: impl FnMut(Told)) -> Result<(), JobError> {
        let (stdout, stderr) = (self.trainer.stdout.take(), self.trainer.stderr.take());
        let mut words = Vec::new();
        let mut is_silent = false;
        let ended = {
            let mut listening = pin!(listen(stdout, stderr, &mut words, heard));
            let ended = self.over(listening.as_mut(), &mut is_silent).await;
            self.end().await;
            if !is_silent && timeout(LAST_WORDS_WITHIN, listening).await.is_err() {
                tracing::debug!("somebody who has left the trainer's group holds its pipes");
            }
            ended
        };
        let Some(status) = ended.map_err(JobError::Watch)? else {
            return Err(JobError::TooLong(self.limits.time));
        };
        let last_words = printable(&String::from_utf8_lossy(&words), LAST_WORDS_BYTES);
        match status.success() {
            true => Ok(()),
            false => Err(JobError::Failed { status, last_words }),
        }
    }

    /// How the trainer has ended; `None` if it takes too long.
    async fn over(
        &mut self,
        mut listening: Pin<&mut impl Future<Output = std::io::Result<()>>>,
        is_silent: &mut bool,
    ) -> std::io::Result<Option<ExitStatus>> {
        let mut late = pin!(sleep(self.limits.time));
        loop {
            tokio::select! {
                heard = listening.as_mut(), if !*is_silent => {
                    *is_silent = true;
                    heard?;
                }
                status = self.trainer.wait() => return status.map(Some),
                _ = self.keeper.wait() => return Err(Error::other("who keeps its processes together has ended")),
                () = &mut late => return Ok(None),
            }
        }
    }

    /// Ends it, and everybody whom it has started.
    pub async fn end(&mut self) {
        self.lifelines.clear();
        if timeout(ENDS_WITHIN, self.keeper.wait()).await.is_err() {
            tracing::warn!("who keeps the trainer's processes together does not end");
            let _ends = self.keeper.start_kill();
        }
        // It is over already, unless somebody else has ended the keeper before.
        if let Err(error) = self.trainer.kill().await {
            tracing::debug!(%error, "the trainer is over");
        }
    }
}

fn limit(child: &Child, limits: JobLimits) -> std::io::Result<()> {
    // One that has ended already has no number any more.
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
        return Ok(());
    };
    // Not every system lets us; the limits below hold in any case.
    if let Err(error) = std::fs::write(
        format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()),
        OOM_SCORE,
    ) {
        tracing::debug!(%error, "the system does not end the trainer first where memory is short");
    }
    let at_most = |most: u64| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let result = prlimit(Some(pid), Resource::Data, at_most(limits.memory_bytes))
        .and_then(|_| prlimit(Some(pid), Resource::Cpu, at_most(limits.cpu.as_secs())))
        .and_then(|_| prlimit(Some(pid), Resource::Core, at_most(0)))
        .and_then(|_| setpriority_process(Some(pid), NICE));
    match result {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// Hears and reads all that the trainer says, and keeps its last words.
async fn listen(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    words: &mut Vec<u8>,
    mut heard: impl FnMut(Told),
) -> std::io::Result<()> {
    let mut lines = Lines::default();
    let said = read_all(stdout, |bytes| lines.take(bytes, &mut heard));
    let complained = read_all(stderr, |bytes| {
        words.extend_from_slice(bytes);
        let surplus = words.len().saturating_sub(LAST_WORDS_BYTES);
        words.drain(..surplus);
    });
    let (said, complained) = tokio::join!(said, complained);
    said.and(complained)
}

async fn read_all(
    source: Option<impl AsyncRead + Unpin>,
    mut take: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let Some(mut source) = source else {
        return Ok(());
    };
    let mut buffer = vec![0; 8 << 10];
    loop {
        let bytes = source.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        take(buffer.get(..bytes).unwrap_or_default());
    }
}
