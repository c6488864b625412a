//! What agents ask leave for: ask, list, decide.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::{
    Error,
    id::ApprovalId,
    records::{Approval, AskApproval, PendingApproval, decider},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Operator, Own, Presented},
    named::Named,
    state::AppState,
};

const BAD_BODY: &str = "invalid request body";

/// What an agent asks leave for.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AskApprovalRequest {
    action: String,
    task_id: Option<String>,
    reason: Option<String>,
    /// Anything that helps to decide.
    context: Option<Value>,
}

/// A request that waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AskedView {
    approval_id: Uuid,
    /// `pending`.
    status: &'static str,
}

/// A request, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalView {
    id: Uuid,
    task_id: Option<String>,
    action: String,
    reason: Option<String>,
    /// `pending`, `approved`, `denied` or `escalated`.
    status: &'static str,
    decided_by: Option<String>,
    decided_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        Self {
            id: approval.id.as_uuid(),
            task_id: approval.task_id,
            action: approval.action,
            reason: approval.reason,
            status: approval.status.as_str(),
            decided_by: approval.decided_by,
            decided_at: approval.decided_at,
            created_at: approval.created_at,
        }
    }
}

/// A request that waits for the operator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingApprovalView {
    id: Uuid,
    workspace_id: Uuid,
    workspace_name: String,
    task_id: Option<String>,
    action: String,
    reason: Option<String>,
    /// `pending`.
    status: &'static str,
    created_at: DateTime<Utc>,
}

impl From<PendingApproval> for PendingApprovalView {
    fn from(approval: PendingApproval) -> Self {
        Self {
            id: approval.id.as_uuid(),
            workspace_id: approval.workspace_id.as_uuid(),
            workspace_name: approval.workspace_name,
            task_id: approval.task_id,
            action: approval.action,
            reason: approval.reason,
            status: approval.status.as_str(),
            created_at: approval.created_at,
        }
    }
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DecideRequest {
    /// `approved` or `denied`.
    decision: Option<String>,
}

/// A decision that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecidedView {
    status: &'static str,
    approval_id: Uuid,
}

/// Asks leave for something.
#[utoipa::path(post, path = "/workspaces/{id}/approvals", tag = "approvals", operation_id = "ask_approval",
    params(("id" = Uuid, Path)), request_body = AskApprovalRequest,
    responses((status = 201, body = AskedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn ask(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<AskedView>)> {
    let request: AskApprovalRequest = body.parse(BAD_BODY)?;
    if request.action.is_empty() {
        return Err(Error::invalid(BAD_BODY).with_member("detail", "action is required").into());
    }
    let AskApprovalRequest { action, task_id, reason, context } = request;
    let asked = app.control_plane.ask_approval(id, AskApproval { action, task_id, reason, context }).await?;
    let view = AskedView { approval_id: asked.id.as_uuid(), status: asked.status.as_str() };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Lists what the agent of a workspace asked for, newest first.
#[utoipa::path(get, path = "/workspaces/{id}/approvals", tag = "approvals", operation_id = "list_approvals",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = [ApprovalView]), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(State(app): State<AppState>, Own(id): Own) -> ApiResult<Json<Vec<ApprovalView>>> {
    let approvals = app.control_plane.approvals(id).await?;
    Ok(Json(approvals.into_iter().map(ApprovalView::from).collect()))
}

/// Decides what an agent asked for. Agents decide nothing.
#[utoipa::path(post, path = "/workspaces/{id}/approvals/{approval_id}/decide", tag = "approvals",
    operation_id = "decide_approval", params(("id" = Uuid, Path), ("approval_id" = Uuid, Path)),
    request_body = DecideRequest,
    responses((status = 200, body = DecidedView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 403, body = ErrorView), (status = 404, body = ErrorView), (status = 413, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn decide(
    State(app): State<AppState>,
    Own(id): Own,
    presented: Presented,
    Named(approval): Named<ApprovalId>,
    body: Body,
) -> ApiResult<Json<DecidedView>> {
    let decided_by = decider(presented.credential)?;
    let decision = body.parse::<DecideRequest>(BAD_BODY)?.decision.unwrap_or_default();
    let status = app.control_plane.decide_approval(id, approval, &decision, &decided_by).await?;
    Ok(Json(DecidedView { status: status.as_str(), approval_id: approval.as_uuid() }))
}

/// Lists what waits for the operator, newest first.
#[utoipa::path(get, path = "/approvals/pending", tag = "approvals", operation_id = "pending_approvals",
    responses((status = 200, body = [PendingApprovalView]), (status = 401, body = ErrorView),
        (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn pending(State(app): State<AppState>, _: Operator) -> ApiResult<Json<Vec<PendingApprovalView>>> {
    let approvals = app.control_plane.pending_approvals().await?;
    Ok(Json(approvals.into_iter().map(PendingApprovalView::from).collect()))
}
