//! How far workflows came.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    Store, clean,
    pool::{on_pool, row, statements},
};
use crate::{
    error::Result,
    id::{CheckpointId, WorkspaceId},
};

statements! {
    UPSERT = "INSERT INTO workflow_checkpoints (id, workspace_id, workflow_id, step_name, step_index, completed_at, \
                  payload) VALUES ($1, $2, $3, $4, $5, $6, $7) \
              ON CONFLICT (workspace_id, workflow_id, step_name) DO UPDATE SET step_index = excluded.step_index, \
                  completed_at = excluded.completed_at, payload = excluded.payload RETURNING id";
    LATEST = "SELECT id, workspace_id, workflow_id, step_name, step_index, completed_at, payload \
              FROM workflow_checkpoints WHERE workspace_id = $1 ORDER BY completed_at DESC, step_index DESC, id DESC LIMIT 1";
    LIST = "SELECT id, workspace_id, workflow_id, step_name, step_index, completed_at, payload \
            FROM workflow_checkpoints WHERE workspace_id = $1 AND workflow_id = $2 \
            ORDER BY step_index DESC, completed_at DESC, id DESC";
    DELETE = "DELETE FROM workflow_checkpoints WHERE workspace_id = $1 AND workflow_id = $2";
}

row! {
    /// A step of a workflow that is done.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Checkpoint {
        /// Its id, the same when the step is done again.
        pub id: CheckpointId,
        /// Whose workflow it is.
        pub workspace_id: WorkspaceId,
        /// The workflow.
        pub workflow_id: String,
        /// The step.
        pub step_name: String,
        /// Its place among the steps.
        pub step_index: i32,
        /// When it was done.
        pub completed_at: DateTime<Utc>,
        /// What the workflow needs to go on.
        pub payload: Option<Value>,
    }
}

impl Store {
    /// Keeps a step that is done, in place of the same step done before, and gives its id.
    pub(crate) async fn upsert_checkpoint(&self, checkpoint: &Checkpoint) -> Result<CheckpointId> {
        Ok(on_pool!(self.writer(), |p| sqlx::query_scalar(UPSERT)
            .bind(checkpoint.id)
            .bind(checkpoint.workspace_id)
            .bind(clean::text(&checkpoint.workflow_id))
            .bind(clean::text(&checkpoint.step_name))
            .bind(checkpoint.step_index)
            .bind(checkpoint.completed_at)
            .bind(checkpoint.payload.as_ref().map(clean::json))
            .fetch_one(p)
            .await)?)
    }

    /// The step that was done last, of any workflow.
    pub(crate) async fn latest_checkpoint(&self, id: WorkspaceId) -> Result<Option<Checkpoint>> {
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LATEST).bind(id).fetch_optional(p).await)?)
    }

    /// The steps of a workflow that are done, the furthest first.
    pub(crate) async fn checkpoints(&self, id: WorkspaceId, workflow: &str) -> Result<Vec<Checkpoint>> {
        let workflow = clean::text(workflow);
        Ok(on_pool!(self.reader(), |p| sqlx::query_as(LIST).bind(id).bind(&*workflow).fetch_all(p).await)?)
    }

    /// Deletes the steps of a workflow, and says how many there were.
    pub(crate) async fn delete_checkpoints(&self, id: WorkspaceId, workflow: &str) -> Result<u64> {
        let workflow = clean::text(workflow);
        Ok(on_pool!(self.writer(), |p| sqlx::query(DELETE)
            .bind(id)
            .bind(&*workflow)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))?)
    }
}
