//! `molecule-mcp`: one command that makes an agent a member of the fleet and gives it the tools of the fleet.
//!
//! It registers, beats, takes in messages, and speaks the Model Context Protocol over standard input and output. What
//! its tools are called and take stands in [`tools`](crate::tools).

mod attachments;
mod delegation;
mod inbox;
mod options;
mod poller;
mod push;
mod report;
mod server;
mod stdio;
mod tools;

use std::{future::pending, sync::Arc};

use rmcp::{ServiceExt, service::ServerInitializeError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use self::{inbox::Inbox, server::Server, tools::Tools};
pub use self::{options::Options, stdio::stdio};
use super::{
    Beat, Beating, Delivery, HeartbeatLoop, InboundSecret, PlatformClient, Program, RegisterOutcome, TokenStore,
};
use crate::{clock::Entropy, error::Error, id::WorkspaceId};

/// The exit code for settings that are missing or wrong, and for standard streams that no client holds.
const EXIT_USAGE: u8 = 2;

/// The exit code for a platform that rejects the token, or has deleted the workspace.
const EXIT_REJECTED: u8 = 3;

/// Why the command ended before its client wanted it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What to say on standard error.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: EXIT_USAGE, message: format!("molecule-mcp: {}", error.message()) }
    }
}

/// Does all that the command does, until the client closes `streams`.
///
/// # Errors
/// In this order: settings that are missing or wrong, a rejected registration, streams that no client holds, a client that
/// speaks something else.
pub async fn run<R, W>(
    options: &Options,
    entropy: Arc<dyn Entropy>,
    streams: impl FnOnce() -> Result<(R, W), Failure>,
) -> Result<(), Failure>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let settings = &options.settings;
    let folder = options.check()?;
    let id = settings.workspace_id()?;
    let tokens = TokenStore::supplied_first(&folder, settings.token.clone());
    // Each thread has connections of its own; the secrets are the same.
    let secret = InboundSecret::new(&folder);
    let connect = || PlatformClient::new(settings.platform_url()?, id, tokens.clone(), secret.clone(), &settings.way);
    let client = connect()?;
    if !options.no_heartbeat {
        let outcome = client.register(&settings.card("molecule-mcp", &id), &Delivery::Poll).await;
        registered(&id, &outcome)?;
    }
    let _beating = if options.no_heartbeat { None } else { Some(beat(connect()?, entropy.clone())?) };
    let (inbox, news) = if options.no_inbox { (None, None) } else { Some(Inbox::open(&folder)).unzip() };
    let reports = TaskTracker::new();
    let tools = Tools {
        client: client.clone(),
        entropy,
        inbox: inbox.clone(),
        folders: options.folders.clone(),
        secrets: folder.path().to_owned(),
        reports: reports.clone(),
    };

    let poll = async {
        if let Some(inbox) = &inbox {
            poller::poll(&client, inbox).await;
        }
        pending().await
    };
    let serve = async {
        let (input, output) = streams()?;
        let running = match Server::new(tools, options.poll_timeout).serve((input, output)).await {
            Ok(running) => running,
            // A client may leave before it says a word.
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            Err(error) => {
                let message = format!("molecule-mcp: the client does not speak the Model Context Protocol: {error}");
                return Err(Failure { code: EXIT_USAGE, message });
            }
        };
        let peer = running.peer().clone();
        let push = async {
            if let Some(news) = news {
                push::push(&client, news, &peer).await;
            }
            pending().await
        };
        tokio::select! {
            // However it ended: the client is gone.
            _ = running.waiting() => Ok(()),
            () = push => Ok(()),
        }
    };
    let ended = tokio::select! {
        ended = serve => ended,
        () = poll => Ok(()),
    };
    reports.close();
    // What is not in the log by then is not worth waiting for.
    let _ = timeout(report::TIMEOUT, reports.wait()).await;
    ended
}

/// Beats through `client` until what is given back is dropped: on a thread of its own, which no tool holds up.
fn beat(client: PlatformClient, entropy: Arc<dyn Entropy>) -> Result<Beating, Error> {
    let started = Instant::now();
    let say = move || Beat { uptime_seconds: started.elapsed().as_secs(), ..Beat::default() };
    HeartbeatLoop::new(client, Program::MCP, entropy).spawn(say, pending())
}

/// Whether to go on after the registration.
fn registered(id: &WorkspaceId, outcome: &RegisterOutcome) -> Result<(), Failure> {
    let rejected = |message| Err(Failure { code: EXIT_REJECTED, message });
    match outcome {
        RegisterOutcome::Accepted { .. } => {
            tracing::info!("molecule-mcp: registered workspace {id}");
            Ok(())
        }
        RegisterOutcome::Unauthorized(status) => rejected(format!(
            "molecule-mcp: register rejected with HTTP {} — the token in MOLECULE_WORKSPACE_TOKEN is invalid for workspace \
             {id}. Regenerate from the canvas → Tokens tab.",
            status.as_u16()
        )),
        RegisterOutcome::Removed(status) => rejected(format!(
            "molecule-mcp: register rejected with HTTP {} — workspace {id} was deleted on the platform. Regenerate the \
             workspace + token from the canvas (Tokens tab).",
            status.as_u16()
        )),
        outcome => {
            tracing::warn!("molecule-mcp: register failed, going on: {outcome}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn only_a_rejection_ends_the_command() {
        let id: WorkspaceId = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".parse().unwrap();
        for (outcome, said) in [
            (RegisterOutcome::Unauthorized(StatusCode::UNAUTHORIZED), Some("HTTP 401 — the token in")),
            (RegisterOutcome::Unauthorized(StatusCode::FORBIDDEN), Some("HTTP 403 — the token in")),
            (RegisterOutcome::Removed(StatusCode::GONE), Some("was deleted on the platform")),
            (RegisterOutcome::Accepted { delivery_mode: None }, None),
            (RegisterOutcome::RateLimited { retry_after: None }, None),
            (RegisterOutcome::ServerError(StatusCode::BAD_GATEWAY), None),
            (RegisterOutcome::NotAPlatform, None),
            (RegisterOutcome::Unreachable("gone".into()), None),
        ] {
            match (registered(&id, &outcome), said) {
                (Ok(()), None) => {}
                (Err(failure), Some(said)) => {
                    assert_eq!(failure.code, 3);
                    assert!(failure.message.contains(said), "{}", failure.message);
                }
                (found, _) => panic!("{outcome:?}: {found:?}"),
            }
        }
    }
}
