//! Which processes of this host are ours.
//!
//! A process is never known by its name, only by its pid together with when it started and on which run of which
//! host: pids are used again. Every process of a workload lives in the session that its first process leads, so the
//! session finds them all, whatever process groups they have moved to.

use std::{collections::BTreeSet, io};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};
use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
use super::procfs as system;
#[cfg(not(target_os = "linux"))]
use super::ps as system;

/// The first process of a workload, beyond doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// In the unit of the system's own process table; only compared.
    started: u64,
    /// The run of the host that pids and start times count from.
    host: String,
}

/// A row of the system's process table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) started: u64,
    /// It ended, and its parent has not asked how: an init that never asks keeps such entries for ever.
    pub(super) zombie: bool,
}

impl ProcessId {
    /// The identity of the process that has `pid` now. The caller knows that it is the one it means: its own child,
    /// not yet waited for.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let process = system::process(pid)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, started: process.started, host: system::host()? })
    }

    /// Whether this very process runs.
    pub(super) fn runs(&self) -> io::Result<bool> {
        if self.host != system::host()? {
            return Ok(false);
        }
        Ok(system::process(self.pid)?.is_some_and(|process| process.started == self.started && !process.zombie))
    }

    /// The living processes of the workload that this process is or was the first of.
    pub(super) fn workload(&self) -> io::Result<Vec<Process>> {
        Ok(self.select(&system::host()?, system::processes()?))
    }

    /// Picks the living processes of our workload out of `table`.
    ///
    /// Where the first process is gone, its session still proves them to be ours: the kernel gives no pid away that
    /// is the id of a living session. A session of the same number that began after ours died out has a leader with
    /// another start time for as long as that leader lives.
    fn select(&self, host: &str, table: Vec<Process>) -> Vec<Process> {
        let recycled = table.iter().any(|process| process.pid == self.pid && process.started != self.started);
        if host != self.host || recycled {
            return Vec::new();
        }
        let ours =
            |process: &Process| process.session == self.pid && process.started >= self.started && !process.zombie;
        table.into_iter().filter(ours).collect()
    }
}

/// Sends `signal` to every process group that `processes` are in.
pub(super) fn signal_groups(processes: &[Process], signal: Signal) -> io::Result<()> {
    let groups: BTreeSet<i32> = processes.iter().map(|process| process.group).collect();
    for group in groups {
        // The group 1 and the group 0 mean "everyone" and "mine" to the system call.
        let Some(group) = Pid::from_raw(group).filter(|group| !group.is_init()) else { continue };
        match kill_process_group(group, signal) {
            // It ended in the meantime.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, group: i32, session: i32, started: u64) -> Process {
        Process { pid, group, session, started, zombie: false }
    }

    fn selected(table: Vec<Process>) -> Vec<i32> {
        let id = ProcessId { pid: 100, started: 5000, host: "h".to_owned() };
        id.select("h", table).into_iter().map(|process| process.pid).collect()
    }

    #[test]
    fn a_workload_is_the_session_of_its_first_process() {
        let others = [row(1, 1, 1, 1), row(90, 90, 90, 4000), row(300, 300, 300, 7000)];
        let with = |rows: &[Process]| others.iter().chain(rows).cloned().collect::<Vec<_>>();

        assert_eq!(selected(with(&[])), [0; 0], "nothing of it is left");
        let whole = with(&[row(100, 100, 100, 5000), row(101, 100, 100, 5000), row(102, 102, 100, 6000)]);
        assert_eq!(selected(whole), [100, 101, 102], "also those in groups of their own");
        assert_eq!(selected(with(&[row(101, 100, 100, 5001)])), [101], "it outlived its leader");
    }

    #[test]
    fn what_only_looks_like_ours_is_left_alone() {
        let recycled = vec![row(100, 100, 100, 9000), row(101, 100, 100, 9001)];
        assert_eq!(selected(recycled), [0; 0], "another process has the pid");
        assert_eq!(selected(vec![row(101, 100, 100, 4999)]), [0; 0], "older than ours");
        assert_eq!(selected(vec![row(101, 100, 1, 5001)]), [0; 0], "another session");

        let other_boot = ProcessId { pid: 100, started: 5000, host: "earlier".to_owned() };
        assert_eq!(other_boot.select("h", vec![row(100, 100, 100, 5000)]), []);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let zombie = Process { zombie: true, ..row(100, 100, 100, 5000) };
        assert_eq!(selected(vec![zombie.clone()]), [0; 0]);
        assert_eq!(selected(vec![zombie, row(101, 100, 100, 5001)]), [101]);
    }
}
