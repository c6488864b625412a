//! Finds out whether an agent that did not answer is dead, and has it brought up again.

use serde_json::json;

use crate::{
    control_plane::{Backend, ControlPlane},
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    workspace::{Status, Workspace},
};

/// What a caller is told while a dead agent is brought up again.
pub(super) fn restarting() -> Error {
    Error::new(ErrorKind::Unavailable, "workspace agent unreachable — container restart triggered")
        .with_member("restarting", true)
}

impl ControlPlane {
    /// Whether the workload is gone and is being brought up again.
    pub(super) async fn found_dead(&self, workspace: &Workspace) -> bool {
        if workspace.is_external() {
            return false;
        }
        let running = match (&self.inner.backend, &workspace.instance_id) {
            (Backend::Local { provisioner, .. }, _) => provisioner.is_running(workspace.id).await,
            (Backend::ControlPlane(provisioner), Some(instance)) => {
                provisioner.is_running(workspace.id, instance).await
            }
            _ => return false,
        };
        match running {
            Ok(false) => {}
            Ok(true) => return false,
            Err(error) => {
                tracing::warn!(workspace.id = %workspace.id, error = error.detail(), "cannot tell whether it runs");
                return false;
            }
        }
        self.lose_dead(workspace.id).await.unwrap_or_else(|error| {
            tracing::error!(workspace.id = %workspace.id, error = error.detail(), "a dead workspace stays as it is");
            false
        })
    }

    /// Marks a dead workspace lost and brings it up again. Whether that is under way, by whomever it was begun.
    async fn lose_dead(&self, id: WorkspaceId) -> Result<bool> {
        let Some(row) = self.inner.store.workspace(id).await? else { return Ok(false) };
        if matches!(row.status, Status::Online | Status::Degraded) {
            let event = self.event(EventKind::WorkspaceOffline, id, json!({}));
            if self.inner.store.step(id, row.status.to(Status::Offline)?, &event).await? {
                self.announce(event);
            }
        }
        Ok(self.auto_restart(id).await? || self.inner.attempts.is_running(id))
    }
}
