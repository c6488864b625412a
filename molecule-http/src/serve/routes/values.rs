//! Values that an agent keeps by key: list, read, write, delete.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    memory::{SetValue, Value as Kept},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own},
    named::{Key, Named},
    state::AppState,
};

/// A value with its key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValueView {
    key: String,
    value: Value,
    /// How often it was written since it is there.
    version: i64,
    /// When it is gone, if ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
}

impl From<Kept> for ValueView {
    fn from(kept: Kept) -> Self {
        let Kept { key, value, version, expires_at, updated_at } = kept;
        Self { key, value, version, expires_at, updated_at }
    }
}

/// A value to be written.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SetValueRequest {
    #[serde(default)]
    key: String,
    /// Anything in JSON, `null` included.
    #[serde(default, deserialize_with = "present")]
    #[schema(required)]
    value: Option<Value>,
    /// How long it lasts; for ever otherwise.
    ttl_seconds: Option<i64>,
    /// Writes only over this version; 0 where none may be there.
    if_match_version: Option<i64>,
}

/// `null` where the member is there, and not as if it were left out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A value that was written.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrittenView {
    /// `ok`.
    status: &'static str,
    key: String,
    version: i64,
}

/// What became of something.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedView {
    /// `deleted`.
    pub(crate) status: &'static str,
}

/// Lists the values of a workspace by key.
#[utoipa::path(get, path = "/workspaces/{id}/memory", tag = "memory", operation_id = "list_values",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = [ValueView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<ValueView>>> {
    let values = app.control_plane.values(id).await?;
    Ok(Json(values.into_iter().map(ValueView::from).collect()))
}

/// Reads one value.
#[utoipa::path(get, path = "/workspaces/{id}/memory/{key}", tag = "memory", operation_id = "read_value",
    params(("id" = Uuid, Path), ("key" = String, Path)),
    responses((status = 200, body = ValueView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn read(
    State(app): State<AppState>,
    Own(id): Own,
    Named(Key(key)): Named<Key>,
) -> ApiResult<Json<ValueView>> {
    Ok(Json(app.control_plane.value(id, &key).await?.into()))
}

/// Writes one value, on request only over the version that the caller has seen.
#[utoipa::path(post, path = "/workspaces/{id}/memory", tag = "memory", operation_id = "write_value",
    params(("id" = Uuid, Path)), request_body = SetValueRequest,
    responses((status = 200, body = WrittenView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn write(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<WrittenView>> {
    let request: SetValueRequest = body.parse("invalid request body")?;
    if request.key.is_empty() {
        return Err(Error::invalid("key is required").into());
    }
    let set = SetValue {
        key: request.key,
        value: request.value.ok_or_else(|| Error::invalid("value is required"))?,
        ttl_seconds: request.ttl_seconds,
        if_match_version: request.if_match_version,
    };
    let version = app.control_plane.set_value(id, &set).await?;
    Ok(Json(WrittenView { status: "ok", key: set.key, version }))
}

/// Deletes one value. Where there is none nothing happens.
#[utoipa::path(delete, path = "/workspaces/{id}/memory/{key}", tag = "memory", operation_id = "delete_value",
    params(("id" = Uuid, Path), ("key" = String, Path)),
    responses((status = 200, body = DeletedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Own(id): Own,
    Named(Key(key)): Named<Key>,
) -> ApiResult<Json<DeletedView>> {
    app.control_plane.delete_value(id, &key).await?;
    Ok(Json(DeletedView { status: "deleted" }))
}
