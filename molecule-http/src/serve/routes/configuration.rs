//! How a workspace is set up: read, patch.

use axum::{Json, extract::State};
use molecule_core::{Error, ErrorKind};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{BodyUpTo, Own},
    state::AppState,
};

/// The most that one patch may hold, in bytes.
const LIMIT: usize = 256 * 1024;

/// How a workspace is set up.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigurationView {
    /// Any JSON object.
    data: Value,
}

/// What became of a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpdatedView {
    /// `updated`.
    pub(crate) status: &'static str,
}

/// Says how a workspace is set up.
#[utoipa::path(get, path = "/workspaces/{id}/config", tag = "records", operation_id = "read_configuration",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = ConfigurationView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn read(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<ConfigurationView>> {
    Ok(Json(ConfigurationView { data: app.control_plane.configuration(id).await? }))
}

/// Sets the members that are given, whole, and leaves the others as they are.
#[utoipa::path(patch, path = "/workspaces/{id}/config", tag = "records", operation_id = "patch_configuration",
    params(("id" = Uuid, Path)), request_body = Value,
    responses((status = 200, body = UpdatedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn patch(
    State(app): State<AppState>,
    Own(id): Own,
    body: Result<BodyUpTo<LIMIT>, crate::serve::error::ApiError>,
) -> ApiResult<Json<UpdatedView>> {
    let BodyUpTo(body) = body.map_err(|refused| match refused.0.kind() {
        ErrorKind::TooLarge => refused.0.with_message("body too large or unreadable"),
        _ => refused.0,
    })?;
    let patch: Map<String, Value> = serde_json::from_slice(&body)
        .map_err(|error| Error::invalid("invalid JSON").with_member("detail", error.to_string()))?;
    app.control_plane.patch_configuration(id, &patch).await?;
    Ok(Json(UpdatedView { status: "updated" }))
}
