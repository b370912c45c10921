//! The keeper: a process of this program that leads the group of the trainer's processes, and ends all of it when it is let go.
//!
//! It reads a pipe that only the server holds open. The pipe ends when the server lets go, and also when the server is killed and can end nobody. The signal that the
//! system has for orphans was the worse alternative: to set it for the trainer takes code between fork and exec, which is unsafe, and it would reach the trainer
//! alone and not whom that has started. A group whose leader lives keeps its number, so that nobody else's processes are ended by mistake.

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process_group};
use std::fs;
use std::io::{Error, Result, copy, sink, stdin};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The command of this program by which one begins.
pub(super) const COMMAND: &str = "keep-group";
/// How long processes have to end when they are asked to, before they are killed.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often the group is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for the end of standard input, and then ends the group that this process leads: SIGTERM, and SIGKILL for whoever is still there after two seconds, this
/// process among them.
///
/// # Errors
/// When this process leads no group, or signals cannot be taken or sent.
pub fn keep_group() -> Result<()> {
    let group = getpid();
    if getpgrp() != group {
        let message = "keep-group ends the process group that it leads, and it leads none: only the server starts it";
        return Err(Error::other(message));
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Taken, so that what is sent to the group does not end who sends it.
        let _taken = signal(SignalKind::terminate())?;
        // A pipe that breaks is one that has ended.
        let _ended = spawn_blocking(|| copy(&mut stdin(), &mut sink())).await;
        end(group).await
    })
}

async fn end(group: Pid) -> Result<()> {
    if !has_others(group) {
        return Ok(());
    }
    kill_process_group(group, Signal::TERM)?;
    let deadline = Instant::now() + GRACE;
    while has_others(group) {
        if Instant::now() >= deadline {
            kill_process_group(group, Signal::KILL)?;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether somebody but the leader is in the group. Where the system does not say it, there may be.
fn has_others(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let leader = group.as_raw_nonzero().to_string();
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_process =
            |name: &str| name != leader && name.bytes().all(|byte| byte.is_ascii_digit());
        name.to_str().is_some_and(is_process)
            && fs::read_to_string(process.path().join("stat"))
                .is_ok_and(|stat| is_alive_in(&stat, &leader))
    })
}

/// `4711 (name) S 1 4700 ...`: state, parent, group. A name may have blanks and parentheses.
fn is_alive_in(stat: &str, group: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_ascii_whitespace();
    let is_over = matches!(fields.next(), Some("Z" | "X") | None);
    !is_over && fields.nth(1) == Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_over_or_in_another_group_is_none_of_it() {
        assert!(is_alive_in("17 (sh) S 1 42 42 0 -1", "42"));
        assert!(
            is_alive_in("17 (a) Z 1 7 (b) R 1 42 42", "42"),
            "a name may say anything"
        );
        assert!(
            !is_alive_in("17 (sh) Z 1 42 42", "42"),
            "nobody has waited for it yet"
        );
        assert!(!is_alive_in("17 (sh) S 42 41 42", "42"));
        assert!(!is_alive_in("17 (sh) S 1 421 42", "42"));
        assert!(!is_alive_in("17 (sh", "42"));
    }
}
