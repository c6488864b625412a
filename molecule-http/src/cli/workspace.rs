//! What the commands read of a workspace. Members that a server leaves out or adds do no harm.

use chrono::{DateTime, Utc};
use molecule_core::error::Result;
use serde::Deserialize;

use super::client::{Answer, Client};

/// A workspace as the server shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) role: Option<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) tier: Option<i64>,
    pub(crate) url: Option<String>,
    pub(crate) parent_id: Option<String>,
    pub(crate) active_tasks: Option<i64>,
    pub(crate) max_concurrent_tasks: Option<i64>,
    pub(crate) current_task: Option<String>,
    pub(crate) last_sample_error: Option<String>,
    pub(crate) last_error_rate: Option<f64>,
    pub(crate) last_heartbeat_at: Option<DateTime<Utc>>,
    pub(crate) uptime_seconds: Option<u64>,
    pub(crate) workspace_dir: Option<String>,
    pub(crate) provision_timeout_ms: Option<u64>,
}

impl Workspace {
    /// How to name the workspace in a command: by its name where the shell takes that as it is, else by its id.
    pub(crate) fn handle(&self) -> &str {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match !self.name.is_empty() && self.name.chars().all(plain) && !self.name.starts_with('-') {
            true => &self.name,
            false => &self.id,
        }
    }

    /// Why it is not well, if it said so.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.last_sample_error.as_deref().filter(|reason| !reason.is_empty())
    }
}

/// The workspaces, and the answer they came in.
pub(crate) async fn list(client: &Client) -> Result<(Vec<Workspace>, Answer)> {
    let answer = client.get(&["workspaces"]).await?;
    Ok((answer.parse()?, answer))
}

/// The workspace `id`, and the answer it came in.
pub(crate) async fn get(client: &Client, id: &str) -> Result<(Workspace, Answer)> {
    let answer = client.get(&["workspaces", id]).await?;
    Ok((answer.parse()?, answer))
}
