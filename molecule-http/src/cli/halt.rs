//! `molecule pause`, `molecule resume` and `molecule hibernate`

use std::time::Duration;

use clap::Args;
use molecule_core::{error::Result, workspace::Status};
use serde_json::json;

use super::{
    Session,
    client::{Answer, REQUEST_TIMEOUT},
    names, output, wait,
};

/// How long the server may take to stop what runs: more than it gives itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of `molecule pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The name or id of the workspace
    name: String,
}

/// Arguments of `molecule resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The name or id of the workspace
    name: String,
    /// Return as soon as the server has taken the request
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `molecule hibernate`.
#[derive(Debug, Args)]
pub(crate) struct HibernateArgs {
    /// The name or id of the workspace
    name: String,
    /// Also while its agent works
    #[arg(long)]
    force: bool,
}

/// Pauses a workspace and all below it.
pub(crate) async fn pause(args: PauseArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let answer = session.client.post(&["workspaces", &id, "pause"], &json!({}), STOP_TIMEOUT).await?;
    told(session, &answer, &format!("paused {}{}", args.name, below(&answer, "paused_count")))
}

/// Resumes a paused workspace and all that are paused below it.
pub(crate) async fn resume(args: ResumeArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let answer = session.client.post(&["workspaces", &id, "resume"], &json!({}), REQUEST_TIMEOUT).await?;
    let starts = answer.value.get("status").and_then(|value| value.as_str()) == Some(Status::Provisioning.as_str());
    if starts && !args.no_wait {
        return wait::until_up(session, &id).await;
    }
    told(
        session,
        &answer,
        &format!("resumed {}{}; see: molecule show {id}", args.name, below(&answer, "resumed_count")),
    )
}

/// Stops a workspace until a message wakes it.
pub(crate) async fn hibernate(args: HibernateArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let query: &[_] = if args.force { &[("force", "true")] } else { &[] };
    let path = ["workspaces", &id, "hibernate"];
    let answer = session.client.post_with(&path, query, &json!({}), STOP_TIMEOUT).await?;
    told(session, &answer, &format!("{} hibernates; a message wakes it", args.name))
}

fn told(session: &Session, answer: &Answer, text: &str) -> Result<()> {
    if session.json { output::json(&answer.text) } else { output::foreign(text) }
}

/// How many went along with the one that was named.
fn below(answer: &Answer, member: &str) -> String {
    match answer.value.get(member).and_then(|value| value.as_u64()) {
        None | Some(0 | 1) => String::new(),
        Some(2) => " and 1 workspace below it".to_owned(),
        Some(count) => format!(" and {} workspaces below it", count - 1),
    }
}
