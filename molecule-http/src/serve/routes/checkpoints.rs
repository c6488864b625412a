//! How far workflows came: keep, read, delete.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    records::{Checkpoint, NewCheckpoint},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own},
    named::{Key, Named},
    state::AppState,
};

/// A step that is done.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CheckpointRequest {
    workflow_id: String,
    step_name: String,
    /// Its place among the steps; 0 otherwise.
    #[serde(default)]
    step_index: i32,
    /// What the workflow needs to go on.
    #[serde(default)]
    payload: Value,
}

/// A step that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeptCheckpointView {
    id: Uuid,
    workspace_id: Uuid,
    workflow_id: String,
    step_name: String,
}

/// A step that is done, and what the workflow needs to go on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckpointView {
    id: Uuid,
    workspace_id: Uuid,
    workflow_id: String,
    step_name: String,
    step_index: i32,
    completed_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
}

impl From<Checkpoint> for CheckpointView {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            id: checkpoint.id.as_uuid(),
            workspace_id: checkpoint.workspace_id.as_uuid(),
            workflow_id: checkpoint.workflow_id,
            step_name: checkpoint.step_name,
            step_index: checkpoint.step_index,
            completed_at: checkpoint.completed_at,
            payload: checkpoint.payload,
        }
    }
}

/// Steps that are no longer kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedCheckpointsView {
    /// How many.
    deleted: u64,
    workflow_id: String,
}

/// Keeps a step that is done, in place of the same step done before.
#[utoipa::path(post, path = "/workspaces/{id}/checkpoints", tag = "records", operation_id = "keep_checkpoint",
    params(("id" = Uuid, Path)), request_body = CheckpointRequest,
    responses((status = 201, body = KeptCheckpointView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn keep(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<KeptCheckpointView>)> {
    const BAD_BODY: &str = "invalid request body";
    let CheckpointRequest { workflow_id, step_name, step_index, payload } = body.parse(BAD_BODY)?;
    if workflow_id.is_empty() || step_name.is_empty() {
        return Err(Error::invalid(BAD_BODY).with_member("detail", "workflow_id and step_name are required").into());
    }
    let new = NewCheckpoint { workflow_id, step_name, step_index, payload };
    let kept = app.control_plane.keep_checkpoint(id, new).await?;
    let view = KeptCheckpointView {
        id: kept.id.as_uuid(),
        workspace_id: kept.workspace_id.as_uuid(),
        workflow_id: kept.workflow_id,
        step_name: kept.step_name,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Gives the step that was done last, of any workflow.
#[utoipa::path(get, path = "/workspaces/{id}/checkpoints/latest", tag = "records", operation_id = "latest_checkpoint",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = CheckpointView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn latest(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<CheckpointView>> {
    Ok(Json(app.control_plane.latest_checkpoint(id).await?.into()))
}

/// Lists the steps of a workflow that are done, the furthest first.
#[utoipa::path(get, path = "/workspaces/{id}/checkpoints/{key}", tag = "records", operation_id = "list_checkpoints",
    params(("id" = Uuid, Path), ("key" = String, Path, description = "The workflow.")),
    responses((status = 200, body = [CheckpointView]), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Own(id): Own,
    Named(Key(workflow)): Named<Key>,
) -> ApiResult<Json<Vec<CheckpointView>>> {
    let steps = app.control_plane.checkpoints(id, &workflow).await?;
    Ok(Json(steps.into_iter().map(CheckpointView::from).collect()))
}

/// Deletes the steps of a workflow.
#[utoipa::path(delete, path = "/workspaces/{id}/checkpoints/{key}", tag = "records",
    operation_id = "delete_checkpoints",
    params(("id" = Uuid, Path), ("key" = String, Path, description = "The workflow.")),
    responses((status = 200, body = DeletedCheckpointsView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Own(id): Own,
    Named(Key(workflow)): Named<Key>,
) -> ApiResult<Json<DeletedCheckpointsView>> {
    let deleted = app.control_plane.delete_checkpoints(id, &workflow).await?;
    Ok(Json(DeletedCheckpointsView { deleted, workflow_id: workflow }))
}
