//! Waiting until a workspace is up, or is known not to come up.

use std::time::Duration;

use molecule_core::{
    error::{Error, ErrorKind, Result},
    workspace::Status,
};
use tokio::time::{Instant, sleep};

use super::{
    Session,
    client::Answer,
    output,
    spinner::{Progress, short},
    workspace::{self, Workspace},
};
use crate::paths;

const POLL: Duration = Duration::from_millis(300);

/// As long as the server itself gives a workspace that asks for nothing else.
const PROVISION_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long the server may be away in the middle of the wait, as during its own restart.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the workspace `id` is no longer provisioning, prints how it ended, and fails unless it is up.
pub(crate) async fn until_up(session: &Session, id: &str) -> Result<()> {
    let mut progress = Progress::start(session.json);
    let (mut workspace, answer) = settled(session, id, &mut progress).await?;
    let took = short(progress.elapsed());
    drop(progress);

    if workspace.reason().is_none() && workspace.status == Status::Failed.as_str() {
        workspace.last_sample_error = reason_in_list(session, id).await;
    }
    if session.json {
        output::json(&answer.text)?;
    }
    let handle = workspace.handle().to_owned();
    match workspace.status.parse::<Status>() {
        Ok(Status::Online | Status::Degraded) if session.json => Ok(()),
        Ok(Status::Online | Status::Degraded) => {
            output::foreign(&format!("{} is {} after {took}\nid:   {id}", workspace.name, workspace.status))?;
            output::line(&format!("next: {} ask {handle} \"hello\"", paths::program()))
        }
        Ok(Status::Failed) => {
            let reason = workspace.reason().unwrap_or("the server gives no reason");
            Err(failed(format!("{handle} failed to start: {reason}; see: {} logs {handle}", paths::program())))
        }
        _ => Err(failed(format!("{handle} is {}, not online; see: molecule show {handle}", workspace.status))),
    }
}

async fn settled(session: &Session, id: &str, progress: &mut Progress) -> Result<(Workspace, Answer)> {
    let mut last_answer = Instant::now();
    loop {
        match workspace::get(&session.client, id).await {
            Ok((workspace, answer)) => {
                if workspace.status != Status::Provisioning.as_str() {
                    return Ok((workspace, answer));
                }
                let limit = workspace.provision_timeout_ms.map_or(PROVISION_TIMEOUT, Duration::from_millis);
                if progress.elapsed() > limit {
                    let handle = workspace.handle();
                    return Err(failed(format!(
                        "{handle} is still provisioning after {}; see: molecule show {handle}",
                        short(limit)
                    )));
                }
                progress.tell(&format!("{} is {}", workspace.name, workspace.status));
                last_answer = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && last_answer.elapsed() < PATIENCE => {
                progress.tell(&format!("trying again: {error}"));
            }
            Err(error) => return Err(error),
        }
        sleep(POLL).await;
    }
}

/// The single view leaves the reason out, because anyone may read it. Not to get it is no reason to fail otherwise.
async fn reason_in_list(session: &Session, id: &str) -> Option<String> {
    let (workspaces, _) = workspace::list(&session.client).await.ok()?;
    workspaces.into_iter().find(|workspace| workspace.id == id)?.last_sample_error
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::Upstream, message)
}
