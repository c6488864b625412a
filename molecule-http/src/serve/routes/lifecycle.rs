//! Pause, resume, hibernate, expand and collapse workspaces, and tell where they are.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use molecule_core::workspace::{Resumed, Status, Workspace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ErrorView, status_schema};
use crate::serve::{
    error::ApiResult,
    guard::{Id, Own, Params, Presented},
    state::AppState,
};

/// Where a workspace is in its life. Of one that is gone only what is known is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StateView {
    workspace_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = status_schema, required = false)]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    deleted: bool,
}

/// How a workspace is hibernated.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct HibernateQuery {
    /// `true`: also while its agent works.
    force: Option<String>,
}

/// Pauses a workspace and all below it.
#[utoipa::path(post, path = "/workspaces/{id}/pause", tag = "lifecycle", params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn pause(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Value>> {
    let count = app.control_plane.pause(id).await?;
    Ok(Json(json!({"status": "paused", "paused_count": count})))
}

/// Resumes a paused workspace and all that are paused below it; answers before they are up.
#[utoipa::path(post, path = "/workspaces/{id}/resume", tag = "lifecycle", params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn resume(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Value>> {
    let Resumed { status, count } = app.control_plane.resume(id).await?;
    Ok(Json(json!({"status": status, "resumed_count": count})))
}

/// Hibernates an idle workspace: the next message wakes it.
#[utoipa::path(post, path = "/workspaces/{id}/hibernate", tag = "lifecycle",
    params(HibernateQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn hibernate(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<HibernateQuery>,
) -> ApiResult<Json<Value>> {
    app.control_plane.hibernate(id, query.force.as_deref() == Some("true")).await?;
    Ok(Json(json!({"status": Status::Hibernated})))
}

/// Makes the team of a workspace, as the template that is called like it names it.
#[utoipa::path(post, path = "/workspaces/{id}/expand", tag = "lifecycle", params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn expand(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Value>> {
    let made = app.control_plane.expand(id).await?;
    let child = |child: Workspace| json!({"id": child.id, "name": child.name, "role": child.role});
    Ok(Json(json!({"status": "expanded", "children": made.into_iter().map(child).collect::<Vec<_>>()})))
}

/// Removes all that is below a workspace.
#[utoipa::path(post, path = "/workspaces/{id}/collapse", tag = "lifecycle", params(("id" = Uuid, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn collapse(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Value>> {
    let removed = app.control_plane.collapse(id).await?;
    Ok(Json(json!({"status": "collapsed", "removed": removed})))
}

/// Tells where a workspace is in its life, also to the agent of one that is gone.
#[utoipa::path(get, path = "/workspaces/{id}/state", tag = "lifecycle", params(("id" = Uuid, Path)),
    responses((status = 200, body = StateView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = StateView), (status = 503, body = ErrorView)))]
pub(crate) async fn state(State(app): State<AppState>, Id(id): Id, presented: Presented) -> ApiResult<Response> {
    let Presented { credential, exposure } = presented;
    app.control_plane.admit_to_state(credential, id, exposure).await?;
    let status = app.control_plane.workspace(id).await?.map(|workspace| workspace.status);
    let gone = matches!(status, None | Some(Status::Removed));
    let view = StateView {
        workspace_id: id.as_uuid(),
        status: status.map(Status::as_str),
        paused: (!gone).then_some(status == Some(Status::Paused)),
        deleted: gone,
    };
    let code = if gone { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Ok((code, Json(view)).into_response())
}
