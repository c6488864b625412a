//! `molecule show`

use clap::Args;
use molecule_core::{
    clock::{Clock, SystemClock},
    error::Result,
};

use super::{
    Session, list, names, output,
    workspace::{self, Workspace},
};

/// Arguments of `molecule show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The name or id of the workspace
    name: String,
}

/// Prints what is known of a workspace.
pub(crate) async fn run(args: ShowArgs, session: &Session) -> Result<()> {
    let id = names::resolve(&session.client, &args.name).await?;
    let (mut workspace, answer) = workspace::get(&session.client, &id).await?;
    if session.json {
        return output::json(&answer.text);
    }
    // The list says more, to those who may read it.
    if let Ok((workspaces, _)) = workspace::list(&session.client).await
        && let Some(listed) = workspaces.into_iter().find(|listed| listed.id == id)
    {
        workspace.current_task = listed.current_task;
        workspace.last_sample_error = listed.last_sample_error;
        workspace.workspace_dir = listed.workspace_dir;
        workspace.last_heartbeat_at = workspace.last_heartbeat_at.or(listed.last_heartbeat_at);
    }
    print(&workspace)
}

fn print(workspace: &Workspace) -> Result<()> {
    let mut table = output::table([]);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let value = if name == "status" { output::status(value) } else { output::cell(value) };
            table.add_row([output::cell(name), value]);
        }
    };
    let tier = workspace.tier.map(|tier| tier.to_string());
    let tasks = workspace
        .active_tasks
        .map(|active| format!("{active} of at most {}", workspace.max_concurrent_tasks.unwrap_or(1)));
    let error_rate = workspace.last_error_rate.filter(|rate| *rate > 0.0).map(|rate| format!("{:.0} %", rate * 100.0));
    let heard = workspace.last_heartbeat_at.map(|time| list::ago(Some(time), SystemClock.now()));
    row("name", Some(&workspace.name));
    row("id", Some(&workspace.id));
    row("status", Some(&workspace.status));
    row("reason", workspace.reason());
    row("role", workspace.role.as_deref());
    row("runtime", workspace.runtime.as_deref());
    row("tier", tier.as_deref());
    row("tasks", tasks.as_deref());
    row("task", workspace.current_task.as_deref());
    row("error rate", error_rate.as_deref());
    row("up", Some(&list::up(workspace.uptime_seconds)));
    row("heard", heard.as_deref());
    row("url", workspace.url.as_deref());
    row("parent", workspace.parent_id.as_deref());
    row("folder", workspace.workspace_dir.as_deref());
    output::print_table(table)
}
