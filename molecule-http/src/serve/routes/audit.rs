//! What agents answer for: append to the ledger, read it.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use molecule_core::audit::{AuditEvent, AuditQuery, AuditTrail, NewAuditEvent};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ErrorView;
use crate::serve::{
    error::ApiResult,
    guard::{Body, Own, Params},
    state::AppState,
};

/// Which rows of the ledger to show. All that is given must hold; what is empty counts as left out.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
pub(crate) struct AuditParams {
    /// Those of this agent.
    agent_id: String,
    /// Those of this session.
    session_id: String,
    /// Those at this time or later.
    #[param(value_type = DateTime<Utc>)]
    from: String,
    /// Those before this time.
    #[param(value_type = DateTime<Utc>)]
    to: String,
    /// How many, 1 to 500; 100 otherwise.
    #[param(value_type = u32)]
    limit: String,
    /// How many to pass over first.
    #[param(value_type = u32)]
    offset: String,
}

/// A step that an agent answers for.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AppendAuditRequest {
    /// Who took it, where a workspace has several agents; the workspace itself otherwise.
    agent_id: Option<String>,
    session_id: Option<String>,
    /// `task_start`, `llm_call`, `tool_call` or `task_end`.
    operation: Option<String>,
    input_hash: Option<String>,
    output_hash: Option<String>,
    model_used: Option<String>,
    /// False unless something else is said.
    human_oversight_flag: Option<bool>,
    /// False unless something else is said.
    risk_flag: Option<bool>,
}

impl From<AppendAuditRequest> for NewAuditEvent {
    fn from(request: AppendAuditRequest) -> Self {
        Self {
            agent_id: request.agent_id.unwrap_or_default(),
            session_id: request.session_id.unwrap_or_default(),
            operation: request.operation.unwrap_or_default(),
            input_hash: request.input_hash,
            output_hash: request.output_hash,
            model_used: request.model_used,
            human_oversight_flag: request.human_oversight_flag.unwrap_or_default(),
            risk_flag: request.risk_flag.unwrap_or_default(),
        }
    }
}

/// A row of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEventView {
    id: String,
    timestamp: DateTime<Utc>,
    agent_id: String,
    session_id: String,
    operation: &'static str,
    input_hash: Option<String>,
    output_hash: Option<String>,
    model_used: Option<String>,
    human_oversight_flag: bool,
    risk_flag: bool,
    /// The signature of the row of this agent before it.
    prev_hmac: Option<String>,
    /// Its signature; none where the server had nothing to sign with.
    hmac: Option<String>,
    workspace_id: Uuid,
}

impl From<AuditEvent> for AuditEventView {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id,
            timestamp: event.timestamp,
            agent_id: event.agent_id,
            session_id: event.session_id,
            operation: event.operation.as_str(),
            input_hash: event.input_hash,
            output_hash: event.output_hash,
            model_used: event.model_used,
            human_oversight_flag: event.human_oversight_flag,
            risk_flag: event.risk_flag,
            prev_hmac: event.prev_hmac,
            hmac: event.hmac,
            workspace_id: event.workspace_id.as_uuid(),
        }
    }
}

/// A page of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditView {
    /// Oldest first.
    events: Vec<AuditEventView>,
    /// How many rows fit the query, on this page or not.
    total: i64,
    /// Whether these are the rows that were signed; none where that cannot be told.
    chain_valid: Option<bool>,
}

impl From<AuditTrail> for AuditView {
    fn from(trail: AuditTrail) -> Self {
        Self {
            events: trail.events.into_iter().map(AuditEventView::from).collect(),
            total: trail.total,
            chain_valid: trail.chain_valid,
        }
    }
}

/// Shows the ledger of a workspace, oldest first.
#[utoipa::path(get, path = "/workspaces/{id}/audit", tag = "audit", operation_id = "audit",
    params(AuditParams, ("id" = Uuid, Path)),
    responses((status = 200, body = AuditView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 500, body = ErrorView), (status = 503, body = ErrorView)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    Own(id): Own,
    Params(params): Params<AuditParams>,
) -> ApiResult<Json<AuditView>> {
    let AuditParams { agent_id, session_id, from, to, limit, offset } = params;
    let query = AuditQuery { agent_id, session_id, from, to, limit, offset };
    Ok(Json(app.control_plane.audit(id, &query).await?.into()))
}

/// Keeps a step of an agent in the ledger. Nothing of it can be changed or deleted.
#[utoipa::path(post, path = "/workspaces/{id}/audit", tag = "audit", operation_id = "append_audit",
    params(("id" = Uuid, Path)), request_body = AppendAuditRequest,
    responses((status = 201, body = AuditEventView), (status = 400, body = ErrorView), (status = 401, body = ErrorView),
        (status = 404, body = ErrorView), (status = 413, body = ErrorView), (status = 500, body = ErrorView),
        (status = 503, body = ErrorView)))]
pub(crate) async fn append(
    State(app): State<AppState>,
    Own(id): Own,
    body: Body,
) -> ApiResult<(StatusCode, Json<AuditEventView>)> {
    let request: AppendAuditRequest = body.parse("invalid request body")?;
    let event = app.control_plane.append_audit(id, request.into()).await?;
    Ok((StatusCode::CREATED, Json(event.into())))
}
