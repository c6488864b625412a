//! The process table of Linux, read from `/proc`.

use std::{fs, io};

use rustix::io::Errno;

use super::proc_table::Process;

/// Names the run of the host that pids and start times count from: the boot, and the namespace that pids belong to,
/// because a container that starts again counts its pids from 1 while the host did not reboot.
pub(super) fn host() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    Ok(format!("{} {}", boot.trim(), namespace.display()))
}

/// The process that has `pid`.
pub(super) fn process(pid: i32) -> io::Result<Option<Process>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse(&stat).map(Some).ok_or_else(|| unreadable(pid)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every process that this one may see.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let mut table = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            table.extend(process(pid)?);
        }
    }
    Ok(table)
}

/// Reads a line of `/proc/<pid>/stat`. Start times are clock ticks since the host came up.
fn parse(stat: &str) -> Option<Process> {
    let pid = stat.split_once(' ')?.0.parse().ok()?;
    // The name, in brackets, may hold blanks and brackets itself.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let (_parent, group, session) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Process {
        pid,
        group: group.parse().ok()?,
        session: session.parse().ok()?,
        // Field 22 of the line; the session was field 6.
        started: fields.nth(15)?.parse().ok()?,
        zombie: matches!(state, "Z" | "X"),
    })
}

fn is_gone(error: &io::Error) -> bool {
    // The entry may vanish between being opened and being read.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn unreadable(pid: i32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let line = "4242 (a) S 9 (b) Z 1 4240 4230 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 12345 67";
        assert_eq!(
            parse(line),
            Some(Process { pid: 4242, group: 4240, session: 4230, started: 987_654, zombie: true })
        );
        assert_eq!(parse("4242 (cut) S 1 2"), None);
    }

    #[test]
    fn this_process_is_in_its_table() {
        let pid = std::process::id().cast_signed();
        let me = process(pid).unwrap().unwrap();
        assert!(processes().unwrap().contains(&me));
        assert_eq!(process(i32::MAX).unwrap(), None);
    }
}
