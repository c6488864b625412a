//! Which model a workspace uses, and which provider serves it.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own},
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// Where a choice comes from.
fn source(choice: Option<&String>) -> &'static str {
    if choice.is_some() { "workspace_secrets" } else { "default" }
}

/// What was done so that this is the choice.
fn status(choice: Option<&String>) -> &'static str {
    if choice.is_some() { "saved" } else { "cleared" }
}

/// The model of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelView {
    /// Empty where that is left to the template.
    model: String,
    /// `workspace_secrets` or `default`.
    source: &'static str,
}

/// The provider of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProviderView {
    /// Empty where that is left to the runtime.
    provider: String,
    /// `workspace_secrets` or `default`.
    source: &'static str,
}

/// A model to use; empty for none.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelRequest {
    model: String,
}

/// A provider to use; empty for none.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ProviderRequest {
    provider: String,
}

/// What became of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelDoneView {
    /// `saved` or `cleared`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

/// What became of a provider.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProviderDoneView {
    /// `saved` or `cleared`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
}

/// Shows the model that was chosen for a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/model", tag = "secrets", params(("id" = Uuid, Path)),
    responses((status = 200, body = ModelView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn model(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<ModelView>> {
    let model = app.control_plane.model(id).await?;
    Ok(Json(ModelView { source: source(model.as_ref()), model: model.unwrap_or_default() }))
}

/// Chooses the model of a workspace, and restarts it.
#[utoipa::path(put, path = "/workspaces/{id}/model", tag = "secrets", params(("id" = Uuid, Path)),
    request_body = ModelRequest,
    responses((status = 200, body = ModelDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn set_model(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<ModelDoneView>> {
    let request: ModelRequest = body.parse(BAD_BODY)?;
    let model = app.control_plane.set_model(id, &request.model).await?;
    Ok(Json(ModelDoneView { status: status(model.as_ref()), model }))
}

/// Shows the provider that was chosen for a workspace.
#[utoipa::path(get, path = "/workspaces/{id}/provider", tag = "secrets", params(("id" = Uuid, Path)),
    responses((status = 200, body = ProviderView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn provider(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<ProviderView>> {
    let provider = app.control_plane.provider(id).await?;
    Ok(Json(ProviderView { source: source(provider.as_ref()), provider: provider.unwrap_or_default() }))
}

/// Chooses the provider of a workspace, and restarts it.
#[utoipa::path(put, path = "/workspaces/{id}/provider", tag = "secrets", params(("id" = Uuid, Path)),
    request_body = ProviderRequest,
    responses((status = 200, body = ProviderDoneView), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn set_provider(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<Json<ProviderDoneView>> {
    let request: ProviderRequest = body.parse(BAD_BODY)?;
    let provider = app.control_plane.set_provider(id, &request.provider).await?;
    Ok(Json(ProviderDoneView { status: status(provider.as_ref()), provider }))
}
