//! Delegations: hand over, record, update, list.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    activity::Activity,
    delegation::{Delegate, DelegationUpdate, Recorded},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own},
    named::{DelegationName, Named},
    state::AppState,
};

/// How much of a reply a list shows, in characters.
const SHOWN: usize = 300;

/// A task for another agent.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DelegateRequest {
    /// The workspace whose agent is to do it.
    target_id: String,
    task: String,
    /// A repeat with the same key is the same delegation.
    idempotency_key: Option<String>,
}

/// A delegation that was begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DelegatedView {
    delegation_id: String,
    /// `delegated`; for a repeat, how far it is.
    status: String,
    target_id: Uuid,
    /// An earlier call with the same key began it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    idempotent_hit: bool,
}

/// A delegation that an agent made by itself.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RecordRequest {
    target_id: String,
    task: String,
    delegation_id: String,
}

/// What became of a delegation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UpdateRequest {
    /// `completed` or `failed`.
    status: Option<String>,
    error: Option<String>,
    response_preview: Option<String>,
}

/// That a word about a delegation was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NotedView {
    delegation_id: String,
    status: String,
}

/// The request or the outcome of a delegation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DelegationView {
    id: Uuid,
    /// `delegation`.
    r#type: String,
    source_id: Option<Uuid>,
    target_id: Option<Uuid>,
    summary: Option<String>,
    /// `pending`, `dispatched`, `queued`, `completed` or `failed`.
    status: String,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The beginning of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_preview: Option<String>,
}

impl From<Activity> for DelegationView {
    fn from(row: Activity) -> Self {
        let reply = row.response_body.as_ref().and_then(|body| body["text"].as_str());
        Self {
            id: row.id.as_uuid(),
            r#type: row.activity_type,
            source_id: row.source_id.map(|id| id.as_uuid()),
            target_id: row.target_id.map(|id| id.as_uuid()),
            summary: row.summary,
            status: row.status,
            created_at: row.created_at,
            delegation_id: row.delegation_id,
            error: row.error_detail,
            response_preview: reply.map(|text| text.chars().take(SHOWN).collect()),
        }
    }
}

/// Hands a task to another agent, in the background.
#[utoipa::path(post, path = "/workspaces/{id}/delegate", tag = "delegations", params(("id" = Uuid, Path)),
    request_body = DelegateRequest,
    responses((status = 202, body = DelegatedView), (status = 200, body = DelegatedView),
        (status = 400, body = ErrorView), (status = 401, body = ErrorView), (status = 403, body = ErrorView),
        (status = 404, body = ErrorView), (status = 409, body = ErrorView), (status = 413, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn delegate(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<DelegatedView>)> {
    let request: DelegateRequest = body.parse("invalid delegation request")?;
    let request =
        Delegate { target_id: request.target_id, task: request.task, idempotency_key: request.idempotency_key };
    let delegated = app.control_plane.delegate(id, request).await?;
    let view = DelegatedView {
        delegation_id: delegated.id,
        status: delegated.status,
        target_id: delegated.target.as_uuid(),
        idempotent_hit: delegated.is_repeat,
    };
    Ok((if view.idempotent_hit { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(view)))
}

/// Keeps that an agent delegated something by itself.
#[utoipa::path(post, path = "/workspaces/{id}/delegations/record", tag = "delegations", params(("id" = Uuid, Path)),
    request_body = RecordRequest,
    responses((status = 202, body = NotedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn record(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<NotedView>)> {
    let request: RecordRequest = body.parse("invalid request body")?;
    let recorded = Recorded { target_id: request.target_id, task: request.task, delegation_id: request.delegation_id };
    app.control_plane.record_delegation(id, &recorded).await?;
    let view = NotedView { delegation_id: recorded.delegation_id, status: "recorded".to_owned() };
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Keeps what became of a delegation, as the agent that made it says.
#[utoipa::path(post, path = "/workspaces/{id}/delegations/{delegation_id}/update", tag = "delegations",
    params(("id" = Uuid, Path), ("delegation_id" = String, Path)), request_body = UpdateRequest,
    responses((status = 200, body = NotedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    Own(id): Own,
    Named(DelegationName(delegation_id)): Named<DelegationName>,
    body: Body,
) -> ApiResult<Json<NotedView>> {
    let request: UpdateRequest = body.parse("invalid request body")?;
    let update = DelegationUpdate {
        status: request.status.unwrap_or_default(),
        error: request.error.unwrap_or_default(),
        response_preview: request.response_preview.unwrap_or_default(),
    };
    app.control_plane.update_delegation(id, &delegation_id, &update).await?;
    Ok(Json(NotedView { delegation_id, status: update.status }))
}

/// Lists the newest 50 requests and outcomes of delegations.
#[utoipa::path(get, path = "/workspaces/{id}/delegations", tag = "delegations", params(("id" = Uuid, Path)),
    responses((status = 200, body = [DelegationView]), (status = 400, body = ErrorView),
        (status = 401, body = ErrorView), (status = 404, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<DelegationView>>> {
    let rows = app.control_plane.delegations(id).await?;
    Ok(Json(rows.into_iter().map(DelegationView::from).collect()))
}
