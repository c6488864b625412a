//! Ends every process of a workload.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    ProcessProvisioner, Slot,
    proc_table::{ProcessId, signal_groups},
    unknown,
};
use crate::error::{Error, ErrorKind, Result};

/// How long the kernel may take to end what was killed. Longer only where a process hangs in a system call, as on a
/// dead network file system.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Pauses between looks at the process table: short at first, because most agents end at once.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(200);

/// Asks the processes of the workload to end, makes them after the grace, and forgets the workload once none is left.
///
/// The caller holds the gate of `slot`. Where it breaks off, the record is kept, so that it can be repeated.
pub(super) async fn stop(provisioner: &ProcessProvisioner, slot: &Arc<Slot>) -> Result<()> {
    let reading = Arc::clone(slot);
    let record = provisioner.blocking(move || reading.record.read()).await?;
    if let Some(process) = record.and_then(|record| record.process) {
        let grace = provisioner.0.config.stop_grace;
        let gone = end(provisioner, &process, Signal::TERM, grace).await?
            || end(provisioner, &process, Signal::KILL, KILL_LIMIT).await?;
        if !gone {
            let message = "processes of the workspace live on after SIGKILL — try again";
            return Err(Error::new(ErrorKind::Unavailable, message).context("path", slot.folder.path.display()));
        }
        if let Some(exit_recorded) = slot.reaper_of(&process) {
            exit_recorded.cancelled().await;
        }
    }
    let removing = Arc::clone(slot);
    provisioner.blocking(move || removing.record.remove()).await
}

/// Sends `signal` to what is left of the workload of `process`, and tells whether all of it ended within `limit`.
async fn end(provisioner: &ProcessProvisioner, process: &ProcessId, signal: Signal, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let mut pause = *PAUSES.start();
    let mut send = true;
    loop {
        let process = process.clone();
        let send_now = std::mem::replace(&mut send, signal == Signal::KILL);
        let gone = provisioner.blocking(move || {
            let left = process.workload().map_err(unknown)?;
            if send_now {
                signal_groups(&left, signal).map_err(|error| {
                    let message = format!("cannot end the processes of the workspace: {}", error.kind());
                    Error::new(ErrorKind::Unavailable, message).caused_by(error)
                })?;
            }
            Ok(left.is_empty())
        });
        if gone.await? {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause.min(deadline - now)).await;
        pause = (pause * 2).min(*PAUSES.end());
    }
}
