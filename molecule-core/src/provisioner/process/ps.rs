//! The process table of other Unix systems, asked from `ps`.

use std::{io, process::Command};

use chrono::NaiveDateTime;
use rustix::process::{Pid, getsid};

use super::proc_table::Process;

/// Start times are times of day here, which no reboot repeats.
pub(super) fn host() -> io::Result<String> {
    Ok(String::new())
}

/// The process that has `pid`.
pub(super) fn process(pid: i32) -> io::Result<Option<Process>> {
    // Asking for one pid answers "no such process" and real failures with the same exit code.
    Ok(processes()?.into_iter().find(|process| process.pid == pid))
}

/// Every process that this one may see.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let output = Command::new("ps").args(["-axo", "pid=,pgid=,stat=,lstart="]).env("LC_ALL", "C").output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("ps failed with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| parse(line, session)).collect())
}

fn session(pid: i32) -> Option<i32> {
    Some(getsid(Some(Pid::from_raw(pid)?)).ok()?.as_raw_nonzero().get())
}

/// Reads a line of `ps`. Start times are seconds of local time.
///
/// A zombie has no session any more on some systems; nothing asks for the session of one.
fn parse(line: &str, session: impl Fn(i32) -> Option<i32>) -> Option<Process> {
    let mut fields = line.split_ascii_whitespace();
    let (pid, group, state) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?);
    let started = fields.collect::<Vec<_>>().join(" ");
    let started = NaiveDateTime::parse_from_str(&started, "%a %b %e %H:%M:%S %Y").ok()?.and_utc().timestamp();
    let zombie = state.starts_with('Z');
    let session = session(pid).or(zombie.then_some(0))?;
    Some(Process { pid, group, session, started: started.try_into().ok()?, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_that_ps_prints() {
        let line = "  501   500 Ss   Thu Jan  1 00:02:03 1970    ";
        let process = Process { pid: 501, group: 500, session: 499, started: 123, zombie: false };
        assert_eq!(parse(line, |_| Some(499)), Some(process));
        assert!(parse("7 7 Z+ Thu Jan  1 00:02:03 1970", |_| None).unwrap().zombie);
        assert_eq!(parse("PID PGID STAT STARTED", |_| Some(1)), None);
    }
}
