//! Stops idle workspaces until a message wakes them.

use serde_json::json;

use super::{
    Status, Workspace,
    lifecycle::{gone_is_not_found, said},
};
use crate::{
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    events::EventKind,
    id::WorkspaceId,
    provisioner::stop::{Leaves, Source, could_not_stop},
};

/// When whoever finds a workspace asleep should call again, in seconds.
const WAKES_WITHIN: u64 = 15;

impl ControlPlane {
    /// Hibernates a workspace: it is claimed, stopped, and then sleeps until the next message. What it keeps stays.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] unless it is online or degraded and runs here; [`ErrorKind::Conflict`] where its agent
    /// works and it is not `forced`, or where it moved meanwhile; [`ErrorKind::Unexpected`] with `stop_failures` where it
    /// could not be stopped: it stays claimed, and the next message wakes it all the same.
    pub async fn hibernate(&self, id: WorkspaceId, forced: bool) -> Result<()> {
        let unfit = || {
            let text = "workspace not found or not in a hibernatable state (must be online or degraded)";
            Error::not_found(text).context("workspace.id", id)
        };
        let workspace = self.existing(id).await.map_err(gone_is_not_found).map_err(|error| match error.kind() {
            ErrorKind::NotFound => unfit(),
            _ => error,
        })?;
        if workspace.is_external() || !matches!(workspace.status, Status::Online | Status::Degraded) {
            return Err(unfit());
        }
        self.demand_backend()?;
        if !forced {
            if workspace.active_tasks > 0 {
                let text = "workspace has active tasks; use ?force=true to terminate them";
                return Err(Error::new(ErrorKind::Conflict, text).with_member("active_tasks", workspace.active_tasks));
            }
            // The claim goes by the row, and memory may know of later tasks.
            self.save_telemetry().await?;
        }
        let step = workspace.status.to(Status::Hibernating)?;
        if !self.inner.store.claim_for_hibernation(id, step, forced, self.now()).await? {
            let text = "the workspace moved on, or began to work, while it was to hibernate";
            return Err(Error::new(ErrorKind::Conflict, text).context("workspace.id", id));
        }
        self.inner.attempts.give_up(id);
        let this = self.clone();
        let finishing = self.inner.tasks.spawn(async move { this.finish_hibernation(&workspace).await });
        finishing.await.map_err(|error| Error::new(ErrorKind::Unexpected, "hibernation failed").caused_by(error))?
    }

    /// Stops a workspace that was claimed, and notes that it sleeps. Without effect where it has moved on.
    pub(crate) async fn finish_hibernation(&self, workspace: &Workspace) -> Result<()> {
        let id = workspace.id;
        let failures = self.stop_all(vec![id], Status::Hibernating, Leaves::Storage).await?;
        if !failures.is_empty() {
            return Err(could_not_stop(&failures, 1, "hibernated_count", 0));
        }
        let payload = json!({"name": workspace.name, "tier": workspace.tier});
        let event = self.event(EventKind::WorkspaceHibernated, id, payload);
        let step = (id, Status::Hibernating.to(Status::Hibernated)?, event);
        if self
            .inner
            .store
            .halt(std::slice::from_ref(&step))
            .await
            .map_err(|error| said(error, "hibernation failed"))?
        {
            self.announce(step.2);
        }
        Ok(())
    }

    /// Wakes a workspace that sleeps, for a message: of several that ask, one begins the try. Gives what the sender is
    /// told, which is to call again.
    ///
    /// # Errors
    /// Where it cannot be woken, as [`ControlPlane::restart`].
    pub(crate) async fn wake(&self, workspace: Workspace) -> Result<Error> {
        self.demand_backend()?;
        self.refuse_below_paused(&workspace).await?;
        let id = workspace.id;
        if self.begin_attempt(workspace, Source::AutoRestart, false).await? {
            tracing::info!(workspace.id = %id, "a message wakes it");
        }
        let text = format!("workspace is waking from hibernation — retry in ~{WAKES_WITHIN} seconds");
        Ok(Error::new(ErrorKind::Unavailable, text)
            .with_member("waking", true)
            .with_member("retry_after", WAKES_WITHIN))
    }
}
