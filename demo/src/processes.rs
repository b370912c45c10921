//! Child processes that cannot outlive the demo.
//!
//! Each child leads a process group of its own, so that Ctrl-C in the terminal reaches only the demo, which then stops
//! its children in order; the guard does so on every way out, a panic included. Against a `kill -9` of the demo itself
//! the kernel helps: the child asks to be killed when its parent dies. That wish is made by `setpriv` of util-linux,
//! because making it here would need `unsafe` between fork and exec.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a child may take to leave after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// Lines of a child's log that an error shows.
const LOG_TAIL_LINES: usize = 15;
/// Where Debian has util-linux's tool.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A running child; dropping it stops the child and all that it started.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`. To be called from the main thread only: the kernel's parent is the
    /// thread, and a child must not be killed because a worker thread of the runtime ended.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        log: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        configure(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the log file")?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// An error with the end of its log if the child has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .context("cannot ask for a child's state")?
        {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended unexpectedly ({status}); end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            ),
        }
    }

    /// The last lines that the child wrote.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn stop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        // Errors mean that the group is gone already, which is what is wanted.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, name: &str) -> Process {
        let log =
            std::env::temp_dir().join(format!("forebay-demo-{}-{name}.log", std::process::id()));
        Process::start("sh", Path::new("/bin/sh"), &log, |command| {
            command.args(["-c", script]);
        })
        .unwrap()
    }

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "timed out: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn dropping_a_process_stops_its_children_too() {
        let process = start("sleep 1000 & echo $!; wait", "group");
        wait_until("the grandchild's id is written", || {
            !process.log_tail().is_empty()
        });
        let grandchild = PathBuf::from(format!("/proc/{}", process.log_tail().trim()));
        assert!(grandchild.exists());
        drop(process);
        // A zombie that its new parent has not collected yet counts as gone.
        wait_until("the grandchild is gone", || {
            fs::read_to_string(grandchild.join("stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }

    #[test]
    fn a_child_that_ends_by_itself_is_an_error_with_its_last_words() {
        let mut process = start("echo cannot bind; exit 3", "ended");
        wait_until("the child ended", || process.check().is_err());
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("cannot bind"), "{error}");
    }
}
