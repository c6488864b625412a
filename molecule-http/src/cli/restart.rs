//! `molecule restart`

use clap::Args;
use molecule_core::{error::Result, workspace::Status};
use serde_json::json;

use super::{Session, client::REQUEST_TIMEOUT, names, output, wait};

/// Arguments of `molecule restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The name or id of the workspace
    name: String,
    /// Return as soon as the server has taken the request
    #[arg(long)]
    no_wait: bool,
}

/// Restarts a workspace.
pub(crate) async fn run(args: RestartArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let answer = session.client.post(&["workspaces", &id, "restart"], &json!({}), REQUEST_TIMEOUT).await?;
    let said = |member: &str| answer.value.get(member).and_then(|value| value.as_str()).unwrap_or_default();
    let starts = said("status") == Status::Provisioning.as_str();
    if starts && !args.no_wait {
        return wait::until_up(session, &id).await;
    }
    if session.json {
        return output::json(&answer.text);
    }
    match (starts, said("message")) {
        (true, _) => output::foreign(&format!("{} restarts; see: molecule show {id}", args.name)),
        (false, "") => output::foreign(&format!("{}: {}", args.name, said("status"))),
        (false, message) => output::foreign(&format!("{}: {message}", args.name)),
    }
}
