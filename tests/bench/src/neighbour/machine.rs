//! What of the machine somebody else had while it was measured: other programs, and what a hypervisor gave to other machines.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of the machine and of our processes, since they began, in ticks of the system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    all: u64,
    idle: u64,
    ours: u64,
}

// === impl Usage ===

impl Usage {
    /// By now, with these processes and this one as ours.
    pub(super) fn now(processes: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let mut usage = Self::of_machine(&stat).context("/proc/stat is odd")?;
        for process in processes.iter().copied().chain([std::process::id()]) {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"))
                .with_context(|| format!("process {process} has ended"))?;
            usage.ours += of_process(&stat).context("/proc/PID/stat is odd")?;
        }
        Ok(usage)
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal. Interrupts are left out: the system serves with them what the load sends to
    /// itself, and counts them to no process.
    fn of_machine(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields[..] else {
            return None;
        };
        Some(Self {
            all: user + nice + system + idle + iowait + irq + softirq + steal,
            idle: idle + iowait + irq + softirq,
            ours: 0,
        })
    }

    /// The part of the machine that others had since then.
    pub(super) fn others_since(self, then: Self) -> f64 {
        let all = self.all - then.all;
        let used = all.saturating_sub(self.idle - then.idle);
        used.saturating_sub(self.ours - then.ours) as f64 / all.max(1) as f64
    }
}

/// Time in user and system mode.
fn of_process(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; the numbers come after it.
    let (_, numbers) = stat.rsplit_once(')')?;
    let mut numbers = numbers.split_whitespace().skip(11);
    let user: u64 = numbers.next()?.parse().ok()?;
    let system: u64 = numbers.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_ours_nor_idle_is_somebody_elses() {
        let usage = |stat: &str, ours| Usage {
            ours,
            ..Usage::of_machine(stat).unwrap()
        };
        let then = usage("cpu  100 0 50 1000 10 1 2 0 0 0\n", 60);
        let now = usage("cpu  180 0 80 1080 10 2 6 5 0 0\n", 130);
        // 200 ticks passed: 80 user, 30 system and 5 stolen, of which 70 were ours.
        assert!((now.others_since(then) - 45.0 / 200.0).abs() < 1e-12);
        assert!(Usage::of_machine("cpu0 1 2 3\n").is_none());
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 12 0 0 20 0 1 0 9 0";
        assert_eq!(of_process(stat), Some(43));
        assert!(of_process(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
