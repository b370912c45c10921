//! One run of the trainer: a process with limits on time, memory and processor, that never outlives who has started it.

use super::lines::{Lines, Told};
use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Most of what the trainer says on standard error that is kept: its last words.
const LAST_WORDS_BYTES: usize = 2_000;
/// Lets the trainer end when its standard input does.
const END_WITH_STDIN: &str = "--end-with-stdin";
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

/// The trainer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub PathBuf);

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

// === impl Program ===

impl Program {
    /// The trainer beside this program.
    #[must_use]
    pub fn beside_us() -> Self {
        let beside = std::env::current_exe().unwrap_or_default();
        Self(beside.with_file_name("forebay-train"))
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_file()
    }

    /// Runs it in a folder, to its end. Dropping the future ends the process.
    ///
    /// # Errors
    /// When it cannot be started, takes too much, or fails.
    pub async fn run(
        &self,
        arguments: &[&OsStr],
        folder: &Path,
        limits: JobLimits,
        heard: impl FnMut(Told),
    ) -> Result<(), JobError> {
        let mut child = Command::new(&self.0)
            .args(arguments)
            .arg(END_WITH_STDIN)
            .current_dir(folder)
            // The server's environment holds its tokens.
            .env_clear()
            .env("TMPDIR", folder)
            // The trainer ends with it: when this process is killed nobody else could end that one.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|reason| JobError::Start {
                program: self.0.clone(),
                reason,
            })?;
        let lifeline = child.stdin.take();
        limit(&child, limits).map_err(JobError::Watch)?;
        let ended = tokio::time::timeout(limits.time, watch(&mut child, heard)).await;
        drop(lifeline);
        let (status, last_words) = match ended {
            Ok(ended) => ended.map_err(JobError::Watch)?,
            Err(_) => {
                child.kill().await.map_err(JobError::Watch)?;
                return Err(JobError::TooLong(limits.time));
            }
        };
        match status.success() {
            true => Ok(()),
            false => Err(JobError::Failed { status, last_words }),
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

async fn watch(
    child: &mut Child,
    mut heard: impl FnMut(Told),
) -> std::io::Result<(ExitStatus, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut lines = Lines::default();
    let mut words: Vec<u8> = Vec::new();
    let said = read_all(stdout, |bytes| lines.take(bytes, &mut heard));
    let complained = read_all(stderr, |bytes| {
        words.extend_from_slice(bytes);
        let surplus = words.len().saturating_sub(LAST_WORDS_BYTES);
        words.drain(..surplus);
    });
    let (said, complained) = tokio::join!(said, complained);
    said?;
    complained?;
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&words).trim().to_owned()))
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
