//! Memories that others may find: keep, look for, delete, and carry to another server.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    id::MemoryId,
    memory::{ExportedMemory, ImportedMemory, Memory, NewMemory, Recall},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ErrorView, values::DeletedView};
use crate::serve::{
    error::ApiResult,
    guard::{Body, BodyUpTo, Operator, Own, Params},
    named::Named,
    state::AppState,
};

/// The most that one import may hold, in bytes.
const IMPORT_LIMIT: usize = 64 * 1024 * 1024;

/// A memory to be kept.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RememberRequest {
    content: String,
    /// `LOCAL`, `TEAM` or `GLOBAL`.
    scope: String,
    /// `general` otherwise.
    namespace: Option<String>,
}

/// A memory that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RememberedView {
    id: Uuid,
    scope: &'static str,
    namespace: String,
}

/// Which memories to look for.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RecallQuery {
    /// `LOCAL`, `TEAM` or `GLOBAL`; the workspace's own of every scope otherwise.
    scope: Option<String>,
    /// Words that they hold.
    q: Option<String>,
    namespace: Option<String>,
    /// How many, 1 to 50; 50 otherwise.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
}

/// A memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemoryView {
    id: Uuid,
    workspace_id: Uuid,
    content: String,
    scope: &'static str,
    namespace: String,
    created_at: DateTime<Utc>,
}

impl From<Memory> for MemoryView {
    fn from(memory: Memory) -> Self {
        Self {
            id: memory.id.as_uuid(),
            workspace_id: memory.workspace_id.as_uuid(),
            content: memory.content,
            scope: memory.scope.as_str(),
            namespace: memory.namespace,
            created_at: memory.created_at,
        }
    }
}

/// A memory on its way to another server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExportedView {
    id: Uuid,
    content: String,
    scope: &'static str,
    namespace: String,
    created_at: DateTime<Utc>,
    workspace_name: String,
}

impl From<ExportedMemory> for ExportedView {
    fn from(memory: ExportedMemory) -> Self {
        Self {
            id: memory.id.as_uuid(),
            content: memory.content,
            scope: memory.scope.as_str(),
            namespace: memory.namespace,
            created_at: memory.created_at,
            workspace_name: memory.workspace_name,
        }
    }
}

/// A memory that comes from another server.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ImportEntry {
    #[serde(default)]
    content: String,
    #[serde(default)]
    scope: String,
    /// `general` otherwise.
    namespace: Option<String>,
    /// Now otherwise.
    created_at: Option<DateTime<Utc>>,
    #[serde(default)]
    workspace_name: String,
}

/// What became of an import.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportedMemoriesView {
    imported: usize,
    /// Those that were there already, and those whose workspace is not.
    skipped: usize,
    errors: usize,
    total: usize,
}

/// Keeps a memory of a workspace, without the secrets in it.
#[utoipa::path(post, path = "/workspaces/{id}/memories", tag = "memory", operation_id = "remember",
    params(("id" = Uuid, Path)), request_body = RememberRequest,
    responses((status = 201, body = RememberedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn remember(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<RememberedView>)> {
    const BAD_BODY: &str = "invalid request body";
    let request: RememberRequest = body.parse(BAD_BODY)?;
    if request.content.is_empty() || request.scope.is_empty() {
        return Err(Error::invalid(BAD_BODY).with_member("detail", "content and scope are required").into());
    }
    let new =
        NewMemory { content: request.content, scope: request.scope, namespace: request.namespace.unwrap_or_default() };
    let memory = app.control_plane.remember(id, &new).await?;
    let view = RememberedView { id: memory.id.as_uuid(), scope: memory.scope.as_str(), namespace: memory.namespace };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Looks for memories: by words the best first, otherwise the newest first.
#[utoipa::path(get, path = "/workspaces/{id}/memories", tag = "memory", operation_id = "recall",
    params(RecallQuery, ("id" = Uuid, Path)),
    responses((status = 200, body = [MemoryView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn recall(
    State(app): State<AppState>,
    Own(id): Own,
    Params(query): Params<RecallQuery>,
) -> ApiResult<Json<Vec<MemoryView>>> {
    let recall = Recall {
        scope: query.scope.unwrap_or_default(),
        query: query.q.unwrap_or_default(),
        namespace: query.namespace.unwrap_or_default(),
        limit: query.limit.and_then(|limit| limit.parse().ok()),
    };
    let found = app.control_plane.recall(id, &recall).await?;
    Ok(Json(found.into_iter().map(MemoryView::from).collect()))
}

/// Deletes a memory of a workspace.
#[utoipa::path(delete, path = "/workspaces/{id}/memories/{memory_id}", tag = "memory", operation_id = "forget",
    params(("id" = Uuid, Path), ("memory_id" = Uuid, Path)),
    responses((status = 200, body = DeletedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn forget(
    State(app): State<AppState>,
    Own(id): Own,
    Named(memory): Named<MemoryId>,
) -> ApiResult<Json<DeletedView>> {
    app.control_plane.forget(id, memory).await?;
    Ok(Json(DeletedView { status: "deleted" }))
}

/// Gives every memory, oldest first.
#[utoipa::path(get, path = "/admin/memories/export", tag = "memory", operation_id = "export_memories",
    responses((status = 200, body = [ExportedView]), (status = 401, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn export(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<ExportedView>>> {
    let all = app.control_plane.export_memories().await?;
    Ok(Json(all.into_iter().map(ExportedView::from).collect()))
}

/// Brings in what was exported, each memory for the workspace of its name.
#[utoipa::path(post, path = "/admin/memories/import", tag = "memory", operation_id = "import_memories",
    request_body = Vec<ImportEntry>,
    responses((status = 200, body = ImportedMemoriesView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn import(
    State(app): State<AppState>,
    _: Operator,
    BodyUpTo(body): BodyUpTo<IMPORT_LIMIT>,
) -> ApiResult<Json<ImportedMemoriesView>> {
    let invalid = |error: serde_json::Error| Error::invalid(format!("invalid JSON: {error}"));
    let entries: Vec<ImportEntry> = serde_json::from_slice(&body).map_err(invalid)?;
    let memories = entries.into_iter().map(|entry| ImportedMemory {
        content: entry.content,
        scope: entry.scope,
        namespace: entry.namespace.unwrap_or_default(),
        created_at: entry.created_at,
        workspace_name: entry.workspace_name,
    });
    let memories: Vec<_> = memories.collect();
    let total = memories.len();
    let done = app.control_plane.import_memories(memories).await;
    Ok(Json(ImportedMemoriesView { imported: done.imported, skipped: done.skipped, errors: done.errors, total }))
}
