//! Stops workspaces until somebody resumes them.

use serde_json::json;

use super::{
    Status,
    lifecycle::{PATIENCE_WITH_RACES, raced},
};
use crate::{
    control_plane::ControlPlane,
    error::{Error, Result},
    events::EventKind,
    id::WorkspaceId,
    provisioner::stop::{Leaves, Source, could_not_stop},
};

/// What a resume did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The status of the workspace now: that of a try, or of an external one that waits for its agent.
    pub status: Status,
    /// How many workspaces were resumed, it included.
    pub count: usize,
}

impl ControlPlane {
    /// Pauses a workspace and all below it, and stops what runs there. Gives how many were paused.
    ///
    /// What they keep stays. The agents of external ones are not stopped; what they say moves nothing any more.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown, removed or paused workspace;
    /// [`ErrorKind::Unexpected`](crate::ErrorKind::Unexpected) with `paused_count` and `stop_failures` where a backend
    /// could not be stopped: all stay paused.
    pub async fn pause(&self, id: WorkspaceId) -> Result<usize> {
        for _ in 0..PATIENCE_WITH_RACES {
            let mut steps = Vec::new();
            for workspace in self.tree(id).await? {
                if matches!(workspace.status, Status::Removed | Status::Paused) {
                    continue;
                }
                let event = self.event(EventKind::WorkspacePaused, workspace.id, json!({"name": workspace.name}));
                steps.push((workspace.id, workspace.status.to(Status::Paused)?, event));
            }
            if !steps.iter().any(|(step, ..)| *step == id) {
                return Err(Error::not_found("workspace not found or already paused").context("workspace.id", id));
            }
            if !self.inner.store.halt(&steps).await? {
                continue;
            }
            let mut paused = Vec::new();
            for (id, _, event) in steps {
                self.inner.attempts.give_up(id);
                self.announce(event);
                paused.push(id);
            }
            let count = paused.len();
            let failures = self.stop_all(paused, Status::Paused, Leaves::Storage).await?;
            return match failures.is_empty() {
                true => Ok(count),
                false => Err(could_not_stop(&failures, count, "paused_count", count)),
            };
        }
        Err(raced(id))
    }

    /// Resumes a paused workspace and all that are paused below it: each begins a new try, or waits for its agent.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) unless it is paused;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where there is something to start and no backend;
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) below a paused workspace.
    pub async fn resume(&self, id: WorkspaceId) -> Result<Resumed> {
        let mut paused = self.tree(id).await?;
        paused.retain(|workspace| workspace.status == Status::Paused);
        let not_paused = || Error::not_found("workspace not found or not paused").context("workspace.id", id);
        let own = paused.iter().position(|workspace| workspace.id == id).ok_or_else(not_paused)?;
        let own = paused.remove(own);
        if !own.is_external() || paused.iter().any(|workspace| !workspace.is_external()) {
            self.demand_backend()?;
        }
        self.refuse_below_paused(&own).await?;
        let status = if own.is_external() { Status::AwaitingAgent } else { Status::Provisioning };
        let mut count = 0;
        // It comes last: as long as it is paused the call can be repeated.
        for workspace in paused.into_iter().chain([own]) {
            let (member, external) = (workspace.id, workspace.is_external());
            let resumed = if external {
                let payload = json!({"name": workspace.name, "external": true});
                let event = self.event(EventKind::WorkspaceAwaitingAgent, member, payload);
                let step = workspace.status.to(Status::AwaitingAgent)?;
                let resumed = self.inner.store.step(member, step, &event).await?;
                if resumed {
                    self.announce(event);
                }
                resumed
            } else {
                self.begin_attempt(workspace, Source::Restart, false).await?
            };
            count += usize::from(resumed);
            if member == id && !resumed {
                return Err(not_paused());
            }
        }
        Ok(Resumed { status, count })
    }
}
