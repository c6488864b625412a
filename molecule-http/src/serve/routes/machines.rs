//! What is known of machines from beside them.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Id, Operator},
    state::AppState,
};

/// Why a machine did not come up.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BootstrapFailedRequest {
    /// Empty where nobody knows.
    #[serde(default)]
    error: String,
    /// The end of what it wrote; the last 8192 bytes are kept.
    #[serde(default)]
    log_tail: String,
}

/// What a machine wrote to its console.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConsoleView {
    output: String,
}

/// Tells that the machine of a workspace did not come up.
#[utoipa::path(post, path = "/admin/workspaces/{id}/bootstrap-failed", tag = "admin", params(("id" = Uuid, Path)),
    request_body = BootstrapFailedRequest,
    responses((status = 200, body = Value), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn bootstrap_failed(
    State(app): State<AppState>,
    _: Operator,
    Id(id): Id,
    body: Body,
) -> ApiResult<Json<Value>> {
    let request: BootstrapFailedRequest = body.parse("invalid request body")?;
    let changed = app.control_plane.bootstrap_failed(id, &request.error, &request.log_tail).await?;
    Ok(Json(if changed { json!({"ok": true}) } else { json!({"ok": true, "no_change": true}) }))
}

/// Shows what the machine of a workspace wrote to its console.
#[utoipa::path(get, path = "/workspaces/{id}/console", tag = "admin", params(("id" = Uuid, Path)),
    responses((status = 200, body = ConsoleView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 501, body = ErrorView), (status = 502, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn console(State(app): State<AppState>, _: Operator, Id(id): Id) -> ApiResult<Json<ConsoleView>> {
    Ok(Json(ConsoleView { output: app.control_plane.console(id).await? }))
}
