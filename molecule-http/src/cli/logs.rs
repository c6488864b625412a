//! `molecule logs`

use clap::Args;
use molecule_core::error::Result;
use serde_json::json;

use super::{Session, names, output};

/// Arguments of `molecule logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The name or id of the workspace
    name: String,
    /// How many lines, from the end
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    lines: u32,
}

/// Prints the last lines that a workspace wrote.
pub(crate) async fn run(args: LogsArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let text = session.client.get_text(&["workspaces", &id, "logs"], &[("lines", &args.lines.to_string())]).await?;
    if session.json {
        // The server answers in plain text here.
        return output::json(&json!({ "workspace_id": id, "logs": text }).to_string());
    }
    output::foreign(&text)
}
