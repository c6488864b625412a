//! What agents did: the log, their reports to it, their words to the user, and the search of a session.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    activity::{Activity, ActivityQuery, Attachment, Found, Report},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own, Params},
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// Which rows of the log to show. All that is given must hold; what is empty counts as left out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct ActivityParams {
    /// Those of this type.
    #[serde(rename = "type")]
    activity_type: String,
    /// `canvas` for what came from the operator or the server, `agent` for the rest.
    source: String,
    /// Those to or from this workspace.
    #[param(value_type = Uuid)]
    peer_id: String,
    /// Those of the last so many seconds, at most 30 days.
    #[param(value_type = u64)]
    since_secs: String,
    /// Those after the row of this id, oldest first; without it the newest come first.
    #[param(value_type = Uuid)]
    since_id: String,
    /// Those before this time.
    #[param(value_type = DateTime<Utc>)]
    before_ts: String,
    /// How many, 1 to 500; 100 otherwise.
    #[param(value_type = u32)]
    limit: String,
}

/// A row of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivityView {
    id: Uuid,
    workspace_id: Uuid,
    activity_type: String,
    source_id: Option<Uuid>,
    target_id: Option<Uuid>,
    method: Option<String>,
    summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_trace: Option<Value>,
    duration_ms: Option<i32>,
    status: String,
    error_detail: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Activity> for ActivityView {
    fn from(row: Activity) -> Self {
        Self {
            id: row.id.as_uuid(),
            workspace_id: row.workspace_id.as_uuid(),
            activity_type: row.activity_type,
            source_id: row.source_id.map(|id| id.as_uuid()),
            target_id: row.target_id.map(|id| id.as_uuid()),
            method: row.method,
            summary: row.summary,
            request_body: row.request_body,
            response_body: row.response_body,
            tool_trace: row.tool_trace,
            duration_ms: row.duration_ms,
            status: row.status,
            error_detail: row.error_detail,
            created_at: row.created_at,
        }
    }
}

/// What an agent did.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ReportRequest {
    /// `a2a_send`, `a2a_receive`, `task_update`, `agent_log`, `skill_promotion`, `memory_write` or `error`.
    activity_type: String,
    method: Option<String>,
    summary: Option<String>,
    /// The workspace it was done to.
    target_id: Option<String>,
    /// The workspace itself, if anything.
    source_id: Option<String>,
    /// `ok` unless something else is said.
    status: Option<String>,
    error_detail: Option<String>,
    duration_ms: Option<i64>,
    request_body: Option<Value>,
    response_body: Option<Value>,
    /// Stands for `request_body` where that is left out.
    metadata: Option<Value>,
}

impl From<ReportRequest> for Report {
    fn from(request: ReportRequest) -> Self {
        Self {
            activity_type: request.activity_type,
            method: request.method,
            summary: request.summary,
            target_id: request.target_id.unwrap_or_default(),
            source_id: request.source_id.unwrap_or_default(),
            status: request.status.unwrap_or_default(),
            error_detail: request.error_detail,
            duration_ms: request.duration_ms,
            request_body: request.request_body,
            response_body: request.response_body,
            metadata: request.metadata,
        }
    }
}

/// What an agent says to its user.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NotifyRequest {
    #[serde(default)]
    message: Option<String>,
    attachments: Option<Vec<AttachmentRequest>>,
}

/// A file beside a message.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AttachmentRequest {
    uri: Option<String>,
    name: Option<String>,
    #[serde(rename = "mimeType")]
    mime_type: Option<String>,
    size: Option<i64>,
}

impl From<AttachmentRequest> for Attachment {
    fn from(request: AttachmentRequest) -> Self {
        Self {
            uri: request.uri.unwrap_or_default(),
            name: request.name.unwrap_or_default(),
            mime_type: request.mime_type,
            size: request.size,
        }
    }
}

/// That something was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DoneView {
    status: &'static str,
}

/// What to look for in a session.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct SearchParams {
    /// Text that is held, in whatever case; everything where it is left out.
    q: String,
    /// How many, 1 to 200; 50 otherwise.
    #[param(value_type = u32)]
    limit: String,
}

/// Something that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundView {
    /// `activity` or `memory`.
    kind: String,
    id: Uuid,
    workspace_id: Uuid,
    /// The type of an activity, or the scope of a memory.
    label: String,
    content: String,
    method: String,
    status: String,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<Value>,
}

/// Shows a page of the log of a workspace: newest first, or, after `since_id`, oldest first.
#[utoipa::path(get, path = "/workspaces/{id}/activity", tag = "activity", params(ActivityParams, ("id" = Uuid, Path)),
    responses((status = 200, body = [ActivityView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 410, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Own(id): Own,
    Params(params): Params<ActivityParams>,
) -> ApiResult<Json<Vec<ActivityView>>> {
    let query = ActivityQuery {
        activity_type: params.activity_type,
        source: params.source,
        peer_id: params.peer_id,
        since_secs: params.since_secs,
        since_id: params.since_id,
        before_ts: params.before_ts,
        limit: params.limit,
    };
    let rows = app.control_plane.activity(id, &query).await?;
    Ok(Json(rows.into_iter().map(ActivityView::from).collect()))
}

/// Keeps what an agent says to have done.
#[utoipa::path(post, path = "/workspaces/{id}/activity", tag = "activity", params(("id" = Uuid, Path)),
    request_body = ReportRequest,
    responses((status = 200, body = DoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn report(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<DoneView>> {
    let request: ReportRequest = body.parse(BAD_BODY)?;
    if request.activity_type.is_empty() {
        return Err(Error::invalid(BAD_BODY).into());
    }
    app.control_plane.report(id, request.into()).await?;
    Ok(Json(DoneView { status: "logged" }))
}

/// Tells the user of a workspace what its agent says.
#[utoipa::path(post, path = "/workspaces/{id}/notify", tag = "activity", params(("id" = Uuid, Path)),
    request_body = NotifyRequest,
    responses((status = 200, body = DoneView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn notify(State(app): State<AppState>, Own(id): Own, body: Body) -> ApiResult<Json<DoneView>> {
    let request: NotifyRequest = body.parse("message is required")?;
    let files: Vec<Attachment> = request.attachments.unwrap_or_default().into_iter().map(Attachment::from).collect();
    app.control_plane.notify(id, &request.message.unwrap_or_default(), &files).await?;
    Ok(Json(DoneView { status: "sent" }))
}

/// Finds what the session of a workspace holds of a text, newest first.
#[utoipa::path(get, path = "/workspaces/{id}/session-search", tag = "activity",
    params(SearchParams, ("id" = Uuid, Path)),
    responses((status = 200, body = [FoundView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn search(
    State(app): State<AppState>,
    Own(id): Own,
    Params(params): Params<SearchParams>,
) -> ApiResult<Json<Vec<FoundView>>> {
    let view = |found: Found| FoundView {
        kind: found.kind,
        id: found.id,
        workspace_id: id.as_uuid(),
        label: found.label,
        content: found.content,
        method: found.method,
        status: found.status,
        created_at: found.created_at,
        request_body: found.request_body,
        response_body: found.response_body,
    };
    let found = app.control_plane.search_session(id, &params.q, &params.limit).await?;
    Ok(Json(found.into_iter().map(view).collect()))
}
