//! Secrets of a workspace, and those that every workspace is given.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use molecule_core::{Error, secrets::SecretInfo};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Operator, Own},
    named::{Named, SecretName},
    state::AppState,
};

/// A secret to keep.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SecretRequest {
    /// Letters, digits and `_`, not beginning with a digit.
    key: String,
    /// At most 64 KiB.
    #[schema(value_type = String)]
    value: SecretString,
}

impl SecretRequest {
    fn parse(body: &Body) -> ApiResult<Self> {
        const MESSAGE: &str = "invalid request body";
        let request: Self = body.parse(MESSAGE)?;
        if request.key.is_empty() || request.value.expose_secret().is_empty() {
            return Err(Error::invalid(MESSAGE).with_member("detail", "key and value must not be empty").into());
        }
        Ok(request)
    }
}

/// What may be shown of a secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretView {
    key: String,
    has_value: bool,
    /// `workspace` or `global`.
    scope: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<SecretInfo> for SecretView {
    fn from(secret: SecretInfo) -> Self {
        Self {
            key: secret.key,
            has_value: true,
            scope: secret.scope.as_str(),
            created_at: secret.created_at,
            updated_at: secret.updated_at,
        }
    }
}

/// What became of a secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretDoneView {
    /// `saved` or `deleted`.
    status: &'static str,
    key: String,
    /// `global`; left out for a workspace's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
}

fn done(status: &'static str, key: String) -> Json<SecretDoneView> {
    Json(SecretDoneView { status, key, scope: None })
}

fn done_globally(status: &'static str, key: String) -> Json<SecretDoneView> {
    Json(SecretDoneView { status, key, scope: Some("global") })
}

/// Lists what a workspace is given: its own secrets, then the global ones. Never values.
#[utoipa::path(get, path = "/workspaces/{id}/secrets", tag = "secrets", params(("id" = Uuid, Path)),
    responses((status = 200, body = [SecretView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<SecretView>>> {
    let secrets = app.control_plane.secrets(id).await?;
    Ok(Json(secrets.into_iter().map(SecretView::from).collect()))
}

/// Keeps a secret of a workspace, and restarts it.
#[utoipa::path(method(post, put), path = "/workspaces/{id}/secrets", tag = "secrets", params(("id" = Uuid, Path)),
    request_body = SecretRequest,
    responses((status = 200, body = SecretDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn set(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<SecretDoneView>> {
    let SecretRequest { key, value } = SecretRequest::parse(&body)?;
    app.control_plane.set_secret(id, &key, &value).await?;
    Ok(done("saved", key))
}

/// Deletes a secret of a workspace, and restarts it.
#[utoipa::path(delete, path = "/workspaces/{id}/secrets/{key}", tag = "secrets",
    params(("id" = Uuid, Path), ("key" = String, Path)),
    responses((status = 200, body = SecretDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Own(id): Own,
    Named(SecretName(key)): Named<SecretName>,
) -> ApiResult<Json<SecretDoneView>> {
    app.control_plane.delete_secret(id, &key).await?;
    Ok(done("deleted", key))
}

/// Hands out the values that a workspace is given: all of them, or none.
#[utoipa::path(get, path = "/workspaces/{id}/secrets/values", tag = "secrets", params(("id" = Uuid, Path)),
    responses((status = 200, body = BTreeMap<String, String>), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn values(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<BTreeMap<String, String>>> {
    let values = app.control_plane.secret_values(id).await?;
    Ok(Json(values.into_iter().map(|(key, value)| (key, value.expose_secret().to_owned())).collect()))
}

/// Lists the secrets that every workspace is given. Never values.
#[utoipa::path(get, path = "/settings/secrets", tag = "secrets",
    responses((status = 200, body = [SecretView]), (status = 401, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list_global(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<SecretView>>> {
    let secrets = app.control_plane.global_secrets().await?;
    Ok(Json(secrets.into_iter().map(SecretView::from).collect()))
}

/// Keeps a secret of every workspace, and restarts those that are given it, a few at a time.
#[utoipa::path(method(post, put), path = "/settings/secrets", tag = "secrets", request_body = SecretRequest,
    responses((status = 200, body = SecretDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn set_global(
    State(app): State<AppState>,
    _: Operator,
    body: Body,
) -> ApiResult<Json<SecretDoneView>> {
    let SecretRequest { key, value } = SecretRequest::parse(&body)?;
    app.control_plane.set_global_secret(&key, &value).await?;
    Ok(done_globally("saved", key))
}

/// Deletes a secret of every workspace, and restarts those that were given it, a few at a time.
#[utoipa::path(delete, path = "/settings/secrets/{key}", tag = "secrets", params(("key" = String, Path)),
    responses((status = 200, body = SecretDoneView), (status = 401, body = ErrorView), (status = 404, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete_global(
    State(app): State<AppState>,
    _: Operator,
    Named(SecretName(key)): Named<SecretName>,
) -> ApiResult<Json<SecretDoneView>> {
    app.control_plane.delete_global_secret(&key).await?;
    Ok(done_globally("deleted", key))
}

/// As `GET /settings/secrets`.
#[utoipa::path(get, path = "/admin/secrets", tag = "secrets",
    responses((status = 200, body = [SecretView]), (status = 401, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list_admin(state: State<AppState>, operator: Operator) -> ApiResult<Json<Vec<SecretView>>> {
    list_global(state, operator).await
}

/// As `POST /settings/secrets`.
#[utoipa::path(post, path = "/admin/secrets", tag = "secrets", request_body = SecretRequest,
    responses((status = 200, body = SecretDoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn set_admin(
    state: State<AppState>,
    operator: Operator,
    body: Body,
) -> ApiResult<Json<SecretDoneView>> {
    set_global(state, operator, body).await
}

/// As `DELETE /settings/secrets/{key}`.
#[utoipa::path(delete, path = "/admin/secrets/{key}", tag = "secrets", params(("key" = String, Path)),
    responses((status = 200, body = SecretDoneView), (status = 401, body = ErrorView), (status = 404, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete_admin(
    state: State<AppState>,
    operator: Operator,
    key: Named<SecretName>,
) -> ApiResult<Json<SecretDoneView>> {
    delete_global(state, operator, key).await
}
