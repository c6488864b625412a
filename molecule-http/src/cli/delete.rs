//! `molecule delete`

use clap::Args;
use molecule_core::error::{Error, ErrorKind, Result};
use reqwest::StatusCode;
use serde::Deserialize;

use super::{Session, names, output, text::clean};
use crate::paths;

/// Arguments of `molecule delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The name or id of the workspace
    name: String,
    /// Remove the workspaces below it as well
    #[arg(long, short = 'y', visible_alias = "confirm")]
    yes: bool,
    /// Remove what its agent worked on as well, and all that is known of it
    #[arg(long)]
    purge: bool,
}

#[derive(Deserialize)]
struct Refused {
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    name: String,
}

/// Removes a workspace for good.
pub(crate) async fn run(args: DeleteArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let confirm = args.yes.then_some(("confirm", "true"));
    let purge = args.purge.then_some(("purge", "true"));
    let query: Vec<_> = confirm.into_iter().chain(purge).collect();
    let answer = session.client.delete(&["workspaces", &id], &query).await?;
    let count = |member: &str| answer.value.get(member).and_then(|value| value.as_u64());
    if answer.status == StatusCode::CONFLICT
        && let Ok(Refused { children }) = answer.parse()
    {
        let names: Vec<_> = children.iter().map(|child| clean(&child.name)).collect();
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} leads other workspaces ({}); to remove them as well, add --yes",
                clean(&args.name),
                names.join(", ")
            ),
        ));
    }
    if !answer.status.is_success() {
        let error = session.client.refusal(answer.status, Some(&answer.value));
        return Err(match count("stop_failures") {
            // Removed they are; what still runs is stopped by the same command.
            Some(_) => {
                let purge = if args.purge { " --purge" } else { "" };
                let message = format!("{error}; try again with: {} delete {id} --yes{purge}", paths::program());
                error.with_message(message)
            }
            None => error,
        });
    }
    if session.json {
        return output::json(&answer.text);
    }
    let below = match count("cascade_deleted") {
        None | Some(0) => String::new(),
        Some(1) => " and 1 workspace below it".to_owned(),
        Some(count) => format!(" and {count} workspaces below it"),
    };
    output::foreign(&format!("removed {}{below}", args.name))
}
