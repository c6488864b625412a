//! The record of which model the agent of a workspace is.

use axum::{Json, extract::State, http::StatusCode};
use molecule_core::{Error, id::WorkspaceId};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Id, Operator, Own},
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// Which model the agent is.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AgentRequest {
    /// At most 100 characters.
    model: String,
}

/// Where an agent goes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MoveRequest {
    target_workspace_id: String,
}

/// Gives a workspace its agent.
#[utoipa::path(post, path = "/workspaces/{id}/agent", tag = "agents", params(("id" = Uuid, Path)),
    request_body = AgentRequest,
    responses((status = 201, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn assign(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let request: AgentRequest = body.parse(BAD_BODY)?;
    let agent = app.control_plane.assign_agent(id, &request.model).await?;
    Ok((StatusCode::CREATED, Json(json!({"agent_id": agent.id, "model": agent.model}))))
}

/// Puts another agent in the place of the one that a workspace has.
#[utoipa::path(patch, path = "/workspaces/{id}/agent", tag = "agents", params(("id" = Uuid, Path)),
    request_body = AgentRequest,
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn replace(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<Value>> {
    let request: AgentRequest = body.parse(BAD_BODY)?;
    let replaced = app.control_plane.replace_agent(id, &request.model).await?;
    let agent = replaced.agent;
    Ok(Json(json!({"agent_id": agent.id, "model": agent.model, "old_model": replaced.old_model})))
}

/// Takes the agent of a workspace away.
#[utoipa::path(delete, path = "/workspaces/{id}/agent", tag = "agents", params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn remove(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Value>> {
    let agent = app.control_plane.remove_agent(id).await?;
    Ok(Json(json!({"status": "removed", "agent_id": agent.id})))
}

/// Gives the agent of one workspace to another.
#[utoipa::path(post, path = "/workspaces/{id}/agent/move", tag = "agents", params(("id" = Uuid, Path)),
    request_body = MoveRequest,
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn relocate(
    State(app): State<AppState>,
    _: Operator,
    Id(id): Id,
    body: Body,
) -> ApiResult<Json<Value>> {
    let request: MoveRequest = body.parse(BAD_BODY)?;
    let no_uuid = |_| Error::invalid(BAD_BODY).with_member("detail", "target_workspace_id must be a UUID");
    let target: WorkspaceId = request.target_workspace_id.parse().map_err(no_uuid)?;
    let moved = app.control_plane.move_agent(id, target).await?;
    Ok(Json(json!({
        "agent_id": moved.agent.id,
        "model": moved.agent.model,
        "from_workspace": moved.from,
        "to_workspace": moved.to,
    })))
}
