//! `molecule list`

use std::time::Duration;

use chrono::{DateTime, Utc};
use molecule_core::{
    clock::{Clock, SystemClock},
    error::Result,
};

use super::{Session, output, spinner::short, workspace};

/// Prints the workspaces, oldest first.
pub(crate) async fn run(session: &Session) -> Result<()> {
    let (workspaces, answer) = workspace::list(&session.client).await?;
    if session.json {
        return output::json(&answer.text);
    }
    if workspaces.is_empty() {
        return output::line("no workspaces yet; create one with: molecule create NAME");
    }
    let now = SystemClock.now();
    // Not every server tells when it last heard of an agent.
    let heard = workspaces.iter().any(|workspace| workspace.last_heartbeat_at.is_some());
    let titles = ["NAME", "STATUS", "RUNTIME", "TIER", "TASKS", "UP"];
    let mut table = output::table(titles.into_iter().chain(heard.then_some("HEARD")).chain(["ID"]));
    for workspace in &workspaces {
        let mut row = vec![
            output::cell(&workspace.name),
            output::status(&workspace.status),
            output::cell(workspace.runtime.as_deref().unwrap_or("-")),
            output::number(workspace.tier.unwrap_or_default()),
            output::number(workspace.active_tasks.unwrap_or_default()),
            output::number(up(workspace.uptime_seconds)),
        ];
        if heard {
            row.push(output::number(ago(workspace.last_heartbeat_at, now)));
        }
        row.push(output::cell(&workspace.id));
        table.add_row(row);
    }
    output::print_table(table)
}

/// How long the agent has been up; a dash where it never said so.
pub(crate) fn up(seconds: Option<u64>) -> String {
    seconds.filter(|seconds| *seconds > 0).map_or_else(|| "-".to_owned(), |seconds| short(Duration::from_secs(seconds)))
}

/// How long ago `time` was; a dash for never.
pub(crate) fn ago(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{} ago", short((now - time).to_std().unwrap_or_default())))
}
