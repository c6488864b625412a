//! How far workflows came, so that an agent that was restarted goes on from there.

use serde_json::Value;

use super::Checkpoint;
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, Result},
    id::{CheckpointId, WorkspaceId},
    workspace::lifecycle::{gone_is_not_found, said},
};

/// The longest names of a workflow and of its steps, in bytes: what an index of both databases takes.
const NAME_LIMIT: usize = 1024;

/// A step that is done.
#[derive(Debug, Clone, Default)]
pub struct NewCheckpoint {
    /// The workflow.
    pub workflow_id: String,
    /// The step.
    pub step_name: String,
    /// Its place among the steps.
    pub step_index: i32,
    /// What the workflow needs to go on; kept as `null` where there is nothing.
    pub payload: Value,
}

impl ControlPlane {
    /// Keeps a step that is done, in place of the same step done before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a name that is too long;
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown or removed workspace.
    pub async fn keep_checkpoint(&self, id: WorkspaceId, new: NewCheckpoint) -> Result<Checkpoint> {
        if new.workflow_id.len() > NAME_LIMIT || new.step_name.len() > NAME_LIMIT {
            return Err(Error::invalid(format!("workflow_id and step_name must be <= {NAME_LIMIT} bytes")));
        }
        self.existing(id).await.map_err(gone_is_not_found)?;
        let mut checkpoint = Checkpoint {
            id: CheckpointId::from_uuid(random_uuid(&*self.inner.entropy)),
            workspace_id: id,
            workflow_id: new.workflow_id,
            step_name: new.step_name,
            step_index: new.step_index,
            completed_at: self.now(),
            payload: Some(new.payload),
        };
        let kept = self.inner.store.upsert_checkpoint(&checkpoint).await;
        checkpoint.id = kept.map_err(|error| said(error, "failed to upsert checkpoint"))?;
        Ok(checkpoint)
    }

    /// The step that was done last, of any workflow.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where none is.
    pub async fn latest_checkpoint(&self, id: WorkspaceId) -> Result<Checkpoint> {
        let latest = self.inner.store.latest_checkpoint(id).await;
        latest
            .map_err(|error| said(error, "failed to fetch latest checkpoint"))?
            .ok_or_else(|| Error::not_found("no checkpoints found for workspace").context("workspace.id", id))
    }

    /// The steps of a workflow that are done, the furthest first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where none is.
    pub async fn checkpoints(&self, id: WorkspaceId, workflow: &str) -> Result<Vec<Checkpoint>> {
        let steps = self.inner.store.checkpoints(id, workflow).await;
        let steps = steps.map_err(|error| said(error, "failed to list checkpoints"))?;
        if steps.is_empty() { Err(none_of(id)) } else { Ok(steps) }
    }

    /// Deletes the steps of a workflow, and says how many there were.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there were none.
    pub async fn delete_checkpoints(&self, id: WorkspaceId, workflow: &str) -> Result<u64> {
        let deleted = self.inner.store.delete_checkpoints(id, workflow).await;
        match deleted.map_err(|error| said(error, "failed to delete checkpoints"))? {
            0 => Err(none_of(id)),
            deleted => Ok(deleted),
        }
    }
}

fn none_of(id: WorkspaceId) -> Error {
    Error::not_found("no checkpoints found for workflow").context("workspace.id", id)
}
